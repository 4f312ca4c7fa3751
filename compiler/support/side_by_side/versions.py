"""What must be the same wherever jobs of one call run: networks are pickled for it, and results
of other releases would be other numbers."""

from __future__ import annotations

from collections.abc import Callable

Versions = dict[str, str]  # package → version


def telling() -> Callable[[], Versions]:
    """A function that tells the versions of the process that calls it.

    It is made here, inside a function, so that Ray sends its code: one that is found by its name
    would be imported from shrinkc there, which may be absent, or too old to have it.
    """

    def versions() -> Versions:
        import hashlib
        import importlib.metadata
        import importlib.util
        import pathlib
        import platform

        found = {"Python": platform.python_version()}
        for name in ("ray", "torch", "shrinkc"):
            try:
                found[name] = importlib.metadata.version(name)
            except importlib.metadata.PackageNotFoundError:
                found[name] = "none"
        digest = hashlib.sha256()
        for package in ("shrinkc", "shrinkc.compiler", "shrinkc.passes", "shrinkc.latency_tables"):
            try:
                spec = importlib.util.find_spec(package)
            except ImportError:
                return found
            for root in map(pathlib.Path, (spec and spec.submodule_search_locations) or ()):
                files = root.glob("*.py") if package == "shrinkc" else root.rglob("*.py")
                for path in sorted(files):
                    digest.update(f"{package} {path.relative_to(root).as_posix()}\n".encode())
                    digest.update(path.read_bytes())
        found["shrinkc"] += f" (code {digest.hexdigest()[:8]})"
        return found

    return versions


def difference(here: Versions, there: Versions) -> str | None:
    """'torch 2.10.0, and this process has 2.11.0', of the first that differs."""
    for name, version in here.items():
        if there.get(name, "none") != version:
            other = there.get(name, "none")
            return f"has {name} {other}, and this process has {version}"
    return None

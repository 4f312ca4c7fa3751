"""Build the wheel and use it where only its own dependencies are installed.

    python tests/check_wheel.py

The clean environment is kept in build/wheel-venv and only made anew when the requirements change,
so that a second run takes seconds.
"""

import hashlib
import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HOME = ROOT / ".venv" / "wheel-check"
USE = """
import importlib, sys
from importlib import resources
import shrinkc, torch
from shrinkc.latency_tables.store import known_targets, load_table
for target in known_targets():
    load_table(target)
for name in sys.argv[1].split():
    importlib.import_module(name)
for name in ("style.css", "script.js"):
    assert resources.files("shrinkc.compiler.report.html").joinpath(name).is_file(), name
assert "shrinkc" in shrinkc.__file__ and sys.prefix in shrinkc.__file__, shrinkc.__file__
print("wheel:", len(sys.argv[1].split()), "packages,", len(known_targets()), "targets")
"""


def packages() -> list[str]:
    import tomllib

    return tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]


def requirements_hash() -> str:
    text = (ROOT / "pyproject.toml").read_text() + (ROOT / "constraints.txt").read_text()
    return hashlib.sha256(text.encode()).hexdigest()


def run(*command: str | Path) -> None:
    environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PYTHONPATH": ""}
    subprocess.run([str(part) for part in command], check=True, cwd="/", env=environment)


def main() -> None:
    python = HOME / "bin" / "python"
    with tempfile.TemporaryDirectory() as folder:
        run(sys.executable, "-m", "build", "--wheel", "--outdir", folder, ROOT)
        (wheel,) = Path(folder).glob("*.whl")
        stamp = HOME / "requirements"
        if not stamp.exists() or stamp.read_text() != requirements_hash():
            venv.create(HOME, clear=True, with_pip=True)
            pip = (python, "-m", "pip", "install", "--quiet", "-c", ROOT / "constraints.txt")
            run(*pip, "torch")
            run(*pip, wheel)
            stamp.write_text(requirements_hash())
        install = (python, "-m", "pip", "install", "--quiet", "--force-reinstall", "--no-deps")
        run(*install, wheel)
    run(python, "-c", USE, " ".join(packages()))
    run(HOME / "bin" / "shrinkc", "--version")


if __name__ == "__main__":
    main()

"""Make what emulating a Raspberry Pi 4's processor takes, from nothing, and leave the system alone.

    python tests/arm/build_root.py FOLDER

FOLDER then holds

    tools/      qemu-user, from this machine's package sources, where it is not installed
    root/       arm64 Python and the libraries it needs, from the same sources
    sites/      folders of aarch64 wheels that go together, fetched by this Python's pip
    plugin/     count_instructions.so, compiled here

apt-get fetches with a state of its own and dpkg-deb unpacks, so neither root rights nor binfmt are
needed; signatures are checked as this machine's apt is set up to. Parts that are there already are
kept, and each is made whole or not at all.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from arm_emulator import CPU, SITES, Emulator, EmulatorError

GUEST_PACKAGES = ("python3", "libstdc++6", "libgomp1")
PLUGIN_SOURCE = Path(__file__).resolve().parent / "count_instructions.c"
PLUGIN_APIS = range(1, 10)  # qemu 7.2 takes 1, later ones from 2 or more up
OLDEST_GLIBC = 17  # of the manylinux tags: 2.17
INSTALLED = Path("/var/lib/dpkg/status")


def main(folder: Path) -> None:
    require("apt-get", "dpkg", "dpkg-deb", package="a Debian or Ubuntu system")
    folder.mkdir(parents=True, exist_ok=True)
    emulator = Emulator(folder)
    if shutil.which("qemu-aarch64") is None:
        architecture = run("dpkg", "--print-architecture").strip()
        keep(folder / "tools", "qemu-user", lambda made: tools(made, architecture))
    keep(folder / "root", " ".join(GUEST_PACKAGES), guest_root)
    python, glibc = guest_versions(emulator)
    for name, site in SITES.items():
        if site.serves(python):
            recipe = f"Python {python}, glibc {glibc}, {' '.join(site.wheels)}"
            fetch = wheels(site.wheels, python, glibc)
            keep(folder / "sites" / name, recipe, fetch)
    if emulator.takes_plugins():
        require("cc", package="gcc")
        recipe = f"{emulator.version()}\n{PLUGIN_SOURCE.read_text()}"
        keep(folder / "plugin", recipe, lambda made: plugin(emulator, made))
    else:
        print("this qemu takes no plugins: instructions will not be counted")
    size = sum(f.stat().st_size for f in folder.rglob("*") if not f.is_symlink()) / 1e6
    print(f"{emulator.version()}, -cpu {CPU}, Python {python}: {size:.0f} MB in {folder.name}")


def keep(folder: Path, recipe: str, make: Callable[[Path], object]) -> None:
    """Make `folder` unless it was made by the same recipe; never leaves half of one."""
    note = folder / ".recipe"
    if note.is_file() and note.read_text() == recipe:
        return
    print(f"making {folder.name}", flush=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".new-") as scratch:
        fresh = Path(scratch, folder.name)
        fresh.mkdir()
        make(fresh)
        (fresh / ".recipe").write_text(recipe)
        if folder.exists():
            folder.rename(Path(scratch, "old"))
        fresh.rename(folder)


def tools(folder: Path, architecture: str) -> None:
    """qemu-aarch64 and the libraries that this system lacks for it."""
    unpack(("qemu-user",), architecture, folder, INSTALLED)
    for program in (folder / "usr" / "bin").iterdir():
        if program.name != "qemu-aarch64":
            program.unlink()


def guest_root(folder: Path) -> None:
    """Python and what it needs. Releases that have only /usr/lib expect /lib to lead there."""
    unpack(GUEST_PACKAGES, "arm64", folder)
    if not (folder / "lib").exists():
        (folder / "lib").symlink_to("usr/lib")


def unpack(
    packages: Sequence[str], architecture: str, folder: Path, installed: Path | None = None
) -> None:
    """Unpack packages and what they depend on, less what the status file `installed` lists."""
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        environment = apt_environment(scratch, architecture, installed)
        # a source of this machine may fail though others have the packages
        updated = run("apt-get", "update", "-q", env=environment, check=False)
        failures = [s for s in updated.splitlines() if s.startswith(("E:", "W: Failed"))]
        hint = (
            f"do this machine's package sources have {architecture} packages? "
            "(Ubuntu's are in its ports archive)"
        )
        hint = f"apt-get update: {failures[0]}" if failures else hint
        command = ("apt-get", "install", "--download-only", "-q", "--yes", *packages)
        run(*command, env=environment, hint=hint)
        for archive in sorted((scratch / "cache" / "archives").glob("*.deb")):
            run("dpkg-deb", "--extract", archive, folder)


def apt_environment(scratch: Path, architecture: str, installed: Path | None) -> dict[str, str]:
    """apt-get with this machine's sources and keys, and everything else in `scratch`."""
    for part in ("state/lists/partial", "cache/archives/partial"):
        (scratch / part).mkdir(parents=True)
    known = installed is not None and installed.is_file()
    (scratch / "status").write_text(installed.read_text() if installed and known else "")
    (scratch / "apt.conf").write_text(
        f"""APT::Architecture "{architecture}";
APT::Architectures {{ "{architecture}"; }};
APT::Install-Recommends "false";
APT::Sandbox::User "";
Acquire::Languages "none";
Dir::State "{scratch}/state";
Dir::State::status "{scratch}/status";
Dir::Cache "{scratch}/cache";
"""
    )
    return {**os.environ, "APT_CONFIG": f"{scratch}/apt.conf", "LC_ALL": "C"}


def guest_versions(emulator: Emulator) -> tuple[str, str]:
    """Of Python, "3.11", and of glibc, "2.36", in the root."""
    script = "import platform as p; print(p.python_version_tuple()[1], p.libc_ver()[1])"
    try:
        minor, glibc = emulator.python("-c", script).split()
    except EmulatorError as error:
        fail(f"the arm64 Python does not run: {' '.join(str(error).split())}")
    return f"3.{minor}", glibc


def wheels(requirements: Sequence[str], python: str, glibc: str) -> Callable[[Path], object]:
    """Installs aarch64 wheels without their dependencies: inference needs only those named."""
    newest = int(glibc.split(".")[1])
    tags = [f"manylinux_2_{minor}_aarch64" for minor in range(OLDEST_GLIBC, newest + 1)]
    platforms = [f"--platform={tag}" for tag in ("manylinux2014_aarch64", *tags)]
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary=:all:")
    chosen = (*pip, f"--python-version={python}", *platforms, *requirements)
    hint = "does this pip reach a package index?"
    return lambda folder: run(*chosen, f"--target={folder}", hint=hint)


def plugin(emulator: Emulator, folder: Path) -> None:
    """Compile the plugin for a version of the interface that this qemu takes."""
    library = folder / "count_instructions.so"
    for api in PLUGIN_APIS:
        run("cc", "-O2", "-Wall", "-shared", "-fPIC", f"-DAPI={api}", PLUGIN_SOURCE, "-o", library)
        if emulator.accepts(library):
            return
    fail(f"{emulator.version()} does not take the plugin of tests/arm/{PLUGIN_SOURCE.name}")


def require(*programs: str, package: str) -> None:
    for program in programs:
        if shutil.which(program) is None:
            fail(f"the emulated Arm needs {program}; not found here: install {package}")


def run(
    *command: str | Path, env: dict[str, str] | None = None, check: bool = True, hint: str = ""
) -> str:
    """What it printed. A failure ends this program with one line: what it said, and `hint`."""
    words = [str(word) for word in command]
    done = subprocess.run(
        words,
        env=env,
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    if check and done.returncode != 0:
        lines = [s for s in done.stdout.splitlines() if s.strip()]
        errors = [s for s in lines if s.startswith(("E:", "ERROR:"))] or lines[-1:]
        name = " ".join([Path(words[0]).name, *words[1:4]])
        fail(f"{name} failed: {' '.join(errors)}" + (f"; {hint}" if hint else ""))
    return done.stdout


def fail(message: str) -> NoReturn:
    sys.exit(f"make test-arm: {message}")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())

"""Is what a killed run leaves whole, and do two runs into one folder keep apart?

    python -m benchmarks.robustness kill --times 200
    python -m benchmarks.robustness pairs --times 50

`kill` starts commands on a small network and ends each by SIGKILL at a random moment, every second
one while it writes, with renames and the like slowed down. OUT must then hold all of the old files
or all of the new ones, and a folder and a file of the user's; the same command, run again, must
make the files of a run that nobody disturbed, and leave nothing hidden. `pairs` starts two commands
for two networks into one OUT at once: what both write must be of one of them. Of reports, what took
how long is left out of the comparison, and report.html, which is drawn from report.json. What
profile and calibrate measure on is played. Every run is a fork of this process, which has imported
everything.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported

import ai_edge_quantizer  # noqa: F401  # so that no fork has to
import numpy as np
import onnxruntime  # noqa: F401
import torch
from PIL import Image
from torch import nn

import shrinkc.compiler.api.calibrate
import shrinkc.compiler.api.compare
import shrinkc.compiler.api.compile
import shrinkc.compiler.api.plan
import shrinkc.compiler.api.profile
import shrinkc.compiler.api.prune
import shrinkc.compiler.api.sensitivity
import shrinkc.compiler.api.shrink
from benchmarks.shared.common import print_table
from benchmarks.shared.played_board import PlayedBoard
from shrinkc.compiler.cli.main import main as shrinkc_main
from shrinkc.compiler.profile import calibrate
from shrinkc.compiler.profile.reference_networks import REFERENCE_NETWORKS
from shrinkc.compiler.support import atomic_files
from shrinkc.compiler.support.atomic_files import STAGE
from shrinkc.compiler.support.disk import screen

SLOW = ("replace", "rename", "link", "symlink", "unlink", "mkdir", "fsync")
PAUSE_S = 0.004  # before each of them
WRITING_S = 0.5  # about what writing takes then
_ENDED = os.WEXITED | os.WNOHANG | os.WNOWAIT
OWN = {"notes.txt": b"the user's own", "photos/1.jpg": b"the user's, too"}
UNSTABLE = ("seconds", "measured", "environment")  # of reports
NETWORKS = ("one.pt", "two.pt")
INPUT = ("--input", "1,3,16,16")
FILES = ("--target", "rpi4", *INPUT, "--runs", "0", "-o", "out")
TRAINED = ("--train", "images", "--epochs", "2", "--batch", "4")


@dataclass(frozen=True)
class Command:
    """`words` with NET in place of the network; `out`: the folder that is written, if any."""

    words: tuple[str, ...]
    out: str = ""


NET = "NET"
COMMANDS = {
    "compile": Command(("compile", NET, *FILES), "out"),
    "compile, int8": Command(
        ("compile", NET, *FILES, "--images", "images", "--precision", "int8"), "out"
    ),
    "compile, planned": Command(
        ("compile", NET, *FILES, "--images", "images", "--speedup", "1.2"), "out"
    ),
    "compile, frontier": Command(
        ("compile", NET, *FILES, "--images", "images", "--pareto", "3"), "out"
    ),
    "apply": Command(("apply", NET, "planned-NET", *FILES), "out"),
    "prune": Command(("prune", NET, *FILES, "--macs", "0.7"), "out"),
    "prune, trained": Command(("prune", NET, *FILES, "--macs", "0.7", *TRAINED), "out"),
    "shrink": Command(
        ("shrink", NET, *FILES, "--images", "images", "--speedup", "1.05", "--steps", "0"), "out"
    ),
    "shrink, trained": Command(
        (
            *("shrink", NET, *FILES, "--images", "images", "--speedup", "1.05", "--steps", "0"),
            *TRAINED,
        ),
        "out",
    ),
    "profile": Command(
        ("profile", NET, "--target", "mine", "--on", "host", *INPUT, "--widths", "3"), "tables/mine"
    ),
    "calibrate": Command(
        ("calibrate", "rpi4/tflite-ruy", "--on", "host", "--name", "mine", "--precision", "fp32"),
        "tables/mine",
    ),
    "sensitivity": Command(("sensitivity", NET, *INPUT, "--images", "images")),
    "estimate": Command(("estimate", NET, "--target", "host", *INPUT)),
    "inspect": Command(("inspect", NET, *INPUT)),
    "bench": Command(("bench", "compiled-NET/model.tflite", "--runs", "3")),
    "compare": Command(("compare", "compiled-NET", "planned-NET", "--runs", "0")),
    "tables": Command(("tables",)),
    "cache clear": Command(("cache", "clear")),
}

ALONE = ("compile", "compile, int8", "apply")  # without a folder of work, which only one may have


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("what", choices=("kill", "pairs"))
    parser.add_argument("--times", type=int, default=50, help="kills, or pairs, in all")
    parser.add_argument("--seed", type=int, default=None, help="of the moments; it is printed")
    parser.add_argument("--only", action="append", choices=tuple(COMMANDS), help="a command alone")
    options = parser.parse_args()
    seed = random.SystemRandom().randrange(1 << 30) if options.seed is None else options.seed
    print(f"seed {seed}")
    _play()
    names = options.only or [
        name for name, one in COMMANDS.items() if options.what == "kill" or one.out == "out"
    ]
    with tempfile.TemporaryDirectory(prefix="robustness-") as root:
        workshop = Workshop(Path(root), random.Random(seed))
        workshop.prepare()
        try_one = workshop.killed if options.what == "kill" else workshop.paired
        rows: list[tuple[str, Counter[str]]] = []
        for name, times in _shared_out(names, options.times):
            rows.append((name, Counter(try_one(name, COMMANDS[name]) for _ in range(times))))
            print(f"{name}: {dict(rows[-1][1])}", flush=True)
    seen = sorted({state for _, counts in rows for state in counts})
    print_table(("command", *seen), [(name, *(str(c[s]) for s in seen)) for name, c in rows])
    wrong = sum(n for _, counts in rows for state, n in counts.items() if state.startswith("WRONG"))
    print(f"{options.times} {'kills' if options.what == 'kill' else 'pairs'}, {wrong} wrong")
    sys.exit(wrong > 0)


def _shared_out(names: Sequence[str], times: int) -> Iterator[tuple[str, int]]:
    for i, name in enumerate(names):
        yield name, times * (i + 1) // len(names) - times * i // len(names)


def _play() -> None:
    """Devices are played, and few networks are enough."""
    few: Any = partial(calibrate.reference_networks, REFERENCE_NETWORKS[:4])
    calibrate.reference_networks = few
    for module in (shrinkc.compiler.api.calibrate, shrinkc.compiler.api.profile):
        module.parse_device = lambda *_: PlayedBoard()  # pyright: ignore


@dataclass
class Workshop:
    """Folders in which runs are started, each a copy of the first."""

    root: Path
    dice: random.Random
    count: int = 0

    def prepare(self) -> None:
        first = self.root / "first"
        first.mkdir()
        for number, name in enumerate(NETWORKS):
            torch.manual_seed(number)
            torch.save(_network(), first / name)
        noise = np.random.default_rng(0)
        for index in range(16):
            path = first / "images" / str(index % 4) / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(noise.integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(path)
        (first / "tables").mkdir()
        for net in NETWORKS:
            for name, made in (("compile", "compiled"), ("compile, planned", "planned")):
                self.whole(first, COMMANDS[name], net)
                (first / "out").rename(first / f"{made}-{net}")
        shutil.rmtree(first / "cache", ignore_errors=True)
        shutil.rmtree(first / "out.work", ignore_errors=True)
        self.references: dict[tuple[str, str], tuple[Mapping[str, Any], float]] = {}

    def whole(self, place: Path, command: Command, net: str) -> float:
        """Run to its end; returns the seconds. Raises RuntimeError where it fails."""
        started = time.monotonic()
        code, told = ended(start(place, command, net))
        if code != 0 or "Traceback" in told:
            raise RuntimeError(f"{command.words} for {net}: {code}, {told}")
        return time.monotonic() - started

    def reference(self, name: str, command: Command, net: str) -> tuple[Mapping[str, Any], float]:
        """What a run that nobody disturbs writes, and its seconds."""
        if (name, net) not in self.references:
            place = self.copied()
            seconds = self.whole(place, command, net)
            self.references[name, net] = (_content(place / command.out), seconds)
            shutil.rmtree(place)
        return self.references[name, net]

    def copied(self) -> Path:
        self.count += 1
        place = self.root / str(self.count)
        former = shutil.ignore_patterns("said *", "ready *")
        shutil.copytree(self.root / "first", place, ignore=former)
        return place

    def killed(self, name: str, command: Command) -> str:
        """One kill; what OUT was after it."""
        net = NETWORKS[0]
        new, seconds = self.reference(name, command, net)
        while True:
            place = self.copied()
            out, old = place / command.out, _old(place, command, new)
            child = start(place, command, net)
            self.wait(child[0], out if command.out else None, seconds)
            code, told = ended(child, kill=True)
            if code == -signal.SIGKILL:
                break
            if code != 0:
                return f"WRONG: exit {code}: {told[-300:]}"
            shutil.rmtree(place)  # it was done already
        found = _content(out) if command.out else {}
        new = {**old, **new} if command.out == "out" else new
        state = "nothing to write" if not command.out else _named(found, {"old": old, "new": new})
        inside = bool(list(place.rglob(STAGE)))
        try:
            self.whole(place, command, net)
        except RuntimeError as error:
            return f"WRONG: {error}"
        if command.out and _content(out) != new:
            return "WRONG: other bytes after the rerun"
        if left := _hidden(place):
            return f"WRONG: stays: {left}"
        shutil.rmtree(place)
        return f"{state}, while writing" if inside else state

    def wait(self, pid: int, out: Path | None, seconds: float) -> None:
        """For a moment of the run, or as often for one while it writes."""
        if out is None or self.dice.random() < 0.5:
            time.sleep(self.dice.uniform(0, seconds))
            return
        while not (out / STAGE).exists() and not os.waitid(os.P_PID, pid, _ENDED):
            time.sleep(0.002)
        time.sleep(self.dice.uniform(0, WRITING_S))

    def paired(self, name: str, command: Command) -> str:
        """It and another command at once, each for a network of its own; what became of them."""
        pair = ((name, NETWORKS[0]), (self.dice.choice(ALONE), NETWORKS[1]))
        results = [self.reference(one, COMMANDS[one], net)[0] for one, net in pair]
        place = self.copied()
        children = [start(place, COMMANDS[one], net, meet=True) for one, net in pair]
        codes = [ended(child) for child in children]
        if any(code for code, _ in codes):
            return f"WRONG: {codes}"
        if not _one_runs(_content(place / "out"), results):
            return f"WRONG: some of each of {pair}"
        if left := _hidden(place):
            return f"WRONG: stays: {left}"
        shutil.rmtree(place)
        waited = any("waiting for process" in told for _, told in codes)
        return "other one waited" if waited else "not writing at once"


def start(place: Path, command: Command, net: str, meet: bool = False) -> tuple[int, Path]:
    """A fork that runs the command in `place`, and the file of what it says. `meet`: it begins to
    write when the run for the other network does, or is done."""
    words = [word.replace(NET, net) for word in command.words]
    said = place / f"said {net}"
    child = os.fork()
    if child:
        return child, said
    code = 1
    try:
        os.setpgid(0, 0)
        os.chdir(place)
        for variable, folder in (
            *(("HOME", "home"), ("TMPDIR", "tmp"), ("SHRINKC_CACHE", "cache")),
            ("SHRINKC_TABLES", "tables"),
        ):
            os.environ[variable] = str(place / folder)
            (place / folder).mkdir(exist_ok=True)
        tempfile.tempdir = None
        sys.argv = ["shrinkc", *words]
        stream = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(stream, 1)
        os.dup2(stream, 2)
        _slow_down()
        if meet:
            _meet(place, net)
        code = shrinkc_main(words)
        sys.stdout.flush()
    finally:
        (place / f"ready {net}").touch()
        os._exit(code)


def ended(child: tuple[int, Path], kill: bool = False) -> tuple[int, str]:
    """Its exit code, minus a signal's number, and what it said; whatever it had started ends."""
    pid, said = child
    if kill:
        os.kill(pid, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
    return code, said.read_text() if said.exists() else ""


def _slow_down() -> None:
    for owner, names in ((os, SLOW), (screen, ("exchange",))):
        for name in names:
            setattr(owner, name, _slowed(getattr(owner, name)))


def _meet(place: Path, net: str) -> None:
    locked = atomic_files.locked

    def together(path: Path, folder: Path, wait_s: float) -> AbstractContextManager[None]:
        if path.parent == place / "out":
            (place / f"ready {net}").touch()
            while not all((place / f"ready {one}").exists() for one in NETWORKS):
                time.sleep(0.01)
        return locked(path, folder, wait_s)

    atomic_files.locked = together


def _slowed(call: Callable[..., Any]) -> Callable[..., Any]:
    def slow(*arguments: Any, **named: Any) -> Any:
        time.sleep(PAUSE_S)
        return call(*arguments, **named)

    return slow


def _network() -> nn.Module:
    """Small, with something to merge, to prune and to leave out."""
    return nn.Sequential(
        *(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU6(), *_block(8), nn.ReLU6(), *_block(8), nn.ReLU6()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)),
    )


def _block(channels: int) -> list[nn.Module]:
    hidden = 4 * channels
    return [
        *(nn.Conv2d(channels, hidden, 1), nn.ReLU6()),
        *(nn.Conv2d(hidden, hidden, 3, 1, 1, groups=hidden), nn.ReLU6()),
        nn.Conv2d(hidden, channels, 1),
    ]


def _old(place: Path, command: Command, new: Mapping[str, Any]) -> Mapping[str, Any]:
    """OUT as an earlier run left it, with files of the user's; a table is none yet."""
    if command.out != "out":
        return {}
    old = {**dict.fromkeys(new, b"old"), **OWN}
    for name, data in old.items():
        (place / "out" / name).parent.mkdir(parents=True, exist_ok=True)
        (place / "out" / name).write_bytes(data)
    return _content(place / "out")


def _content(folder: Path) -> dict[str, Any]:
    """What a user sees, without what differs from run to run."""
    found: dict[str, Any] = {}
    for top in sorted(folder.iterdir()) if folder.is_dir() else ():
        for path in [top] if top.is_file() else sorted(top.rglob("*")):
            if path.is_file() and not top.name.startswith(".shrinkc"):
                found[path.relative_to(folder).as_posix()] = _stable(path)
    return found


def _stable(path: Path) -> Any:
    data = path.read_bytes()
    if data == b"old":
        return data
    if path.suffix == ".html":
        return "drawn"
    return _without_times(json.loads(data)) if path.suffix == ".json" else data


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_times(v) for k, v in value.items() if k not in UNSTABLE}
    return [_without_times(one) for one in value] if isinstance(value, list) else value


def _named(found: Mapping[str, Any], states: Mapping[str, Mapping[str, Any]]) -> str:
    for name, files in states.items():
        if found == files:
            return name
    differ = {n for n in found if any(found[n] != files.get(n) for files in states.values())}
    return f"WRONG: neither: {sorted(differ)}"


def _one_runs(found: Mapping[str, Any], results: Sequence[Mapping[str, Any]]) -> bool:
    """Whether what several wrote is all of one of them, and everything is there."""
    everything = set[str]().union(*results)
    several = {name for name in everything if sum(name in one for one in results) > 1}
    whole = any(all(found.get(name) == one[name] for name in several) for one in results)
    alone = (one[name] == found.get(name) for one in results for name in one if name not in several)
    return set(found) == everything and whole and all(alone)


def _hidden(place: Path) -> list[str]:
    """Names that begin with a dot, locks and half-written files, but in folders for temporary
    files."""
    found = [path.relative_to(place) for path in place.rglob("*")]
    return [
        str(path)
        for path in found
        if path.parts[0] not in ("tmp", "home")
        and (path.name.startswith(".") or path.suffix in (".lock", ".partial"))
    ]


if __name__ == "__main__":
    main()

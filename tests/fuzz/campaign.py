"""Runs the worker, watches it, starts another where it crashed or hung, keeps what was found."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from worker import AT

HANG_SECONDS = 30.0  # on the wall, with others on the machine; the worker itself counts its own
_KEPT = 3  # inputs of one kind of finding
_WORKER = Path(__file__).with_name("worker.py")


@dataclass
class Tally:
    """Of one reader. `findings`: what → how often."""

    inputs: int = 0
    seconds: float = 0.0
    outcomes: Counter[str] = field(default_factory=Counter[str])
    findings: Counter[str] = field(default_factory=Counter[str])


@dataclass
class Campaign:
    """`keep`: where inputs that were read wrong are kept."""

    seed: int
    keep: Path
    hang_s: float = HANG_SECONDS
    tallies: dict[str, Tally] = field(default_factory=dict[str, Tally])
    told: Callable[[str], None] = print

    def run(self, names: Sequence[str], seconds: float) -> None:
        """Every reader for so many seconds."""
        left = dict.fromkeys(names, (0, seconds))
        self.tallies.update({name: Tally() for name in names})
        while left:
            with _scratch() as scratch:
                self._one_process(scratch, left)

    def _one_process(self, scratch: Path, left: dict[str, tuple[int, float]]) -> None:
        """Until it ends; `left` is what others must still do."""
        names = list(left)
        asked = [f"{name}:{start}:{seconds}" for name, (start, seconds) in left.items()]
        process = start_worker(scratch, self.seed, asked)
        for message in self._messages(process, scratch):
            name = message["reader"]
            tally = self.tallies[name]
            if "outcomes" in message:
                tally.outcomes.update(message["outcomes"])
            if "next" in message:
                start, seconds = left.pop(name)
                tally.inputs += message["next"] - start
                tally.seconds += seconds - message["left"]
                if message["left"] > 0:
                    left[name] = message["next"], message["left"]
            elif "kind" in message:
                self._found(message, Path(message["place"]))
        if process.returncode == 0:
            return
        place, index, began = AT.unpack((scratch / "at").read_bytes())
        if not began:
            raise RuntimeError(f"the worker ended before its first input ({process.returncode})")
        name = names[place]
        start, seconds = left.pop(name)
        passed = time.monotonic() - float((scratch / "began").read_text())
        hung = process.returncode == -9 and time.monotonic() - began > self.hang_s
        kind, text = ("hang", "no end") if hung else ("crash", f"exit code {process.returncode}")
        message = {"reader": name, "index": index, "kind": kind, "where": "", "text": text}
        self._found(message, scratch / "case")
        self.tallies[name].inputs += index + 1 - start
        if passed < seconds:
            left[name] = index + 1, seconds - passed

    def _messages(self, process: Any, scratch: Path) -> Iterator[dict[str, Any]]:
        """As they come; a worker that is at one input for too long is ended."""
        (scratch / "began").write_text(str(time.monotonic()))
        pending = b""
        while True:
            ready, _, _ = select.select([process.stdout], [], [], 0.5)
            if ready:
                chunk = os.read(process.stdout.fileno(), 1 << 16)
                if not chunk:
                    break
                *lines, pending = (pending + chunk).split(b"\n")
                for line in lines:
                    message = json.loads(line)
                    if "next" in message:
                        (scratch / "began").write_text(str(time.monotonic()))
                    yield message
            _, _, began = AT.unpack((scratch / "at").read_bytes())
            if began and time.monotonic() - began > self.hang_s:
                process.kill()
        process.wait()
        process.stdout.close()

    def _found(self, message: dict[str, Any], case: Path) -> None:
        name, what = message["reader"], f"{message['kind']}: {message['where'] or message['text']}"
        findings = self.tallies[name].findings
        findings[what] += 1
        if findings[what] > _KEPT:
            return
        place = self.keep / f"{name}-{self.seed}-{message['index']}"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        for path in case.iterdir():
            if path.is_file() and not path.is_symlink():
                shutil.copy(path, place)
        (place / ".finding").write_text(json.dumps({**message, "seed": self.seed}))
        self.told(
            f"{name}: input {message['index']} of seed {self.seed}: {what}\n"
            f"  {message['text']}\n  in {place}"
        )


@contextmanager
def _scratch() -> Iterator[Path]:
    """In memory where that can be: every input is a file."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        scratch = Path(folder)
        for name in ("case", "found", "cwd", "home", "tmp", "cache", "tables"):
            (scratch / name).mkdir()
        (scratch / "at").write_bytes(bytes(AT.size))
        yield scratch


def start_worker(scratch: Path, seed: int, asked: Sequence[str]) -> subprocess.Popen[bytes]:
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONHASHSEED": "0",
        "HOME": str(scratch / "home"),
        "TMPDIR": str(scratch / "tmp"),
        "XDG_CACHE_HOME": str(scratch / "cache"),
        "SHRINKC_TABLES": str(scratch / "tables"),
    }
    command = (sys.executable, str(_WORKER), str(scratch), str(seed), *asked)
    return subprocess.Popen(command, stdout=subprocess.PIPE, env=environment)


def replay(name: str, folder: Path) -> dict[str, Any]:
    """One input again: how it went, and what is wrong with it."""
    with _scratch() as scratch:
        process = start_worker(scratch, 0, [f"{name}:{folder.resolve()}"])
        said, _ = process.communicate()
    messages = [json.loads(line) for line in said.splitlines()]
    if process.returncode or not messages:
        return {"outcome": "crash", "found": ["crash", f"exit code {process.returncode}"]}
    return messages[-1]

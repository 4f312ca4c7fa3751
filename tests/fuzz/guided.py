"""One reader, led by the lines that are reached: needs `pip install atheris`, on Linux.

    python tests/fuzz/guided.py READER [options of libFuzzer, such as -max_total_time=600]

What libFuzzer changes are the choices that make an input, not its bytes: a choice that reached
something new is kept and changed again. It stops at the first input that is read wrong.
"""

from __future__ import annotations

import os
import random
import sys
import tempfile
from pathlib import Path

import atheris  # pyright: ignore

ROOT = Path(__file__).resolve().parents[2]


class Choices(random.Random):
    """Chance out of bytes; none is left at their end."""

    def __init__(self, data: bytes) -> None:
        super().__init__(0)
        self._left = data

    def getrandbits(self, k: int, /) -> int:
        size = (k + 7) // 8
        taken, self._left = self._left[:size], self._left[size:]
        return int.from_bytes(taken.ljust(size, b"\0"), "little") & ((1 << k) - 1)

    def random(self) -> float:
        return self.getrandbits(32) / (1 << 32)


def main() -> None:
    name = sys.argv.pop(1)
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        for part in ("case", "found", "cwd", "home", "tmp"):
            (scratch / part).mkdir()
        os.environ |= {"TMPDIR": str(scratch / "tmp"), "HOME": str(scratch / "home")}
        with atheris.instrument_imports(include=["shrinkc"]):
            from readers import find
            from worker import AT, Worker

            (reader,) = find([name])
        (scratch / "at").write_bytes(bytes(AT.size))
        spoken = os.dup(2)
        worker = Worker([reader], scratch)  # which silences libraries, and libFuzzer with them
        os.dup2(spoken, 2)
        sound = worker.sound[name]

        def one(data: bytes) -> None:
            rng = Choices(data)
            files = reader.change(rng, rng.choice(sound))
            _, found = worker.read(reader, files)
            if found is not None:
                raise RuntimeError(f"{found}: {files!r:.2000}")

        os.chdir(scratch / "cwd")
        atheris.Setup(sys.argv, one)
        atheris.Fuzz()


if __name__ == "__main__":
    main()

"""What a fuzzed reader is. An input is a few files: `name → content`, so that any can be kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

Files = dict[str, bytes]


@dataclass(frozen=True)
class Reader:
    """One way into shrinkc.

    sound   makes inputs that are read without complaint
    change  makes another input of one; everything by chance comes from the `Random`
    read    reads the files in a folder; may raise ShrinkcError and nothing else
    lay     puts what files cannot say into the folder before that
    """

    name: str
    sound: Callable[[], Sequence[Files]]
    change: Callable[[Random, Files], Files]
    read: Callable[[Path], object]
    lay: Callable[[Path], object] | None = None

    def prepare(self, folder: Path, files: Files) -> None:
        for name, content in files.items():
            with open(f"{folder}/{name}", "wb") as file:  # noqa: PTH123  (a million times)
                file.write(content)
        if self.lay is not None:
            self.lay(folder)


def case(reader: Reader, sound: Sequence[Files], seed: int, index: int) -> Files:
    """Input number `index` of a seed: the same wherever it is made."""
    rng = Random(hash((seed, index, *reader.name.encode())))
    return reader.change(rng, rng.choice(sound))

"""What was measured, kept at once: lines of JSON, so that an interrupted run goes on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

from torch import fx


class Journal:
    """Numbers by label, in a file named after what they depend on (`about`); without a folder in
    memory."""

    def __init__(self, folder: Path | None, about: str) -> None:
        self.path = None if folder is None else folder / f"{about}.jsonl"
        self.entries: dict[str, list[float]] = {}
        if self.path is not None and self.path.exists():
            self.entries = dict(_lines(self.path))

    def put(self, label: str, numbers: list[float]) -> None:
        self.entries[label] = numbers
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps([label, *numbers]) + "\n")


def _lines(path: Path) -> Iterator[tuple[str, list[float]]]:
    for line in path.read_text("utf-8").splitlines():
        try:
            label, *numbers = json.loads(line)
            yield str(label), [float(n) for n in numbers]
        except (ValueError, TypeError):
            continue  # the line that was being written when the run ended


def digest_of(graph: fx.GraphModule, settings: str) -> str:
    """Of a network's code and numbers and of settings; 24 hexadecimal digits."""
    digest = hashlib.sha256(str(graph.graph).encode())
    for name, tensor in sorted(graph.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().contiguous().cpu().numpy().tobytes())
    digest.update(settings.encode())
    return digest.hexdigest()[:24]

"""Tables in the documents that are made from result files.

A line `<!-- FUNCTION of FILE[, FILE …] -->` stands above such a table: FUNCTION is one of
benchmarks/documents, given as `module.name`, and gets what is in the files (from the checkout's
root), a result file as Results, a latency table's folder as LatencyTable.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.documents import coverage, depth, latency, peers, plans, scale, width
from benchmarks.documents.cells import Table
from benchmarks.shared import results
from shrinkc.latency_tables.store import read_table

_MODULES = (coverage, depth, latency, peers, plans, scale, width)
_MARKER = re.compile(r"<!-- (?P<function>[\w.]+) of (?P<files>[^>]+?) -->\n(?P<body>(?:\|.*\n)*)")
FUNCTIONS: dict[str, Callable[..., Table]] = {
    f"{module.__name__.rpartition('.')[2]}.{function.__name__}": function
    for module in _MODULES
    for function in module.TABLES
}


@dataclass(frozen=True)
class Marked:
    """One marked table of a page: as it stands there."""

    function: str
    files: tuple[str, ...]
    body: str

    def rendered(self, root: Path) -> str:
        """As its files have it. Raises KeyError for an unknown function, ResultError for a file."""
        sources = [_source(root / file) for file in self.files]
        return markdown(FUNCTIONS[self.function](*sources))


def marked(page: str) -> Iterator[Marked]:
    for found in _MARKER.finditer(page):
        yield _marked(found)


def rewritten(page: str, root: Path) -> str:
    """The page with every marked table as its files have it."""

    def table(found: re.Match[str]) -> str:
        head = found[0][: len(found[0]) - len(found["body"])]
        return head + _marked(found).rendered(root)

    return _MARKER.sub(table, page)


def unmarked_prose(page: str) -> str:
    """The page without its marked tables."""
    return _MARKER.sub("", page)


def markdown(table: Table) -> str:
    header, rows = table
    between = f"|{'|'.join(['---'] * len(header))}|"
    return "".join(f"{line}\n" for line in (_line(header), between, *map(_line, rows)))


def _line(cells: Sequence[str]) -> str:
    return "|" + "".join(f" {cell} |" if cell else " |" for cell in cells)


def _marked(found: re.Match[str]) -> Marked:
    files = tuple(file.strip() for file in found["files"].split(","))
    return Marked(found["function"], files, found["body"])


def _source(path: Path) -> Any:
    if path.suffix == ".json":
        return results.read(path)
    target = "/".join(path.parts[path.parts.index("data") + 1 :])
    return read_table(path, target)

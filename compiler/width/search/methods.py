"""The searches that can be asked for by name.

A new method is one module with a function of a `SearchTask`, and one line of `SEARCHES`.
"""

from __future__ import annotations

from dataclasses import dataclass

from shrinkc.compiler.support.checks import check_kind, check_whole
from shrinkc.compiler.width.search import bees
from shrinkc.compiler.width.search.judge import Repair
from shrinkc.compiler.width.search.task import Method
from shrinkc.errors import InputError


@dataclass(frozen=True)
class SearchMethod:
    """One method.

    name         to ask for it by
    search       for widths; None: which channels stay of widths that are allocated
    evaluations  candidates that it judges as published, at most; None: by the number of groups
    repair       of candidates, as published; None: batch norms are recalibrated, or readers are
                 compensated where those of the result will be
    trains       candidates for `round_epochs` before they are judged, where that is asked for
    side_by_side whether it judges several candidates at once
    """

    name: str
    search: Method | None
    evaluations: int | None = None
    repair: Repair | None = None
    trains: bool = False
    side_by_side: bool = True


SEARCHES: tuple[SearchMethod, ...] = (
    SearchMethod("abc", bees.BeeColony().search, bees.EVALUATIONS, trains=True),
    SearchMethod("ga", None),
)


@dataclass(frozen=True)
class Search:
    """How widths are searched for.

    method       "abc", "ga"
    evaluations  candidates that are judged, at most; None: as many as published
    """

    method: str
    evaluations: int | None = None

    def __post_init__(self) -> None:
        method_of(self.method)
        if self.evaluations is not None:
            check_whole("evaluations", self.evaluations, 1)

    @property
    def most(self) -> int:
        return self.evaluations or method_of(self.method).evaluations or 0

    @property
    def of_widths(self) -> bool:
        """Otherwise of channels."""
        return method_of(self.method).search is not None


def search_of(method: str | Search | None) -> Search | None:
    """Raises InputError for what is neither a name nor a `Search`."""
    check_kind("method", method, (str, Search, type(None)), "a name or a Search")
    return Search(method) if isinstance(method, str) else method


def method_of(name: str) -> SearchMethod:
    """Raises InputError, which lists the names."""
    for method in SEARCHES:
        if method.name == name:
            return method
    names = ", ".join(method.name for method in SEARCHES)
    raise InputError(f"`method` {name}: give one of {names}")

"""The searches that can be asked for by name.

A new method is one module with a function of a `SearchTask`, and one line of `SEARCHES`.
"""

from __future__ import annotations

from dataclasses import dataclass

from shrinkc.compiler.support.checks import check_kind, check_whole
from shrinkc.compiler.support.unread import refuse_unread
from shrinkc.compiler.width.search import bees, dmcp
from shrinkc.compiler.width.search.agent import amc
from shrinkc.compiler.width.search.judge import Repair
from shrinkc.compiler.width.search.meta import evolution, metapruning
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
    learns       in a training of its own, with labels, for `round_epochs`: widths, or weights
    side_by_side whether it judges several candidates at once
    several      whether it searches for several values of the goal at once
    """

    name: str
    search: Method | None
    evaluations: int | None = None
    repair: Repair | None = None
    trains: bool = False
    learns: bool = False
    side_by_side: bool = True
    several: bool = False


SEARCHES: tuple[SearchMethod, ...] = (
    SearchMethod("abc", bees.BeeColony().search, bees.EVALUATIONS, trains=True),
    SearchMethod("ga", None),
    SearchMethod(
        "amc", amc.LayerAgent().search, amc.EVALUATIONS, "least squares", side_by_side=False
    ),
    SearchMethod(
        *("cacp", amc.LayerAgent(conditional=True).search, amc.EVALUATIONS, "least squares"),
        side_by_side=False,
        several=True,
    ),
    SearchMethod("dmcp", dmcp.search, dmcp.EVALUATIONS, "norms", learns=True, side_by_side=False),
    SearchMethod("meta", metapruning.search, evolution.EVALUATIONS, "norms", learns=True),
)


@dataclass(frozen=True)
class Search:
    """How widths are searched for.

    method       "abc", "ga", "amc", "cacp", "dmcp", "meta"
    evaluations  candidates that are judged, at most; None: as many as published
    rates        cacp: other values of the goal to search for at once, such as shares to keep
    """

    method: str
    evaluations: int | None = None
    rates: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        method_of(self.method)
        if self.evaluations is not None:
            check_whole("evaluations", self.evaluations, 1)
        several = method_of(self.method).several
        readers = f"`method` {', '.join(one.name for one in SEARCHES if one.several)}"
        refuse_unread(("rates", bool(self.rates), several, readers))
        if several and not self.rates:
            raise InputError(f"{readers} meets several goals at once", "give `rates`, the others")
        least = len(self.rates) + 1
        if self.evaluations is not None and self.evaluations < least:
            told = f"one for each value of the goal, {least}, or more"
            raise InputError(f"`evaluations` {self.evaluations}: give {told}")

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

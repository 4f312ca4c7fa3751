"""Which layers after a compilation took over which layers before it."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from shrinkc.compiler.report.html.reading import Json, listed, part

KINDS = {
    "kept": "as it was",
    "merged": "several layers became one",
    "narrowed": "fewer channels, or a smaller image",
    "dropped": "left out",
    "changed": "another layer in its place",
    "new": "was not there before",
}
_BY_CHOICE = {
    "merge": "merged",
    "drop": "dropped",
    "narrow": "narrowed",
    "slice": "narrowed",
    "exact": "merged",
    "keep": "kept",
}
OVERHEAD = "(per inference)"
NAMED = 5  # layers, before the rest is only counted


@dataclass(frozen=True)
class Layer:
    """One operator of the prediction; `place` in the order of execution."""

    name: str
    op: str
    ms: float
    source: str
    macs: int
    place: int


@dataclass(frozen=True)
class Block:
    """Layers before, and what they are after; `kind` is one of `KINDS`; `why`: a pass's words."""

    kind: str
    before: tuple[Layer, ...]
    after: tuple[Layer, ...]
    why: str = ""

    @property
    def before_ms(self) -> float:
        return sum(layer.ms for layer in self.before)

    @property
    def after_ms(self) -> float:
        return sum(layer.ms for layer in self.after)

    @property
    def name(self) -> str:
        return (self.after or self.before)[-1].name


def names_of(layers: Sequence[Layer]) -> str:
    """'a, b and 3 more'"""
    names = [layer.name for layer in layers]
    if len(names) <= NAMED:
        return ", ".join(names)
    return f"{', '.join(names[: NAMED - 1])} and {len(names) - NAMED + 1} more"


def blocks_of(report: Json) -> tuple[Block, ...]:
    """In the order of execution; empty where nothing was predicted.

    Layers belong together where a pass says so, or have the same name and do the same. What lies
    between two such pairs, on both sides, is one block. Without a prediction of the network before,
    every layer is a block that was kept.
    """
    before, after = (_layers(part(report, key)) for key in ("prediction_before", "prediction"))
    if not before or not after:
        return tuple(Block("kept", (layer,), (layer,)) for layer in before or after)
    pairs = _increasing(_pairs(before, after, _taken_over(report)))
    told, words = _told(report), _words(report)
    found: list[Block] = []
    start_b = start_a = 0
    inside = {layer.place for pair, _ in pairs for layer in pair}
    for olds, new in (*pairs, ((), None)):
        end_b = max((layer.place for layer in olds), default=len(before))
        end_a = len(after) if new is None else new.place
        gap_b = tuple(x for x in before[start_b:end_b] if x.place not in inside)
        gap_a = after[start_a:end_a]
        if gap_b or gap_a:
            found.append(Block(_gap_kind(gap_b, gap_a, told), gap_b, gap_a))
        if new is not None:
            kind = _pair_kind(olds, new, told)
            why = "" if kind == "kept" else words.get(new.name, "")
            found.append(Block(kind, olds, (new,), why))
        start_b, start_a = end_b + 1, end_a + 1
    return tuple(found)


def _layers(prediction: Json) -> tuple[Layer, ...]:
    return tuple(
        Layer(x["name"], x["op"], x["ms"], x["source"], x["macs"], place)
        for place, x in enumerate(listed(prediction, "layers"))
    )


Pair = tuple[tuple[Layer, ...], Layer]


def _pairs(
    before: Sequence[Layer], after: Sequence[Layer], taken: dict[str, set[str]]
) -> list[Pair]:
    """By what passes reported, then by name."""
    pairs: list[Pair] = []
    names = {layer.name for layer in after}
    for new in after:
        olds = tuple(x for x in before if x.name in taken.get(new.name, {new.name}))
        if len(olds) == 1 and not _anchors(olds[0], new, before, names):
            continue
        if olds:
            pairs.append((olds, new))
    return pairs


def _anchors(old: Layer, new: Layer, before: Sequence[Layer], after: set[str]) -> bool:
    """Not where a merged layer took the name of the last of those that it was made from."""
    if old.op != new.op:
        return False
    if old.macs == new.macs:
        return True
    return new.macs < old.macs and (old.place == 0 or before[old.place - 1].name in after)


def _increasing(pairs: list[Pair]) -> list[Pair]:
    """The longest part of them whose old layers are in order too: branches may have changed
    places."""
    ends: list[int] = []
    chains: list[list[Pair]] = []
    for pair in pairs:
        place = max(layer.place for layer in pair[0])
        at = bisect_left(ends, place)
        chain = [*(chains[at - 1] if at else []), pair]
        ends[at : at + 1], chains[at : at + 1] = [place], [chain]
    return chains[-1] if chains else []


def _taken_over(report: Json) -> dict[str, set[str]]:
    """Node → all whose work it does, through all passes."""
    taken: dict[str, set[str]] = {}
    for change in listed(report, "changes"):
        found = {change["node"]}
        for name in change["replaces"]:
            found |= taken.get(name, {name})
        taken[change["node"]] = found
    return taken


def _told(report: Json) -> dict[str, str]:
    """Last node of a planned choice → kind."""
    choices = listed(part(report, "plan"), "choices")
    return {choice["sink"]: _BY_CHOICE[choice["kind"]] for choice in choices}


def _words(report: Json) -> dict[str, str]:
    return {change["node"]: change["detail"] for change in listed(report, "changes")}


def _pair_kind(olds: tuple[Layer, ...], new: Layer, told: dict[str, str]) -> str:
    if len(olds) != 1:
        return "merged"
    if olds[0].macs == new.macs:
        return "kept"
    return told.get(new.name, "narrowed")


def _gap_kind(olds: tuple[Layer, ...], news: tuple[Layer, ...], told: dict[str, str]) -> str:
    for layer in (*reversed(news), *reversed(olds)):
        if layer.name in told:
            return told[layer.name]
    if not news:
        return "dropped"
    if not olds:
        return "new"
    return "merged" if len(olds) > len(news) else "changed"

"""From the names of a checkpoint to those of a network.

What wraps a network while it trains (DataParallel, torch.compile, Lightning, a teacher and a
student) puts a prefix before its names; pruning and weight normalisation store a weight as two.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from shrinkc.compiler.support.text import counted, shown
from shrinkc.errors import LoadError

Tensors = Mapping[str, Tensor]

# Not weights: batches that a batch norm has seen, models that SWA has averaged, thop's counts
_COUNTERS = ("num_batches_tracked", "n_averaged", "total_ops", "total_params")
_COMPILED = "_orig_mod."  # torch.compile's, of the network or of a part of it
_PREFIX_PARTS = 3
_PREFERRED = ("ema", "model_ema", "ema_model", "student")  # where several networks fit


def is_counter(name: str) -> bool:
    """Whether a tensor of that name counts something, and is of no use here."""
    return name.rpartition(".")[2] in _COUNTERS


def matched(weights: Tensors, own: Tensors) -> tuple[dict[str, Tensor], list[str]]:
    """`weights` by the names that the network `own` has for them, as far as there are any, and
    notes on what was left out or computed.

    Raises LoadError where several networks in `weights` fit equally well.
    """
    found = dict(weights)
    if not any(_COMPILED in name for name in own):
        found = {name.replace(_COMPILED, ""): value for name, value in found.items()}
    notes: list[str] = []
    for rewrite, text in ((_pruned, "pruned"), (_normalised, "normalised")):
        found, count = rewrite(found, own)
        if count:
            notes.append(f"{counted(count, f'{text} weight')} computed from two tensors each")
    prefix = _prefix(found, own)
    inside = {k.removeprefix(prefix): v for k, v in found.items() if k.startswith(prefix)}
    inside = {k: v for k, v in inside.items() if k in own or not is_counter(k)}
    outside = [k for k in found if not k.startswith(prefix) and not is_counter(k)]
    if outside:
        notes.append(
            f"{counted(len(outside), 'tensor')} outside '{shown(prefix)}' left out "
            f"({first_few(outside)})"
        )
    return inside, notes


def first_few(names: Iterable[str], most: int = 3) -> str:
    """'a, b, c, …'"""
    listed = [shown(str(name)) for name in names]
    return ", ".join(listed[:most]) + ", …" * (len(listed) > most)


def _prefix(weights: Tensors, own: Tensors) -> str:
    """The leading parts of names behind which most of the network's own names are found; none
    where that is as good."""
    hits = Counter[str]()
    for name in weights:
        rest, prefix = name, ""
        for _ in range(_PREFIX_PARTS + 1):
            hits[prefix] += rest in own
            head, dot, rest = rest.partition(".")
            prefix += head + dot
    most = max(hits.values(), default=0)
    best = [prefix for prefix, count in hits.items() if count == most]
    fewest = min((p.count(".") for p in best), default=0)
    best = [prefix for prefix in best if prefix.count(".") == fewest]
    preferred = [p for p in best if not set(p.split(".")).isdisjoint(_PREFERRED)]
    if most == 0 or not fewest:
        return ""
    if len(best) > 1 and len(preferred) != 1:
        raise LoadError(
            f"it holds several networks of these names (under {first_few(sorted(best))}); "
            "save the one that you mean alone"
        )
    return (preferred or best)[0]


def _pairs(
    weights: Tensors,
    ends: tuple[str, str],
    made: str,
    combine: Callable[[Tensor, Tensor], Tensor],
) -> tuple[dict[str, Tensor], int]:
    """With what `combine` makes of every two tensors whose names differ in these ends alone."""
    found, count = dict(weights), 0
    for name in weights:
        other = name.removesuffix(ends[0]) + ends[1]
        if name.endswith(ends[0]) and other in weights:
            try:
                value = combine(weights[name], weights[other])
            except RuntimeError as error:  # shapes that do not go together
                raise LoadError(f"'{shown(name)}' and '{shown(other)}' do not fit") from error
            del found[name], found[other]
            found[name.removesuffix(ends[0]) + made] = value
            count += 1
    return found, count


def _pruned(weights: Tensors, own: Tensors) -> tuple[dict[str, Tensor], int]:
    """torch.nn.utils.prune's weight_orig and weight_mask: what is masked is 0."""
    if any(name.endswith("_mask") and name[:-5] + "_orig" in own for name in own):
        return dict(weights), 0  # the network is one that is being pruned
    return _pairs(weights, ("_orig", "_mask"), "", lambda weight, mask: weight * mask)


def _normalised(weights: Tensors, own: Tensors) -> tuple[dict[str, Tensor], int]:
    """Weight normalisation, w = g · v / ‖v‖ (Salimans and Kingma 2016), as torch.nn.utils wrote it
    (weight_g, weight_v) and torch.nn.utils.parametrizations writes it; or no longer, in `own`."""
    spellings = (
        ("weight_g", "weight_v"),
        ("parametrizations.weight.original0", "parametrizations.weight.original1"),
    )
    theirs = next((s for s in spellings if _ending(own, s[0])), None)
    found, count = dict(weights), 0
    for pair in spellings:
        if theirs is None:
            found, more = _pairs(found, pair, "weight", _normalised_weight)
            count += more
        elif pair != theirs:
            ends = dict(zip(pair, theirs, strict=True))
            found = {_respelt(name, ends): value for name, value in found.items()}
    return found, count


def _ending(names: Iterable[str], end: str) -> bool:
    return any(name.endswith(end) for name in names)


def _respelt(name: str, ends: Mapping[str, str]) -> str:
    for old, new in ends.items():
        if name.endswith(old):
            return name.removesuffix(old) + new
    return name


def _normalised_weight(g: Tensor, v: Tensor) -> Tensor:
    """g has 1 where the norm of v is taken over a dimension; no dimensions: over all."""
    dims = [d for d in range(v.ndim) if g.ndim != v.ndim or g.shape[d] == 1]
    linalg: Any = torch.linalg
    norm: Tensor = linalg.vector_norm(v.double(), dim=dims, keepdim=True)
    return (g.double() * v.double() / norm).to(v.dtype)

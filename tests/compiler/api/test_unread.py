"""Options that nobody reads are refused, whoever is called."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from untouched import small

import shrinkc
from shrinkc import Goal, Recipe, ShrinkcError
from shrinkc.compiler.depth.trained import Trained
from shrinkc.compiler.formats.tflite import TFLITE
from shrinkc.compiler.support.unread import refuse_unread
from shrinkc.compiler.width.allocation import Allocation
from shrinkc.compiler.width.methods import CRITERIA
from shrinkc.compiler.width.prune import Pruning
from shrinkc.errors import InputError

X = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
IMAGES = torch.randn(12, 3, 16, 16, generator=torch.Generator().manual_seed(1))
LABELS = torch.arange(12) % 5
HALF, FASTER = Goal.macs(0.5), Goal.speedup(1.1)


def test_what_is_read_or_not_given_passes() -> None:
    refuse_unread(("a", True, True, "b"), ("a", False, False, "b"))
    with pytest.raises(InputError, match="`a` has no effect here: it is for b"):
        refuse_unread(("a", True, False, "b"))


def of_widths(**options: Any) -> dict[str, Any]:
    return {"goal": HALF, "options": Pruning(Allocation(**options))}


def compiled(**options: Any) -> object:
    return shrinkc.compile(small(8), X, target="rpi4", **{"runs": 0, **options})


def pruned(**options: Any) -> object:
    return shrinkc.prune(small(), X, **{"goal": HALF, **options})


def shrunk(**options: Any) -> object:
    given = {"goal": FASTER, "images": IMAGES, "target": "rpi4", "runs": 0}
    return shrinkc.shrink(small(8), X, **{**given, **options})


def planned(**options: Any) -> object:
    return shrinkc.plan(small(8), X, goal=FASTER, images=IMAGES, target="rpi4", **options)


CALLS: tuple[tuple[Callable[..., object], dict[str, Any], str], ...] = (
    (compiled, {"calibration": IMAGES}, "`calibration` is for int8 files"),
    (compiled, {"int8_tuning": "both"}, "`int8_tuning` is for int8 files"),
    (compiled, {"threads": 4}, "`threads` has no effect here: it is for measurements here"),
    (compiled, {"formats": (TFLITE,), "opset": 18}, "`opset` has no effect here: it is for ONNX"),
    (planned, {"recipe": Recipe(epochs=3)}, "`epochs` has no effect here: it is for a training"),
    (planned, {"threads": 4, "runs": 0}, "`threads` has no effect"),
    (
        pruned,
        {"strength": 0.1},
        "`strength` has no effect here: .* slimming, ssl, group-sl, with `train`",
    ),
    (pruned, {"strength": 0.1, "criterion": "slimming"}, "`strength` has no effect"),
    (pruned, {"options": Pruning(rounds=3)}, "`rounds` has no effect"),
    (pruned, {"limit": 3}, "`limit` has no effect"),
    (pruned, {"images": (IMAGES, LABELS), "labels": True}, "`labels` has no effect"),
    (pruned, of_widths(normalise="cumulative"), "`normalise` has no effect"),
    (pruned, of_widths(kind="uniform", normalise="sum"), "`normalise` has no effect"),
    (pruned, {**of_widths(kind="global", normalise="measured"), "images": IMAGES}, "`normalise` "),
    (pruned, {"options": Pruning(recipe=Recipe(batch=8))}, "`batch` has no effect"),
    (pruned, {"options": Pruning(recipe=Recipe(steps=8)), "train": IMAGES}, "`trial_steps` has no"),
    (pruned, {"options": Pruning(recipe=Recipe(seed=8))}, "`seed` has no effect"),
    (pruned, {"runs": 3}, "`runs` has no effect here: it is for files, which need a `target`"),
    (pruned, {"opset": 18}, "`opset` has no effect here: it is for files"),
    (pruned, {"images": IMAGES, "compensate": False}, "`images` has no effect"),
    (
        shrunk,
        {"options": Trained(Recipe(batch=8))},
        "`batch` has no effect here: it is for a train",
    ),
    (shrunk, {"options": Trained(Recipe(steps=8))}, "`trial_steps` .* two-stage-dp, layermerge"),
    (shrunk, {"options": Trained(expand_ratio=3.0)}, "`expand_ratio` .* `method` expand"),
    (shrunk, {"options": Trained(per_activation=True)}, "`per_activation` .* depthshrinker"),
    (shrunk, {"train": (IMAGES, LABELS), "labels": True}, "`labels` has no effect"),
    (
        lambda **_: shrinkc.estimate(small(8), X, target="rpi4", threads=2),
        *({}, "`threads` has no effect here: it is for measurements, where `target` is host"),
    ),
    (lambda **_: shrinkc.inspect(small(8), X, precision="int8"), {}, "`precision` has no effect"),
    (lambda **_: shrinkc.compare("a", "b", runs=0, threads=2), {}, "`threads` has no effect"),
    (
        lambda **_: shrinkc.bench("a.onnx", on="host", benchmark_model="tool"),
        *({}, "`benchmark_model` has no effect here"),
    ),
    (
        lambda **_: shrinkc.profile(target="mine", on="host", widths=3),
        *({}, "`widths` has no effect here: it is for networks: give `models`"),
    ),
)


@pytest.mark.parametrize(("call", "options", "message"), CALLS)
def test_options_without_effect_are_refused(
    call: Callable[..., object], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ShrinkcError, match=message):
        call(**options)


def test_a_seed_is_read_by_random_scores() -> None:
    own = Pruning(recipe=Recipe(seed=3))
    first, second = (
        shrinkc.prune(small(), X, goal=HALF, criterion="random", options=options)
        for options in (own, replace(own, recipe=Recipe()))
    )
    assert not torch.equal(first(X), second(X))


def test_every_criterion_says_what_it_reads() -> None:
    read = {spec.name: set(spec.reads) for spec in CRITERIA if spec.reads}
    assert read == {
        "random": {"seed"},
        "slimming": {"strength"},
        "ssl": {"strength", "drop_below"},
        "group-sl": {"strength"},
        "group-fisher": {"every", "labels", "per"},
    }

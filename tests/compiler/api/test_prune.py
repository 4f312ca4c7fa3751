"""`shrinkc.prune` without and with a target."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, fx, nn
from untouched import small, untouched

import shrinkc
from shrinkc import Goal, Recipe, ShrinkcError
from shrinkc.compiler.api.prune import Pruned
from shrinkc.passes.analysis.channels.channel_groups import Groups

X = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
IMAGES = torch.randn(12, 3, 16, 16, generator=torch.Generator().manual_seed(1))
LABELS = torch.arange(12) % 5
HALF = Goal.macs(0.5)


def pruned(model: nn.Module, **options: Any) -> Pruned:
    return shrinkc.prune(model, X, **options)


class Scored:
    """A user's own criterion: `scores` of every group's size."""

    name = "own"

    def __init__(self, scores: Any) -> None:
        self.of = scores

    def scores(self, graph_module: fx.GraphModule, groups: Groups) -> Any:
        return self.of(groups)


def test_without_a_target_a_module_that_trains(tmp_path: Path) -> None:
    model = small()
    model[0].requires_grad_(False)
    with untouched(model):
        found = pruned(model, goal=HALF)
    assert not found.training
    assert found(X).shape == (1, 5)
    assert sum(w.after for w in found.widths) < sum(w.before for w in found.widths)
    assert all(p.requires_grad for p in found.parameters())
    with pytest.raises(ShrinkcError, match="no files were made, since no `target` was given"):
        _ = found.files
    found.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]
    torch.testing.assert_close(shrinkc.load(tmp_path / "model.safetensors")(X)[0], found(X))


def test_it_is_pruned_again_priced_and_saved() -> None:
    found = pruned(small(), goal=Goal.macs(0.7))
    with untouched(found):
        again = pruned(found, goal=Goal.macs(0.7))
        assert shrinkc.estimate(again, target="rpi4").total_ms > 0
        assert "nodes" in repr(shrinkc.inspect(found, X))
    assert sum(w.after for w in again.widths) < sum(w.after for w in found.widths)


def test_evaluation_is_judged_without_a_target() -> None:
    found = pruned(small(), goal=HALF, evaluation=iter([(IMAGES[:6], LABELS[:6])]))
    assert found.judged is not None
    assert found.judged.images == 6
    assert found.judged.original_top1 is not None


def test_dictionaries_stay_dictionaries() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = small()[:6], nn.Linear(32, 5)

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            maps = self.body(x)
            return {"scores": self.head(maps.mean((2, 3))), "maps": maps}

    found = pruned(Two(), goal=Goal.macs(0.7))
    assert list(found(X)) == ["scores", "maps"]
    assert found(X)["maps"].shape == (1, 32, 16, 16)


def test_a_criterion_of_ones_own() -> None:
    ordered = Scored(lambda groups: {g.name: np.arange(float(g.size)) for g in groups.groups})
    found = pruned(small(), goal=HALF, criterion=ordered)
    assert found.criterion == "own"


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (lambda groups: 3, "`criterion` own gave a int for scores"),
        (lambda groups: {g.name: np.ones(3) for g in groups.groups}, "it must give 32 numbers"),
        (lambda groups: {"none": np.ones(3)}, "no such group"),
    ],
)
def test_a_criterion_that_gives_no_scores(scores: Any, message: str) -> None:
    with pytest.raises(ShrinkcError, match=message):
        pruned(small(), goal=HALF, criterion=Scored(scores))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "give exactly one of `speedup`"),
        ({"goal": "macs"}, "`goal` is a str; give one such as Goal"),
        ({"goal": 0.5}, "`goal` is a float"),
        ({"goal": Goal}, "`goal` is a Goal"),
        ({"goal": Goal.speedup(2)}, "`speedup` is counted by a latency table; give `target`"),
        ({"goal": Goal.max_drop(1)}, "`max_drop` cannot be the goal here"),
        ({"goal": HALF, "keep": {"0": 0.5}}, "give exactly one of `macs`, `keep`"),
        ({"keep": {"none": 0.5}}, "`keep` none: no channel group"),
        ({"keep": ["0"]}, "`keep` is a list; give a dictionary"),
        ({"keep": {"0": "half"}}, "`keep` 0=half: give a number"),
        ({"goal": HALF, "criterion": "L3"}, "`criterion` L3: give one of"),
        ({"goal": HALF, "criterion": "he"}, "`criterion` he looks at images"),
        ({"goal": HALF, "criterion": type("Own", (), {"scores": print})()}, "`criterion` "),
        ({"goal": HALF, "precision": "int8"}, "`precision` is of files, which need a `target`"),
        ({"goal": HALF, "options": {}}, "`options` is a dict"),
        (
            {"goal": HALF, "images": IMAGES, "labels": True, "epochs": 1},
            "`labels`: the `images` have none",
        ),
        ({"goal": HALF, "limit": 0}, "`limit` 0"),
        ({"goal": HALF, "strength": "a"}, "`strength` 'a'"),
        ({"goal": HALF, "compensate": True, "images": IMAGES, "steps": -5}, "`steps` -5"),
        ({"goal": HALF, "epochs": 0, "train": IMAGES}, "`epochs` 0"),
        ({"goal": HALF, "folder": "/proc/none/kept"}, "`folder` .* cannot be made"),
        ({"goal": HALF, "evaluation": IMAGES[:, :2]}, "`evaluation` has shape"),
        ({"goal": HALF, "train": (IMAGES, LABELS + 5)}, "`train` has the label 9"),
        ({"goal": HALF, "train": "none"}, "check `train`"),
    ],
)
def test_arguments_that_do_not_fit_name_the_parameter(options: Any, message: str) -> None:
    model = small()
    with untouched(model), pytest.raises(ShrinkcError, match=message) as caught:
        pruned(model, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": "a"}, "`epochs` 'a'"),
        ({"steps": 0}, "`steps` 0"),
        ({"batch": 0}, "`batch` 0"),
        ({"search_epochs": -1}, "`search_epochs` -1"),
        ({"learning_rate": 0}, "`learning_rate` 0: give a number above 0"),
        ({"temperature": 0.0}, "`temperature` 0"),
        ({"weight_decay": -1}, "`weight_decay` -1"),
        ({"distillation": 2}, "`distillation` 2: give a share"),
        ({"smoothing": float("nan")}, "`smoothing` nan"),
    ],
)
def test_recipes_that_cannot_be_followed(options: Any, message: str) -> None:
    with pytest.raises(ShrinkcError, match=message):
        Recipe(**options)

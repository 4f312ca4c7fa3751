"""Scratch-E and Scratch-B: the pruned shape, fresh weights, labels alone, how long."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from channel_networks import graph_of
from torch import Tensor, fx, nn

import shrinkc
from shrinkc.compiler.capture import capture
from shrinkc.compiler.cost.goal import Goal
from shrinkc.compiler.recover.recipe import Recipe, Trainer
from shrinkc.compiler.support.choices import Scratch
from shrinkc.compiler.tasks.regression import Regression
from shrinkc.compiler.train.train import Result
from shrinkc.compiler.width.allocation import Allocation
from shrinkc.compiler.width.methods import spec_of
from shrinkc.compiler.width.prune import Pruning
from shrinkc.compiler.width.published.from_scratch import FromScratch, fresh, lengthened
from shrinkc.compiler.width.search.methods import Search
from shrinkc.errors import InputError
from shrinkc.passes.recurrent import Recurrent

LABELS = torch.arange(48) % 4
X = torch.randn(48, 3, 8, 8, generator=torch.Generator().manual_seed(0)) + LABELS.view(-1, 1, 1, 1)
RECIPE = Recipe(epochs=2, batch=8, learning_rate=0.1, seed=3)
HALF = Goal.macs(0.5)


def model() -> nn.Module:
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for inputs, outputs in ((3, 8), (8, 12), (12, 16)):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4))
    for parameter in net.parameters():
        parameter.data += 3.0  # nothing that a fresh weight could be
    return net.eval()


def options(kind: Scratch, **more: Any) -> Pruning:
    return Pruning(Allocation(multiple=1), recipe=RECIPE, from_scratch=kind, **more)


class Trained:
    """What every training was given and how it was asked to learn; nothing is trained."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.names: list[str] = []
        self.given: list[dict[str, Tensor]] = []
        self.recipes: list[Recipe] = []
        self.epochs: list[int] = []

        def fit(trainer: Trainer, model: fx.GraphModule, name: str, epochs: int, *_: Any) -> Result:
            self.names.append(name.rsplit("-", 1)[0])
            self.given.append({n: p.detach().clone() for n, p in model.state_dict().items()})
            self.recipes.append(trainer.recipe)
            self.epochs.append(epochs)
            return Result(model, (), 1, 0.0)

        monkeypatch.setattr(Trainer, "fit", fit)


def macs_of(widths: list[int]) -> int:
    """Of the network with layers so wide, by hand."""
    a, b, c = widths
    return 64 * 9 * (3 * a + a * b + b * c) + 4 * c


def pruned(kind: Scratch, **more: Any) -> shrinkc.Pruned:
    given = {"goal": HALF, "train": (X, LABELS), "options": options(kind), **more}
    return shrinkc.prune(model(), X[:1], **given)


@pytest.mark.parametrize(
    ("kind", "epochs", "ratio", "want"),
    [
        *(("E", 10, 3.0, 10), ("B", 10, 1.0, 10), ("B", 10, 1.57, 16), ("B", 3, 1.5, 4)),
        *(("B", 10, 2.0, 20), ("B", 10, 5.0, 20), ("B", 10, 0.9, 10)),
    ],
)
def test_epochs(kind: Scratch, epochs: int, ratio: float, want: int) -> None:
    assert lengthened(kind, epochs, ratio) == want


@pytest.mark.parametrize("kind", ["E", "B"])
def test_fresh_weights_learn_from_labels_alone(
    kind: Scratch, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = Trained(monkeypatch)
    found = pruned(kind, goal=Goal.macs(0.7))
    assert trained.names == [f"scratch-{kind}"]
    assert [recipe.distillation for recipe in trained.recipes] == [0.0]
    (given,) = trained.given
    assert all(tensor.abs().max() <= 1 for tensor in given.values())
    done = found.from_scratch
    assert done is not None
    before, after = (macs_of([getattr(w, n) for w in found.widths]) for n in ("before", "after"))
    assert done.macs_ratio == pytest.approx(before / after)
    assert 1.4 < done.macs_ratio < 1.75
    assert trained.epochs == [2 if kind == "E" else 3] == [done.epochs]
    assert (done.kind, done.asked, done.images, done.start) == (kind, 2, 48, "fresh")
    assert found.notes[0] == str(done)


def test_the_seed_says_which_weights() -> None:
    graph = graph_of("residual").float()
    states = [fresh(graph, seed).state_dict() for seed in (0, 0, 1)]
    assert all(torch.equal(a, states[1][name]) for name, a in states[0].items())
    assert not all(torch.equal(a, states[2][name]) for name, a in states[0].items())
    norms = [m for m in fresh(graph, 0).modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        assert norm.running_mean is not None
        assert not norm.running_mean.any()
        assert (norm.weight == 1).all()
    assert norms


def test_weights_are_as_the_modules_make_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """The shape's own, drawn in order from the seed."""
    trained = Trained(monkeypatch)
    found = pruned("E")
    widths = [width.after for width in found.widths]
    torch.manual_seed(RECIPE.seed)
    first = nn.Conv2d(3, widths[0], 3, padding=1)
    torch.testing.assert_close(trained.given[0]["0.weight"], first.weight.detach())


def test_initial_weights_in_place_of_fresh_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    trained = Trained(monkeypatch)
    initial = capture(model(), (X[:1],))
    found = pruned("E", options=options("E", initial=initial))
    assert found.from_scratch is not None
    assert found.from_scratch.start == "initial"
    assert trained.given[0]["0.weight"].min() > 2  # what is left of the ones that were added 3 to
    assert "from its initial weights" in str(found.from_scratch)


def test_what_is_judged_and_written_is_what_was_trained() -> None:
    """Fresh weights that learn four shades of grey; the network that was given knows nothing."""
    found = pruned("B", evaluation=(X, LABELS))
    assert found.judged is not None
    right = float((found(X).argmax(1) == LABELS).double().mean())
    assert found.judged.changed_top1 == pytest.approx(right)
    assert right > 0.6
    assert len(found.history) == found.from_scratch.epochs == 4  # pyright: ignore
    again = shrinkc.compile(found, X[:1], target="rpi4", runs=0)
    torch.testing.assert_close(again(X[:1]), found(X[:1]), rtol=1e-4, atol=1e-4)


def test_rounds_between_are_trained_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    trained = Trained(monkeypatch)
    pruned("E", options=replace(options("E"), rounds=3))
    assert trained.names == ["round-1", "round-2", "scratch-E"]
    assert [recipe.distillation for recipe in trained.recipes] == [0.7, 0.7, 0.0]


@pytest.mark.parametrize(
    ("criterion", "more"),
    [
        ("slimming", {}),
        ("group-sl", {}),
        ("ssl", {}),
        ("he", {"images": X}),
        ("cap", {"images": X, "in_order": True}),
        ("hrank", {"images": X, "options": options("E", one_by_one=True)}),
        ("group-fisher", {"images": (X, LABELS), "labels": True, "every": 1}),
        ("l1", {"images": (X, LABELS), "labels": True, "method": Search("abc", 4)}),
        ("l1", {"images": (X, LABELS), "labels": True, "method": Search("amc", 4)}),
        ("l1", {"images": (X, LABELS), "labels": True, "method": Search("ga", 4)}),
    ],
)
def test_every_way_to_choose_channels(criterion: str, more: dict[str, Any]) -> None:
    found = pruned("E", criterion=spec_of(criterion), **more)
    assert found.from_scratch is not None
    assert found.from_scratch.macs_ratio >= 2
    assert sum(w.after for w in found.widths) < sum(w.before for w in found.widths)


def test_chains_belong_to_a_fine_tuning() -> None:
    with pytest.raises(InputError, match=r"`chain_ratio` has no effect .* fine-tuned"):
        pruned("E", options=replace(options("E"), recipe=replace(RECIPE, chain_ratio=1.0)))


def test_what_is_said_of_it() -> None:
    done = FromScratch("B", 16, 10, 1.574, 1000, "fresh")
    assert str(done) == (
        "Scratch-B: trained from fresh weights on 1,000 images for 16 epochs, 10 as asked × 1.57 "
        "(MACs before over after: 1.57)"
    )
    assert "10 as asked × 2, the limit (MACs before over after: 3.10)" in str(
        replace(done, epochs=20, macs_ratio=3.1)
    )
    assert str(replace(done, kind="E", epochs=1)).endswith("on 1,000 images for 1 epoch")


# --- what cannot be ------------------------------------------------------------------------------


class Scaled(nn.Module):
    """A parameter of its own, which no layer holds."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.scale = model(), nn.Parameter(torch.ones(1, 3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x * self.scale)


def test_a_parameter_that_nothing_initialises() -> None:
    given: dict[str, Any] = {"goal": HALF, "train": (X, LABELS), "options": options("E")}
    with pytest.raises(InputError, match=r"cannot initialise 'scale': its module has no reset_par"):
        shrinkc.prune(Scaled().eval(), X[:1], **given)
    initial = capture(Scaled().eval(), (X[:1],))
    given["options"] = options("E", initial=initial)
    assert shrinkc.prune(Scaled().eval(), X[:1], **given).from_scratch is not None


def test_recurrent_layers_initialise_themselves() -> None:
    layer = Recurrent("lstm", 3, 4)
    for parameter in layer.parameters():
        parameter.data.fill_(9)
    layer.reset_parameters()
    assert all(0 < p.abs().max() <= 0.5 for p in layer.parameters())


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"train": X}, "`from_scratch` learns from labels alone, and `train` has none"),
        (
            {"train": None, "options": Pruning(from_scratch="B")},
            "`from_scratch` has no effect here: it is for a training",
        ),
        ({"images": X, "compensate": True}, "`compensate` has no effect here"),
        (
            {"task": Regression(), "train": (X, X[:, :, :2, :2].mean(1).flatten(1))},
            "the task is regress",
        ),
    ],
)
def test_what_is_refused(more: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        pruned("E", **more)


def test_other_controls_are_refused() -> None:
    with pytest.raises(InputError, match="`from_scratch` C: give E or B"):
        options("C")  # pyright: ignore


def test_it_goes_on_where_it_stopped(tmp_path: Any) -> None:
    """The second run trains nothing: the same weights, of the checkpoint."""
    first, second = (pruned("E", folder=tmp_path) for _ in range(2))
    assert torch.equal(first(X), second(X))
    assert list(tmp_path.glob("*/scratch-E-*/last.pt"))

"""Schedules, optimisers, averages and losses against torch's own or their formulas."""

import sys
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim import lr_scheduler
from training_examples import Net, images, net

from shrinkc.compiler.train.compute import Compute, start
from shrinkc.compiler.train.settings.average import Average, Ema
from shrinkc.compiler.train.settings.config import Keeping, Training, Validation, norms_frozen
from shrinkc.compiler.train.settings.losses import (
    Distillation,
    Feature,
    Labels,
    Objective,
    kd_loss,
    logits,
    tapped,
)
from shrinkc.compiler.train.settings.optimisers import AdamW, Group, Sgd, build, set_lr
from shrinkc.compiler.train.settings.schedules import Constant, Cosine, OneCycle, Schedule
from shrinkc.errors import TrainingError

STEPS = 20


def factors(schedule: Schedule, steps: int = STEPS) -> list[float]:
    return [schedule.factor(step, steps, 5) for step in range(steps)]


def of_torch(scheduler: Any, **options: Any) -> list[float]:
    optimiser = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule, found = scheduler(optimiser, **options), list[float]()
    for _ in range(STEPS):
        found.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        schedule.step()
    return found


def test_schedules_equal_torch() -> None:
    cosine = of_torch(lr_scheduler.CosineAnnealingLR, T_max=STEPS, eta_min=0.1)
    assert factors(Cosine(final=0.1)) == pytest.approx(cosine)
    for share in (0.3, 0.25, 0.5):
        options = {"max_lr": 1.0, "total_steps": STEPS, "pct_start": share}
        cycle = of_torch(lr_scheduler.OneCycleLR, **options, cycle_momentum=False)
        assert factors(OneCycle(warmup=share)) == pytest.approx(cycle)


def test_warm_up() -> None:
    warm = [(step + 1) / 10 for step in range(10)]
    assert factors(Constant(2.0)) == pytest.approx(warm + [1.0] * 10)
    found = factors(Cosine(2.0))
    assert found[:11] == pytest.approx([*warm, 1.0])
    assert found[15] == pytest.approx(0.5)
    assert factors(Cosine(100.0)) == pytest.approx([(s + 1) / 20 for s in range(20)])
    assert factors(OneCycle(0.0))[0] == 1.0
    assert factors(OneCycle(), 1) == [1.0]


def groups(optimiser: Sgd | AdamW, model: nn.Module) -> list[tuple[int, float, float]]:
    built = build(optimiser, model)
    set_lr(built, 0.5)
    return [(len(g["params"]), g["lr"], g["weight_decay"]) for g in built.param_groups]


def test_weight_decay_spares_vectors_unless_asked() -> None:
    assert groups(Sgd(weight_decay=0.1), net()) == [(2, 0.5, 0.1), (3, 0.5, 0.0)]
    assert groups(AdamW(weight_decay=0.1, decay_all=True), net()) == [(5, 0.5, 0.1)]
    own = (Group("norm.*", 0.1, 0.3), Group("*.bias", 2.0))
    found = groups(Sgd(weight_decay=0.1, groups=own), net())
    assert found == [(2, 0.05, 0.3), (1, 1.0, 0.0), (2, 0.5, 0.1)]


def test_optimisers_are_torchs() -> None:
    sgd, adam = build(Sgd(0.2, 0.8), net()), build(AdamW(0.2, (0.5, 0.6)), net())
    assert isinstance(sgd, torch.optim.SGD)
    assert sgd.defaults["momentum"] == 0.8
    assert sgd.defaults["nesterov"]
    assert isinstance(adam, torch.optim.AdamW)
    assert adam.defaults["betas"] == (0.5, 0.6)
    assert not build(Sgd(momentum=0.0), net()).defaults["nesterov"]


def test_optimisers_that_cannot_be() -> None:
    with pytest.raises(TrainingError, match="no parameter of the network is trainable"):
        build(Sgd(), net().requires_grad_(False))
    with pytest.raises(TrainingError, match=r"no trainable parameter is named like '\*\.mask'"):
        build(Sgd(groups=(Group("*.mask"),)), net())
    with pytest.raises(TrainingError, match="Invalid learning rate"):
        build(Sgd(lr=-1.0), net())


def test_averages_follow_their_formula() -> None:
    model = net()
    average = Average(model, Ema(0.5))
    wanted = model.head.weight.detach().clone()
    for step in range(12):
        with torch.no_grad():
            model.head.weight += 1
            model.norm(torch.randn(4, 8, 3, 3))
        average.update(step)
        decay = min(0.5, (1 + step) / (10 + step))
        wanted = decay * wanted + (1 - decay) * model.head.weight.detach()
    averaged = average.model
    assert isinstance(averaged, Net)
    torch.testing.assert_close(averaged.head.weight, wanted)
    assert averaged.norm.num_batches_tracked == 12
    assert averaged.norm.running_mean is not None
    assert averaged.norm.running_mean.abs().sum() > 0
    assert not averaged.head.weight.requires_grad
    assert not averaged.training


def test_distillation_is_kl_divergence_of_softened_outputs() -> None:
    student, teacher = torch.randn(5, 7), torch.randn(5, 7)
    p, q = (teacher / 3).softmax(1), (student / 3).softmax(1)
    wanted = 9 * (p * (p / q).log()).sum(1).mean()
    torch.testing.assert_close(kd_loss(student, teacher, 3.0), wanted)
    assert kd_loss(student, student, 3.0).abs() < 1e-6


def test_the_loss_is_the_weighted_sum() -> None:
    student, teacher, other = net(1).eval(), net(2).eval(), net(3).eval()
    features = (Feature("conv", weight=0.5), Feature("act", "norm", 2.0))
    distillation = Distillation(other, 0.3, 2.0, features)
    inputs, labels = torch.randn(6, 3, 12, 12), torch.arange(6) % 4
    with tapped(student, ["conv", "act"]) as s, tapped(teacher, ["conv", "norm"]) as t:
        objective = Objective(Labels(0.9, 0.1), distillation, s, t)
        outputs, taught = student(inputs), teacher(inputs)
        loss = objective(outputs, labels, taught)
        wanted = (
            0.9 * F.cross_entropy(outputs, labels, label_smoothing=0.1)
            + 0.3 * kd_loss(outputs, taught, 2.0)
            + 0.5 * (s["conv"] - t["conv"]).square().mean()
            + 2.0 * (s["act"] - t["norm"]).square().mean()
        )
        torch.testing.assert_close(loss, wanted)
        only = Objective(None, Distillation(other, 0.0, 2.0, features[:1]), s, t)
        torch.testing.assert_close(
            only(outputs, None, taught), 0.5 * (s["conv"] - t["conv"]).square().mean()
        )
    assert not student.conv._forward_hooks
    with pytest.raises(TrainingError, match="no layer 'block' to take features"):
        tapped(student, ["block"]).__enter__()


def test_one_output_alone_or_in_a_tuple() -> None:
    outputs = torch.randn(2, 3)
    assert logits((outputs,)) is logits([outputs]) is outputs
    for bad, what in (
        ((outputs, outputs), "several tensors"),
        (torch.zeros(2, 3, 4), r"shape \(2, 3, 4\)"),
    ):
        with pytest.raises(TrainingError, match=f"returns {what}; training needs one"):
            logits(bad)


def test_frozen_norms() -> None:
    model = net().eval()
    norms_frozen(model)
    assert model.training
    assert model.drop.training
    assert not model.norm.training


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Training(0), "0 epochs; give 1 or more"),
        (lambda: Training(1, batch=0), "0 batch"),
        (lambda: Training(1, log_steps=0), "log_steps and clip_norm"),
        (lambda: Training(1, clip_norm=0.0), "log_steps and clip_norm"),
        (lambda: Training(1, labels=None), "neither labels nor a teacher"),
        (lambda: Training(1, labels=None, distillation=Distillation(net(), 0.0)), "neither"),
        (lambda: Distillation(net(), temperature=0.0), "a temperature above 0"),
        (lambda: Ema(1.0), "an average of decay 1.0"),
        (lambda: OneCycle(1.0), "a warm-up of 1.0"),
        (lambda: Validation(images(4), every=0), "`every` and `batch` of 1"),
        (lambda: Keeping(None, every_steps=0), "every_steps of 1 or more"),  # type: ignore
        (lambda: start(Compute("mps")), "cannot train on mps in 32-true"),
    ],
)
def test_settings_that_cannot_be(make: Any, message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        make()


def test_fabric_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lightning_fabric", None)
    with pytest.raises(TrainingError, match=r"Lightning Fabric: pip install 'shrinkc\[train\]'"):
        start(Compute())

"""What a training does: learning, judging, logging, hooks, failing early and clearly."""

import copy
import io
import json
import math
import re
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from training_examples import FAST, Net, images, net

from shrinkc.compiler.capture import capture
from shrinkc.compiler.images.augment import Augmentation, RandomCrop
from shrinkc.compiler.images.decoded import Data, Images
from shrinkc.compiler.support.progress import Advance, Terminal
from shrinkc.compiler.train.batches import Batches, ahead, order
from shrinkc.compiler.train.compute import Compute, Ranks
from shrinkc.compiler.train.evaluate import evaluate
from shrinkc.compiler.train.settings.average import Ema
from shrinkc.compiler.train.settings.config import (
    Hooks,
    Keeping,
    Moment,
    Training,
    Validation,
    norms_frozen,
)
from shrinkc.compiler.train.settings.losses import Distillation, Feature, Labels
from shrinkc.compiler.train.settings.optimisers import AdamW, Sgd
from shrinkc.compiler.train.settings.schedules import Constant
from shrinkc.compiler.train.state import load
from shrinkc.compiler.train.train import train
from shrinkc.errors import DataError, TrainingError

DATA = Data(images())
JUDGED = Validation(images(80, seed=1))


def quick(**settings: Any) -> Training:
    return Training(**{"epochs": 1, "batch": 8, "optimiser": FAST, **settings})


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, b.state_dict()[name]) for name, x in a.state_dict().items())


# --- learning ------------------------------------------------------------------------------------


def test_it_learns_and_reports(tmp_path: Path) -> None:
    training = quick(epochs=8, log_steps=5)
    data = Data(images(), Augmentation(RandomCrop(1)))
    result = train(net(), data, training, validation=JUDGED, keeping=Keeping(tmp_path))
    assert result.steps == 96
    last = result.history[-1]
    assert last["validation"]["top1"] > 0.9
    assert last["validation"] == evaluate(result.model, JUDGED.images).to_json()
    assert last["loss"] < result.history[0]["loss"]
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [row for row in log if row["event"] == "epoch"] == list(result.history)
    steps = [row for row in log if row["event"] == "step"]
    assert [row["step"] for row in steps] == list(range(5, 96, 5))
    assert all(row["images_per_s"] > 0 for row in log)
    assert steps[-1]["lr"] == pytest.approx(0.05 * (1 + math.cos(math.pi * 94 / 96)) / 2)
    weights = [5 * row["loss"] for row in steps if row["step"] <= 60]
    epochs = [12 * row["loss"] for row in result.history[:5]]
    assert sum(weights) == pytest.approx(sum(epochs))
    best = load(tmp_path / "best.pt")
    assert best["row"] == max(result.history, key=lambda row: row["validation"]["top1"])


def test_without_extras_it_is_the_plain_loop() -> None:
    """The same bits as the loop that everybody writes."""
    reference = net(dropout=0.0).train().to(memory_format=torch.channels_last)
    optimiser = torch.optim.SGD(
        [
            {"params": [p for p in reference.parameters() if p.ndim > 1], "weight_decay": 5e-4},
            {"params": [p for p in reference.parameters() if p.ndim <= 1], "weight_decay": 0.0},
        ],
        lr=0.05,
        momentum=0.9,
        nesterov=True,
    )
    losses: list[float] = []
    assert DATA.images.labels is not None
    for epoch in range(2):
        for rows_ in order(96, 7, epoch).split(8):
            optimiser.zero_grad()
            inputs = DATA.images.inputs(DATA.images.pixels[rows_])
            loss = F.cross_entropy(reference(inputs), DATA.images.labels[rows_])
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
    training = quick(epochs=2, seed=7, schedule=Constant())
    result = train(net(dropout=0.0), DATA, training)
    assert result.history[0]["loss"] == pytest.approx(sum(losses[:12]) / 12, rel=1e-12)
    assert same(result.model, reference)


def test_a_captured_graph_trains(tmp_path: Path) -> None:
    graph = capture(net(), (torch.zeros(2, 3, 12, 12),))
    result = train(graph, DATA, quick(epochs=6, ema=Ema(0.5)), validation=JUDGED)
    assert result.model is graph
    assert result.history[-1]["validation"]["top1"] > 0.8
    assert result.history[-1]["loss"] < result.history[0]["loss"]


def test_the_model_comes_back_where_and_as_it_was() -> None:
    model, state = net(), torch.get_rng_state()
    result = train(model, DATA, quick())
    assert result.model is model
    assert torch.equal(torch.get_rng_state(), state)
    assert not model.training
    assert model.conv.weight.is_contiguous()
    assert all(p.requires_grad for p in model.parameters())


def test_seeds_decide_and_memory_format_does_not_matter_much() -> None:
    one, two, other = (train(net(), DATA, quick(seed=seed)).model for seed in (1, 1, 2))
    assert same(one, two)
    assert not same(one, other)
    plain = train(net(), DATA, quick(seed=1, compute=Compute("cpu", channels_last=False))).model
    assert all(
        torch.allclose(a, b, atol=1e-4)
        for a, b in zip(one.parameters(), plain.parameters(), strict=True)
    )


def test_averaged_weights_are_judged_and_returned(tmp_path: Path) -> None:
    training = quick(epochs=3, ema=Ema(0.99), optimiser=Sgd(lr=0.3))
    result = train(net(), DATA, training, validation=JUDGED, keeping=Keeping(tmp_path))
    assert result.history[-1]["validation"] == evaluate(result.model, JUDGED.images).to_json()
    state = load(tmp_path / "last.pt")
    averaged, trained = state["average"], state["model"]
    assert all(torch.equal(averaged[k], v) for k, v in result.model.state_dict().items())
    assert not torch.equal(averaged["head.weight"], trained["head.weight"])


def test_bfloat16_trains() -> None:
    training = quick(epochs=6, compute=Compute("cpu", "bf16-mixed"), optimiser=AdamW(lr=0.01))
    result = train(net(), DATA, training, validation=JUDGED)
    assert result.history[-1]["validation"]["top1"] > 0.8
    exact = train(net(), DATA, quick(epochs=6, optimiser=AdamW(lr=0.01)))
    assert result.history[-1]["loss"] != exact.history[-1]["loss"]
    assert next(result.model.parameters()).dtype == torch.float32


def test_gradients_are_clipped() -> None:
    """One step of plain SGD moves by lr times the clipped norm."""
    before = net()
    training = quick(batch=96, clip_norm=1e-3, optimiser=Sgd(1.0, 0.0, weight_decay=0.0))
    after = train(copy.deepcopy(before), DATA, training).model
    moved = [
        (a - b).detach().square().sum()
        for a, b in zip(before.parameters(), after.parameters(), strict=True)
    ]
    assert float(torch.stack(moved).sum().sqrt()) == pytest.approx(1e-3, rel=1e-3)


# --- teachers ------------------------------------------------------------------------------------


def test_a_student_without_labels_comes_to_agree_with_its_teacher() -> None:
    teacher = train(net(), DATA, quick(epochs=6)).model
    before = copy.deepcopy(teacher)
    distillation = Distillation(teacher, 1.0, 2.0, (Feature("act", weight=0.1),))
    training = quick(epochs=8, labels=None, distillation=distillation)
    validation = Validation(images(80, seed=1, labelled=False))
    data = Data(images(labelled=False))
    result = train(net(4), data, training, validation=validation)
    assert "accuracy" not in result.history[-1]
    assert result.history[-1]["agreement"] > 0.8
    found = result.history[-1]["validation"]
    assert found["agreement"] > 0.9
    assert found["top1"] is found["loss"] is None
    assert found == evaluate(result.model, validation.images, teacher=teacher).to_json()
    assert same(teacher, before)
    assert not any(module._forward_hooks for module in result.model.modules())


def test_a_network_can_be_its_own_teacher() -> None:
    """The teacher is a copy of how the network was: its start is where the loss is least."""
    model = net(dropout=0.0).eval()
    start = copy.deepcopy(model)
    hooks = Hooks(mode=norms_frozen)
    training = quick(labels=None, distillation=Distillation(model, 1.0), hooks=hooks)
    result = train(model, DATA, training)
    assert result.history[0]["agreement"] == 1.0
    for a, b in zip(start.parameters(), result.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=0.02, rtol=0)
    assert isinstance(result.model, Net)
    assert result.model.norm.num_batches_tracked == 0


def test_smoothing_and_weights_reach_the_loss() -> None:
    plain, smoothed, double = (
        train(net(), DATA, quick(batch=96, labels=labels)).history[0]["loss"]
        for labels in (Labels(), Labels(smoothing=0.3), Labels(2.0))
    )
    assert smoothed != plain
    assert double == pytest.approx(2 * plain)


# --- hooks ---------------------------------------------------------------------------------------


def test_a_penalty_pulls() -> None:
    def penalty(model: nn.Module, moment: Moment) -> Tensor:
        assert isinstance(model, Net)
        return 0.1 * model.norm.weight.abs().sum()

    pulled = train(net(), DATA, quick(epochs=3, hooks=Hooks(penalty=penalty))).model
    free = train(net(), DATA, quick(epochs=3)).model
    assert isinstance(pulled, Net)
    assert isinstance(free, Net)
    assert pulled.norm.weight.abs().sum() < 0.8 * free.norm.weight.abs().sum()


def test_a_mask_holds_after_every_step() -> None:
    seen: list[Moment] = []

    def mask(model: nn.Module, moment: Moment) -> None:
        assert isinstance(model, Net)
        assert model.conv.weight.grad is not None
        model.conv.weight[0] = 0
        seen.append(moment)

    model = train(net(), DATA, quick(epochs=2, hooks=Hooks(after_step=mask))).model
    assert isinstance(model, Net)
    assert not model.conv.weight[0].any()
    assert [m.step for m in seen] == list(range(24))
    assert seen[-1] == Moment(23, 24, 1, 2)


# --- what goes wrong -----------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_state(tmp_path: Path) -> None:
    def poison(model: nn.Module, moment: Moment) -> Tensor:
        return torch.tensor(math.nan if moment.step == 17 else 0.0, requires_grad=True)

    training = quick(epochs=3, hooks=Hooks(penalty=poison))
    keeping = Keeping(tmp_path, every_steps=5)
    with pytest.raises(
        TrainingError, match=r"loss of step 18 of 36 is not .*last\.pt holds st.* 15"
    ):
        train(net(), DATA, training, keeping=keeping)
    state = load(tmp_path / "last.pt")
    assert state["step"] == 15
    assert all(v.isfinite().all() for v in state["model"].values())
    with pytest.raises(
        TrainingError, match=r"is not finite: lower the learning rate, .* gradients$"
    ):
        train(net(), DATA, quick(optimiser=Sgd(1e30), epochs=9))


def test_weights_that_are_not_finite_are_not_kept(tmp_path: Path) -> None:
    def poison(model: nn.Module, moment: Moment) -> None:
        if moment.step == 11:
            next(model.parameters())[0] = math.inf

    with pytest.raises(TrainingError, match=r"'conv\.weight' is not finite after step 12"):
        train(net(), DATA, quick(hooks=Hooks(after_step=poison)), keeping=Keeping(tmp_path))
    assert not (tmp_path / "last.pt").exists()


def test_a_batch_that_is_too_large_for_the_device() -> None:
    def full(model: nn.Module, moment: Moment) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")

    with pytest.raises(TrainingError, match="a batch of 8 does not fit into the memory of cpu; gi"):
        train(net(), DATA, quick(hooks=Hooks(penalty=full)))


class Broken(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        raise KeyError("scale")


def labelled(labels: list[int]) -> Data:
    found = images(len(labels))
    return Data(Images(found.pixels, torch.tensor(labels)))


@pytest.mark.parametrize(
    ("model", "data", "settings", "message"),
    [
        (net(), Data(images(labelled=False)), {}, "no labels, but the loss needs them; put eac"),
        (net(), labelled([0, 1, 4]), {}, r"class 4, but the network tells 4 apart \(0 to 3\)"),
        (net(), labelled([0, -1, 2]), {}, "class -1, but the network tells 4 apart"),
        (net(), Data(images(), size=(16, 16)), {}, "12×12, smaller than the network's 16×16"),
    ],
)
def test_images_that_do_not_fit(model: Net, data: Data, settings: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        train(model, data, quick(**settings))


def test_networks_and_teachers_that_do_not_fit() -> None:
    grey = Data(Images(torch.zeros(9, 12, 12, 1), torch.zeros(9).long()))
    other = Distillation(net(classes=5))
    narrow = Distillation(net(width=4), features=(Feature("conv"),))
    for model, data, settings, message in (
        (net(), grey, {}, r"the network fails on images of 1×12×12: RuntimeError: .*channels"),
        (Broken(), DATA, {}, "the network fails on images of 3×12×12: KeyError: 'scale'"),
        (nn.Conv2d(3, 4, 1), DATA, {}, r"returns shape \(2, 4, 12, 12\)"),
        (net(), DATA, {"distillation": other}, "tells 4 classes apart, its teacher 5"),
        (net(), DATA, {"distillation": narrow}, r"'conv' gives \(2, 8, 6, 6\), the teacher's"),
        (net(), DATA, {"distillation": Distillation(net(), features=(Feature("x"),))}, "layer 'x'"),
    ):
        with pytest.raises(TrainingError, match=message):
            train(model, data, quick(**settings))
    assert not net().conv._forward_hooks


def test_nothing_to_judge_by() -> None:
    with pytest.raises(DataError, match="neither labels nor a teacher to judge by"):
        train(net(), DATA, quick(), validation=Validation(images(8, labelled=False)))
    far = Validation(Images(images(2).pixels, torch.tensor([0, 9]), source="val"))
    with pytest.raises(DataError, match="val: class 9, but"):
        train(net(), DATA, quick(), validation=far)


# --- batches -------------------------------------------------------------------------------------


def test_an_epoch_shows_every_image_once_in_an_order_of_its_own() -> None:
    pixels = torch.arange(10, dtype=torch.uint8)[:, None, None, None].expand(10, 2, 2, 1)
    batches = Batches(Data(Images(pixels, torch.arange(10))), 5, 0, torch.device("cpu"))
    epochs = [
        [int(y) for step in (2 * epoch, 2 * epoch + 1) for y in batch_labels(batches, step)]
        for epoch in range(3)
    ]
    assert [sorted(epoch) for epoch in epochs] == [list(range(10))] * 3
    assert len({tuple(epoch) for epoch in epochs}) == 3
    inputs = batches[0].inputs
    assert torch.equal((inputs[:, 0, 0, 0] * 255).round().long(), batches[0].labels)
    small = Batches(Data(Images(pixels, None)), 64, 0, torch.device("cpu"))
    assert (small.size, small.steps_per_epoch) == (10, 1)
    assert small[0].labels is None
    assert Batches(Data(Images(pixels, None)), 4, 0, torch.device("cpu")).steps_per_epoch == 2


def batch_labels(batches: Batches, step: int) -> Tensor:
    labels = batches[step].labels
    assert labels is not None
    return labels


def test_ranks_that_cannot_share_a_batch() -> None:
    with pytest.raises(TrainingError, match="a batch of 8 cannot be shared by 3 ranks"):
        Batches(DATA, 8, 0, torch.device("cpu"), Ranks(1, 3))


def test_batches_prepared_ahead_are_the_same() -> None:
    batches, again = (Batches(DATA, 8, 0, torch.device("cpu")) for _ in range(2))
    with ahead(batches, range(3, 20)) as prepared:
        found = list(prepared)
    assert len(found) == 17
    assert all(torch.equal(b.inputs, again[3 + i].inputs) for i, b in enumerate(found))
    with ahead(batches, range(10_000_000)) as endless:  # the thread must end with the context
        next(endless)

    class Failing(Batches):
        def __getitem__(self, step: int) -> Any:
            if step == 4:
                raise DataError("gone")
            return super().__getitem__(step)

    with ahead(Failing(DATA, 8, 0, torch.device("cpu")), range(9)) as prepared:
        assert len([next(prepared) for _ in range(4)]) == 4
        with pytest.raises(DataError, match="gone"):
            next(prepared)


# --- progress ------------------------------------------------------------------------------------


class Recording:
    def __init__(self) -> None:
        self.tasks: list[tuple[str, int | None]] = []
        self.notes: list[str] = []

    @contextmanager
    def task(self, text: str, total: int | None = None) -> Generator[Advance]:
        self.tasks.append((text, total))
        yield lambda note="": self.notes.append(note)


def test_progress_tells_loss_and_accuracy_of_the_steps_left(tmp_path: Path) -> None:
    progress = Recording()
    train(net(), DATA, quick(epochs=2), progress=progress)
    assert progress.tasks == [("Training", 24)]
    assert len(progress.notes) == 24
    pattern = r"epoch 2/2, loss \d\.\d{3}, accuracy \d+\.\d%"
    assert re.fullmatch(pattern, progress.notes[-1])


def test_without_progress_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    train(net(), DATA, quick(compute=Compute("cpu", "bf16-mixed")))
    assert capfd.readouterr() == ("", "")


def test_the_terminal_shows_the_note(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    with Terminal().task("Training", 3) as advance:
        advance("epoch 1/9, loss 0.123")
        time.sleep(0.5)  # bars are drawn ten times a second
    assert "Training epoch 1/9, loss 0.123" in stream.getvalue()
    assert "1/3" in stream.getvalue()

"""A plan's files come from anyone."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

from shrinkc.compiler.capture import capture
from shrinkc.compiler.export.lower import lower
from shrinkc.compiler.pipeline.deployed import deployed
from shrinkc.compiler.plan.plan_file import (
    OutputPromise,
    Plan,
    Promise,
    Resolution,
    Step,
    plan_files,
    read_plan,
)
from shrinkc.compiler.plan.replay import model_digest, replay
from shrinkc.errors import LoadError
from shrinkc.passes.analysis.linear.spans import find_spans

SMALLER = Resolution(size=(12, 10), size_before=(24, 20), saving_ms=0.5, loss=0.1, agreement=0.9)
PLAN = Plan(
    shrinkc="0.1.0",
    model="0123456789abcdef01234567",
    target="rpi4",
    precision="int8",
    before_ms=2.0,
    after_ms=1.0,
    steps=(Step(kind="narrow", source="a", sink="b", channels=8, loss=0.1, agreement=0.9),),
    ranges={"a": (-1.0, 6.0)},
)


def written(folder: Path, changes: dict[str, Any] | None = None) -> Path:
    for name, content in plan_files(PLAN, {"w": torch.ones(2, 3).T}).items():
        (folder / name).write_bytes(content)
    path = folder / "plan.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | (changes or {})))
    return path


def test_comes_back_from_file_or_folder(tmp_path: Path) -> None:
    path = written(tmp_path)
    for given in (path, tmp_path):
        plan, tensors = read_plan(given)
        assert plan == PLAN
        assert torch.equal(tensors["w"], torch.ones(3, 2))
    assert plan_files(PLAN, {})["plan.json"] == plan_files(PLAN, {})["plan.json"]


def test_numbers_that_layers_share_are_kept_for_each(tmp_path: Path) -> None:
    bias = torch.arange(3.0)
    for name, content in plan_files(PLAN, {"a": bias, "b": bias, "c": bias[1:]}).items():
        (tmp_path / name).write_bytes(content)
    _, tensors = read_plan(tmp_path)
    assert torch.equal(tensors["a"], tensors["b"])
    assert torch.equal(tensors["c"], bias[1:])


def test_smaller_images_are_told_and_nothing_where_there_are_none(tmp_path: Path) -> None:
    smaller = PLAN.model_copy(update={"resolution": SMALLER})
    for name, content in plan_files(smaller, {}).items():
        (tmp_path / name).write_bytes(content)
    assert read_plan(tmp_path)[0] == smaller
    assert b"resolution" not in plan_files(PLAN, {})["plan.json"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"format": 1}, "format"),
        ({"model": "x"}, "model"),
        ({"precision": "fp16"}, "precision"),
        ({"surprise": 1}, "surprise"),
        ({"after_ms": 0}, "after_ms"),
        ({"steps": [{"kind": "run", "source": "a", "sink": "b"}]}, "steps.0.kind"),
        ({"steps": [{"kind": "drop", "source": "a; import os", "sink": "b"}]}, "steps.0.source"),
        ({"steps": [{"kind": "drop", "source": "a", "sink": "b", "channels": -1}]}, "channels"),
        ({"ranges": {"a": [0.0]}}, "ranges.a"),
        ({"ranges": {"a": [1.0, 0.0]}}, "rising numbers"),
        ({"ranges": {"a": [0.0, 1e39]}}, "rising numbers"),
        ({"resolution": {"size": [12, 12]}}, "resolution.size_before"),
        ({"resolution": {"size": [0, 12], "size_before": [24, 24]}}, "resolution.size.0"),
        ({"resolution": {"size": [12.5, 12], "size_before": [24, 24]}}, "resolution.size.0"),
        ({"resolution": {"size": [24, 12], "size_before": [24, 24]}}, "must be below"),
        ({"resolution": {"size": [12, 12], "size_before": [24, 1 << 40]}}, "size_before.1"),
    ],
)
def test_what_shrinkc_would_not_have_written(
    changes: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(LoadError, match=f"no plan of this shrinkc .*{said}"):
        read_plan(written(tmp_path, changes))


def test_a_name_of_any_length_is_told_in_a_line(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="no plan of this shrinkc") as told:
        read_plan(written(tmp_path, {"x" * 10_000: 1}))
    assert len(str(told.value)) < 400


def test_missing_damaged_or_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LoadError, match="check the path"):
        read_plan(tmp_path)
    path = written(tmp_path)
    (tmp_path / "plan.safetensors").write_bytes(b"none")
    with pytest.raises(LoadError, match="damaged"):
        read_plan(path)
    (tmp_path / "plan.safetensors").unlink()
    with pytest.raises(LoadError, match=r"plan\.safetensors is missing"):
        read_plan(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(LoadError, match="no text"):
        read_plan(path)
    path.write_bytes(b" " * (17 << 20))
    with pytest.raises(LoadError, match=r"17,825,792 bytes, the limit is 16,777,216"):
        read_plan(path)


class Net(nn.Module):
    """Two blocks with a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU())
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(8, 8, 3, padding=1),
                nn.BatchNorm2d(8),
                nn.ReLU(),
                nn.Conv2d(8, 8, 3, padding=1),
            )
            for _ in range(2)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = torch.relu(x + block(x))
        return x.mean((2, 3))


@pytest.fixture(scope="module")
def graph() -> fx.GraphModule:
    return capture(Net().eval(), (torch.zeros(1, 3, 8, 8),))


@pytest.fixture(scope="module")
def empty(graph: fx.GraphModule) -> Plan:
    return PLAN.model_copy(
        update={"model": model_digest(graph), "precision": "fp32", "steps": (), "ranges": {}}
    )


def test_steps_share_no_layers_and_do_what_can_be_done(graph: fx.GraphModule, empty: Plan) -> None:
    """Any two steps: a network that runs, or one line."""
    steps = [
        Step(kind=kind, source=s.source, sink=s.sink, channels=4, channels_before=8)
        for s in find_spans(deployed(graph)).spans
        for kind in ("merge", "drop", "narrow")
    ]
    refused = 0
    for pair in itertools.product(steps, repeat=2):
        try:
            _, changed = replay(graph, empty.model_copy(update={"steps": pair}), {})
        except LoadError:
            refused += 1
        else:
            with torch.no_grad():
                changed(torch.zeros(1, 3, 8, 8))
    assert len(steps) <= refused < len(steps) ** 2  # the same twice, at least


def test_what_a_plan_says_is_of_this_network(graph: fx.GraphModule, empty: Plan) -> None:
    """int8 without the range of a value would be written with one that was found on noise."""
    ranges = dict.fromkeys(lower(deployed(graph)).names, (-1.0, 1.0))
    int8 = empty.model_copy(update={"precision": "int8", "ranges": ranges})
    replay(graph, int8, {})
    for name in ranges:
        fewer = {other: found for other, found in ranges.items() if other != name}
        with pytest.raises(LoadError, match=f"for int8 and has no range of '{name}'"):
            replay(graph, int8.model_copy(update={"ranges": fewer}), {})
    told = OutputPromise(error=0.0, interval=None, worst=0.0, worst_interval=None)
    for outputs in ((), (told, told)):
        promise = Promise(images=5, outputs=outputs)
        with pytest.raises(LoadError, match=f"promises {len(outputs)} outputs, this has 1"):
            replay(graph, empty.model_copy(update={"promise": promise}), {})


def test_a_size_is_the_networks(graph: fx.GraphModule, empty: Plan) -> None:
    smaller = capture(Net().eval(), (torch.zeros(1, 3, 6, 6),))
    told = Resolution(size=(6, 6), size_before=(8, 8))
    plan = empty.model_copy(update={"resolution": told})
    smaller.load_state_dict(graph.state_dict())
    _, changed = replay(graph, plan, {}, smaller)
    assert changed.meta["input_shapes"] == {"x": (1, 3, 6, 6)}
    for given in (None, graph):
        with pytest.raises(LoadError, match="images of 6×6 instead of 8×8, which this network"):
            replay(graph, plan, {}, given)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_numbers_of_a_plan_are_finite(graph: fx.GraphModule, empty: Plan, number: float) -> None:
    name, tensor = next(iter(deployed(graph).state_dict().items()))
    replay(graph, empty, {name: tensor})
    for wrong in (torch.full_like(tensor, number), tensor.double(), tensor[:1]):
        with pytest.raises(LoadError, match="do not fit the network"):
            replay(graph, empty, {name: wrong})

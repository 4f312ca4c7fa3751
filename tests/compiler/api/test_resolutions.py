"""`resolutions`: smaller images as a choice of a plan, of a small network that takes them."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hand_built import randomise
from small_networks import Classifier, InvertedResidual, conv
from torch import Tensor, nn
from untouched import untouched

import shrinkc
from shrinkc import Goal, ShrinkcError
from shrinkc.compiler.api.plan import Planned
from shrinkc.compiler.images.augment import scaled

SIZE = 64
X = torch.randn(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(24) % 5


def network() -> nn.Module:
    torch.manual_seed(0)
    net = Classifier(
        *(conv(3, 8, 3, 2), nn.ReLU6(), InvertedResidual(8, 8, expansion=6)), channels=8
    )
    for part in net.modules():
        if not list(part.children()):
            randomise(part, torch.Generator().manual_seed(0))
    return net.eval()


def smooth(count: int = 24, seed: int = 1) -> Tensor:
    """Images of which little is lost when they are made smaller."""
    coarse = torch.randn(count, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(coarse, (SIZE, SIZE), mode="bicubic")


def planned_of(net: Any, x: Any = X, **options: Any) -> Planned:
    given: dict[str, Any] = {"target": "rpi4", "images": smooth(), "runs": 0, "precision": "fp32"}
    given |= {"goal": Goal.speedup(1.8), "resolutions": [48, 40]}
    return shrinkc.plan(net, x, **{**given, **options})


@pytest.fixture(scope="module")
def net() -> nn.Module:
    return network()


@pytest.fixture(scope="module")
def planned(net: nn.Module) -> Planned:
    with untouched(net):
        return planned_of(net, evaluation=(smooth(seed=2), LABELS))


def test_smaller_images_are_taken_where_they_lose_least(net: nn.Module, planned: Planned) -> None:
    plan, report = planned.plan, planned.report
    assert plan.resolution is not None
    size = plan.resolution.size
    assert size in ((48, 48), (40, 40))
    assert plan.resolution.size_before == (SIZE, SIZE)
    assert plan.resolution.saving_ms > 0
    assert plan.speedup >= 1.8
    assert report.input_shapes == {"x": (1, 3, *size)}
    exact = shrinkc.compile(net, X, target="rpi4", runs=0).report
    assert report.before.macs == exact.after.macs  # at its own size
    assert report.predicted_before is not None
    assert exact.predicted_after is not None
    assert report.predicted_before.total_ms == pytest.approx(exact.predicted_after.total_ms)
    assert plan.before_ms == pytest.approx(exact.predicted_after.total_ms)
    assert report.predicted_after is not None
    assert report.predicted_after.total_ms == pytest.approx(plan.after_ms)
    said = f"images of {size[0]}×{size[1]} instead of 64×64"
    assert said in planned.summary()
    assert any(said in note for note in report.notes)
    assert said in planned.files["report.html"].decode()
    assert planned.label.endswith(f"-{size[0]}")


def test_it_is_judged_beside_the_original_at_its_own_size(net: nn.Module, planned: Planned) -> None:
    """By hand: every network on its own size of the same images."""
    assert planned.plan.resolution is not None
    images = smooth(seed=2)
    with torch.no_grad():
        own = net(images).argmax(1)
        small = planned(scaled(images, planned.plan.resolution.size)).argmax(1)
    agreement = float((own == small).double().mean())
    promise, judged, table = planned.plan.promise, planned.judged, planned.report.in_torch
    assert promise is not None
    assert judged is not None
    assert table is not None
    assert promise.agreement == judged.agreement == table.agreement == pytest.approx(agreement)
    right = float((own == LABELS).double().mean())
    assert judged.original_top1 == planned.report.original_top1 == pytest.approx(right)
    lost = right - float((small == LABELS).double().mean())
    assert promise.drop == pytest.approx(lost)
    torch.testing.assert_close(
        planned.compiled(scaled(X, planned.plan.resolution.size)),  # pyright: ignore
        planned(scaled(X, planned.plan.resolution.size)),
    )


def test_it_is_applied_again(net: nn.Module, planned: Planned, tmp_path: Path) -> None:
    planned.save(tmp_path)
    with untouched(net):
        again = shrinkc.apply(net, tmp_path, X, runs=0)
    for name in ("plan.json", "plan.safetensors", "model.onnx", "model.tflite"):
        assert again.files[name] == planned.files[name], name
    judged = shrinkc.apply(net, tmp_path, X, runs=0, images=(smooth(seed=2), LABELS)).report
    assert judged.in_torch is not None
    assert planned.plan.promise is not None
    assert judged.in_torch.agreement == planned.plan.promise.agreement
    for inputs in (scaled(X, (48, 48)), torch.randn(1, 3, 80, 80)):
        with pytest.raises(ShrinkcError, match="instead of 64×64, and this network reads 1×3"):
            shrinkc.apply(net, tmp_path, inputs, runs=0)
    other = network()
    with torch.no_grad():
        next(other.parameters()).mul_(1.1)
    with pytest.raises(ShrinkcError, match="made for another network"):
        shrinkc.apply(other, tmp_path, X, runs=0)


def test_nothing_is_made_smaller_unasked(net: nn.Module, planned: Planned, tmp_path: Path) -> None:
    plain = planned_of(net, resolutions=None)
    assert plain.plan.resolution is None
    assert "resolution" not in json.loads(plain.files["plan.json"])
    assert plain.report.input_shapes == {"x": (1, 3, SIZE, SIZE)}
    told = json.loads(planned.files["plan.json"])
    assert told["resolution"]["size_before"] == [SIZE, SIZE]
    plain.save(tmp_path)
    (tmp_path / "plan.json").write_text(
        json.dumps(json.loads(plain.files["plan.json"]) | {"resolution": told["resolution"]})
    )
    again = shrinkc.apply(net, tmp_path, X, runs=0)  # a plan that someone changed by hand
    assert again.report.input_shapes == planned.report.input_shapes


class Positions(nn.Module):
    """A table for one size of the image."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 8, 16, 16), nn.Linear(8, 5)
        self.table = nn.Parameter(torch.randn(1, 8, 4, 4))

    def forward(self, x: Tensor) -> Tensor:
        return self.fc((self.conv(x) + self.table).mean((2, 3)))


class OwnWeights(nn.Module):
    """A layer for every size."""

    def __init__(self) -> None:
        super().__init__()
        self.near, self.far = nn.Conv2d(3, 5, 3), nn.Conv2d(3, 5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return (self.near if x.shape[2] == SIZE else self.far)(x).mean((2, 3))


FLAT = nn.Sequential(
    *(nn.Conv2d(3, 16, 3, 1, 1), nn.ReLU(), nn.Conv2d(16, 4, 3, 16, 1), nn.ReLU()),
    *(nn.Flatten(), nn.Linear(4 * 16, 5)),
)
DENSE = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 2, 1))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"resolutions": [48.5]}, "`resolutions` 48.5: give a whole number"),
        ({"resolutions": [True]}, "`resolutions` True: give a whole number"),
        ({"resolutions": "48"}, "`resolutions` is a str; give a list"),
        ({"resolutions": []}, "`resolutions` names no size"),
        ({"resolutions": [0]}, "`resolutions` 0: give a whole number of 1 or more"),
        ({"resolutions": [80, 48]}, "`resolutions` 80 is above the network's own size, 64×64"),
        ({"resolutions": [64]}, "64×64 is the network's own size"),
        ({"train": smooth()}, "`train` and `resolutions` do not go together yet"),
        ({"net": FLAT, "resolutions": [40]}, "of the multiples of 16 it takes none"),
        ({"net": Positions()}, "of the multiples of 16 it takes 16×16"),
        ({"net": OwnWeights()}, "the weights '.*' depend on the size of the image"),
        ({"net": DENSE}, "it returns 1×2×24×24 there instead of 1×2×32×32"),
        (
            {"x": torch.randn(1, 3, 64, 48), "images": smooth()[..., :48], "resolutions": [31]},
            "41.33",
        ),
    ],
)
def test_what_cannot_be_made_smaller(net: nn.Module, options: dict[str, Any], said: str) -> None:
    given = {"net": net, **options}
    with pytest.raises(ShrinkcError, match=said) as caught:
        planned_of(given.pop("net"), **given)
    assert "\n" not in str(caught.value)


def test_networks_without_images_have_no_size() -> None:
    table = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4))
    with pytest.raises(ShrinkcError, match=r"networks that read one image .*, not 1×16"):
        planned_of(table, torch.randn(1, 16), images=torch.randn(24, 16))


def test_a_flatten_takes_sizes_that_leave_it_as_many_numbers() -> None:
    found = planned_of(FLAT, goal=Goal.speedup(1.01), resolutions=[60])
    assert found.plan.speedup >= 1.01


def test_files_of_one_size_are_refused_and_open_ones_are_not(
    net: nn.Module, tmp_path: Path
) -> None:
    fixed, free = tmp_path / "fixed.onnx", tmp_path / "free.onnx"
    axes = {"x": {2: "h", 3: "w"}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(net, (X,), fixed, dynamo=False)
        torch.onnx.export(net, (X,), free, dynamo=False, input_names=["x"], dynamic_axes=axes)
    with pytest.raises(ShrinkcError, match=r"`resolutions` 48×48: .* give its fixed sizes"):
        planned_of(fixed, None)
    assert planned_of(free, goal=Goal.speedup(1.05), resolutions=[60]).plan.speedup >= 1.05
    captured = shrinkc.capture(net, X)
    with pytest.raises(ShrinkcError, match="`resolutions` 48×48: this network is made for"):
        planned_of(captured)


def test_a_frontier_has_smaller_images_and_no_name_twice(net: nn.Module, tmp_path: Path) -> None:
    points = shrinkc.frontier(
        *(net, X),
        points=5,
        target="rpi4",
        images=smooth(),
        precision="fp32",
        runs=0,
        resolutions=[48, 40],
        folder=tmp_path,
    )
    assert points[0].plan.resolution is None  # nothing is lost there
    assert any(one.plan.resolution for one in points)
    assert len({one.label for one in points}) == len(points)
    for one in points:
        size = (SIZE, SIZE) if one.plan.resolution is None else one.plan.resolution.size
        assert one.report.input_shapes == {"x": (1, 3, *size)}

"""Reading at places that numbers say, and computed filters, through both files."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import pytest
import torch
import torch.nn.functional as F
from both_files import SCALES, Behind, check
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from shrinkc.compiler.api.steps.network import require_layers
from shrinkc.compiler.capture import capture
from shrinkc.compiler.export import ops
from shrinkc.compiler.export.lower import lower
from shrinkc.compiler.export.onnx import write_onnx
from shrinkc.compiler.export.tflite.operators.lookup import grid_sample as tflite_grid_sample
from shrinkc.compiler.export.tflite.write import write_tflite
from shrinkc.errors import CaptureError, UnsupportedOperatorError

Function = Callable[[Tensor], object]
SHAPE = (1, 3, 9, 10)


def best(x: Tensor) -> tuple[Tensor, Tensor]:
    """Features of the best places, as detectors and CenterNet take them."""
    rows = x.flatten(2).transpose(1, 2)
    values, places = rows[..., 0].topk(6, dim=1)
    return torch.gather(rows, 1, places.unsqueeze(-1).expand(-1, -1, rows.shape[-1])), values


def warped(x: Tensor) -> Tensor:
    """Read where the first two channels say, in pixels."""
    height, width = x.shape[2:]
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    places = torch.stack((columns, rows)).float()[None] + x[:, :2]
    grid = (2 * places[:, 0] / (width - 1) - 1, 2 * places[:, 1] / (height - 1) - 1)
    return F.grid_sample(x[:, 2:], torch.stack(grid, -1), align_corners=True)


def transformed(x: Tensor) -> Tensor:
    """A spatial transformer."""
    theta = x.mean((2, 3))[:, :6].view(-1, 2, 3) * 0.1 + torch.eye(2, 3)
    grid = F.affine_grid(theta, [x.shape[0], 8, 5, 6], align_corners=False)
    return F.grid_sample(x, grid, align_corners=False)


FUNCTIONS: dict[str, Function] = {
    "best places": best,
    "gather": lambda x: torch.gather(x, 1, x.argmax(1, keepdim=True)),
    "gather of a column": lambda x: torch.gather(x, 3, x.argmax(3, keepdim=True)[:, :4, :5]),
    "gather by a constant": lambda x: torch.gather(
        x, 3, torch.arange(9, -1, -1).view(1, 1, 1, 10).expand(x.shape[0], 8, 9, 10)
    ),
    "gather by another constant": lambda x: torch.gather(
        x, 1, (torch.arange(90).view(1, 1, 9, 10) % 8).expand(x.shape[0], 1, 9, 10)
    ),
    "taken along": lambda x: torch.take_along_dim(x, x.argmax(1, keepdim=True), 1),
    "places of two dimensions": lambda x: x[:, torch.tensor([0, 2]), torch.tensor([1, -3])],
    "places apart": lambda x: x[:, torch.tensor([0, 2]), :, torch.tensor([1, 3])],
    "a known mask": lambda x: x[:, torch.tensor([True, False] * 4)],
    "computed places": lambda x: x[0].flatten(1)[:, x[0].mean(0).flatten().topk(3)[1]][None],
    "negative computed places": lambda x: x[0].flatten(1)[
        :, x[0].mean(0).flatten().topk(3)[1] - 90
    ][None],
    "one-hot": lambda x: F.one_hot(x.argmax(1), 8),
    "embedding": lambda x: F.embedding(x.argmax(1), torch.arange(24.0).view(8, 3)),
    "scattered": lambda x: torch.zeros_like(x).scatter(1, x.argmax(1, keepdim=True), 1.0),
    "scattered numbers": lambda x: x.scatter(1, x.argmax(1, keepdim=True), x[:, :1] * 2),
    "added there": lambda x: x.scatter_add(1, x.argmax(1, keepdim=True), x[:, :1]),
    "filled": lambda x: x.index_fill(1, torch.tensor([0, 3]), 2.0),
    "copied": lambda x: x.index_copy(1, torch.tensor([0, 2]), x[:, 4:6]),
    "added": lambda x: x.index_add(1, torch.tensor([0, 2]), x[:, :2]),
    "filters of the input": lambda x: F.conv2d(x, x[0].mean(0)[:5, :8].view(5, 8, 1, 1)),
    "depthwise filters of the input": lambda x: F.conv2d(
        x, x[0, :, :3, :3].unsqueeze(1), x[0, :, 0, 0], padding=1, groups=8
    ),
    "filters of a signal": lambda x: F.conv1d(x[:, :, 0], x[0, :, :1, :3], groups=8),
    "transposed filters of the input": lambda x: F.conv_transpose2d(
        x, x[0, :, :6, :6].reshape(8, 4, 3, 3), stride=(2, 1), padding=(1, 3), dilation=(1, 2)
    ),
    "transposed groups of the input": lambda x: F.conv_transpose2d(
        x, x[0, :, :2, :3].reshape(8, 3, 2, 1), None, (1, 2), 1, (0, 1), 2
    ),
    "transposed filters of a signal": lambda x: F.conv_transpose1d(
        x[:, :, 0], x[0, :, :2, :3], x[0, :2, 0, 0], stride=2
    ),
    "positions of maxima": lambda x: F.max_pool2d(x, 2, return_indices=True),
    "positions in overlapping windows": lambda x: F.max_pool2d(x, 3, 2, 1, return_indices=True),
    "positions in adaptive windows": lambda x: F.adaptive_max_pool2d(x, (3, 5), True),
    "unpooled": lambda x: F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2),
    "unpooled to an odd size": lambda x: F.max_unpool2d(
        *F.max_pool2d(x, 2, return_indices=True), 2, output_size=x.shape[2:]
    ),
}
SAMPLES: dict[str, Function] = {"warped": warped, "transformed": transformed}


@pytest.mark.parametrize("by_export", [False, True], ids=["traced", "exported"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_function(name: str, by_export: bool) -> None:
    torch.manual_seed(0)
    scales = SCALES[:3] if "places" in name else SCALES
    check(Behind(FUNCTIONS[name], by_export), SHAPE, scales=scales, limit=4e-5)


@pytest.mark.parametrize("by_export", [False, True], ids=["traced", "exported"])
@pytest.mark.parametrize("name", SAMPLES)
def test_sampling(name: str, by_export: bool) -> None:
    torch.manual_seed(0)
    check(Behind(SAMPLES[name], by_export), SHAPE, scales=(0.05, 1.0), limit=4e-5)


@pytest.mark.parametrize("corners", [False, True])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("mode", ["bilinear", "nearest", "bicubic"])
def test_every_kind_of_sampling(mode: str, padding: str, corners: bool) -> None:
    def apply(x: Tensor) -> Tensor:
        grid = (x[:, :2, :6] * 1.5).permute(0, 2, 3, 1)
        return F.grid_sample(x[:, 2:], grid, mode, padding, corners)

    torch.manual_seed(0)
    check(Behind(apply), SHAPE, scales=(0.05, 1.0, 3.0), limit=4e-5)


def test_a_wrong_kernel_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The check of sampling can fail: Catmull and Rom's kernel instead of PyTorch's."""
    monkeypatch.setattr(tflite_grid_sample, "_CUBIC", -0.5)
    with pytest.raises(AssertionError, match="tflite"):
        test_every_kind_of_sampling("bicubic", "border", False)


def test_old_opsets_have_no_sampling() -> None:
    program = lower(capture(Behind(warped).eval(), (torch.randn(SHAPE),)))
    with pytest.raises(UnsupportedOperatorError, match="opset 15 has none; give `opset` 16"):
        write_onnx(program, 15)
    for opset in (16, 20, 22):
        assert "GridSample" in [n.op_type for n in write_onnx(program, opset).graph.node]
    write_tflite(program)


class Conditional(nn.Module):
    """Filters mixed for each sample, all samples in one grouped convolution (CondConv)."""

    def __init__(self) -> None:
        super().__init__()
        self.filters = nn.Parameter(torch.randn(4, 6, 3, 3, 3))
        self.route = nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        mixed = self.route(x.mean((2, 3))).softmax(1) @ self.filters.flatten(1)
        filters = mixed.view(batch * 6, channels, 3, 3)
        together = x.reshape(1, batch * channels, height, width)
        return F.conv2d(together, filters, padding=1, groups=batch).view(batch, 6, height, width)


class Matched(nn.Module):
    """A template's features as the filters of a search region's (SiamRPN)."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Conv2d(3, 6, 3)

    def forward(self, template: Tensor, search: Tensor) -> Tensor:
        z, x = self.features(template), self.features(search)
        filters = z.reshape(-1, 1, *z.shape[2:])
        y = F.conv2d(x.reshape(1, -1, *x.shape[2:]), filters, groups=filters.shape[0])
        return y.view(z.shape[0], 6, *y.shape[2:])


def test_filters_for_each_sample() -> None:
    torch.manual_seed(0)
    require_layers(capture(Conditional(), (torch.randn(SHAPE),)))
    check(Conditional(), SHAPE, limit=4e-5)
    check(Matched(), (1, 3, 6, 6), (1, 3, 12, 12), limit=4e-5)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_index_is_pytorchs(data: st.DataObject) -> None:
    """Known and computed ones, of some dimensions, broadcast against each other."""
    sizes = (1, 4, 5, 6)
    dims = data.draw(st.lists(st.sampled_from((1, 2, 3)), min_size=1, unique=True))
    known = {d: data.draw(st.booleans()) for d in dims}
    shapes = {d: data.draw(st.sampled_from([(3,), (2, 1), (2, 3), (1,)])) for d in dims}
    numbers = {d: torch.arange(7)[: shapes[d][0] * shapes[d][-1]] for d in dims}

    class Indexed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            index: list[object] = [slice(None)] * 4
            for d in dims:
                count = torch.Size(shapes[d]).numel()
                places = numbers[d][:count] % sizes[d] - (sizes[d] // 2)
                if not known[d]:
                    places = x.flatten()[:count].abs().mul(10).long() % sizes[d]
                index[d] = places.reshape(shapes[d])
            return x[tuple(index)]

    x = torch.randn(sizes, generator=torch.Generator().manual_seed(0)).double()
    graph = capture(Indexed(), (x.float(),)).double()
    torch.testing.assert_close(graph(x)[0], Indexed()(x), rtol=0, atol=0)


def test_rows_are_picked_without_a_loop() -> None:
    program = lower(capture(Behind(best).eval(), (torch.randn(SHAPE),)))
    assert sum(isinstance(op, ops.Pick) for op in program.ops) == 1
    kinds = [node.op_type for node in write_onnx(program).graph.node]
    assert [kinds.count(kind) for kind in ("GatherND", "TopK")] == [1, 2]


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (
            lambda x: F.one_hot(x.argmax(1)),
            "as many classes as the numbers say; give `num_classes`",
        ),
        (
            lambda x: F.max_unpool2d(
                *F.max_pool2d(x, 3, 2, 1, return_indices=True), 3, 2, 1, x.shape[2:]
            ),
            "windows overlap",
        ),
        (
            lambda x: F.grid_sample(
                x.unsqueeze(2), x[:, :3].permute(0, 2, 3, 1)[:, None], align_corners=True
            ),
            "samples of a volume; only images",
        ),
    ],
)
def test_what_is_refused(function: object, reason: str) -> None:
    with pytest.raises(CaptureError, match=reason):
        capture(Behind(cast(Function, function)).eval(), (torch.randn(SHAPE),))

"""Windows of every kind through both files, volumes among them; and what is refused by name."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from both_files import Behind, check
from torch import Tensor, nn

from shrinkc.compiler.capture import capture
from shrinkc.compiler.capture.refused import RULES
from shrinkc.errors import CaptureError

VOLUME = (1, 3, 4, 7, 6)
MAPS: dict[str, nn.Module | Callable[[Tensor], Tensor]] = {
    "dilated": nn.MaxPool2d(3, 2, 1, dilation=2),
    "dilated, stride 1": nn.MaxPool2d((2, 3), 1, 1, dilation=(1, 2)),
    "dilated behind relu": nn.Sequential(nn.ReLU(), nn.MaxPool2d(3, 1, 1, dilation=2)),
    "uneven maxima": nn.AdaptiveMaxPool2d((4, 3)),
    "more maxima than pixels": nn.AdaptiveMaxPool2d((11, 4)),
    "own divisor": nn.AvgPool2d(2, divisor_override=3),
    "own divisor, padded": nn.AvgPool2d(3, 2, 1, ceil_mode=True, divisor_override=5),
    "over channels, too": nn.MaxPool3d((1, 3, 3), (2, 1, 2)),
    "means over channels, too": nn.AvgPool3d((2, 3, 1), 1),
    "uneven over channels, too": nn.AdaptiveAvgPool3d((3, 4, 5)),
    "norm of windows": nn.LPPool2d(2, 3, 2),
    "cubes of windows": lambda x: F.lp_pool2d(x.abs(), 3.0, (2, 3), 2),
    "compared in five dimensions": lambda x: (
        x.view(x.shape[0], 2, 4, *x.shape[2:]) > x.view(x.shape[0], 2, 4, *x.shape[2:])[:, :1, :1]
    ).float(),
}


def seven(x: Tensor) -> Tensor:
    """Convex upsampling, as RAFT does it: softmax, product and sum in seven dimensions."""
    batch, _, height, width = x.shape
    mask = x.view(batch, 1, 2, 2, 2, height, width).softmax(2)
    apart = F.unfold(x[:, :2], (1, 1)).view(batch, 1, 2, 1, 1, height, width)
    return (mask * apart).sum(2).permute(0, 1, 4, 2, 5, 3).reshape(batch, 1, 2 * height, 2 * width)


MAPS["in seven dimensions"] = seven
VOLUMES: dict[str, nn.Module] = {
    "transposed": nn.ConvTranspose3d(3, 4, 2, 2),
    "transposed, overlapping": nn.ConvTranspose3d(3, 4, 3, 2, 1, output_padding=1),
    "transposed frames": nn.ConvTranspose3d(3, 4, (1, 2, 2), (1, 2, 2)),
    "transposed depth": nn.ConvTranspose3d(3, 4, (3, 1, 1), (2, 1, 1), bias=False),
    "transposed groups": nn.ConvTranspose3d(3, 6, 3, padding=1, groups=3, dilation=2),
    "reflected": nn.Sequential(nn.ReflectionPad3d(1), nn.Conv3d(3, 4, 3)),
    "circular": nn.Conv3d(3, 4, 3, padding=1, padding_mode="circular"),
}


@pytest.mark.parametrize("name", MAPS)
def test_windows_of_maps(name: str) -> None:
    torch.manual_seed(0)
    scales = (0.05, 1.0, 20.0)  # of zeros nothing is larger
    check(Behind(MAPS[name]), (1, 3, 9, 10), scales=scales, limit=4e-5)


@pytest.mark.parametrize("name", VOLUMES)
def test_windows_of_volumes(name: str) -> None:
    torch.manual_seed(0)
    check(VOLUMES[name], VOLUME, limit=4e-5)


@pytest.mark.parametrize("name", ["transposed, overlapping", "transposed groups"])
def test_transposed_volumes_are_exact(name: str) -> None:
    x = torch.randn(VOLUME).double()
    graph = capture(VOLUMES[name], (x.float(),)).double()
    want = VOLUMES[name].double()(x)
    VOLUMES[name].float()
    torch.testing.assert_close(graph(x)[0], want, rtol=1e-9, atol=1e-9)


def test_means_of_volumes_keep_their_digits() -> None:
    """A thousand numbers that hardly differ, added up in a row, lose one."""
    torch.manual_seed(0)

    class Mean(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv3d(3, 8, 1, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            return (self.conv(x * 1e-2) + 1).mean((2, 3, 4)) - 1

    check(Mean(), (1, 3, 8, 24, 24), scales=(1.0,), limit=4e-3)


@pytest.mark.parametrize("mode", ["circular", "reflect", "replicate"])
def test_padding_of_a_convolution(mode: str) -> None:
    torch.manual_seed(0)
    check(nn.Conv2d(3, 4, (3, 5), 2, (1, 2), padding_mode=mode), (1, 3, 9, 10))


def test_non_maximum_suppression_is_left_to_the_reader() -> None:
    """torchvision's own operator, by the name that a graph calls it."""
    library = torch.library.Library("shrinkc_test", "DEF")
    library.define("nms(Tensor boxes, Tensor scores, float limit) -> Tensor")
    library.impl("nms", lambda boxes, scores, limit: scores.argsort()[:2], "CPU")

    def suppressed(x: Tensor) -> Tensor:
        boxes = x[0].flatten(1).mT[:, :4]
        return boxes[torch.ops.shrinkc_test.nms(boxes, boxes[:, 0], 0.5)]

    with pytest.raises(CaptureError, match="cut the decoded head before NMS"):
        capture(Behind(suppressed).eval(), (torch.randn(1, 3, 9, 10),))


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda x: (x > 0).nonzero(), "its shape follows the numbers"),
        (lambda x: x.masked_select(x > 0), "its shape follows the numbers"),
        (lambda x: torch.where(x > 0)[0], "its shape follows the numbers"),
        (lambda x: torch.unique(x.round()), "its shape follows the numbers"),
        (lambda x: torch.lgamma(x.abs() + 1), "no runtime computes it"),
    ],
)
def test_what_is_refused(function: Callable[[Tensor], Tensor], reason: str) -> None:
    with pytest.raises(CaptureError, match=reason):
        capture(Behind(function).eval(), (torch.randn(1, 3, 9, 10),))


def test_every_refusal_is_one_line() -> None:
    from shrinkc.compiler.capture.convert import RULES as ALL

    assert all(ALL[name] is rule for name, rule in RULES.items())

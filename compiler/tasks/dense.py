"""A number for every pixel: depth, flow, images that are restored or enlarged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from shrinkc.compiler.tasks.outputs import Output, check_weights, outputs_of, summed
from shrinkc.compiler.tasks.task import Answer, Evidence, LabelKind, PooledTask, Style
from shrinkc.errors import InputError

WINDOW, SIGMA = 11, 1.5  # of SSIM, in pixels
K1, K2 = 0.01, 0.03
MOST_DB = 100.0  # stands for maps that are equal


@dataclass(frozen=True)
class Dense(PooledTask):
    """The first output is a map of numbers, (n, channels, height, width); so are labels.

    by       "ssim", the structural similarity (Wang et al., 2004), or "psnr", the peak
             signal-to-noise ratio in dB: each the mean over images
    peak     range of the maps' values; None: that of the original's own answers
    outputs  by a network's own answers (`scaled`)
    weights  of every output in the divergence; without them all weigh the same
    """

    by: Literal["ssim", "psnr"] = "ssim"
    peak: float | None = None
    outputs: tuple[Output, ...] = ()
    weights: tuple[float, ...] = ()
    why: str = field(default="", repr=False, compare=False)

    def __post_init__(self) -> None:
        check_weights(self.weights)
        if self.by not in ("ssim", "psnr"):
            raise InputError(f"`by` {self.by}: choose ssim, psnr")
        if self.peak is not None and not 0 < self.peak < float("inf"):
            raise InputError(f"`peak` {self.peak}: give a finite number above 0")

    @property
    def name(self) -> str:
        return "dense"

    @property
    def metric(self) -> str:
        return self.by.upper()

    @property
    def unit(self) -> str:
        return "dB of PSNR" if self.by == "psnr" else super().unit

    @property
    def style(self) -> Style:
        return "dB" if self.by == "psnr" else "number"

    @property
    def reads(self) -> LabelKind:
        return "numbers"

    def scaled(self, reference: Answer, samples: int) -> Dense:
        first = reference[0]
        if not first.is_floating_point() or first.ndim != 4:
            shape = "×".join(map(str, first.shape))
            raise InputError(
                f"`task` dense: the first output is {shape} of "
                f"{str(first.dtype).removeprefix('torch.')}; a map n×channels×H×W of floats is "
                "needed"
            )
        own = float(f"{float(first.max() - first.min()):.6g}") or 1.0
        outputs = outputs_of(reference, samples, self.weights)
        return replace(self, outputs=outputs, peak=self.peak or own)

    def judges(self, answer: Answer) -> bool:
        """PSNR has no end, so that what no longer agrees is no measure of what is lost."""
        return self.by == "ssim" and answer[0].ndim == 4

    def counts(self, answer: Answer, labels: Tensor) -> bool:
        return labels.is_floating_point() and labels.shape == answer[0].shape

    def check_labels(self, answer: Answer, labels: Tensor, parameter: str) -> None:
        if labels.shape != answer[0].shape:
            found, wanted = ("×".join(map(str, x.shape[1:])) for x in (labels, answer[0]))
            raise InputError(
                f"`{parameter}` has labels of {found}; the network's maps are {wanted}"
            )

    def truth(self, reference: Answer) -> Tensor:
        return reference[0]

    def evidence(self, answer: Answer, labels: Tensor) -> Evidence:
        """SSIM and PSNR of each image: (2,) each."""
        got, want = (x.detach().cpu().double() for x in (answer[0], labels))
        peak = self.peak or float(want.max() - want.min()) or 1.0
        noise = (got - want).square().flatten(1).mean(1)
        psnr = 10 * (peak**2 / noise.clamp(min=1e-300)).log10()
        psnr = psnr.clamp(max=MOST_DB).nan_to_num(-MOST_DB)
        return torch.stack((ssim(got, want, peak).nan_to_num(0), psnr), 1)

    def score(self, evidence: Evidence) -> float:
        return float(torch.stack([*evidence]).mean(0)[0 if self.by == "ssim" else 1])

    def details(self, evidence: Evidence) -> Mapping[str, float]:
        means = torch.stack([*evidence]).mean(0)
        return {"SSIM": float(means[0])} if self.by == "psnr" else {"PSNR, dB": float(means[1])}

    def divergence(self, answer: Answer, reference: Answer) -> Tensor:
        """Squared error over variance, the sum over all outputs: (n,)."""
        outputs = self.outputs or outputs_of(reference, len(reference[0]), self.weights)
        return summed(answer, reference, outputs, weights=self.weights)


def ssim(got: Tensor, want: Tensor, peak: float) -> Tensor:
    """Structural similarity of maps (n, channels, H, W), −1 to 1, the mean over windows and
    channels: (n,). Windows are Gaussian, 11×11 pixels of deviation 1.5, or as large as a smaller
    map allows, and lie within the map (Wang et al., 2004, section III-B)."""
    side = min(WINDOW, *got.shape[2:])
    side -= 1 - side % 2
    places = torch.arange(side, dtype=got.dtype) - side // 2
    bell = (-(places**2) / (2 * SIGMA**2)).exp()
    window = (bell[:, None] * bell[None]) / bell.sum() ** 2

    def mean(x: Tensor) -> Tensor:
        flat = x.reshape(-1, 1, *x.shape[2:])
        return F.conv2d(flat, window[None, None]).reshape(*x.shape[:2], -1)

    a, b = mean(got), mean(want)
    of_a, of_b = mean(got * got) - a * a, mean(want * want) - b * b
    both = mean(got * want) - a * b
    c1, c2 = (K1 * peak) ** 2, (K2 * peak) ** 2
    alike = (2 * a * b + c1) * (2 * both + c2) / ((a * a + b * b + c1) * (of_a + of_b + c2))
    return alike.mean((1, 2))

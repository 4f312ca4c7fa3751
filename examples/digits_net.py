"""A small inverted-residual network (Sandler et al., MobileNetV2, 2018) for 32×32 grey images.

Two of its blocks are over-parametrised on purpose, as many networks are for training's sake:

* `ParallelBranches`: a 3×3, a 1×1 and, where shapes allow, an identity branch, each with its own
  batch norm, summed (Ding et al., RepVGG, 2021);
* `LinearExpansion`: an inverted residual without activations inside (Guo et al., ExpandNets, 2020;
  Fu et al., DepthShrinker, 2022).

Both are linear from end to end, so each is exactly one dense 3×3 convolution once training is over.
Nothing here depends on shrinkc: this is what a user's own model file looks like.
"""

from torch import Tensor, nn


def conv_bn(
    in_channels: int,
    out_channels: int,
    kernel: int,
    stride: int = 1,
    padding: int = 0,
    groups: int = 1,
) -> list[nn.Module]:
    """A convolution without bias and its batch norm."""
    conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(out_channels)]


class InvertedResidual(nn.Module):
    """1×1 expansion, 3×3 depthwise, 1×1 projection; residual where input and output agree."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = in_channels * expansion
        self.residual = stride == 1 and in_channels == out_channels
        self.layers = nn.Sequential(
            *conv_bn(in_channels, hidden, 1),
            nn.ReLU6(),
            *conv_bn(hidden, hidden, 3, stride, padding=1, groups=hidden),
            nn.ReLU6(),
            *conv_bn(hidden, out_channels, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.residual else self.layers(x)


class LinearExpansion(nn.Module):
    """An inverted residual whose only activation follows the sum.

    The 3×3's padding is done by the 1×1 in front of it, where the zeros meet no bias yet: then the
    merged convolution is exact at the borders too (Kim et al., 2023).
    """

    def __init__(self, channels: int, expansion: int) -> None:
        super().__init__()
        hidden = channels * expansion
        self.layers = nn.Sequential(
            *conv_bn(channels, hidden, 1, padding=1),
            *conv_bn(hidden, hidden, 3, groups=hidden),
            *conv_bn(hidden, channels, 1),
        )
        self.activation = nn.ReLU6()

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(x + self.layers(x))


class ParallelBranches(nn.Module):
    """3×3 and 1×1 branches, and identity where input and output agree, then ReLU6."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            [
                nn.Sequential(*conv_bn(in_channels, out_channels, 3, stride, padding=1)),
                nn.Sequential(*conv_bn(in_channels, out_channels, 1, stride)),
            ]
        )
        if stride == 1 and in_channels == out_channels:
            self.branches.append(nn.BatchNorm2d(in_channels))
        self.activation = nn.ReLU6()

    def forward(self, x: Tensor) -> Tensor:
        total = self.branches[0](x)
        for branch in list(self.branches)[1:]:
            total = total + branch(x)
        return self.activation(total)


def digits_net() -> nn.Sequential:
    """(N, 1, 32, 32) in [−1, 1] → (N, 10) logits."""
    return nn.Sequential(
        ParallelBranches(1, 16, stride=2),
        InvertedResidual(16, 24, stride=2, expansion=4),
        LinearExpansion(24, expansion=4),
        InvertedResidual(24, 24, stride=1, expansion=4),
        InvertedResidual(24, 40, stride=2, expansion=4),
        ParallelBranches(40, 40),
        InvertedResidual(40, 40, stride=1, expansion=4),
        *conv_bn(40, 128, 1),
        nn.ReLU6(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(0.1),
        nn.Linear(128, 10),
    )

"""Equalise the ranges of channels across layers, so that one int8 scale suits them all.

For a positively homogeneous f and any s > 0 per channel, with S = diag(s),

    W₂ f(W₁ x + b₁) + b₂  =  (W₂ S) f(S⁻¹ W₁ x + S⁻¹ b₁) + b₂

With r₁ the range of what is scaled down and r₂ that of what is scaled up,

    s_i = √(r₁,i · r₂,i) / r₂,i

makes both equal, √(r₁,i r₂,i), in every channel (Nagel et al., 2019, Data-Free Quantization,
equations 7 to 11). Triples (convolution, depthwise, convolution) are two joints; sweeps go on until
no scale moves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import Tensor, fx, nn

from shrinkc.passes.analysis.joints import Joint, joints
from shrinkc.passes.base import PassResult
from shrinkc.passes.fold.fold_affine import Layer, fold_into_input, fold_into_output
from shrinkc.passes.rewrite import Rewriter, float64

SWEEPS, SETTLED = 50, 1e-4  # the most, and the log2 of the largest scale that ends them


@dataclass(frozen=True, eq=False)
class EqualiseChannels:
    """Scale channels between Conv2d, ConvTranspose2d and Linear of any groups.

    activations   tensor (node) → the largest |x| of each channel, (channels,), on calibration
                  images: r₁ is the range of activations, which share one scale a tensor in int8.
                  None: r₁ is the range of the weights that write them, as published.

    Declined with a reason: any other operator in between, a layer called twice or with shared
    parameters, a joint that touches an input, an output or a constant. ReLU6 is such an operator:
    a scale would move its 6, in each channel elsewhere. (It may pass in channels that provably stay
    below 6, a fifth of the depthwise ones in MobileNetV2; scaling those made int8 worse.)
    """

    activations: Mapping[str, Tensor] | None = None
    name: ClassVar[str] = "equalise-channels"
    exact: ClassVar[bool] = True

    def __call__(self, graph_module: fx.GraphModule) -> PassResult:
        rewriter = Rewriter(graph_module)
        found, refused = joints(rewriter.graph_module)
        nodes = {node.name: node for node in rewriter.nodes}
        for skip in refused:
            rewriter.skip(nodes[skip.node], skip.reason)
        with torch.no_grad():
            work = [_JointScaling(rewriter, joint, self.activations) for joint in found]
            for _ in range(SWEEPS):
                if max((one.equalise() for one in work), default=0.0) < SETTLED:
                    break
        _report(rewriter, [one for one in work if one.moved])
        return rewriter.finish()


class _JointScaling:
    """One joint being equalised; `total` is the scale so far."""

    def __init__(
        self, rewriter: Rewriter, joint: Joint, activations: Mapping[str, Tensor] | None
    ) -> None:
        self.rewriter, self.joint = rewriter, joint
        self.total = torch.ones(joint.channels, dtype=torch.float64)
        self.seen: Tensor | None = None
        if activations is not None:
            known = [float64(activations[v.name]) for v in joint.values if v.name in activations]
            self.seen = torch.stack(known).amax(0) if known else torch.zeros(joint.channels)

    @property
    def moved(self) -> bool:
        return bool((self.total != 1).any())

    def equalise(self) -> float:
        """Scale by √(r₁ r₂)/r₂; returns the largest |log2 s|."""
        front = written_range(self._layers(self.joint.writers))
        if self.seen is not None:
            front = self.seen / self.total
        behind = read_range(self._layers(self.joint.readers))
        scale = channel_scales(front, behind)
        if bool((scale == 1).all()):
            return 0.0  # no layer that goes without a bias is given one
        self.total *= scale
        nothing = torch.zeros_like(scale)
        for writer in self.joint.writers:
            fold_into_output(self.rewriter, writer, 1 / scale, nothing)
        for reader in self.joint.readers:
            fold_into_input(self.rewriter, reader, scale, nothing)
        return float(scale.log2().abs().max())

    def _layers(self, nodes: Sequence[fx.Node]) -> list[Layer]:
        return [cast(Layer, self.rewriter.module(node)) for node in nodes]


def channel_scales(front: Tensor, behind: Tensor) -> Tensor:
    """√(r₁ r₂)/r₂ per channel; 1 where either range is zero."""
    used = (front > 0) & (behind > 0)
    return torch.where(used, (front / behind.clamp(min=1e-300)).sqrt(), 1.0)


def written_range(layers: Sequence[Layer]) -> Tensor:
    """(channels,): the largest |weight| of each output channel of any of the layers."""
    found: list[Tensor] = []
    for layer in layers:
        weight = float64(layer.weight).abs()
        if isinstance(layer, nn.ConvTranspose2d):  # (in, out/groups, kh, kw)
            weight = weight.reshape(layer.groups, -1, *weight.shape[1:]).transpose(1, 2)
            found.append(weight.flatten(0, 1).flatten(1).amax(1))
        else:
            found.append(weight.flatten(1).amax(1))
    return torch.stack(found).amax(0)


def read_range(layers: Sequence[Layer]) -> Tensor:
    """(channels,): the largest |weight| that reads each input channel in any of the layers."""
    found: list[Tensor] = []
    for layer in layers:
        weight = float64(layer.weight).abs()
        if isinstance(layer, nn.ConvTranspose2d):
            found.append(weight.flatten(1).amax(1))
            continue
        groups = layer.groups if isinstance(layer, nn.Conv2d) else 1
        blocks = weight.reshape(groups, weight.shape[0] // groups, weight.shape[1], -1)
        found.append(blocks.amax((1, 3)).flatten())
    return torch.stack(found).amax(0)


# --- the report ----------------------------------------------------------------------------------


def _report(rewriter: Rewriter, work: Sequence[_JointScaling]) -> None:
    """The values that are what they were are those of the last layers of a chain of joints: one
    change each; the layers inside, whose values are scaled, go with the first of them."""
    writers = {writer for one in work for writer in one.joint.writers}
    for chain in _chains(work):
        readers = list(dict.fromkeys(r for one in chain for r in one.joint.readers))
        inner = dict.fromkeys(w for one in chain for w in one.joint.writers)
        ends = [reader for reader in readers if reader not in writers]
        channels = sum(int((one.total != 1).sum()) for one in chain)
        most = max(float(one.total.log2().abs().max()) for one in chain)
        detail = f"{channels} channels of {len(inner)} layers scaled, by up to 2^±{most:.1f}"
        for end in ends:
            rewriter.absorb_input(end, [], detail)
        for layer in inner:
            rewriter.helper(ends[0], layer)


def _chains(work: Sequence[_JointScaling]) -> list[list[_JointScaling]]:
    """Joints that share a layer, together."""
    chains: list[list[_JointScaling]] = []
    for one in work:
        layers = {*one.joint.writers, *one.joint.readers}
        near = [
            chain
            for chain in chains
            if any(layers & {*other.joint.writers, *other.joint.readers} for other in chain)
        ]
        chains = [chain for chain in chains if chain not in near]
        chains.append([*(other for chain in near for other in chain), one])
    return chains

"""Hidden channels: the only channels of a span that nobody outside it sees.

    source → producer → (activation · depthwise · padding)* → consumer [→ + source] = sink

Producer and consumer are convolutions without groups. A hidden channel can be left out with its
filters in the producer and in every depthwise layer and its slice of the consumer; what the others
compute stays as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from torch import fx, nn

from shrinkc.passes.analysis.linear.linear_op import LinearOp
from shrinkc.passes.analysis.linear.linear_ops import LinearOps
from shrinkc.passes.analysis.op_spec import LAYER_OPS, OpSpec
from shrinkc.passes.ir import module_of


@dataclass(frozen=True, eq=False)
class HiddenChannels:
    """Names of nodes, and how many channels there are between them.

    channels   of every value between producer and consumer
    between    the depthwise convolutions
    shortcut   the sink adds the source
    kernel     positions of the consumer's kernel
    """

    channels: int
    producer: str
    between: tuple[str, ...]
    consumer: str
    shortcut: bool
    kernel: int
    before: tuple[OpSpec, ...]

    def specs(self, channels: int) -> tuple[OpSpec, ...]:
        """The span's operators with fewer hidden channels."""
        layers = [i for i, spec in enumerate(self.before) if spec.op in LAYER_OPS]
        first, last = layers[0], layers[-1]
        return tuple(
            _narrow(spec, channels, after=i > first, before=i < last)
            if first <= i <= last
            else spec
            for i, spec in enumerate(self.before)
        )


def hidden_channels(
    ops: LinearOps,
    inside: Sequence[str],
    nodes: dict[str, fx.Node],
    before: tuple[OpSpec, ...],
) -> HiddenChannels | None:
    """The hidden channels of a span; None where it has another form."""
    chain = [nodes[name] for name in inside]
    shortcut = len(chain[-1].all_input_nodes) == 2
    if shortcut:
        chain.pop()
    layers = [n for n in chain if isinstance(module_of(ops.graph_module, n), nn.Conv2d)]
    if len(layers) < 2 or layers[-1] is not chain[-1]:
        return None
    if not _is_chain(chain) or not _removable_inside(ops, chain, layers):
        return None
    windows = [_op(ops, n).window for n in layers]
    channels = windows[0].out_channels
    if windows[0].groups != 1 or windows[-1].groups != 1:
        return None
    if any(w.groups != channels or w.out_channels != channels for w in windows[1:-1]):
        return None
    if shortcut and set(nodes[inside[-1]].all_input_nodes) != {chain[-1], _source(chain)}:
        return None
    kernel = windows[-1].kernel[0] * windows[-1].kernel[1]
    names = [n.name for n in layers]
    return HiddenChannels(
        channels, names[0], tuple(names[1:-1]), names[-1], shortcut, kernel, before
    )


def _is_chain(chain: list[fx.Node]) -> bool:
    """Each node reads the one before it, and only that."""
    single = all(b.all_input_nodes == [a] and len(a.users) == 1 for a, b in pairwise(chain))
    return single and len(chain[0].all_input_nodes) == 1


def _removable_inside(ops: LinearOps, chain: list[fx.Node], layers: list[fx.Node]) -> bool:
    """Behind the producer only what acts on every channel alone."""
    inner = chain[chain.index(layers[0]) + 1 : -1]
    pointwise = [n for n in inner if n not in layers]
    return any(n.name in ops.removable for n in inner) and all(
        n.name in ops.removable or n.op == "call_function" or _op(ops, n).spec is None
        for n in pointwise
    )


def _source(chain: list[fx.Node]) -> fx.Node:
    return chain[0].all_input_nodes[0]


def _op(ops: LinearOps, node: fx.Node) -> LinearOp:
    op = ops.read(node, "conv2d")
    assert isinstance(op, LinearOp)
    return op


def _narrow(spec: OpSpec, channels: int, after: bool, before: bool) -> OpSpec:
    """Fewer inputs `after` the producer, fewer outputs `before` the consumer."""
    return replace(
        spec,
        in_channels=channels if after else spec.in_channels,
        out_channels=channels if before else spec.out_channels,
        groups=channels if after and before and spec.groups > 1 else spec.groups,
    )

"""Rules of `simplify` that move work into the layer next to it."""

from __future__ import annotations

from typing import cast

import torch.nn.functional as F
from torch import fx, nn

from shrinkc.passes.analysis.linear.linear_functions import AFFINE
from shrinkc.passes.analysis.linear.linear_op import ConstantPart
from shrinkc.passes.fold.fold_affine import fold_into_output, layer_of
from shrinkc.passes.ir import module_of
from shrinkc.passes.simplify.context import SimplifyContext


def absorb_padding(c: SimplifyContext, node: fx.Node) -> None:
    """conv(pad(x)) = conv with that much more padding, where both sides of each dimension get the
    same number of zeros and nobody else reads the padded map."""
    conv = module_of(c.rewriter.graph_module, node)
    if not isinstance(conv, nn.Conv2d):
        return
    pad = node.all_input_nodes[0]
    if pad.target is not F.pad or len(pad.users) > 1 or not _is_symmetric(pad):
        return
    calls = c.ops.usage.calls(conv)
    if calls > 1:
        c.rewriter.skip(node, f"the padding in front stays: the module is called {calls} times")
        return
    left, _, top = (*cast("tuple[int, ...]", pad.args[1]), 0)[:3]
    height, width = cast("tuple[int, int]", conv.padding)
    conv.padding = (height + top, width + left)
    node.args = (pad.args[0],)
    c.rewriter.absorb_input(node, [pad], "padding moved into the convolution")


def _is_symmetric(pad: fx.Node) -> bool:
    amounts = cast("tuple[int, ...]", pad.args[1])
    zeros = pad.args[2] == "constant" and not pad.args[3]
    even = all(amounts[i] == amounts[i + 1] >= 0 for i in range(0, len(amounts), 2))
    return zeros and even and not any(amounts[4:])


def absorb_affine(c: SimplifyContext, node: fx.Node) -> None:
    """scale·layer(x) + shift = layer'(x), for constants per output channel."""
    if node.op != "call_function" or node.target not in AFFINE:
        return
    computed = [x for x in node.all_input_nodes if x.op != "get_attr"]
    layer = layer_of(c.rewriter, computed[0]) if len(computed) == 1 else None
    if layer is None:
        return
    op = c.ops.read(node, "linear" if isinstance(layer, nn.Linear) else "conv2d")
    if isinstance(op, str) or len(op.inputs) != 1 or op.constant == ConstantPart.MAP:
        return
    x = computed[0]
    shared = c.ops.usage.why_shared(layer)
    if shared or len(x.users) > 1:
        reason = shared or f"its output has {len(x.users)} users"
        c.rewriter.skip(node, f"the constant cannot move into '{x.name}': {reason}")
        return
    numbers = op.numbers()
    fold_into_output(c.rewriter, x, numbers.weights[0].reshape(-1), numbers.shift.reshape(-1))
    name = getattr(node.target, "__name__", "it")
    c.rewriter.absorb_output(x, node, f"constant {name} moved into {type(layer).__name__}")

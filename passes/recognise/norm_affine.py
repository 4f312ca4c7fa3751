"""A factor and a shift that are written out behind a LayerNorm without its own become its own."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, fx, nn

from shrinkc.passes import ir
from shrinkc.passes.analysis.usage import attribute
from shrinkc.passes.rewrite import Rewriter


def absorb_into_norm(rewriter: Rewriter, node: fx.Node) -> bool:
    """norm(x)·γ + β = norm'(x): γ and β lie along what is normalised, and are read here alone. The
    result may have been permuted, as that of a norm over channels is."""
    operands = _value_and_constant(node)
    if operands is None:
        return False
    value, constant = operands
    permuted = value.target is torch.permute
    norm_node = ir.input_of(value) if permuted else value
    norm = ir.module_of(rewriter.graph_module, norm_node)
    if not isinstance(norm, nn.LayerNorm) or len(value.users) + len(norm_node.users) > 2:
        return False
    order = cast("tuple[int, ...]", value.args[1]) if permuted else None
    numbers = _along_features(attribute(rewriter.graph_module, constant), norm, order)
    is_factor = node.target is ir.mul
    if numbers is None or (norm.elementwise_affine and (is_factor or _has_bias(norm))):
        return False
    path = rewriter.new_name(f"{norm_node.name}_affine")
    rewriter.set_module(path, _with(norm, numbers, is_factor))
    norm_node.target = path
    rewriter.absorb_output(value, node, "with its factor" if is_factor else "with its shift")
    if permuted:
        rewriter.rescaled(value, [norm_node])
    return True


def _value_and_constant(node: fx.Node) -> tuple[fx.Node, fx.Node] | None:
    """The computed operand of a sum or product, and the constant that nobody else reads."""
    if node.target not in (ir.add, ir.mul) or not all(map(ir.is_node, node.args)):
        return None
    constants = [x for x in node.all_input_nodes if x.op == "get_attr"]
    computed = [x for x in node.all_input_nodes if x.op != "get_attr"]
    if len(constants) != 1 or len(computed) != 1:
        return None
    target = constants[0].target
    readers = [n for n in node.graph.nodes if n.op == "get_attr" and n.target == target]
    alone = len(readers) == 1 and len(constants[0].users) == 1
    return (computed[0], constants[0]) if alone else None


def _along_features(
    constant: Tensor, norm: nn.LayerNorm, order: tuple[int, ...] | None
) -> Tensor | None:
    """The constant in the shape of what is normalised, None where it varies along anything else."""
    features = tuple(norm.normalized_shape)
    if order is not None:  # dimension i of the result is order[i] of the norm's
        if constant.ndim > len(order) or len(features) > 1:
            return None
        full = constant.reshape((1,) * (len(order) - constant.ndim) + tuple(constant.shape))
        constant = full.permute([order.index(i) for i in range(len(order))])
    shape = tuple(constant.shape)
    lead = shape[: len(shape) - len(features)]
    fits = shape[len(lead) :] == features and math.prod(lead) == 1
    return constant.reshape(features) if fits else None


def _has_bias(norm: nn.LayerNorm) -> bool:
    return cast("Tensor | None", norm.bias) is not None


def _with(norm: nn.LayerNorm, numbers: Tensor, is_factor: bool) -> nn.LayerNorm:
    """A norm with one more of its two parameters."""
    made = nn.LayerNorm(list(norm.normalized_shape), norm.eps, bias=not is_factor).to(numbers.dtype)
    made.train(norm.training)
    parameter = nn.Parameter(numbers.detach().clone(), numbers.requires_grad)
    if is_factor:
        made.weight = parameter
        return made
    made.bias = parameter
    if norm.elementwise_affine:
        made.weight = norm.weight
    return made

"""The canonical form of a network, and the check that a graph is in it.

A `torch.fx.GraphModule` of `placeholder`, `get_attr`, `call_module`, `call_function` and one
`output` node (whose single argument is a tuple of nodes), such that

* every `call_module` target is exactly (not a subclass of) a class in `MODULES`, takes exactly
  one positional node and no keyword; a `Recurrent` may take its first states behind it;
* every `call_function` target is a value of `FUNCTIONS`, called as its entry says: positional
  arguments only, all of them given;
* every `get_attr` names a tensor (parameter or buffer) of the root module;
* every value is of one float type, that of the inputs: truth is 0 or 1, and what a model counts in
  integers are whole numbers (exact up to 2²⁴ in float32). `integers` alone, which only an output
  reads, gives another type; `numbers` alone reads one, an input's;
* convolutions pad with zeros and integers only (other paddings are an `F.pad` in front);
* shapes in arguments are integers; −1 stands in `reshape` for the one dimension that follows the
  batch, so the same graph runs at any batch size;
* `graph_module.meta["input_shapes"]` maps each placeholder to the shape it was captured with.

Dimensions are counted from 0, never negative, except `pad`'s (torch's own reversed order).
"""

from __future__ import annotations

import keyword
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeGuard, cast

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from shrinkc.errors import IllegalGraphError
from shrinkc.passes.recurrent import Recurrent

# Class → the constructor arguments that rebuild it, each also an attribute of the instance.
# `bias` means: has a bias tensor. Parameters and buffers come on top, from the state dict.
_CONV = ("in_channels", "out_channels", "kernel_size", "stride", "padding")
_BATCH_NORM = ("num_features", "eps", "momentum", "affine", "track_running_stats")
MODULES: dict[type[nn.Module], tuple[str, ...]] = {
    nn.Conv2d: (*_CONV, "dilation", "groups", "bias"),
    nn.ConvTranspose2d: (*_CONV, "output_padding", "groups", "bias", "dilation"),
    nn.Linear: ("in_features", "out_features", "bias"),
    nn.BatchNorm1d: _BATCH_NORM,
    nn.BatchNorm2d: _BATCH_NORM,
    nn.LayerNorm: ("normalized_shape", "eps", "elementwise_affine", "bias"),
    nn.GroupNorm: ("num_groups", "num_channels", "eps", "affine"),
    nn.ReLU: (),
    nn.ReLU6: (),
    nn.LeakyReLU: ("negative_slope",),
    nn.PReLU: ("num_parameters",),
    nn.ELU: ("alpha",),
    nn.Sigmoid: (),
    nn.Tanh: (),
    nn.Hardtanh: ("min_val", "max_val"),
    nn.Hardsigmoid: (),
    nn.Hardswish: (),
    nn.SiLU: (),
    nn.Mish: (),
    nn.GELU: ("approximate",),
    nn.Softplus: ("beta", "threshold"),
    nn.Softmax: ("dim",),
    nn.LogSoftmax: ("dim",),
    nn.Dropout: ("p",),
    nn.Identity: (),
    nn.MaxPool2d: ("kernel_size", "stride", "padding", "dilation", "ceil_mode"),
    nn.AvgPool2d: (
        *("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad"),
        "divisor_override",
    ),
    nn.AdaptiveAvgPool2d: ("output_size",),
    nn.AdaptiveMaxPool2d: ("output_size",),
    nn.Upsample: ("size", "scale_factor", "mode", "align_corners"),
    nn.PixelShuffle: ("upscale_factor",),
    nn.PixelUnshuffle: ("downscale_factor",),
    Recurrent: (
        *("kind", "input_size", "hidden_size", "proj_size", "has_bias", "reverse", "with_cell"),
    ),
}

# Activations that act on every element alone.
ELEMENTWISE_MODULES: tuple[type[nn.Module], ...] = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.Sigmoid, nn.Tanh, nn.Hardtanh),
    *(nn.Hardsigmoid, nn.Hardswish, nn.SiLU, nn.Mish, nn.GELU, nn.Softplus),
)


Function = Callable[..., Any]
_op: Any = operator  # typeshed leaves some of its functions without types


def slice_dim(x: Tensor, dim: int, start: int, stop: int, step: int) -> Tensor:
    """`x[start:stop:step]` along `dim`, 0 ≤ start < stop ≤ size, step ≥ 1."""
    return x[(slice(None),) * dim + (slice(start, stop, step),)]


def batch_expand(constant: Tensor, like: Tensor) -> Tensor:
    """Repeat a constant of batch 1 to the batch size of `like` (class tokens, queries)."""
    return constant.expand(like.shape[0], *constant.shape[1:])


def clamp(x: Tensor, low: float | None, high: float | None) -> Tensor:
    """Limit every element; None is no limit."""
    return torch.clamp(x, low, high)


def mean(x: Tensor, dims: tuple[int, ...], keepdim: bool) -> Tensor:
    """Mean over `dims`."""
    return torch.mean(x, dims, keepdim)


def sum_(x: Tensor, dims: tuple[int, ...], keepdim: bool) -> Tensor:
    """Sum over `dims`."""
    return torch.sum(x, dims, keepdim)


def amax(x: Tensor, dims: tuple[int, ...], keepdim: bool) -> Tensor:
    """Maximum over `dims`."""
    return torch.amax(x, dims, keepdim)


def amin(x: Tensor, dims: tuple[int, ...], keepdim: bool) -> Tensor:
    """Minimum over `dims`."""
    return torch.amin(x, dims, keepdim)


def prod(x: Tensor, dims: tuple[int, ...], keepdim: bool) -> Tensor:
    """Product over `dims`."""
    for dim in sorted(dims, reverse=True):
        x = torch.prod(x, dim, keepdim)
    return x


def argmax(x: Tensor, dim: int, keepdim: bool) -> Tensor:
    """Where the maximum along `dim` is, the first of several."""
    return torch.argmax(x, dim, keepdim).to(x.dtype)


def topk_values(x: Tensor, count: int, dim: int) -> Tensor:
    """The `count` largest along `dim`, the largest first."""
    return torch.topk(x, count, dim).values


def topk_indices(x: Tensor, count: int, dim: int) -> Tensor:
    """Where the `count` largest along `dim` are, the largest first."""
    return torch.topk(x, count, dim).indices.to(x.dtype)


def pick(table: Tensor, rows: Tensor) -> Tensor:
    """(B, L, …) and (B, K) with whole numbers from 0 to L − 1 → (B, K, …)."""
    where_rows = rows.long().reshape(*rows.shape, *(1,) * (table.ndim - 2))
    return torch.gather(table, 1, where_rows.expand(*rows.shape, *table.shape[2:]))


def grid_sample(x: Tensor, grid: Tensor, mode: str, padding: str, corners: bool) -> Tensor:
    """(N, C, H, W) at the places (x, y) of (N, h, w, 2), −1 to 1 → (N, C, h, w)."""
    return F.grid_sample(x, grid, mode, padding, corners)


def dynamic_conv(
    x: Tensor,
    weight: Tensor,
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    groups: int,
) -> Tensor:
    """A convolution with computed filters (out, in/groups, kh, kw), without bias."""
    return F.conv2d(x, weight, None, stride, padding, dilation, groups)


def take(x: Tensor, dim: int, indices: tuple[int, ...]) -> Tensor:
    """The slices of `x` at known `indices` of `dim`, in their order."""
    return x.index_select(dim, torch.tensor(indices, device=x.device))


def cumsum(x: Tensor, dim: int) -> Tensor:
    """Running sums along `dim`."""
    return torch.cumsum(x, dim)


Number = float | int


def _truth(holds: Tensor, *operands: Tensor | Number) -> Tensor:
    """0 and 1 of the operands' own type."""
    return holds.to(next(x.dtype for x in operands if isinstance(x, Tensor)))


def greater(a: Tensor | Number, b: Tensor | Number) -> Tensor:
    """1 where a > b, else 0."""
    return _truth(_op.gt(a, b), a, b)


def greater_equal(a: Tensor | Number, b: Tensor | Number) -> Tensor:
    """1 where a ≥ b, else 0."""
    return _truth(_op.ge(a, b), a, b)


def equal(a: Tensor | Number, b: Tensor | Number) -> Tensor:
    """1 where a = b, else 0."""
    return _truth(_op.eq(a, b), a, b)


def not_equal(a: Tensor | Number, b: Tensor | Number) -> Tensor:
    """1 where a ≠ b, else 0."""
    return _truth(_op.ne(a, b), a, b)


def where(condition: Tensor, a: Tensor | Number, b: Tensor | Number) -> Tensor:
    """a where the condition is not 0, else b."""
    a, b = (torch.as_tensor(x, dtype=condition.dtype, device=condition.device) for x in (a, b))
    return torch.where(condition != 0, a, b)


def integers(x: Tensor, dtype: str) -> Tensor:
    """Whole numbers as an output's own type, one of `INTEGERS`."""
    return x.to(getattr(torch, dtype))


def numbers(x: Tensor, dtype: str, low: int, high: int) -> Tensor:
    """An input of whole numbers, or of truth, as floats. Its type is one of `INTEGERS`; from `low`
    to `high` it was seen to be."""
    return x if x.is_floating_point() else x.to(torch.get_default_dtype())


def embedding(weight: Tensor, x: Tensor) -> Tensor:
    """The rows of `weight` (rows, features) that x numbers, (…) ↦ (…, features)."""
    return F.embedding(x.long(), weight)


INTEGERS = ("int64", "int32", "bool")


add: Function = _op.add
sub: Function = _op.sub
mul: Function = _op.mul
div: Function = _op.truediv
pow_: Function = _op.pow
neg: Function = _op.neg

# On every element alone: (x,). The names are those of files and of deployment operators.
UNARY: dict[str, Function] = {
    **{"sqrt": torch.sqrt, "rsqrt": torch.rsqrt, "exp": torch.exp, "log": torch.log},
    **{"abs": torch.abs, "neg": neg, "sign": torch.sign, "erf": torch.erf},
    **{"floor": torch.floor, "ceil": torch.ceil, "round": torch.round, "trunc": torch.trunc},
    **{"sin": torch.sin, "cos": torch.cos, "log1p": torch.log1p, "expm1": torch.expm1},
    "atan": torch.atan,
}
COMPARISONS: dict[str, Function] = {
    **{"greater": greater, "greater_equal": greater_equal},
    **{"equal": equal, "not_equal": not_equal},
}
# Over some dimensions: (x, dims, keepdim).
REDUCTIONS: dict[str, Function] = {
    **{"mean": mean, "sum": sum_, "amax": amax, "amin": amin, "prod": prod},
}

# Name in files → function. A node or a number may stand on either side of the arithmetic ones and
# of comparisons (never two numbers), and for a and b of `where`; the rest take nodes first, then
# plain integers, numbers, strings or tuples.
FUNCTIONS: dict[str, Function] = {
    "add": add,
    "sub": sub,
    "mul": mul,
    "div": div,
    "pow": pow_,
    "remainder": torch.remainder,  # of the division rounded down: it has the divisor's sign
    "atan2": torch.atan2,  # (y, x): the angle of (x, y), two nodes
    "maximum": torch.maximum,
    "minimum": torch.minimum,
    **COMPARISONS,
    "where": where,
    "matmul": torch.matmul,  # (a, b): the last two dimensions, the others broadcast
    "cat": torch.cat,  # ((a, b, …), dim)
    "reshape": torch.reshape,  # (x, shape)
    "permute": torch.permute,  # (x, dims)
    "slice": slice_dim,  # (x, dim, start, stop, step)
    "take": take,
    "pick": pick,  # (table, rows), nodes
    "grid_sample": grid_sample,  # (x, grid, mode, padding, corners)
    "dynamic_conv": dynamic_conv,  # (x, weight, stride, padding, dilation, groups)
    "pad": F.pad,  # (x, (left, right, top, bottom, …), mode, value | None)
    **REDUCTIONS,
    "argmax": argmax,
    "cumsum": cumsum,
    "topk_values": topk_values,
    "topk_indices": topk_indices,
    "batch_expand": batch_expand,
    "clamp": clamp,
    "integers": integers,
    "numbers": numbers,
    "embedding": embedding,  # (weight, x)
    **UNARY,
}
_FUNCTION_SET = frozenset(FUNCTIONS.values())
ARITHMETIC: tuple[Function, ...] = (add, sub, mul, div, pow_)
# Their operands broadcast.
BROADCASTING: tuple[Function, ...] = (
    *(*ARITHMETIC, torch.remainder, torch.atan2, torch.maximum, torch.minimum, where),
    *COMPARISONS.values(),
)


# Names that torch.fx writes into code for what is no argument: an input called `inf` would be it.
_WRITTEN = ("self", "torch", "_operator", "getattr", "inf", "nan")


def is_input_name(name: str) -> bool:
    """Whether torch.fx may write it as an argument into the code that it makes of a graph."""
    taken = name in _WRITTEN or name.startswith("shrinkc_")
    return name.isidentifier() and not keyword.iskeyword(name) and not taken


def is_node(value: object) -> TypeGuard[fx.Node]:
    return isinstance(value, fx.Node)


def module_of(graph_module: fx.GraphModule, node: fx.Node) -> nn.Module | None:
    """The module a `call_module` node calls; None for any other node."""
    if node.op != "call_module":
        return None
    module: nn.Module = graph_module
    for name in cast(str, node.target).split("."):  # `get_submodule` takes ten times as long
        module = vars(module)["_modules"][name]
    return module


def input_of(node: fx.Node) -> fx.Node:
    """The node that a one-input node reads."""
    return node.all_input_nodes[0]


def input_shapes(graph_module: fx.GraphModule) -> dict[str, tuple[int, ...]]:
    """Placeholder name → captured shape, batch included."""
    return graph_module.meta["input_shapes"]


@dataclass(frozen=True)
class WholeInput:
    """Of an input of whole numbers: its type, one of `INTEGERS`, and what was seen there."""

    dtype: str
    low: int
    high: int


def whole_input(node: fx.Node) -> WholeInput | None:
    """What a placeholder holds; None for floats."""
    for user in node.users:
        if user.target is numbers:
            return WholeInput(*cast("tuple[str, int, int]", user.args[1:]))
    return None


def check_legal(graph_module: fx.GraphModule) -> None:
    """Raise IllegalGraphError naming the first node that is not in canonical form."""
    graph_module.graph.lint()
    outputs = 0
    for node in graph_module.graph.nodes:
        problem = _problem(graph_module, node)
        if problem:
            raise IllegalGraphError(f"node '{node.name}' is not canonical: {problem}")
        outputs += node.op == "output"
    if outputs != 1:
        raise IllegalGraphError(f"the graph has {outputs} output nodes, not one")
    placeholders = {n.name for n in graph_module.graph.nodes if n.op == "placeholder"}
    if set(graph_module.meta.get("input_shapes", ())) != placeholders:
        raise IllegalGraphError("meta['input_shapes'] does not name the graph's inputs")


def _problem(graph_module: fx.GraphModule, node: fx.Node) -> str | None:
    if node.kwargs:
        return "keyword arguments"
    match node.op:
        case "placeholder":
            right = is_input_name(cast(str, node.target))
            return None if right else f"'{node.target}' cannot name an input"
        case "output":
            outputs = node.args[0]
            legal = isinstance(outputs, tuple) and len(outputs) > 0 and all(map(is_node, outputs))
            return None if legal else "the output is not a tuple of nodes"
        case "get_attr":
            return _attribute_problem(graph_module, cast(str, node.target))
        case "call_module":
            return _module_problem(graph_module, node)
        case "call_function":
            if node.target not in _FUNCTION_SET:
                return f"function {node.target} is not in the closed set"
            if node.target is integers and any(user.op != "output" for user in node.users):
                return "integers are read by something other than an output"
            if node.target is numbers and input_of(node).op != "placeholder":
                return "numbers read something other than an input"
            return None
        case _:
            return f"op {node.op}"


def _attribute_problem(graph_module: fx.GraphModule, target: str) -> str | None:
    path, _, name = target.rpartition(".")
    try:
        value: object = getattr(graph_module.get_submodule(path), name)
    except AttributeError:
        return f"attribute '{target}' does not exist"
    return None if isinstance(value, Tensor) else f"attribute '{target}' is not a tensor"


def _module_problem(graph_module: fx.GraphModule, node: fx.Node) -> str | None:
    try:
        module = module_of(graph_module, node)
    except KeyError:
        return f"module '{node.target}' does not exist"
    most = 1
    if isinstance(module, Recurrent):
        most = 3 if module.kind == "lstm" else 2
    if not 1 <= len(node.args) <= most or not all(map(is_node, node.args)):
        return "a module call takes exactly one node"
    if type(module) not in MODULES:
        return f"module class {type(module).__name__} is not in the closed set"
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and (
        module.padding_mode != "zeros" or isinstance(module.padding, str)
    ):
        return "convolutions pad with zeros and integers only"
    return None

"""What calls of the canonical form look like: of functions by their arguments, of modules by the
constructor arguments that rebuild them. Shapes are not looked at (`analysis.shapes` does)."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from typing import Any, cast, get_args

from torch import nn

from shrinkc.passes import ir
from shrinkc.passes.recurrent import Kind

Test = Callable[[Any], bool]


def _is_int(value: Any) -> bool:
    return type(value) is int


def _is_flag(value: Any) -> bool:
    return type(value) is bool


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and not math.isnan(value)


def _is_operand(value: Any) -> bool:
    return ir.is_node(value) or type(value) in (int, float)


def _at_least(least: int) -> Test:
    return lambda value: _is_int(value) and value >= least


def _in_range(least: float, most: float) -> Test:
    return lambda value: _is_number(value) and least <= value <= most


def _or_none(test: Test) -> Test:
    return lambda value: value is None or test(value)


def _one_of(words: Collection[str]) -> Test:
    return lambda value: isinstance(value, str) and value in words


def _all(test: Test, least: int = 1, most: int = 10_000) -> Test:
    def are(value: Any) -> bool:
        if not isinstance(value, tuple | list):
            return False
        items = cast("list[Any]", value)
        return least <= len(items) <= most and all(map(test, items))

    return are


def _one_or_two(test: Test) -> Test:
    pair = _all(test, 2, 2)
    return lambda value: test(value) or pair(value)


_AXIS, _COUNT, _PAIR = _at_least(0), _at_least(1), _all(_at_least(0), 2, 2)
_STEPS = _all(_COUNT, 2, 2)
_AXES = _all(_AXIS, 0, 64)
_MODES = ("constant", "reflect", "replicate", "circular")
_ON_TWO = (_is_operand, _is_operand)
_NODE: Test = ir.is_node

# By name in files; each in the order of the arguments, all of which are given.
_ARGUMENTS: dict[str, tuple[Test, ...]] = {
    **dict.fromkeys(("add", "sub", "mul", "div", "pow", "remainder"), _ON_TWO),
    **dict.fromkeys(("atan2", "maximum", "minimum", "matmul", "pick"), (_NODE, _NODE)),
    **dict.fromkeys(("batch_expand", "embedding"), (_NODE, _NODE)),
    **dict.fromkeys(ir.COMPARISONS, _ON_TWO),
    **dict.fromkeys(ir.UNARY, (_NODE,)),
    **dict.fromkeys(ir.REDUCTIONS, (_NODE, _AXES, _is_flag)),
    "where": (_NODE, *_ON_TWO),
    "cat": (_all(_NODE), _AXIS),
    "reshape": (_NODE, _all(_at_least(-1), 0, 64)),
    "permute": (_NODE, _AXES),
    "slice": (_NODE, _AXIS, _AXIS, _AXIS, _COUNT),
    "take": (_NODE, _AXIS, _all(_AXIS, most=1 << 20)),
    "grid_sample": (
        *(_NODE, _NODE, _one_of(("bilinear", "nearest", "bicubic"))),
        *(_one_of(("zeros", "border", "reflection")), _is_flag),
    ),
    "dynamic_conv": (_NODE, _NODE, _STEPS, _PAIR, _STEPS, _COUNT),
    "pad": (_NODE, _all(_is_int, most=64), _one_of(_MODES), _or_none(_is_number)),
    "argmax": (_NODE, _AXIS, _is_flag),
    "cumsum": (_NODE, _AXIS),
    "topk_values": (_NODE, _COUNT, _AXIS),
    "topk_indices": (_NODE, _COUNT, _AXIS),
    "clamp": (_NODE, _or_none(_is_number), _or_none(_is_number)),
    "integers": (_NODE, _one_of(ir.INTEGERS)),
    "numbers": (_NODE, _one_of(ir.INTEGERS), _is_int, _is_int),
}

_SIZE = _one_or_two(_or_none(_COUNT))
_FIELDS: dict[str, Test] = {
    **dict.fromkeys(("in_channels", "out_channels", "in_features", "out_features"), _COUNT),
    **dict.fromkeys(("num_features", "num_groups", "num_channels", "num_parameters"), _COUNT),
    **dict.fromkeys(("groups", "upscale_factor", "downscale_factor"), _COUNT),
    **dict.fromkeys(("input_size", "hidden_size"), _COUNT),
    **dict.fromkeys(("kernel_size", "stride", "dilation"), _one_or_two(_COUNT)),
    **dict.fromkeys(("padding", "output_padding"), _one_or_two(_AXIS)),
    **dict.fromkeys(("bias", "affine", "track_running_stats", "elementwise_affine"), _is_flag),
    **dict.fromkeys(("ceil_mode", "count_include_pad", "has_bias"), _is_flag),
    **dict.fromkeys(("reverse", "with_cell"), _is_flag),
    **dict.fromkeys(("negative_slope", "alpha", "min_val", "max_val"), _is_number),
    **dict.fromkeys(("beta", "threshold"), _is_number),
    **dict.fromkeys(("output_size", "size"), _SIZE),
    "eps": _in_range(0, 1e30),
    "momentum": _or_none(_in_range(-1e30, 1e30)),
    "p": _in_range(0, 1),
    "normalized_shape": _all(_COUNT, most=64),
    "approximate": _one_of(("none", "tanh")),
    "mode": _one_of(("nearest", "linear", "bilinear", "bicubic", "trilinear")),
    "kind": _one_of(get_args(Kind)),
    "dim": _AXIS,
    "divisor_override": _or_none(_COUNT),
    "scale_factor": _or_none(_one_or_two(_in_range(1e-6, 1e6))),
    "align_corners": _or_none(_is_flag),
    "proj_size": _AXIS,
}


def wrong_arguments(name: str, args: tuple[Any, ...]) -> str | None:
    """What is wrong with a call of `ir.FUNCTIONS[name]`; None for nothing."""
    tests = _ARGUMENTS[name]
    if len(args) != len(tests):
        return f"{name} takes {len(tests)} arguments, not {len(args)}"
    wrong = next(
        (i for i, (t, one) in enumerate(zip(tests, args, strict=True)) if not t(one)), None
    )
    if wrong is not None:
        return f"{name} cannot take that as argument {wrong + 1}"
    if tests == _ON_TWO and not any(map(ir.is_node, args)):
        return f"{name} of two numbers"
    return None


def wrong_field(kind: type[nn.Module], fields: Mapping[str, Any]) -> str | None:
    """The name of a constructor argument that cannot be one; None where all can."""
    return next((n for n in ir.MODULES[kind] if not _FIELDS[n](fields[n])), None)

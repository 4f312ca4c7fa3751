"""Unary kinds over all of float32's useful range; broadcasting."""

from math import inf

import numpy as np
import pytest
from tflite_programs import Net, check, run_reference, run_tflite

from shrinkc.compiler.export import ops
from shrinkc.compiler.export.tflite.write import write_tflite
from shrinkc.errors import UnsupportedOperatorError

UNARY = {
    ("relu",): {"RELU": 1},
    ("relu6",): {"RELU6": 1},
    ("leaky_relu", 0.1): {"LEAKY_RELU": 1},
    ("elu", 1.0): {"ELU": 1},
    ("elu", 0.3): {"ELU": 1, "LEAKY_RELU": 1},
    ("sigmoid",): {"LOGISTIC": 1},
    ("tanh",): {"TANH": 1},
    ("hard_sigmoid",): {"ADD": 1, "MUL": 1},
    ("hard_swish",): {"HARD_SWISH": 1},
    ("silu",): {"LOGISTIC": 1, "MUL": 1},
    ("mish",): None,
    ("gelu",): {"GELU": 1},
    ("gelu_tanh",): {"GELU": 1},
    ("softplus",): None,
    ("clip", 0.0, inf): {"RELU": 1},
    ("clip", 0.0, 6.0): {"RELU6": 1},
    ("clip", -1.0, 1.0): {"RELU_N1_TO_1": 1},
    ("clip", 0.0, 1.0): {"RELU": 1, "MINIMUM": 1},
    ("clip", -0.5, inf): {"MAXIMUM": 1},
    ("clip", -inf, 0.7): {"MINIMUM": 1},
    ("clip", -0.2, 0.3): {"MAXIMUM": 1, "MINIMUM": 1},
    ("abs",): {"ABS": 1},
    ("neg",): {"NEG": 1},
    ("erf",): None,
    ("sign",): {"SIGN": 1},
    ("floor",): {"FLOOR": 1},
    ("ceil",): {"CEIL": 1},
    ("round",): {"ROUND": 1},
    ("trunc",): {"FLOOR": 1, "ABS": 1, "SIGN": 1, "MUL": 1},
    ("sin",): {"SIN": 1},
    ("cos",): {"COS": 1},
}


@pytest.mark.parametrize("scale", [0.01, 3.0, 200.0])
@pytest.mark.parametrize("call", UNARY, ids=str)
def test_unary(call, scale: float) -> None:
    net = Net((2, 3, 4, 5))
    net.unary(net.x, *call)
    written = check(net.program(), scale=scale)
    assert UNARY[call] is None or written == UNARY[call]


@pytest.mark.parametrize("kind", ["sqrt", "rsqrt", "exp", "log"])
def test_unary_on_positive_values(kind: str) -> None:
    net = Net((2, 3, 4, 5))
    net.unary(net.x, kind)
    assert check(net.program(), positive=True) == {kind.upper(): 1}


@pytest.mark.parametrize("kind", ["softplus", "mish", "silu", "gelu", "erf", "hard_swish"])
def test_composed_kinds_are_accurate_everywhere(kind: str) -> None:
    x = np.concatenate([np.linspace(-120, 120, 4001), np.linspace(-3, 3, 4001)])
    net = Net(x.shape)
    net.unary(net.x, kind)
    program = net.program()
    inputs = [x.astype(np.float32)]
    (want,) = run_reference(program, inputs)
    for plain in (False, True):
        (got,) = run_tflite(program, write_tflite(program), inputs, plain)
        assert (np.abs(got - want) <= 1e-6 * np.maximum(np.abs(want), 1)).all()


@pytest.mark.parametrize("shape", [(2, 5, 4, 3), (2, 5), (2, 5, 3), (2, 5, 2, 3, 2)])
@pytest.mark.parametrize("slopes", [1, 5])
def test_prelu(shape, slopes: int) -> None:
    net = Net(shape)
    net.add(ops.PRelu, shape, net.x, net.array(slopes))
    moved = {"RESHAPE": 2} if slopes > 1 and len(shape) > 4 else {}
    assert check(net.program()) == {"LEAKY_RELU" if slopes == 1 else "PRELU": 1, **moved}


@pytest.mark.parametrize("kind", ["add", "sub", "mul", "div", "maximum", "minimum"])
@pytest.mark.parametrize("activation", ["none", "relu", "relu6"])
def test_binary(kind: str, activation: str) -> None:
    net = Net((2, 3, 4, 5), (2, 3, 4, 5))
    net.binary(*net.inputs, kind, activation=activation)
    fused = activation == "none" or kind not in ("maximum", "minimum")
    assert sum(check(net.program(), tolerance=1e-4).values()) == (1 if fused else 2)


SHAPES = [
    ((2, 3, 4, 5), (3, 1, 1)),
    ((2, 3, 4, 5), (2, 3, 1, 1)),
    ((2, 3, 4, 5), (5,)),
    ((2, 3, 4, 5), (4, 1)),
    ((2, 3, 4, 5), (1, 1, 4, 5)),
    ((2, 3, 4, 5), (1,)),
    ((2, 3, 4, 5), (1, 1, 1, 1, 1)),
    ((2, 3, 1, 1), (4, 5)),
    ((3,), (2, 1, 4, 3)),
    ((2, 3, 4), (3, 1)),
    ((4, 1), (1, 4)),
    ((1, 7, 8), (5, 7, 8)),
    ((2, 3, 2, 2, 3), (3, 1, 2, 1)),
    ((2, 3, 2, 2, 3, 2), (3, 1, 2, 1, 1)),
]


@pytest.mark.parametrize("shapes", SHAPES, ids=str)
def test_broadcasting(shapes) -> None:
    first, second = shapes
    net = Net(first, second)
    constant_b, constant_a = net.const(*second), net.const(*first)
    net.binary(*net.inputs, "sub")
    net.binary(net.inputs[0], constant_b, "sub")
    net.binary(constant_a, net.inputs[1], "sub")
    written = check(net.program(*(op.output for op in net.ops)))
    assert not written["TRANSPOSE"] or {len(first), len(second)} != {4}


@pytest.mark.parametrize("kind", ["greater", "greater_equal", "equal", "not_equal"])
@pytest.mark.parametrize("shapes", [pair for pair in SHAPES if max(map(len, pair)) < 5], ids=str)
def test_comparisons_broadcast(kind: str, shapes) -> None:
    net = Net(*shapes)
    shape = np.broadcast_shapes(*shapes)
    rounded = [net.unary(x, "round") for x in net.inputs]
    net.add(ops.Compare, shape, *rounded, kind)
    net.add(ops.Compare, shape, net.const(*shapes[0]), rounded[1], kind)
    check(net.program(*(op.output for op in net.ops[2:])), scale=2)


@pytest.mark.parametrize("shapes", SHAPES[:-1], ids=str)
def test_choices_broadcast(shapes) -> None:
    first, second = shapes
    net = Net(first, second)
    shape, number = np.broadcast_shapes(*shapes), ops.Const("one", np.array(1, np.float32))
    zero = ops.Const("zero", np.array(0, np.float32))
    truth = net.add(ops.Compare, second, net.inputs[1], zero, "greater")
    chosen = net.add(ops.Where, shape, truth, net.inputs[0], number)
    clipped = net.unary(net.inputs[0], "relu")  # a condition that was no comparison
    other = net.add(ops.Where, shape, clipped, net.const(*second), net.inputs[1])
    check(net.program(chosen, other))


def test_a_choice_reads_the_truth_itself() -> None:
    net = Net((2, 3, 4, 5))
    zero = ops.Const("zero", np.array(0, np.float32))
    truth = net.add(ops.Compare, net.x.shape, net.x, zero, "greater")
    net.add(ops.Where, net.x.shape, truth, net.x, zero)
    assert check(net.program()) == {"GREATER": 1, "SELECT_V2": 1}


def test_logarithms_and_powers_of_little() -> None:
    """Relative to each number, not to the largest: what cancels shows only there."""
    x = np.concatenate([-np.logspace(-12, -0.4, 300), np.logspace(-12, 1, 300)])
    for kind in ("log1p", "expm1"):
        net = Net(x.shape)
        net.unary(net.x, kind)
        program, inputs = net.program(), [x.astype(np.float32)]
        (want,) = run_reference(program, inputs)
        for plain in (False, True):
            (got,) = run_tflite(program, write_tflite(program), inputs, plain)
            assert (np.abs(got - want) <= 1e-6 * np.abs(want)).all(), (kind, plain)


def test_remainders_have_the_divisors_sign() -> None:
    net = Net((2, 3, 4, 5))
    for number in (1.5, -2.5):
        divisor = ops.Const("divisor", np.array(number, np.float32))
        net.binary(net.x, divisor, "remainder")
    check(net.program(*(op.output for op in net.ops)), scale=5)


def test_constant_bases_and_exponents() -> None:
    net = Net((2, 3, 4, 5))
    two = ops.Const("two", np.array(2, np.float32))
    vector = ops.Const("vector", np.array([1, 2, 3], np.float32).reshape(3, 1, 1))
    a = net.binary(two, net.x, "pow")
    b = net.binary(net.x, vector, "pow")
    assert check(net.program(a, b), positive=True) == {"POW": 2}


def test_one_number_acts_on_a_view_without_moving_it() -> None:
    net = Net((2, 12, 4, 5))
    split = net.reshape(net.x, 2, 3, 4, 4, 5)
    scaled = net.binary(split, ops.Const("half", np.array(0.5, np.float32)), "mul")
    relu = net.unary(scaled, "relu")
    both = net.binary(relu, scaled)
    net.reshape(both, 2, 12, 4, 5)
    assert check(net.program()) == {"MUL": 1, "RELU": 1, "ADD": 1}


def test_squeeze_excite_needs_no_reshape() -> None:
    net = Net((1, 8, 4, 5))
    squeezed = net.reshape(net.reduce(net.x, "mean", (2, 3)), 1, 8)
    gate = net.unary(net.linear(net.linear(squeezed, 2, activation="relu"), 8), "sigmoid")
    net.binary(net.x, net.reshape(gate, 1, 8, 1, 1), "mul")
    assert check(net.program()) == {"MEAN": 1, "FULLY_CONNECTED": 2, "LOGISTIC": 1, "MUL": 1}


def test_pow_of_many_dimensions_is_unsupported() -> None:
    net = Net((2, 3, 2, 2, 3))
    output = net.binary(net.x, net.const(3, 1, 2, 1), "pow")
    with pytest.raises(UnsupportedOperatorError, match=rf"'{output.name}' \(Binary\)") as caught:
        write_tflite(net.program())
    assert caught.value.target_format == "TFLite"

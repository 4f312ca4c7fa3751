"""Signal to noise of outputs, and what is found with it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from shrinkc.compiler.export import ops
from shrinkc.compiler.verify.signal import Signal, check_finite, is_probability, notes
from shrinkc.errors import VerificationError


def program(shape: tuple[int, ...], *kinds: str) -> ops.Program:
    """Inputs through sigmoid, softmax or reshape, one behind the other."""
    value = ops.Value("x", shape)
    written: list[ops.Op] = []
    for index, kind in enumerate(kinds):
        made = ops.Value(f"{kind}_{index}", shape)
        if kind == "softmax":
            written.append(ops.Softmax(made.name, made, value, 1))
        elif kind == "reshape":
            written.append(ops.Reshape(made.name, made, value))
        else:
            written.append(ops.Unary(made.name, made, value, kind))  # pyright: ignore
        value = made
    return ops.Program((ops.Value("x", shape),), tuple(written), (value,))


def test_decibels_over_batches() -> None:
    signal = Signal(program((2, 3)))
    want = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    for scale in (1.0, 2.0):
        signal.add([want * scale * 1.05], [want * scale])
    (found,) = signal.outputs()
    assert found.snr_db == pytest.approx(20 * math.log10(20))
    assert found.channel_snr_db == pytest.approx(20 * math.log10(20))
    assert not notes("model.tflite", [found])


def test_a_channel_that_is_lost_beside_a_large_one() -> None:
    """Scores beside boxes in pixels, all of them zero: 60 dB over all."""
    generator = np.random.default_rng(0)
    want = generator.random((4, 8, 30))
    want[:, :4] *= 640
    got = want.copy()
    got[:, 4:] = 0
    for axes in ((0, 1, 2), (0, 2, 1)):
        signal = Signal(program((4, 8, 30)))
        signal.add([got.transpose(axes)], [want.transpose(axes)])
        (found,) = signal.outputs()
        assert found.snr_db > 50
        assert found.channel_snr_db == pytest.approx(0.0)
        assert found.channel in range(4, 8)
        assert found.dimension == axes.index(1)
        assert "low signal to noise (dB) of output x" in notes("model.tflite", [found])[0]


def test_an_output_that_is_scaled_wrong_is_noted() -> None:
    want = torch.randn(8, 5, generator=torch.Generator().manual_seed(0)).numpy()
    signal = Signal(program((8, 5)))
    signal.add([want * 0.8], [want])
    (found,) = signal.outputs()
    assert found.snr_db == pytest.approx(20 * math.log10(5))
    assert found.poor


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_none_are_an_error(broken: float) -> None:
    want = np.ones((2, 3), np.float32)
    got = want.copy()
    signal = Signal(program((2, 3)))
    signal.add([got], [want])
    check_finite("model.tflite", signal.outputs())
    got[1, 1] = broken
    signal.add([got], [want])
    (found,) = signal.outputs()
    assert (found.snr_db, found.channel_snr_db, found.broken) == (-200.0, -200.0, 1)
    with pytest.raises(VerificationError, match="output 'x' is NaN or infinite in 1 number where"):
        check_finite("model.tflite", signal.outputs())


def test_infinity_that_the_network_gives_is_no_noise() -> None:
    want = np.array([[1.0, -np.inf]])
    signal = Signal(program((1, 2)))
    signal.add([want.copy()], [want])
    (found,) = signal.outputs()
    assert (found.snr_db, found.broken) == (200.0, 0)
    signal.add([np.array([[1.0, 5.0]])], [want])
    assert signal.outputs()[0].snr_db == -200.0


def test_probabilities_of_classes_that_are_not_there() -> None:
    """They are noise, of a size that nobody sees; the same numbers of other kinds may matter."""
    want = np.tile(np.array([[0.9, 0.1, 1e-5]]), (6, 1))
    got = np.round(want * 256) / 256
    for kinds, poor in ((("softmax", "reshape"), False), (("exp",), True)):
        signal = Signal(program((6, 3), *kinds))
        signal.add([got], [want])
        assert signal.outputs()[0].poor == poor


def test_which_outputs_are_probabilities() -> None:
    for kinds, probable in (
        (("sigmoid",), True),
        (("softmax", "reshape"), True),
        (("sigmoid", "exp"), False),
        ((), False),
    ):
        made = program((2, 3), *kinds)
        assert is_probability(made, made.outputs[0].name) == probable


def test_an_output_of_one_number() -> None:
    signal = Signal(program((4,)))
    signal.add([np.ones(4)], [np.ones(4)])
    assert signal.outputs()[0].channel is None

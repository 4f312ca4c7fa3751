"""Signal to noise: by hand on one layer, summed over batches, of one layer and of all."""

from __future__ import annotations

import math

import pytest
import torch
from int8_networks import family, images, skewed
from torch import fx, nn

from shrinkc.compiler.capture import capture
from shrinkc.compiler.export.lower import lower
from shrinkc.compiler.quantise.noise import decibels, network_noise, own_noise
from shrinkc.compiler.quantise.options import MOST_DB
from shrinkc.compiler.quantise.ranges import calibrate
from shrinkc.compiler.quantise.simulate import Quantisation

SEEN = images(8)


def quantisation(graph: fx.GraphModule, *keep_fp32: str) -> Quantisation:
    program = lower(graph)
    ranges = calibrate(graph, program.names, SEEN, lambda: None)
    return Quantisation(program, ranges, frozenset(keep_fp32))


def one_layer(weight: float) -> tuple[fx.GraphModule, Quantisation]:
    """y = w·x; levels are 0.1 apart."""
    layer = nn.Conv2d(1, 1, 1, bias=False)
    nn.init.constant_(layer.weight, weight)
    graph = capture(layer.eval(), (torch.zeros(1, 1, 2, 2),))
    program = lower(graph)
    return graph, Quantisation(program, dict.fromkeys(program.names, (0.0, 25.5)))


def test_one_layer_by_hand() -> None:
    graph, made = one_layer(1.0)
    x = torch.tensor([[[[1.0, 2.04], [3.12, 30.0]]]])
    # 1 → 1; 2.04 → 2.0; 3.12 → 3.1; 30 → 25.5, the last level
    signal = 1 + 2.04**2 + 3.12**2 + 30**2
    noise = 0.04**2 + 0.02**2 + 4.5**2
    (decibel,) = own_noise(graph, made, [(x,)]).values()
    assert decibel == pytest.approx(10 * math.log10(signal / noise), abs=1e-3)
    (together,) = network_noise(graph, made, [(x,)]).values()
    assert together == pytest.approx(decibel, abs=1e-3)  # rounding twice is rounding once


def test_no_noise_and_no_signal() -> None:
    assert decibels(4, 0) == MOST_DB
    assert decibels(0, 1) == -MOST_DB
    assert decibels(100, 1) == 20
    graph, made = one_layer(1.0)
    assert list(own_noise(graph, made, [(torch.ones(1, 1, 2, 2),)]).values()) == [MOST_DB]


@pytest.mark.parametrize("measure", [own_noise, network_noise])
def test_batches_do_not_matter(measure) -> None:
    graph = skewed()
    made = quantisation(graph)
    together = [(torch.cat([x for (x,) in SEEN]),)]
    apart = measure(graph, made, SEEN)
    assert list(apart) == list(made.layers())
    for layer, decibel in measure(graph, made, together).items():
        assert decibel == pytest.approx(apart[layer], abs=0.01)


def test_noise_comes_together_along_the_network() -> None:
    graph = family("mobilenet_v2")
    made = quantisation(graph)
    own, network = own_noise(graph, made, SEEN), network_noise(graph, made, SEEN)
    assert all(network[layer] < own[layer] + 1 for layer in own)
    assert sum(own.values()) > sum(network.values()) + 3 * len(own)


def test_layers_in_fp32_take_their_noise_away() -> None:
    graph = skewed()
    made = quantisation(graph)
    own = own_noise(graph, made, SEEN)
    worst = min(own, key=own.__getitem__)
    before = network_noise(graph, made, SEEN)
    after = network_noise(graph, quantisation(graph, worst), SEEN)
    assert after[worst] > before[worst] + 3
    assert own_noise(graph, quantisation(graph, worst), SEEN) == own  # what it would be in int8

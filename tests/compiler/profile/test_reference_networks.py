"""The networks that calibration runs: every kind of operator, small enough for a board."""

from __future__ import annotations

import pytest
import torch

from shrinkc.compiler.capture import capture
from shrinkc.compiler.cost.keys import keyed
from shrinkc.compiler.export.lower import lower
from shrinkc.compiler.profile.reference_networks import REFERENCE_NETWORKS, ReferenceNetwork
from shrinkc.latency_tables.kernels.features import operator_class


def operators(network: ReferenceNetwork) -> set[str]:
    program = lower(capture(network.model(), (torch.randn(network.input_shape),)))
    assert 5e6 < sum(key.macs for _, key in keyed(program, "fp32")) < 1e9
    return {operator_class(key) for _, key in keyed(program, "fp32")}


def test_together_they_hold_every_kind() -> None:
    kinds = set[str]().union(*map(operators, REFERENCE_NETWORKS))
    assert kinds >= {
        *("pointwise_conv", "dense_conv", "image_conv", "depthwise_conv2d", "grouped_conv"),
        *("matrix_vector", "elementwise", "mean", "max_pool", "concat"),
    }


@pytest.mark.parametrize("network", REFERENCE_NETWORKS[:3], ids=lambda n: n.name)
def test_weights_are_the_same_every_time(network: ReferenceNetwork) -> None:
    first, second = network.model().state_dict(), network.model().state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_names_tell_them_apart() -> None:
    assert len({network.name for network in REFERENCE_NETWORKS}) == len(REFERENCE_NETWORKS) == 12

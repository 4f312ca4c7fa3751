"""The classes that coverage is kept by."""

import pytest

from shrinkc.latency_tables.kernels.features import operator_class
from shrinkc.latency_tables.kernels.registry import KERNELS
from shrinkc.latency_tables.key import OpKey


@pytest.mark.parametrize(
    ("key", "name"),
    [
        (OpKey("conv2d", 3, 8, (3, 3), out_size=(9, 9)), "image_conv"),
        (OpKey("conv2d", 8, 8, (3, 3), out_size=(9, 9)), "dense_conv"),
        (OpKey("conv2d", 8, 8, out_size=(9, 9)), "pointwise_conv"),
        (OpKey("conv2d", 8, 8), "matrix_vector"),
        (OpKey("linear", 8, 8), "matrix_vector"),
        (OpKey("linear", 8, 8, out_size=(9, 1)), "matrix_product"),
        (OpKey("conv2d", 8, 8, groups=2, out_size=(9, 9)), "grouped_conv"),
        (OpKey("hard_sigmoid", 8, 8), "elementwise"),
        (OpKey("gelu", 8, 8), "gelu"),
        (OpKey("conv_transpose2d", 8, 8), "conv_transpose2d"),
    ],
)
def test_classes(key: OpKey, name: str) -> None:
    assert operator_class(key) == name


@pytest.mark.parametrize("name", KERNELS)
def test_every_amount_has_a_unit_and_the_network_comes_last(name: str) -> None:
    from shrinkc.latency_tables.kernels import ruy, xnnpack

    module = {"ruy": ruy, "xnnpack": xnnpack}[name]
    assert list(KERNELS[name].features) == [*module.Amounts._fields, "network"]

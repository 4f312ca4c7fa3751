"""From a listing of GPU kernels to the operators a CPU runs."""

import csv
from pathlib import Path

import pytest

from shrinkc.errors import TableError
from shrinkc.latency_tables.key import OpKey
from shrinkc.latency_tables.makers.op_listing import KERNEL_COLUMN, read_networks

Shape = tuple[
    object, ...
]  # input side, input channels, output side, stride, kernel, filters, groups
_NAMES = ("Input_shape", "Input_channel", "Output_shape", "Stride", "Kernel", "Filter", "Group")


def write_listing(folder: Path, rows: list[tuple[str, Shape, str]]) -> Path:
    path = folder / "tflite_cnn_ops_gpu.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("model", "operation", "feature", KERNEL_COLUMN))
        for operation, shape, kernel in rows:
            named = zip(_NAMES, shape, strict=True)
            feature = {name: v if name == "Input_channel" else str(v) for name, v in named}
            writer.writerow(("net", operation, feature, kernel))
    return path


def executed(folder: Path, *rows: tuple[str, Shape, str]) -> list[str]:
    """op channels@side→side activation, of each operator."""
    ops = read_networks(write_listing(folder, list(rows)), "int8")["net"]
    assert all(key.precision == "int8" for key in ops)
    return [
        f"{key.op} {key.out_channels}@{key.in_size[0]}→{key.out_size[0]} {key.activation}"
        for key in ops
    ]


CONV = ("CONV_2D", (56, 64, 56, 1, 1, 128, 1), "convolution_2d_0_linked_:_relu_1")


def test_merged_activations_are_fused_and_merged_sums_are_operators(tmp_path: Path) -> None:
    projected = ("CONV_2D", (56, 128, 56, 1, 1, 64, 1), "convolution_2d_2_linked_:_add_3")
    assert executed(tmp_path, CONV, projected) == [
        "conv2d 128@56→56 relu",
        "conv2d 64@56→56 none",
        "add 64@56→56 none",
    ]


def test_a_skipped_number_before_a_larger_window_is_padding_which_the_window_bears(
    tmp_path: Path,
) -> None:
    depthwise = (
        *("DEPTHWISE_CONV_2D", (59, 128, 28, 2, 5, 1, 1)),
        "depthwise_convolution_3_linked_:_hard_swish_4",
    )
    assert executed(tmp_path, CONV, depthwise) == [
        "conv2d 128@56→56 relu",
        "depthwise_conv2d 128@59→28 none",
        "hard_swish 128@28→28 none",
    ]


def test_a_window_that_was_never_padded_is_not_padded_here(tmp_path: Path) -> None:
    stem = ("CONV_2D", (224, 3, 111, 2, 3, 64, 1), "convolution_2d_0_linked_:_relu_1")
    assert executed(tmp_path, stem) == ["conv2d 64@224→111 relu"]


def test_batch_norms_that_could_not_be_folded(tmp_path: Path) -> None:
    """DenseNet: behind a concatenation, as kernels of their own or merged into it."""
    concat = ("CONCATENATION", (56, 128, 56, "-", 2, 160, "-"), "concat_2")
    after = ("CONV_2D", (56, 160, 56, 1, 1, 128, 1), "convolution_2d_6")
    expected = [
        *("conv2d 128@56→56 relu", "concat 160@56→56 none"),
        *("mul 160@56→56 none", "add 160@56→56 relu", "conv2d 128@56→56 none"),
    ]
    assert executed(tmp_path, CONV, concat, after) == expected
    merged = (*concat[:2], "concat_2_linked_:_mul_3_linked_:_add_4_linked_:_relu_5")
    assert executed(tmp_path, CONV, merged, after) == expected


def test_squeeze_excite_scales_the_map_it_squeezed(tmp_path: Path) -> None:
    """And the residual sum that follows."""
    found = executed(
        tmp_path,
        CONV,
        ("MEAN", (56, 128, 128, "-", 1, "-", "-"), "mean_2"),
        ("CONV_2D", (1, 128, 1, 1, 1, 8, 1), "fully_connected_3_linked_:_relu_4"),
        ("CONV_2D", (1, 8, 1, 1, 1, 128, 1), "fully_connected_5_linked_:_sigmoid_6"),
        ("CONV_2D", (56, 128, 56, 1, 1, 64, 1), "convolution_2d_9"),
    )
    assert found[1:] == [
        *("mean 128@56→1 none", "conv2d 8@1→1 relu", "conv2d 128@1→1 none"),
        *("sigmoid 128@1→1 none", "mul 128@56→56 none", "add 128@56→56 none"),
        "conv2d 64@56→56 none",
    ]


def test_what_else_is_listed(tmp_path: Path) -> None:
    rows = [
        ("CONV_2D_GROUP", (28, 96, 28, 1, 3, 96, 4), "convolution_2d_grouped_0_linked_:_relu_1"),
        ("MAX_POOL_2D", (28, 96, 14, 2, 2, "-", "-"), "pooling_2d_2"),
        ("AVERAGE_POOL_2D", (14, 96, 1, 1, 14, "-", "-"), "mean_3"),
        ("FULLY_CONNECTED", ("-", 96, "-", "-", "-", 10, "-"), "fully_connected_4"),
    ]
    ops = read_networks(write_listing(tmp_path, rows), "fp32")["net"]
    assert ops == (
        OpKey(
            *("conv2d", 96, 96, (3, 3)),
            groups=4,
            in_size=(28, 28),
            out_size=(28, 28),
            activation="relu",
        ),
        OpKey("max_pool", 96, 96, (2, 2), (2, 2), in_size=(28, 28), out_size=(14, 14)),
        OpKey("avg_pool", 96, 96, (14, 14), in_size=(14, 14)),
        OpKey("linear", 96, 10),
    )


@pytest.mark.parametrize(
    ("operation", "shape", "kernel"),
    [
        ("WINOGRAD", (1, 1, 1, 1, 1, 1, 1), "convolution_2d_0"),
        ("CONV_2D", ("wide", 1, 1, 1, 1, 1, 1), "convolution_2d_0"),
        ("CONV_2D", (1, 1, 1, 1, 1, 1, 1), ""),
    ],
)
def test_what_it_does_not_understand_is_refused(
    tmp_path: Path, operation: str, shape: Shape, kernel: str
) -> None:
    with pytest.raises(TableError, match="not a list of operators"):
        read_networks(write_listing(tmp_path, [(operation, shape, kernel)]), "fp32")

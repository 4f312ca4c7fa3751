"""From a listing of GPU kernels to operators and their times."""

import csv
from pathlib import Path

import pytest

from shrinkc.errors import TableError
from shrinkc.latency_tables.key import OpKey
from shrinkc.latency_tables.makers.sources.op_listing import KERNEL_COLUMN, read_timed

Shape = tuple[
    object, ...
]  # input side, input channels, output side, stride, kernel, filters, groups
_NAMES = ("Input_shape", "Input_channel", "Output_shape", "Stride", "Kernel", "Filter", "Group")
US = 7.5


def timed(folder: Path, *rows: tuple[str, Shape, str]) -> list[tuple[OpKey, float]]:
    path = folder / "tflite_cnn_ops_gpu.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("model", "operation", "feature", KERNEL_COLUMN, "us"))
        for operation, shape, kernel in rows:
            named = zip(_NAMES, shape, strict=True)
            feature = {name: v if name == "Input_channel" else str(v) for name, v in named}
            writer.writerow(("net", operation, feature, kernel, US))
    return read_timed(path, "us", "fp32")["net"]


def test_what_is_listed(tmp_path: Path) -> None:
    found = timed(
        tmp_path,
        ("CONV_2D_GROUP", (28, 96, 28, 1, 3, 96, 4), "convolution_2d_grouped_0_linked_:_relu_1"),
        ("MAX_POOL_2D", (28, 96, 14, 2, 2, "-", "-"), "pooling_2d_2"),
        ("AVERAGE_POOL_2D", (14, 96, 1, 1, 14, "-", "-"), "mean_3"),
        ("FULLY_CONNECTED", ("-", 96, "-", "-", "-", 10, "-"), "fully_connected_4"),
    )
    grouped = OpKey(
        *("conv2d", 96, 96, (3, 3)),
        groups=4,
        in_size=(28, 28),
        out_size=(28, 28),
        activation="relu",
    )
    assert found == [
        (grouped, US),
        (OpKey("max_pool", 96, 96, (2, 2), (2, 2), in_size=(28, 28), out_size=(14, 14)), US),
        (OpKey("avg_pool", 96, 96, (14, 14), in_size=(14, 14)), US),
        (OpKey("linear", 96, 10), US),
    ]


def test_what_is_merged_into_a_kernel_is_no_operator(tmp_path: Path) -> None:
    row = ("CONV_2D", (56, 64, 56, 1, 1, 128, 1), "convolution_2d_0_linked_:_add_1_linked_:_relu_2")
    ((key, us),) = timed(tmp_path, row)
    assert (key.op, key.activation, us) == ("conv2d", "relu", US)


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
        timed(tmp_path, (operation, shape, kernel))

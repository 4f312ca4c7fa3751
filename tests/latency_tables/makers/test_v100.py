"""The v100 tables' script, on made-up convolutions; the shipped tables' stated error."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest

from shrinkc.errors import TableError
from shrinkc.latency_tables.key import OpKey
from shrinkc.latency_tables.makers import v100
from shrinkc.latency_tables.store import load_table


def lines(scale: float) -> str:
    made = []
    for batch, inside, size, out, stride in product((1, 32), (8, 16, 32), (7, 14), (8, 16), (1, 2)):
        ms = scale * (0.01 + batch * inside * out * size * size / 1e9)
        made.append(f"{{Regular,{batch},{inside},{size},{size},{out},3,{stride},1}} {ms:.6g}")
        made.append(
            f"{{Depthwise,{batch},{inside},{size},{size},{inside},3,{stride},0}} {ms / 2:.6g}"
        )
    return "\n".join(dict.fromkeys(made))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for precision, scale in (("fp32", 2.0), ("fp16", 1.0), ("int8", 0.5)):
        (tmp_path / f"conv_{precision}.txt").write_text(lines(scale))
    return tmp_path


def test_batches_become_tables_and_milliseconds_microseconds(data: Path) -> None:
    table = v100.build(v100.read_samples(data), 32)
    assert (table.target, table.meta.batch) == ("v100/tensorrt-b32", 32)
    key = OpKey(
        *("conv2d", 8, 16, (3, 3), (2, 2)),
        in_size=(7, 7),
        out_size=(4, 4),
        activation="relu",
        precision="fp16",
    )
    assert table.measured[key].median_us == pytest.approx(10 + 32 * 8 * 16 * 49 / 1e6, rel=1e-4)
    depthwise = [k for k in table.measured if k.op == "depthwise_conv2d"]
    assert all(k.groups == k.in_channels == k.out_channels for k in depthwise)


def test_a_damaged_line_is_named(data: Path) -> None:
    path = data / "conv_fp16.txt"
    path.write_text(path.read_text().replace("Regular,1", "Regular,x", 1))
    with pytest.raises(TableError, match=r"conv_fp16.txt line 1: not a convolution"):
        v100.read_samples(data)


@pytest.mark.parametrize("batch", v100.BATCHES)
def test_the_shipped_tables_state_their_error(batch: int) -> None:
    table = load_table(f"v100/tensorrt-b{batch}")
    for precision in table.precisions:
        error = table.mean_error_percent(precision, "operator")
        assert error is not None
        assert 0 < error < 8
    assert table.meta.licence == "Apache-2.0"


def test_short_names_mean_batch_one() -> None:
    assert load_table("gpu").target == load_table("v100").target == "v100/tensorrt-b1"

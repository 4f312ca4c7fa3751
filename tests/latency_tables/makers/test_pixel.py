"""The scripts of the Pixel tables, on small data of the sources' form with planted prices."""

import csv
from pathlib import Path

import pytest

from shrinkc.errors import TableError
from shrinkc.latency_tables.kernels.ruy import amounts
from shrinkc.latency_tables.makers import pixel3, pixel4_cpu
from shrinkc.latency_tables.makers.fbnet_blocks import read_blocks
from shrinkc.latency_tables.makers.networks import OpList
from shrinkc.latency_tables.makers.op_listing import KERNEL_COLUMN, read_networks
from shrinkc.latency_tables.store import read_table

PLANTED = {"gemm": 50.0, "activations": 0.06, "depthwise": 200.0, "operator": 2.0}
NETWORK_US = 300.0
LISTING, TOTALS = "tflite_cnn_ops_gpu.csv", "tflite_cnn_e2e.csv"


def planted_us(ops: OpList) -> float:
    counted = (amounts(k, pixel4_cpu.TILES["fp32"], pixel4_cpu.CACHES)._asdict() for k in ops)
    return sum(PLANTED[name] * one[name] for one in counted for name in PLANTED)


def write(path: Path, header: tuple[str, ...], rows: list[tuple[object, ...]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)


def separable(width: int) -> list[tuple[str, dict[str, object], str]]:
    """A pointwise and a padded depthwise convolution at two sizes."""
    rows: list[tuple[str, dict[str, object], str]] = []
    for index, (side, channels) in enumerate(((56, width), (28, 2 * width))):
        shape = {"Input_shape": str(side), "Input_channel": channels, "Output_shape": str(side)}
        first = 5 * index
        rows.append(
            (
                "CONV_2D",
                {**shape, "Stride": "1", "Kernel": "1", "Filter": str(channels), "Group": "1"},
                f"convolution_2d_{first}_linked_:_relu_{first + 1}",
            )
        )
        padded = {**shape, "Input_shape": str(side + 2), "Stride": "1", "Kernel": "3"}
        rows.append(
            (
                "DEPTHWISE_CONV_2D",
                {**padded, "Filter": "1", "Group": "1"},
                f"depthwise_convolution_{first + 3}_linked_:_relu_{first + 4}",
            )
        )
    return rows


@pytest.fixture
def pixel4_data(tmp_path: Path) -> Path:
    widths = (8, 16, 24, 40, 64, 96, 160, 256)
    listing = [(f"net_w{w}", *row) for w in widths for row in separable(w)]
    write(tmp_path / LISTING, ("model", "operation", "feature", KERNEL_COLUMN), listing)
    totals = [
        (name, NETWORK_US + planted_us(ops), 0.4 * (NETWORK_US + planted_us(ops)))
        for name, ops in read_networks(tmp_path / LISTING, "fp32").items()
    ]
    write(tmp_path / TOTALS, ("model", *pixel4_cpu.COLUMNS.values()), totals)
    return tmp_path


def test_pixel4_is_made_of_two_files(pixel4_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--data", str(pixel4_data), "--out", str(pixel4_data / "table")]
    pixel4_cpu.main(arguments)
    assert "pixel4/tflite-cpu int8, network held out" in capsys.readouterr().out
    table = read_table(pixel4_data / "table", "pixel4/tflite-cpu")
    held_out = table.mean_error_percent("fp32", "network")
    assert held_out is not None
    assert held_out < 3
    texts = {path.name: path.read_text("utf-8") for path in (pixel4_data / "table").iterdir()}
    pixel4_cpu.main(arguments)
    assert texts == {p.name: p.read_text("utf-8") for p in (pixel4_data / "table").iterdir()}


def test_a_column_in_milliseconds_is_noticed(pixel4_data: Path) -> None:
    """One network a thousand times too fast: the others say so."""
    path = pixel4_data / TOTALS
    lines = path.read_text("utf-8").splitlines()
    name, us, quantised = lines[3].split(",")
    lines[3] = f"{name},{float(us) / 1e3},{quantised}"
    path.write_text("\n".join(lines) + "\n", "utf-8")
    with pytest.raises(TableError, match=rf"{name} \(fp32\): .*check the unit"):
        pixel4_cpu.build(pixel4_data)


def test_a_network_without_operators_is_refused(pixel4_data: Path) -> None:
    with (pixel4_data / TOTALS).open("a", encoding="utf-8") as file:
        file.write("alexnet,1000,500\n")
    with pytest.raises(TableError, match="network alexnet has no operators"):
        pixel4_cpu.build(pixel4_data)
    (pixel4_data / TOTALS).write_text("model\nnet_w8\n", "utf-8")
    with pytest.raises(TableError, match="not a list of networks"):
        pixel4_cpu.build(pixel4_data)


def test_families_are_held_out_together() -> None:
    names = ("mobilenetv2b_wd4", "mobilenet_w1", "sepreresnet10", "seresnet12", "vovnet27s")
    families = [pixel4_cpu.family(name) for name in names]
    assert families == ["mobilenetv2", "mobilenetv1", "preresnet", "resnet", "vovnet27s"]


BLOCK_COLUMNS = (
    *("device", "h_in", "cin", "cout", "expansion", "kernel", "stride", "groups_1x1", "op"),
    "rel_to_skip_ms",
)


def test_pixel3_is_made_of_blocks(tmp_path: Path) -> None:
    path = tmp_path / "recovered_fbnet_cifar_lut.csv"
    shapes = [
        (h, cin, cout, e, k, s, 1, f"k{k}_e{e}")
        for h, cin, cout, s in ((32, 16, 16, 1), (32, 24, 32, 2), (16, 32, 64, 2), (8, 64, 64, 1))
        for e in (1, 3, 6)
        for k in (3, 5)
    ]
    blank: list[tuple[object, ...]] = [("pixel3", *shape, 1.0) for shape in shapes]
    write(path, BLOCK_COLUMNS, blank)
    us = {s.network: planted_us(s.ops) - planted_us(s.less) for s in read_blocks(path, "pixel3")}
    timed = [
        ("pixel3", *s, us[f"block-{s[0]}-{s[1]}-{s[2]}-{s[7]}"] / 250) for s in shapes
    ]  # four times slower than planted
    others = [
        ("raspi4", *shapes[0], 99.0),
        ("pixel3", 32, 16, 16, 1, 3, 1, 2, "k3_e1_g2", 99.0),
        ("pixel3", *[""] * 7, "CONST", 2.8),
    ]
    write(path, BLOCK_COLUMNS, [*timed, *others])
    table = pixel3.build(tmp_path)
    assert {v.network for v in table.validation} == set(us)
    held_out = table.mean_error_percent("fp32", "network")
    assert held_out is not None
    assert held_out < 5
    assert table.models["fp32"].coefficients["gemm"].value == pytest.approx(200, rel=0.15)


def test_blocks_that_are_none_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "blocks.csv"
    write(path, BLOCK_COLUMNS, [("pixel3", 32, 16, 16, "one", 3, 1, 1, "k3_e1", 1.0)])
    with pytest.raises(TableError, match="not a list of blocks"):
        read_blocks(path, "pixel3")
    with pytest.raises(TableError, match="no block of pixel9"):
        read_blocks(path, "pixel9")

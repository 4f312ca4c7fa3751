"""The scripts of the Pixel tables, on planted prices of real networks."""

import csv
from pathlib import Path

import pytest

from shrinkc.errors import TableError
from shrinkc.latency_tables.kernels.ruy import amounts
from shrinkc.latency_tables.makers import pixel3, pixel4_cpu
from shrinkc.latency_tables.makers.sources.fbnet_blocks import read_blocks
from shrinkc.latency_tables.makers.sources.lists import read_lists
from shrinkc.latency_tables.makers.sources.networks import OpList
from shrinkc.latency_tables.store import read_table

PLANTED = {"gemm": 50.0, "activations": 0.06, "depthwise": 200.0, "operator": 2.0}
NETWORK_US = 300.0
FILE = "tflite_cnn_e2e.csv"
COLUMNS = tuple(
    f"pixel4|{cores.column}|{kind}|mean"
    for cores in pixel4_cpu.CORES.values()
    for kind in ("float", "quant")
)
LARGE = "pixel4/tflite-cpu"
EVERY_THIRD = sorted(read_lists("qed"))[::3]


def planted_us(ops: OpList) -> float:
    counted = (amounts(k, pixel4_cpu.TILES["fp32"], pixel4_cpu.CACHES)._asdict() for k in ops)
    return sum(PLANTED[name] * one[name] for one in counted for name in PLANTED)


def write(path: Path, header: tuple[str, ...], rows: list[tuple[object, ...]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)


@pytest.fixture
def pixel4_data(tmp_path: Path) -> Path:
    lists = read_lists("qed")
    us = {name: NETWORK_US + planted_us(lists[name]) for name in EVERY_THIRD}
    write(tmp_path / FILE, ("model", *COLUMNS), [(n, *(us[n], 0.4 * us[n]) * 4) for n in us])
    return tmp_path


def test_pixel4_is_made_of_whole_networks(
    pixel4_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--data", str(pixel4_data), "--out", str(pixel4_data / "tables")]
    pixel4_cpu.main(arguments)
    said = capsys.readouterr().out
    assert all(f"{target} int8, network held out" in said for target in pixel4_cpu.CORES)
    folder = pixel4_data / "tables" / "pixel4" / "tflite-cpu"
    held_out = read_table(folder, LARGE).mean_error_percent("fp32", "network")
    assert held_out is not None
    assert held_out < 3
    texts = {path.name: path.read_text("utf-8") for path in folder.iterdir()}
    pixel4_cpu.main(arguments)
    assert texts == {p.name: p.read_text("utf-8") for p in folder.iterdir()}


def test_a_column_in_milliseconds_is_noticed(pixel4_data: Path) -> None:
    """One network a thousand times too fast: the others say so."""
    path = pixel4_data / FILE
    lines = path.read_text("utf-8").splitlines()
    name, us, *rest = lines[3].split(",")
    lines[3] = ",".join((name, str(float(us) / 1e3), *rest))
    path.write_text("\n".join(lines) + "\n", "utf-8")
    with pytest.raises(TableError, match=rf"{name} \(fp32\): .*check the unit"):
        pixel4_cpu.build(pixel4_data, LARGE)


def test_a_network_without_operators_is_refused(pixel4_data: Path) -> None:
    with (pixel4_data / FILE).open("a", encoding="utf-8") as file:
        file.write("alexnet" + ",1000" * len(COLUMNS) + "\n")
    with pytest.raises(TableError, match="alexnet has no operators"):
        pixel4_cpu.build(pixel4_data, LARGE)
    (pixel4_data / FILE).write_text("model\nresnet10\n", "utf-8")
    with pytest.raises(TableError, match="not a list of networks"):
        pixel4_cpu.build(pixel4_data, LARGE)


def test_families_are_held_out_together() -> None:
    names = ("mobilenetv2b_wd4", "mobilenet_w1", "sepreresnet10", "seresnet12", "vovnet27s")
    families = [pixel4_cpu.family(name) for name in names]
    assert families == ["mobilenetv2", "mobilenetv1", "preresnet", "resnet", "vovnet27s"]


def test_pixel3_is_the_pixel4_at_the_speed_of_its_figures(pixel4_data: Path) -> None:
    table = pixel3.build(pixel4_data)
    assert {v.network for v in table.validation} == {s.network for s in pixel3.published()}
    held_out = table.mean_error_percent("fp32", "network")
    assert held_out is not None
    assert held_out < 20
    known = pixel4_cpu.build(pixel4_data, LARGE).models["fp32"].coefficients
    ours = table.models["fp32"].coefficients
    ratios = [ours[name].value / known[name].value for name in ("gemm", "depthwise")]
    assert max(ratios) < 2 * min(ratios)


BLOCK_COLUMNS = (
    *("device", "h_in", "cin", "cout", "expansion", "kernel", "stride", "groups_1x1", "op"),
    "rel_to_skip_ms",
)


def test_blocks_that_are_none_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "blocks.csv"
    write(path, BLOCK_COLUMNS, [("pixel3", 32, 16, 16, "one", 3, 1, 1, "k3_e1", 1.0)])
    with pytest.raises(TableError, match="not a list of blocks"):
        read_blocks(path, "pixel3")
    with pytest.raises(TableError, match="no block of pixel9"):
        read_blocks(path, "pixel9")

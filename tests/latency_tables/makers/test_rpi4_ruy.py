"""The shipped ruy table is what its script makes of its stated measurements."""

import csv
from importlib.resources import files
from pathlib import Path

import pytest

from shrinkc.errors import TableError
from shrinkc.latency_tables.makers import rpi4_ruy
from shrinkc.latency_tables.store import load_table

SHIPPED = Path(str(files("shrinkc.latency_tables"))) / "data" / "rpi4" / "tflite-ruy"
Rows = list[tuple[str, str, str, str]]


def write_results(folder: Path, rows: Rows) -> None:
    with (folder / "rpi4_singlestream.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("round", "system", "model", "p50_ms"))
        writer.writerows(rows)


def stated() -> Rows:
    measured = {v.network: v.measured_ms for v in load_table("rpi4/tflite-ruy").validation}
    mine = (rpi4_ruy.ROUND, rpi4_ruy.SYSTEM)
    return [(*mine, name, f"{ms:.4f}") for name, ms in measured.items()]


def test_the_script_rebuilds_the_shipped_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = ("v2.0", rpi4_ruy.SYSTEM, "resnet50", "1.0"), ("v2.1", "rpi4-armnn", "vgg", "1.0")
    write_results(tmp_path, [other[0], *stated(), other[1]])
    rpi4_ruy.main(["--data", str(tmp_path), "--out", str(tmp_path / "rpi4")])
    assert "network held out" in capsys.readouterr().out
    for path in SHIPPED.iterdir():
        assert (tmp_path / "rpi4" / path.name).read_text("utf-8") == path.read_text("utf-8")


def test_bad_results_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    mine = (rpi4_ruy.ROUND, rpi4_ruy.SYSTEM)
    for rows, message in (
        ([], "no result of rpi4-tflite"),
        ([(*mine, "alexnet", "1.0")], "'alexnet' is no network"),
        ([(*mine, "resnet50", "fast")], "not a list of MLPerf results"),
    ):
        write_results(tmp_path, rows)
        with pytest.raises(SystemExit, match=message):
            rpi4_ruy.main(["--data", str(tmp_path), "--out", str(tmp_path / "rpi4")])
    with pytest.raises(TableError, match="not a list of MLPerf results"):
        rpi4_ruy.read_samples(tmp_path / "missing.csv")
    assert not (tmp_path / "rpi4").exists()


@pytest.mark.parametrize("factor", [1e3, 1e-3])
def test_a_measurement_in_another_unit_is_refused(tmp_path: Path, factor: float) -> None:
    """One network in microseconds, or in seconds, among milliseconds."""
    wrong = "mobilenet-v2-1.0-224-non-quantized"
    rows: Rows = [
        (*row[:3], f"{float(row[3]) * factor:.6f}" if row[2] == wrong else row[3])
        for row in stated()
    ]
    write_results(tmp_path, rows)
    with pytest.raises(SystemExit, match=rf"{wrong} \(fp32\): .* ms measured.*check the unit"):
        rpi4_ruy.main(["--data", str(tmp_path), "--out", str(tmp_path / "rpi4")])
    assert not (tmp_path / "rpi4").exists()

"""The shipped table is what its script makes of its stated measurements."""

import csv
from importlib.resources import files
from pathlib import Path

import pytest
from shrinkc.compiler.errors import TableError
from shrinkc.latency_tables import build_rpi4
from shrinkc.latency_tables.networks import OpList
from shrinkc.latency_tables.sequence import OpSequence
from shrinkc.latency_tables.store import load_table

SHIPPED = Path(str(files("shrinkc.latency_tables"))) / "data" / "rpi4"


def write_results(folder: Path, rows: list[tuple[str, str, str, str]]) -> None:
    with (folder / "rpi4_singlestream.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("round", "system", "model", "p50_ms"))
        writer.writerows(rows)


def test_the_script_rebuilds_the_shipped_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    measured = {v.network: v.measured_ms for v in load_table("rpi4").validation}
    other = ("v2.0", build_rpi4.SYSTEM, "resnet50", "1.0"), ("v2.1", "rpi4-armnn", "vgg", "1.0")
    mine = [(build_rpi4.ROUND, build_rpi4.SYSTEM, n, f"{ms:.4f}") for n, ms in measured.items()]
    write_results(tmp_path, [other[0], *mine, other[1]])
    build_rpi4.main(["--data", str(tmp_path), "--out", str(tmp_path / "rpi4")])
    assert "network held out" in capsys.readouterr().out
    for path in SHIPPED.iterdir():
        assert (tmp_path / "rpi4" / path.name).read_text("utf-8") == path.read_text("utf-8")


def test_bad_results_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    for rows, message in (
        ([], "no result of rpi4-tflite"),
        ([("v2.1", build_rpi4.SYSTEM, "alexnet", "1.0")], "'alexnet' is no network"),
        ([("v2.1", build_rpi4.SYSTEM, "resnet50", "fast")], "not a list of MLPerf results"),
    ):
        write_results(tmp_path, rows)
        with pytest.raises(SystemExit, match=message):
            build_rpi4.main(["--data", str(tmp_path), "--out", str(tmp_path / "rpi4")])
    with pytest.raises(TableError, match="not a list of MLPerf results"):
        build_rpi4.read_samples(tmp_path / "missing.csv")
    assert not (tmp_path / "rpi4").exists()


def resnet18() -> OpList:
    net = OpSequence("fp32", 224)
    net.conv(64, 7, 2, "relu")
    net.max_pool(3, 2)
    for out, stride in ((64, 1), (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)):
        net.conv(out, 3, stride, "relu")
        net.conv(out, 3)
        net.elementwise("add", "relu")
    net.conv(512, 3, 1, "relu")
    net.conv(512, 3)
    net.global_pool()
    net.classifier(1000)
    return tuple(net.ops)


def vgg16() -> OpList:
    net = OpSequence("fp32", 224)
    for out, repeats in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(repeats):
            net.conv(out, 3, 1, "relu")
        net.max_pool(2, 2)
    net.channels, net.size = 512 * 49, 1
    for out in (4096, 4096, 1000):
        net.conv(out)
    return tuple(net.ops)


def squeezenet() -> OpList:
    net = OpSequence("fp32", 224)
    net.conv(64, 3, 2, "relu")
    net.max_pool(3, 2)
    for index, (squeeze, expand) in enumerate(((16, 64), (32, 128), (48, 192), (64, 256))):
        for _ in range(2):
            net.conv(squeeze, activation="relu")
            net.conv(expand, activation="relu")
            net.channels = squeeze
            net.conv(expand, 3, 1, "relu")
            net.channels = 2 * expand
            net.elementwise("concat")
        if index < 2:
            net.max_pool(3, 2)
    net.conv(1000, activation="relu")
    net.global_pool()
    return tuple(net.ops)


def test_networks_unlike_the_data_come_out_in_order_and_say_so() -> None:
    """Dense convolutions: neither free nor absurd, between 70 and 250 µs a million."""
    table = load_table("rpi4")
    squeeze, resnet, vgg = (
        sum(table.estimate(key).ms for key in ops) for ops in (squeezenet(), resnet18(), vgg16())
    )
    assert 40 < squeeze < 80
    assert 220 < resnet < 400
    assert 1500 < vgg < 3000
    for ops in (squeezenet(), resnet18(), vgg16()):
        dense = [key for key in ops if key.op == "conv2d" and key.kernel == (3, 3)]
        for key in dense:
            if key.in_channels > 32:
                assert 0.070 < table.estimate(key).ms / (key.macs / 1e6) < 0.250
        assert any(table.estimate(key).extrapolated for key in dense)

"""Published results as samples, and operator lists that ship."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path

import pytest

from shrinkc.errors import TableError
from shrinkc.latency_tables.key import OpKey
from shrinkc.latency_tables.makers.sources import lists, netspresso
from shrinkc.latency_tables.makers.sources.mlperf import read_results, sample

V1, V2 = "mobilenet-v1-precision_float-0.5-128", "mobilenet-v2-precision_float-1.0-224"


def written(path: Path, header: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


@pytest.mark.parametrize(
    ("name", "family", "precision", "mmacs"),
    [
        (V1, "mobilenet-v1", "fp32", 49),
        ("mobilenet-v1-0.5-128-quantized", "mobilenet-v1", "int8", 49),
        (V2, "mobilenet-v2", "fp32", 301),
        ("efficientnet-fp32-lite0", "efficientnet-lite", "fp32", 385),
        ("mobilenet-v3-precision_float-large-minimalistic-224", "mobilenet-v3", "fp32", 209),
        ("mobilenet-v3-large_224_1.0_uint8", "mobilenet-v3", "int8", 217),
    ],
)
def test_both_submitters_names(name: str, family: str, precision: str, mmacs: float) -> None:
    found = sample(name, 1.0)
    assert (found.family, found.precision) == (family, precision)
    assert sum(key.macs for key in found.ops) / 1e6 == pytest.approx(mmacs, rel=0.01)


def test_results_are_the_mean_of_the_devices_that_ran_all(tmp_path: Path) -> None:
    rows = [("a", V1, 2.0), ("b", V1, 4.0), ("a", V2, 9.0), ("c", V2, 9.0)]
    rows += [("a", f"{V1} + live preprocessing", 7.0), ("b", f"{V1} + live preprocessing", 7.0)]
    path = written(tmp_path / "r.csv", ("device", "description", "ms"), rows)
    (only,) = read_results(path, {"a": 1.0, "b": 0.5})
    assert (only.network, only.measured_ms) == (V1, 2.0)
    with pytest.raises(TableError, match="no network that d ran"):
        read_results(path, {"d": 1.0})
    with pytest.raises(TableError, match="not a list of MLPerf results"):
        read_results(written(tmp_path / "s.csv", ("device",), [("a",)]), {"a": 1.0})
    with pytest.raises(TableError, match="is no network this script knows"):
        read_results(
            written(tmp_path / "t.csv", ("device", "description", "ms"), [("a", "vgg", 1.0)]),
            {"a": 1.0},
        )


def test_netspresso_names_a_network_in_words(tmp_path: Path) -> None:
    header = ("device", "precision", "description", "ms")
    rows = [
        ("Pi", "fp16", "Classification MovileViT-s (256, 256) classes=3", 417.1),
        ("Pi", "int8", "Detection YOLOX-s (640, 640) classes=4", 533.7),
    ]
    first, second = netspresso.read_networks(written(tmp_path / "n.csv", header, rows), "Pi")
    assert (first.network, first.family) == ("netspresso/MobileViT-s", "mobilevit")
    assert sum(key.macs for key in first.ops) / 1e9 == pytest.approx(2.0, rel=0.05)
    assert {key.precision for key in second.ops} == {"int8"}
    with pytest.raises(TableError, match="no network of Pi 9"):
        netspresso.read_networks(tmp_path / "n.csv", "Pi 9")
    unknown = [("Pi", "fp16", "Classification ResNet7 (1, 1) classes=3", 1.0)]
    with pytest.raises(TableError, match="ResNet7 has no operators"):
        netspresso.read_networks(written(tmp_path / "u.csv", header, unknown), "Pi")


def test_lists_come_back_as_often_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lists, "FOLDER", tmp_path / "lists")
    add, relu = OpKey("add", 8, 8), OpKey("relu", 8, 8, in_size=(4, 4), out_size=(4, 4))
    lists.write_lists("mine", {"net": (add, relu, add), "other": (relu,)})
    found = lists.read_lists("mine")
    assert {name: sorted(keys, key=str) for name, keys in found.items()} == {
        "net": [add, add, relu],
        "other": [relu],
    }
    lists.read_lists.cache_clear()


def test_shipped_lists_have_the_networks_multiply_accumulates() -> None:
    gmacs = {n: sum(k.macs for k in ops) / 1e9 for n, ops in lists.read_lists("netspresso").items()}
    assert gmacs["ResNet50"] == pytest.approx(4.09, rel=0.01)
    assert gmacs["YOLOX-s"] == pytest.approx(13.3, rel=0.02)
    assert len(lists.read_lists("qed")) == 71

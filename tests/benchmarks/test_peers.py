"""The benchmark of peers: what is kept and what made again, ratios, the line in the image."""

import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from by_macs import ByMacs
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from small_networks import Classifier, InvertedResidual, conv
from torch import fx, nn

from benchmarks.peers import cells, kept, row_of, summary, with_times
from benchmarks.peers_plot import ends, frontier, gap
from benchmarks.shared import peers_workshop
from benchmarks.shared.common import replace_json
from benchmarks.shared.fields import check_record
from benchmarks.shared.mobilenet_v2 import images, views
from benchmarks.shared.peers_judging import Judging, lost
from benchmarks.shared.peers_rows import ORIGINALS, Contender, contenders, narrowers, quantisers
from benchmarks.shared.peers_workshop import PeerError, Workshop
from shrinkc.compiler.capture import capture
from shrinkc.compiler.export.lower import lower
from shrinkc.compiler.formats.onnx import ONNX as ONNX_FORMAT
from shrinkc.compiler.formats.tflite import TFLITE as TFLITE_FORMAT
from shrinkc.compiler.images.decoded import Images
from shrinkc.compiler.pipeline.deployed import deployed

SIDE = 16
TFLITE, ONNX = ORIGINALS[".tflite"], ORIGINALS[".onnx"]


def classifier() -> bytes:
    """(1, 2, 2, 2) → two classes: the sum of each channel."""
    weights = np.repeat(np.eye(2, dtype=np.float32), 4, axis=0)
    nodes = [
        helper.make_node("Flatten", ["x"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["y"]),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2, 2, 2])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2])
    graph = helper.make_graph(nodes, "g", [x], [y], [numpy_helper.from_array(weights, "w")])
    imports = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=8)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def judging() -> Judging:
    """Three images of class 1 and one of class 0, all of which look like class 1."""

    def at(size: int, _: float) -> torch.Tensor:
        views = torch.zeros(4, 2, size, size)
        views[:, 1] = 1
        return views

    return Judging(at, [1, 1, 1, 0])


def contender(make: Callable[[], tuple[bytes, str]]) -> Contender:
    return Contender("a", "A 1.0", "plain", "the tool itself", ".onnx", make)


def test_a_file_is_made_once_and_judged_by_running_it(tmp_path: Path):
    calls: list[int] = []

    def make() -> tuple[bytes, str]:
        calls.append(1)
        return classifier(), "fp32"

    one = contender(make)
    rows = [row_of(one, tmp_path, judging()) for _ in range(2)]
    assert calls == [1]
    assert rows[0] == rows[1]
    assert rows[0]["top1"] == 0.75
    assert rows[0]["right"] == [True, True, True, False]
    assert rows[0]["bytes"] == (tmp_path / "a.onnx").stat().st_size
    assert kept([one], tmp_path) == {
        "a.onnx": {
            **{"tool": "A 1.0", "settings": "plain", "by": "the tool itself"},
            **{"runtime": "ONNX Runtime", **rows[0]},
        }
    }


def test_a_file_that_was_judged_otherwise_is_judged_again_but_not_made(tmp_path: Path):
    def again() -> tuple[bytes, str]:
        raise AssertionError

    (tmp_path / "a.onnx").write_bytes(classifier())
    row = {"precision": "int8", "bytes": 10, "top1": 0.5}
    replace_json(tmp_path / "rows" / "a.onnx.json", row)
    with pytest.raises(SystemExit, match="--stages make"):
        kept([contender(again)], tmp_path)
    found = row_of(contender(again), tmp_path, judging())
    assert found == {**row, "top1": 0.75, "right": [True, True, True, False]}


def test_a_failure_is_a_row_and_is_tried_again(tmp_path: Path):
    def fail() -> tuple[bytes, str]:
        raise PeerError("no such operator")

    one = contender(fail)
    assert row_of(one, tmp_path, judging()) == {"failure": "no such operator"}
    assert kept([one], tmp_path)["a.onnx"]["failure"] == "no such operator"
    unloadable = replace(one, make=lambda: (b"nothing", "fp32"))
    row = row_of(unloadable, tmp_path, judging())
    assert row["failure"].startswith("a.onnx: ONNX Runtime cannot load")
    check_record(row, "row")  # no path of this machine, which results refuse
    again = replace(one, make=lambda: (classifier(), "fp32"))
    assert row_of(again, tmp_path, judging())["top1"] == 0.75


def test_speedups_are_medians_of_the_rounds_ratios():
    times = {
        TFLITE: [(6.0, 6.0), (12.0, 12.0), (6.0, 6.0)],  # the machine was slow for a round
        ONNX: [(8.0, 8.0), (16.0, 16.0), (8.0, 8.0)],
        "a.onnx": [(2.0, 2.0), (4.0, 4.0), (3.0, 3.0)],
    }
    found = summary("a.onnx", times)
    assert found.median_ms == 3
    assert found.speedup_in_runtime == pytest.approx(4)
    assert found.speedup == pytest.approx(3)
    assert summary(TFLITE, times).speedup == summary(ONNX, times).speedup_in_runtime == 1


def test_drops_have_intervals_of_the_differences_image_by_image(tmp_path: Path):
    """As promises have them (Agresti and Min, 2005): as many images lost and won are no drop, and
    more of them say less."""
    before = [True] * 8 + [False] * 2
    drop, ends = lost(before, [*before[:-4], False, False, True, True])
    assert drop == 0
    assert ends[1] == pytest.approx(-ends[0]) == pytest.approx(1.96 * (5 / 12) ** 0.5 / 12**0.5)
    assert lost(before, before)[1][1] < ends[1]
    assert lost(before, [False] * 10)[0] == 0.8


def test_all_rows_but_the_originals_get_an_interval(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    rows = {
        TFLITE: {"precision": "fp32", "top1": 1.0, "right": [True] * 4},
        ONNX: {"precision": "fp32", "top1": 1.0, "right": [True] * 4},
        "a.onnx": {"precision": "int8", "top1": 0.5, "right": [True, True, False, False]},
        "b.onnx": {"failure": "no such operator"},
    }
    times = {file: [(2.0, 2.0)] for file in rows}
    monkeypatch.setattr("benchmarks.peers.timed", lambda *_: times)
    original, same, a, b = with_times(rows, tmp_path, 1, 1)
    assert a["drop"] == 0.5
    low, high = a["interval"]
    assert -1 < low < 0.5 < high < 1
    assert cells({**a, **dict.fromkeys(("tool", "settings", "runtime", "by"), ""), "bytes": 1})[
        -2
    ] == (f"50.00% ({low:.2%} to {high:.2%})")
    assert same["interval"][0] < 0 == same["drop"]
    assert "interval" not in original
    assert b == {"failure": "no such operator"}
    assert all("right" not in row for row in (original, same, a, b))


def test_smaller_views_show_the_same_part_of_an_image(tmp_path: Path):
    folder = tmp_path / "0003_n0"
    folder.mkdir()
    rows, columns = np.mgrid[:256, :256]
    pixels = np.stack([rows, columns, 255 - rows], -1).astype(np.uint8)
    Image.fromarray(pixels).save(folder / "a.png")
    whole, (label,) = images(tmp_path)
    assert label == 4
    assert torch.allclose(views(tmp_path, 224), whole, atol=1e-6)
    for size in (192, 160):
        smaller = views(tmp_path, size)
        assert smaller.shape == (1, 3, size, size)
        # a ramp of 224 of 256 pixels from end to end, but for half a pixel at either
        assert torch.allclose(smaller[..., 0, 0], whole[..., 0, 0], atol=2 / 127.5)
        assert torch.allclose(smaller[..., -1, -1], whole[..., -1, -1], atol=2 / 127.5)


def test_the_frontier_is_what_nobody_beats_in_both():
    points = [(1.0, 88.0), (2.0, 88.0), (1.5, 87.0), (3.0, 80.0), (3.0, 79.0), (2.5, 70.0)]
    assert frontier(points) == [(2.0, 88.0), (3.0, 80.0)]
    assert frontier([]) == []


def test_the_panels_part_where_nothing_is():
    assert gap([88.0, 39.0, 2.0, 72.0, 0.0]) == (2.0, 39.0)
    assert gap([88.0, 60.0, 50.0]) == (60.0, 88.0)


def network() -> fx.GraphModule:
    torch.manual_seed(0)
    body = conv(3, 16, 3, 2), nn.ReLU6(), *(InvertedResidual(16, 16) for _ in range(3))
    model = Classifier(*body, channels=16)
    return deployed(capture(model.eval(), (torch.randn(1, 3, SIDE, SIDE),)))


class SmallWorkshop(Workshop):
    """With a tiny network and noise."""

    original = cached_property(lambda _: network())
    inputs = cached_property(lambda self: self.images.taken(torch.arange(40), (SIDE, SIDE))[0])

    @cached_property
    def images(self) -> Images:
        generator = torch.Generator().manual_seed(0)
        pixels = torch.randint(256, (40, SIDE, SIDE, 3), generator=generator, dtype=torch.uint8)
        return Images(pixels, None, (0.5,), (0.5,))


@pytest.mark.parametrize("tool", ["halp", "mdp"])
def test_halp_and_mdp_from_the_network_to_the_row(
    tool: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Training changes the numbers and nothing else; the file in int8 runs."""
    monkeypatch.setattr(peers_workshop, "cost_table", lambda _: ByMacs())
    shop = SmallWorkshop(tmp_path, tmp_path, "macs", 1, tmp_path)
    every = {one.name: one for one in narrowers(shop)}
    plain, trained = (every[f"{tool}-1.2-{how}fp32"].make()[0] for how in ("untrained-", ""))
    whole = TFLITE_FORMAT.write(lower(shop.original)).data
    assert plain != trained
    assert len(plain) == len(trained) < len(whole)
    row = row_of(every[f"{tool}-1.2-int8"], tmp_path, small_judging(shop))
    assert row["precision"] == "int8"
    assert len(row["right"]) == 40
    assert row["bytes"] < len(plain)


def small_judging(shop: Workshop) -> Judging:
    """By the original's own answers."""
    return Judging(lambda *_: shop.inputs, shop.original(shop.inputs)[0].argmax(1).tolist())


def test_a_quantiser_takes_our_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """By the peer's own script, in this environment."""
    monkeypatch.setattr(peers_workshop, "environment_of", lambda *_: Path(sys.executable))
    shop = SmallWorkshop(tmp_path, tmp_path, "rpi4", 1, tmp_path)
    one = next(c for c in quantisers(shop) if c.name == "onnxruntime-of-shrinkc")
    missing = row_of(one, tmp_path, small_judging(shop))
    assert missing == {"failure": "shrinkc-exact-fp32.onnx, which it starts from, is not there"}
    (tmp_path / "shrinkc-exact-fp32.onnx").write_bytes(ONNX_FORMAT.write(lower(network())).data)
    row = row_of(one, tmp_path, small_judging(shop))
    assert row["precision"] == "int8"
    assert row["top1"] > 0.7
    kinds = {node.op_type for node in onnx.load(tmp_path / one.file).graph.node}
    assert "QuantizeLinear" in kinds


def test_commands_say_what_was_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What is compiled for smaller images, planned with them, and shrunk by Practise."""
    asked: list[list[str]] = []

    def run(command: list[str]) -> None:
        asked.append(command[1:])
        folder = Path(command[-1])
        folder.mkdir()
        (folder / "report.json").write_text('{"precision": "int8"}')
        for file in ("model.onnx", "model.tflite"):
            (folder / file).write_bytes(classifier())

    monkeypatch.setattr(peers_workshop, "_run", run)
    monkeypatch.setattr(SmallWorkshop, "weights", tmp_path / "weights.pt")
    shop = SmallWorkshop(tmp_path, tmp_path, "rpi4", 3, tmp_path)
    every = {one.file: one for one in contenders(shop)}

    def told(file: str) -> str:
        assert every[file].make() == (classifier(), "int8")
        return " ".join(asked[-1])

    assert "--mean" not in told("scaled-192-fp32.onnx")  # refused where no images are read
    scaled = told("scaled-160-int8.onnx")
    assert "--mean 0.5,0.5,0.5 --std 0.5,0.5,0.5" in scaled
    assert scaled.startswith("compile")
    assert "--input 1,3,160,160" in scaled
    assert f"--precision int8 --calibration {shop.seen}" in scaled
    planned = told("shrinkc-planned-at-224-192-or-160-pixels-4-asked.tflite")
    assert "--input 1,3,224,224" in planned
    assert f"--resolutions 192,160 --speedup 4 --images {shop.seen}" in planned
    practise = told("practise-1.2-fp32.tflite")
    assert practise.startswith("shrink ")
    assert "--method practise --speedup 1.2 --steps 30" in practise
    int8 = told("practise-1.2-int8.tflite")
    assert int8.startswith(f"compile {tmp_path / 'practise-1.2-fp32' / 'model.onnx'} --precision")


def test_bars_are_where_top_1_may_lie():
    row = {"top1": 0.8, "drop": 0.05, "interval": [0.02, 0.09]}
    assert ends(row) == pytest.approx((100 * (0.85 - 0.09), 100 * (0.85 - 0.02)))


def test_every_contender_has_a_file_of_its_own(tmp_path: Path):
    found = contenders(Workshop(tmp_path, tmp_path, "host", 3, tmp_path))
    files = [one.file for one in found]
    assert len(set(files)) == len(files)
    assert {TFLITE, ONNX} <= set(files)

"""The benchmark of peers: what is kept and what made again, ratios, the line in the image."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from benchmarks.peers import kept, row_of, summary
from benchmarks.peers_plot import frontier, gap
from benchmarks.shared.peers_rows import ORIGINALS, Contender, contenders
from benchmarks.shared.peers_workshop import PeerError, Workshop

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


def judging() -> tuple[torch.Tensor, list[int]]:
    """Three images of class 1 and one of class 0, all of which look like class 1."""
    views = torch.zeros(4, 2, 2, 2)
    views[:, 1] = 1
    return views, [1, 1, 1, 0]


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
    assert rows[0]["bytes"] == (tmp_path / "a.onnx").stat().st_size
    assert kept([one], tmp_path) == {
        "a.onnx": {
            **{"tool": "A 1.0", "settings": "plain", "by": "the tool itself"},
            **{"runtime": "ONNX Runtime", **rows[0]},
        }
    }


def test_a_failure_is_a_row_and_is_tried_again(tmp_path: Path):
    def fail() -> tuple[bytes, str]:
        raise PeerError("no such operator")

    one = contender(fail)
    assert row_of(one, tmp_path, judging()) == {"failure": "no such operator"}
    assert kept([one], tmp_path)["a.onnx"]["failure"] == "no such operator"
    unloadable = replace(one, make=lambda: (b"nothing", "fp32"))
    assert "cannot load" in row_of(unloadable, tmp_path, judging())["failure"]
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


def test_the_frontier_is_what_nobody_beats_in_both():
    points = [(1.0, 88.0), (2.0, 88.0), (1.5, 87.0), (3.0, 80.0), (3.0, 79.0), (2.5, 70.0)]
    assert frontier(points) == [(2.0, 88.0), (3.0, 80.0)]
    assert frontier([]) == []


def test_the_panels_part_where_nothing_is():
    assert gap([88.0, 39.0, 2.0, 72.0, 0.0]) == (2.0, 39.0)
    assert gap([88.0, 60.0, 50.0]) == (60.0, 88.0)


def test_every_contender_has_a_file_of_its_own(tmp_path: Path):
    found = contenders(Workshop(tmp_path, tmp_path, "host", 3, tmp_path))
    files = [one.file for one in found]
    assert len(set(files)) == len(files)
    assert {TFLITE, ONNX} <= set(files)

"""ONNX operators that are written as several: in the forms that ONNX Runtime runs fast."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch
from hand_built import Net
from torch import nn

from shrinkc.compiler.export.lower import lower
from shrinkc.compiler.formats.registry import ONNX


def written(module: nn.Module) -> bytes:
    """The module between two convolutions."""
    net = Net(1, 4, 6, 6)
    y = net.call(module, net.conv(net.x, 4, 8, 1))
    return ONNX.write(lower(net.build(net.conv(y, 8, 4, 1)).float())).data


@pytest.mark.parametrize(("approximate", "fused"), [("none", "Gelu"), ("tanh", "FastGelu")])
def test_the_runtime_runs_gelu_as_one_operator(
    approximate: str, fused: str, tmp_path: Path
) -> None:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    onnxruntime.InferenceSession(written(nn.GELU(approximate)), options)
    nodes = onnx.load(options.optimized_model_filepath).graph.node
    kinds = [node.op_type for node in nodes]
    assert fused in kinds
    assert not {"Erf", "Tanh", "Mul"} & set(kinds)


@pytest.mark.parametrize("scale", [1.0, 30.0, 1e4, 1e30])
def test_mish_far_from_zero(scale: float) -> None:
    net = Net(1, 4, 6, 6)
    data = ONNX.write(lower(net.build(net.call(nn.Mish(), net.x)).float())).data
    session = onnxruntime.InferenceSession(data)
    x = torch.randn(1, 4, 6, 6) * scale
    (got,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    torch.testing.assert_close(torch.from_numpy(got), nn.functional.mish(x), rtol=1e-5, atol=1e-6)


def test_a_norm_over_a_map_without_numbers_of_its_own_stores_none() -> None:
    assert len(written(nn.LayerNorm([8, 6, 6], elementwise_affine=False))) < 4000
    own = onnx.load_from_string(written(nn.LayerNorm([8, 6, 6])))
    assert "LayerNormalization" in [node.op_type for node in own.graph.node]

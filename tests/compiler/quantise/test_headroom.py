"""Biases of channels that are nearly dead fit into 32 bits."""

from __future__ import annotations

import pytest
import torch
from int8_networks import deployed, images
from pass_checks import fingerprint
from torch import Tensor, fx, nn

from shrinkc.compiler.export.lower import lower
from shrinkc.compiler.export.tflite.write import write_tflite
from shrinkc.compiler.formats.tflite import TFLITE, quantize_tflite
from shrinkc.compiler.quantise.headroom import leave_room_for_biases
from shrinkc.compiler.quantise.ranges import calibrate
from shrinkc.compiler.quantise.rounding import grid_of, weight_scales
from shrinkc.compiler.quantise.simulate import Quantisation
from shrinkc.compiler.verify.files import artefact

SEEN = images(6)


def dead(kind: str) -> fx.GraphModule:
    """Channel 1 of the first layer is constant: no weights, a bias of 2."""
    torch.manual_seed(0)
    layers: dict[str, tuple[nn.Module, ...]] = {
        "conv": (nn.Conv2d(3, 4, 3), nn.ReLU6(), nn.Conv2d(4, 5, 1)),
        "depthwise": (nn.Conv2d(3, 6, 3, groups=3), nn.ReLU(), nn.Conv2d(6, 5, 1)),
        "transposed": (nn.ConvTranspose2d(3, 4, 2, 2), nn.ReLU(), nn.Conv2d(4, 5, 1)),
        "linear": (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 4)),
    }
    model = nn.Sequential(*layers[kind])
    layer = next(m for m in model if hasattr(m, "weight"))
    with torch.no_grad():
        channels = (slice(None), 1) if kind == "transposed" else (1,)
        layer.weight[channels] = 1e-12
        layer.bias[1] = 2.0
    return deployed(model)


def quantisation(graph: fx.GraphModule) -> Quantisation:
    program = lower(graph)
    return Quantisation(program, calibrate(graph, program.names, SEEN, lambda: None))


def worst_steps(graph: fx.GraphModule, original: fx.GraphModule, made: Quantisation) -> float:
    """How far the file is from the fp32 network, in levels of the output."""
    pytest.importorskip("ai_edge_quantizer")
    program = lower(graph)
    data = quantize_tflite(write_tflite(program), program, SEEN[:2], made.ranges)
    file = artefact(TFLITE, data, program)
    step = grid_of(*made.ranges[program.outputs[0].name]).scale
    with torch.no_grad():
        errors: list[Tensor] = [
            original(*inputs)[0] - torch.from_numpy(file.run(inputs)[0]) for inputs in SEEN
        ]
    return max(float(e.abs().max()) for e in errors) / step


@pytest.mark.parametrize("kind", ["conv", "depthwise", "transposed", "linear"])
def test_a_constant_channel_stays_what_it_is(kind: str) -> None:
    graph = dead(kind)
    made = quantisation(graph)
    before = fingerprint(graph)
    roomy, changed = leave_room_for_biases(graph, made)
    assert fingerprint(graph) == before
    assert list(changed.values()) == [1]
    assert worst_steps(graph, graph, made) > 20  # the bias overflows: the file loses it
    assert worst_steps(roomy, graph, made) < 8
    for inputs in SEEN:
        torch.testing.assert_close(roomy(*inputs)[0], graph(*inputs)[0], rtol=0, atol=1e-3)


def test_biases_that_fit_are_left_alone() -> None:
    graph = deployed(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 1, bias=False)))
    roomy, changed = leave_room_for_biases(graph, quantisation(graph))
    assert changed == {}
    assert fingerprint(roomy) == fingerprint(graph)


def test_every_bias_is_within_half_of_what_32_bits_hold() -> None:
    graph = dead("conv")
    made = quantisation(graph)
    roomy, _ = leave_room_for_biases(graph, made)
    layer = next(m for m in roomy.modules() if isinstance(m, nn.Conv2d))
    scale = grid_of(*made.ranges[made.program.inputs[0].name]).scale
    assert (
        float((layer.bias.detach() / (weight_scales(layer) * scale)).abs().max()) <= 2**30 * 1.001
    )


def test_layers_in_fp32_need_no_room() -> None:
    graph = dead("conv")
    made = quantisation(graph)
    first = next(iter(made.layers()))
    kept = Quantisation(made.program, made.ranges, frozenset({first}))
    assert leave_room_for_biases(graph, kept)[1] == {}

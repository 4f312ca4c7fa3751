"""The simulation computes what the interpreter computes from the file."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from int8_networks import Batches, deployed, family, images, skewed
from pass_checks import fingerprint
from small_networks import NETWORKS
from torch import Tensor, fx, nn

from shrinkc.compiler.export import ops
from shrinkc.compiler.export.lower import lower
from shrinkc.compiler.export.tflite.write import write_tflite
from shrinkc.compiler.formats.tflite import TFLITE, quantize_tflite
from shrinkc.compiler.quantise.options import Int8
from shrinkc.compiler.quantise.prepare import Prepared, prepare
from shrinkc.compiler.quantise.rounding import (
    Grid,
    Rounding,
    grid_of,
    rounded_weight,
    weight_scales,
)
from shrinkc.compiler.quantise.simulate import rounding_of, simulate
from shrinkc.compiler.verify.files import artefact

pytest.importorskip("ai_edge_quantizer")
SEEN, OTHERS = images(12), images(6, seed=1)


def prepared(graph: fx.GraphModule, how: Int8, seen: Batches = SEEN) -> Prepared:
    return prepare(graph, seen, replace(how, noise=False))


def in_file(made: Prepared, batches: Batches) -> Tensor:
    """What the TFLite interpreter computes."""
    q = made.quantisation
    data = quantize_tflite(write_tflite(q.program), q.program, SEEN[:4], q.ranges, q.keep_fp32)
    file = artefact(TFLITE, data, q.program)
    return torch.cat([torch.from_numpy(file.run(inputs)[0]) for inputs in batches])


def in_torch(made: Prepared, batches: Batches) -> Tensor:
    int8 = simulate(made.graph_module, made.quantisation)
    with torch.no_grad():
        return torch.cat([int8(*inputs)[0] for inputs in batches])


def steps_apart(made: Prepared, batches: Batches = OTHERS) -> np.ndarray:
    """Differences of the two in levels of the output."""
    (output,) = made.quantisation.program.outputs
    step = grid_of(*made.quantisation.ranges[output.name]).scale
    return ((in_file(made, batches) - in_torch(made, batches)).abs() / step).numpy()


@pytest.mark.parametrize("name", NETWORKS)
def test_a_few_levels_from_the_file(name: str) -> None:
    apart = steps_apart(prepared(family(name), Int8()))
    assert apart.max() <= 3
    assert apart.mean() <= 0.5


@pytest.mark.parametrize("tuning", ["none", "bias", "equalise", "both"])
def test_whatever_is_done_to_the_numbers_first(tuning) -> None:
    assert steps_apart(prepared(skewed(), Int8(tuning))).max() <= 2


@pytest.mark.parametrize("kept", [1, 2, 3])
def test_with_layers_in_fp32(kept: int) -> None:
    graph = skewed()
    convolutions = [op.name for op in lower(graph).ops if isinstance(op, ops.Conv)]
    made = prepared(graph, Int8(keep_fp32=tuple(convolutions[:kept])))
    assert steps_apart(made).max() <= 2


def test_every_kind_of_operator() -> None:
    """Averages and bilinear resizing on their input's grid, sigmoid on a fixed one, concatenation
    on its result's."""

    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(3, 8, 1)
            self.up = nn.ConvTranspose2d(16, 6, 2, 2)
            self.end = nn.Conv2d(6, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            a = nn.functional.avg_pool2d(torch.sigmoid(self.a(x)), 2)
            b = nn.functional.max_pool2d(torch.tanh(self.b(x)) * 3, 2)
            y = torch.relu(
                self.up(
                    torch.cat(
                        [
                            a,
                            b,
                        ],
                        1,
                    )
                )
            )
            return self.end(nn.functional.pad(y, (1, 0, 1, 0))).flatten(1)

    torch.manual_seed(0)
    assert steps_apart(prepared(deployed(Mixed()), Int8("none"))).max() <= 3


def test_a_wrong_range_would_be_seen() -> None:
    made = prepared(skewed(), Int8())
    file = in_file(made, OTHERS)
    ranges = {name: (low / 4, high / 4) for name, (low, high) in made.quantisation.ranges.items()}
    wrong = replace(made, quantisation=replace(made.quantisation, ranges=ranges))
    (output,) = made.quantisation.program.outputs
    step = grid_of(*made.quantisation.ranges[output.name]).scale
    assert float((in_torch(wrong, OTHERS) - file).abs().max()) / step > 3


def test_the_graph_is_left_as_it_is() -> None:
    graph = skewed()
    before = fingerprint(graph)
    made = prepared(graph, Int8("both"))
    simulate(graph, made.quantisation)
    assert fingerprint(graph) == before


def test_fused_activations_are_rounded_once() -> None:
    """No rounding stands between a layer and the ReLU that runs inside it."""
    made = prepared(skewed(), Int8())
    int8 = simulate(made.graph_module, made.quantisation)
    names = {node.name for node in int8.graph.nodes}
    for op in made.quantisation.program.ops:
        if isinstance(op, ops.Conv) and op.activation != "none":
            assert rounding_of(op.output.name) in names
            assert rounding_of(op.name) not in names


# --- numbers -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (-1.0, 1.0, Grid(2 / 255, 0)),  # 127.5 levels down: rounds to even
        (0.0, 6.0, Grid(6 / 255, -128)),
        (2.0, 5.1, Grid(0.02, -128)),  # zero is always a level
        (-5.1, -1.0, Grid(0.02, 127)),
    ],
)
def test_grids_by_hand(low: float, high: float, expected: Grid) -> None:
    grid = grid_of(low, high)
    assert grid.scale == pytest.approx(expected.scale)
    assert grid.zero == expected.zero
    assert float(Rounding(grid)(torch.zeros(1))) == 0


def test_rounding_by_hand() -> None:
    x = torch.tensor([-1.0, 0.011, 0.029, 5.2])
    assert Rounding(Grid(0.02, -128))(x).tolist() == pytest.approx([0, 0.02, 0.02, 5.1])


@pytest.mark.parametrize("groups", [1, 2])
def test_each_output_channel_has_its_scale(groups: int) -> None:
    torch.manual_seed(0)
    layer = nn.ConvTranspose2d(4, 6, 3, groups=groups)
    twin = nn.Conv2d(4, 6, 3, groups=groups)
    blocks = layer.weight.detach().reshape(groups, 4 // groups, 6 // groups, 3, 3)
    twin.weight = nn.Parameter(blocks.transpose(1, 2).reshape(6, 4 // groups, 3, 3))
    torch.testing.assert_close(weight_scales(layer), weight_scales(twin))
    back = rounded_weight(layer).reshape(blocks.shape).transpose(1, 2).reshape(twin.weight.shape)
    torch.testing.assert_close(back, rounded_weight(twin))
    levels = rounded_weight(twin) / weight_scales(twin).reshape(-1, 1, 1, 1)
    torch.testing.assert_close(levels, levels.round())
    assert levels.abs().flatten(1).amax(1).tolist() == pytest.approx([127] * 6)

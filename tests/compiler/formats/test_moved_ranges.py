"""A file's own tensors have the ranges of what they hold, whatever they were calibrated on."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from shrinkc.compiler.capture import capture
from shrinkc.compiler.export.lower import lower
from shrinkc.compiler.formats.moved_ranges import moved_ranges
from shrinkc.compiler.formats.registry import HOST_FORMAT
from shrinkc.compiler.pipeline.deployed import deployed
from shrinkc.compiler.quantise.options import Int8
from shrinkc.compiler.quantise.prepare import prepare
from shrinkc.compiler.quantise.stored import inner_inputs
from shrinkc.compiler.support.progress import Silent
from shrinkc.compiler.tasks.outputs import output_of
from shrinkc.compiler.verify.files import artefact

SHAPE = (1, 3, 12, 12)


class Boxes(nn.Module):
    """Padded by itself for strides, and brought into another layout at the end."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 2, 1)
        self.where = nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(self.first(x).relu()).relu()
        return 20 * self.where(x).flatten(2).transpose(1, 2)


def test_padded_and_turned_tensors_have_the_ranges_of_what_they_hold() -> None:
    graph = deployed(capture(Boxes().eval(), (torch.zeros(SHAPE),)))
    program = lower(graph)
    file = HOST_FORMAT.encode(program)
    known = {op.output.name: (1.0, 2.0) for op in program.ops} | {program.inputs[0].name: (1, 3)}
    found = moved_ranges(file, known)
    own = {name: ends for name, ends in found.items() if name not in known}
    assert own
    assert {ends for name, ends in own.items() if name.endswith("/pad")} == {(0.0, 2.0), (0.0, 3)}
    assert {ends for name, ends in own.items() if not name.endswith("/pad")} == {(1.0, 2.0)}


def test_a_file_written_without_images_does_not_clip_them() -> None:
    """Images are ten times as bright as the random inputs that it is written with."""
    pytest.importorskip("ai_edge_quantizer")
    graph = deployed(capture(Boxes().eval(), (torch.zeros(SHAPE),)))
    generator = torch.Generator().manual_seed(1)
    images = [(10 * torch.randn(SHAPE, generator=generator),) for _ in range(16)]
    prepared = prepare(graph, images, Int8(), Silent())
    written = HOST_FORMAT.write_int8(prepared.quantisation, inner_inputs(prepared.graph_module))
    file = artefact(HOST_FORMAT, written.data, prepared.quantisation.program)
    x = torch.cat([image for (image,) in images])
    with torch.no_grad():
        (want,) = graph(x)
    got = torch.as_tensor(file.run((x,))[0])
    assert float(output_of(want, len(x)).divergence(got, want).mean()) < 0.01

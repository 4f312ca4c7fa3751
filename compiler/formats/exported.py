"""A network's files, one of each format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import fx

from shrinkc.compiler.export import ops
from shrinkc.compiler.export.lower import lower
from shrinkc.compiler.export.torch_fallback import FALLBACK_NOTE, torch_onnx
from shrinkc.compiler.formats.base import Format
from shrinkc.compiler.formats.metadata.description import Description
from shrinkc.compiler.formats.registry import FALLBACK, FORMATS
from shrinkc.compiler.pipeline.run import sample_inputs
from shrinkc.errors import UnsupportedOperatorError


@dataclass(frozen=True)
class Exported:
    """One network's files in memory, by the format's name. `program` is None when torch.onnx had
    to write the only one; `failures` say why others are missing."""

    program: ops.Program | None
    files: Mapping[str, bytes]
    failures: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def described(self, description: Description, formats: Sequence[Format]) -> Exported:
        """With what apps need to know in the files."""
        files = {
            one.name: one.described(self.files[one.name], description)
            for one in formats
            if one.name in self.files
        }
        return replace(self, files=files)


def export(
    graph_module: fx.GraphModule, opset: int, formats: Sequence[Format] = FORMATS
) -> Exported:
    """A file of every format; one that cannot express the network is a failure, not an exception.

    Raises ExportError when no format can, not even with torch.onnx's help.
    """
    try:
        program = lower(graph_module)
    except UnsupportedOperatorError as error:
        if FALLBACK not in formats:
            raise
        data = torch_onnx(graph_module, sample_inputs(graph_module, torch.float32), opset)
        return Exported(None, {FALLBACK.name: data}, (str(error),), (FALLBACK_NOTE,))
    files: dict[str, bytes] = {}
    failures, notes = list[UnsupportedOperatorError](), list[str]()
    for one in formats:
        try:
            written = one.write(program, opset)
        except UnsupportedOperatorError as error:
            failures.append(error)
            continue
        files[one.name] = written.data
        notes += written.notes
    if not files:
        raise failures[0]
    return Exported(program, files, tuple(map(str, failures)), tuple(notes))

"""What the functions of the API return."""

from __future__ import annotations

import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from shrinkc.compiler.api.steps.compilation import Compilation
from shrinkc.compiler.api.steps.network import Subject
from shrinkc.compiler.capture.structure import Restored, Structure
from shrinkc.compiler.report.html.comparison import PAGE, comparison_page
from shrinkc.compiler.report.report import Report
from shrinkc.compiler.report.sections import Judged
from shrinkc.compiler.support.atomic_files import atomic_folder
from shrinkc.compiler.support.checks import check_kind, path_of
from shrinkc.compiler.support.text import counted
from shrinkc.compiler.verify.files import Artefact
from shrinkc.errors import InputError


@dataclass(frozen=True, eq=False, repr=False)
class Compiled:
    """Compiled files, in memory until `save`. Calling it runs the file that the target runs.

    report  what was done, predicted, measured and verified
    files   name → bytes: the model files, model.safetensors (loads again), report.json,
            report.html, and for a plan its plan.json and plan.safetensors
    module  the network that the files hold, in PyTorch; it trains
    structure, artefact  of what the model returns, and what calling runs
    """

    report: Report
    files: Mapping[str, bytes]
    module: nn.Module
    structure: Structure
    artefact: Artefact

    @classmethod
    def of(cls, compilation: Compilation, subject: Subject) -> Compiled:
        graph = compilation.graph_module
        module = subject.model if graph is None else subject.restored(graph)
        return cls(
            *(compilation.report, compilation.files, module, subject.structure),
            compilation.of_target,
        )

    def __call__(self, *inputs: Tensor) -> Any:
        """What the model returned, computed by the file: (N, …), for any N where the file's batch
        is free or the network treats samples one by one.

        Raises InputError for inputs of another kind, number or shape.
        """
        for x in inputs:
            check_kind("inputs", x, Tensor, "tensors, one after the other")
        wanted = self.artefact.program.inputs
        shapes = [tuple(value.shape[1:]) for value in wanted]
        counts = [len(x) if x.ndim else 0 for x in inputs]
        own = [value.shape[0] for value in wanted]
        alike = len(set(own)) == 1 and len(set(counts)) == 1  # one number of samples
        if (
            [tuple(x.shape[1:]) for x in inputs] != shapes
            or not (alike or counts == own)
            or (0 in counts)
        ):
            firsts = ["N"] * len(own) if len(set(own)) == 1 else own
            said = ", ".join(
                "×".join(map(str, (n, *shape))) for n, shape in zip(firsts, shapes, strict=True)
            )
            some = ", N of 1 or more" if firsts[0] == "N" else ""
            raise InputError(f"`inputs` do not fit: this network reads {said}{some}")
        read = [_as_read(x, value.dtype) for x, value in zip(inputs, wanted, strict=True)]
        arrays = self.artefact.run(tuple(read))
        return self.structure.restore([torch.as_tensor(array) for array in arrays])

    def save(self, out: str | os.PathLike[str]) -> Path:
        """Write all files into the folder `out`, or none. Raises InputError where that fails."""
        return _save({".": self.files}, out)

    def __repr__(self) -> str:
        report = self.report
        before, after = report.predicted_before, report.predicted_after
        speed = (
            f", {before.total_ms:.4g} → {after.total_ms:.4g} ms predicted"
            if before and after
            else ""
        )
        return f"Compiled({report.model} for {report.target} in {report.precision}{speed})"


class Transformed(Restored):
    """A network that shrinkc made of a model. It returns what the model returned, and trains: all
    its weights do, those that were frozen in the model, too.

    compiled  its files, where a target was given
    judged    beside the original on evaluation images, where they were given
    warning   that it lost much, and which goal would keep it; None where it did not
    """

    def __init__(
        self,
        graph_module: fx.GraphModule,
        structure: Structure,
        compiled: Compiled | None,
        judged: Judged | None,
    ) -> None:
        super().__init__(graph_module, structure)
        for parameter in self.parameters():
            if parameter.is_floating_point():
                parameter.requires_grad_()
        self.compiled = compiled
        self.judged = judged
        self.warning: str | None = None
        self._compiled_weights = _digest(self)

    @property
    def report(self) -> Report:
        """Of the compilation. Raises InputError without a target."""
        return self._compiled().report

    @property
    def files(self) -> Mapping[str, bytes]:
        """Name → bytes. Raises InputError without a target."""
        return self._compiled().files

    def save(self, out: str | os.PathLike[str]) -> Path:
        """Write the files into the folder `out`; without a target model.safetensors alone, which
        `shrinkc.compile` and the command line read.

        Raises InputError where that fails, and where the network was trained since its files were
        made: they hold the weights of before.
        """
        return _save({".": self.current_files()}, out)

    def current_files(self) -> Mapping[str, bytes]:
        """What `save` writes. Raises InputError as it does."""
        if self.compiled is None:
            from shrinkc.compiler.model_file.file import model_bytes

            return {"model.safetensors": model_bytes(self.graph_module, {})}
        if _digest(self) != self._compiled_weights:
            raise InputError(
                "the network was trained since its files were made",
                "compile it again, or write it alone with shrinkc.save",
            )
        return self.compiled.files

    def _compiled(self) -> Compiled:
        if self.compiled is None:
            raise InputError("no files were made, since no `target` was given; use shrinkc.compile")
        return self.compiled

    def summary(self) -> str:
        """What was done, in a few words."""
        return counted(sum(p.numel() for p in self.parameters()), "parameter")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.summary()})"


def save_together(
    results: Mapping[str, Compiled | Transformed], out: str | os.PathLike[str]
) -> Path:
    """Write each into a folder of its name in `out`, beside a page that compares them, all of them
    or none. Raises InputError as their own `save` does."""
    files = {
        name: one.files if isinstance(one, Compiled) else one.current_files()
        for name, one in results.items()
    }
    page = comparison_page({name: one.report.to_json() for name, one in results.items()})
    return _save({".": {PAGE: page.encode()}, **files}, out)


def _save(folders: Mapping[str, Mapping[str, bytes]], out: str | os.PathLike[str]) -> Path:
    folder = path_of("out", out)
    with atomic_folder(folder) as stage:
        for name, files in folders.items():
            (stage / name).mkdir(exist_ok=True)
            for file, content in files.items():
                (stage / name / file).write_bytes(content)
    return folder


def _as_read(x: Tensor, dtype: str) -> Tensor:
    """An input in the numbers that the network reads. Raises InputError for others."""
    wanted = getattr(torch, dtype)
    if x.is_meta or x.is_floating_point() != wanted.is_floating_point:
        kind = "no numbers (device meta)" if x.is_meta else str(x.dtype).removeprefix("torch.")
        read = "floats" if wanted.is_floating_point else dtype
        raise InputError(f"`inputs` holds {kind}; give {read} as the network reads them")
    return x.detach().to("cpu", wanted)


def _digest(module: nn.Module) -> int:
    """Of all weights and statistics."""
    crc = 0
    for x in (*module.parameters(), *module.buffers()):
        numbers: Any = x.detach().cpu().reshape(-1).view(torch.uint8).numpy()
        crc = zlib.crc32(numbers, crc)
    return crc

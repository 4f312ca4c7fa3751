"""The network of an ONNX file as ONNX Runtime computes it: what is made of it must equal that."""

from __future__ import annotations

import copy
from typing import Any, cast

import torch
from torch import Tensor, nn

from shrinkc.compiler.load.onnx.file import OnnxFile
from shrinkc.compiler.reference.reference import tensors_of
from shrinkc.compiler.reference.rounded import Rounded
from shrinkc.compiler.support.apart.runner import ApartRunner
from shrinkc.errors import LoadError


class OnnxOriginal(nn.Module):
    """The file itself, unchanged, in ONNX Runtime.

    A file knows float32 alone. For inputs in float64 what it computes is corrected by what float64
    changes in its translation: that is what float32 rounds, whether the translation is right or
    not. So is what it computes where operators are `Rounded`.
    """

    def __init__(self, file: OnnxFile, translation: nn.Module) -> None:
        super().__init__()
        self.translation = translation
        try:
            self._session = _Session(file.model.SerializeToString())
        except (LoadError, ValueError) as error:
            text = error.message if isinstance(error, LoadError) else "too large in one piece"
            raise LoadError(f"{file.path}: {text}; export it again") from error
        self._declared = file.inputs
        self.training = False

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        """One tensor, or those of all outputs in the file's order."""
        for one, x in zip(self._declared, inputs, strict=True):
            if one.dims is not None and not one.admits(x.shape):
                raise ValueError(f"the file has '{one.name}' as {one.dims_shown}")
        outputs = self._session.run(tuple(x.float() for x in inputs))
        mode = Rounded.entered()
        if mode is not None:
            moved = tensors_of(self.translation(*inputs))
            with mode.paused():
                outputs = _corrected(outputs, moved, tensors_of(self.translation(*inputs)))
        if inputs[0].dtype == torch.float64:
            narrow = copy.deepcopy(self.translation).float()
            exact = tensors_of(self.translation(*inputs))
            outputs = _corrected(outputs, exact, tensors_of(narrow(*(x.float() for x in inputs))))
        return outputs[0] if len(outputs) == 1 else outputs


def _corrected(
    outputs: tuple[Tensor, ...], other: tuple[Tensor, ...], usual: tuple[Tensor, ...]
) -> tuple[Tensor, ...]:
    """By how far the translation is from what it usually says."""
    return tuple(
        known + (o - u) if known.is_floating_point() else known
        for known, o, u in zip(outputs, other, usual, strict=True)
    )


class _Session:
    """In a process of its own: the file is anybody's. Without a `__dict__`, so that nobody looks
    into it for numbers of a network that change."""

    __slots__ = ("_made",)

    def __init__(self, model: bytes) -> None:
        self._made = ApartRunner("onnxruntime", model)

    def __deepcopy__(self, memo: Any) -> _Session:
        return self  # it changes nothing of itself

    def run(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        tensor: Any = cast(Any, torch).from_numpy
        return tuple(tensor(array) for array in self._made.run([x.numpy() for x in inputs]))

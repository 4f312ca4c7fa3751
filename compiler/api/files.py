"""`shrinkc.load`, `save`, `capture`: networks from files, into files, and as graphs."""

from __future__ import annotations

import os
from pathlib import Path

from torch import fx, nn

from shrinkc.compiler.api.steps.network import Inputs, subject_of
from shrinkc.compiler.load.load import load_model
from shrinkc.compiler.model_file.file import save_model
from shrinkc.compiler.support.checks import path_of


def load(
    path: str | os.PathLike[str], *, arch: str | None = None, trust: bool = False
) -> nn.Module | fx.GraphModule:
    """The network in a file, in eval mode on the CPU.

    Args:
        path: a pickled module or a state dict (.pt, .pth, .th), a .safetensors, or a .onnx, which
            is translated to torch's layers and compared with ONNX Runtime.
        arch: "package.module:factory" that builds the network of a state dict, or with arguments:
            "torchvision.models:resnet18(num_classes=10)".
        trust: load files that can run code: any pickle, .pt2, TorchScript. Only for files you made.

    Raises:
        UnsafeFileError: loading would run code, and `trust` is not given.
        LoadError: a file that is missing, damaged, too large, or holds no network.
        InputError: an `arch` that does not work.
    """
    return load_model(path_of("path", path), arch=arch, trust=trust)


def capture(model: nn.Module, inputs: Inputs = None) -> fx.GraphModule:
    """The canonical graph of `model`, which is left as it is.

    Args:
        model: in any mode, on any device.
        inputs: an example (N, …) or its shape, one per input of `forward`.

    Returns:
        A graph that returns a tuple of tensors, in eval mode on the CPU. It trains, and runs at any
        batch size where the model does. `meta` holds `input_shapes`, `captured_by` and
        `dynamic_batch`.

    Raises:
        CaptureError: an operator that could not be captured.
        ModelRunError: the model does not run on such inputs.
    """
    return subject_of(model, inputs).graph


def save(model: nn.Module, path: str | os.PathLike[str], inputs: Inputs = None) -> Path:
    """Write a network, captured if it is not yet, to a .safetensors file that `load` reads.

    Raises CaptureError, ModelRunError, and InputError where `path` cannot be written.
    """
    file = path_of("path", path)
    save_model(subject_of(model, inputs).graph, file, {})
    return file

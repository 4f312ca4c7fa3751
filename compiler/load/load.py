"""Model files in, modules out. Nothing in a file is run unless the user says so."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import fx, nn
from torch.optim.swa_utils import AveragedModel

from shrinkc.compiler.load.check_weights import check_finite, check_sizes
from shrinkc.compiler.load.file_kind import identify, unpacked_bytes
from shrinkc.compiler.load.onnx.network import load_onnx
from shrinkc.compiler.load.plain_dict import items_of
from shrinkc.compiler.load.rebuild_module import Rebuilder, RefusedError
from shrinkc.compiler.load.safe_pickle import TRUST_ADVICE, StandIn, load_inert
from shrinkc.compiler.load.trusted import (
    ExportedNetwork,
    load_exported,
    load_pickle,
    load_torchscript,
)
from shrinkc.compiler.load.weights.architecture import Architecture
from shrinkc.compiler.load.weights.checkpoint import Weights, find_module, find_weights
from shrinkc.compiler.load.weights.match_names import first_few
from shrinkc.compiler.load.weights.state_dict import load_weights, rounded
from shrinkc.compiler.load.zip_archive import open_archive
from shrinkc.compiler.model_file.file import is_model_file, load_model_file, read_tensors
from shrinkc.compiler.support.text import one_line
from shrinkc.errors import LoadError, UnsafeFileError
from shrinkc.passes.base import collector_waits

MAX_BYTES = 4 << 30
# What a library's own code raises on modules whose attributes a file chose.
STRANGE = (TypeError, AttributeError, LookupError, ValueError, RuntimeError)


@dataclass(frozen=True)
class Loaded:
    """A network in eval mode, in float32 on the CPU, and what a user should know of how it was
    read, one sentence each."""

    model: nn.Module | fx.GraphModule
    notes: tuple[str, ...] = ()


def load_model(
    path: Path, *, arch: str | None = None, trust: bool = False, max_bytes: int = MAX_BYTES
) -> nn.Module | fx.GraphModule:
    """The network of `read_model`, without the notes."""
    return read_model(path, arch=arch, trust=trust, max_bytes=max_bytes).model


def read_model(
    path: Path, *, arch: str | None = None, trust: bool = False, max_bytes: int = MAX_BYTES
) -> Loaded:
    """The network in a file.

    shrinkc's own `.safetensors` gives the canonical `fx.GraphModule` that was saved. Everything
    else gives another `nn.Module`, to be captured:

    * a pickled `nn.Module` of torch.nn, torchvision, timm, pytorchcv or transformers classes,
      rebuilt without running anything (`safe_pickle`, `rebuild_module`);
    * a state dict (`.pt`, `.pth`, `.th`, `.safetensors`), as trainers wrap it (`checkpoint`), with
      `arch="package.module:factory"`, which imports and calls that code (`architecture`);
    * an ONNX file, translated (`onnx`), for inputs of the shapes that it declares;
    * with `trust`, which runs code from the file: any pickle, `.pt2`, TorchScript (`trusted`).

    Raises UnsafeFileError where loading would run code and `trust` is not given; LoadError for a
    file that is missing, damaged, larger than `max_bytes` (checked before parsing) or holds NaN
    or infinite weights; InputError for an `arch` that does not work.
    """
    kind = identify(path, max_bytes)
    if kind in ("zip", "exported", "torchscript"):
        open_archive(path).check()
    if kind == "onnx":
        refuse_architecture(path, arch)
        return Loaded(load_onnx(path, max_bytes))
    if kind == "safetensors":
        if is_model_file(path):
            refuse_architecture(path, arch)
            with collector_waits():
                graph_module, _ = load_model_file(path)
                check_finite(path, graph_module)
                kinds = {t.dtype for t in (*graph_module.parameters(), *graph_module.buffers())}
                floats = {kind for kind in kinds if kind.is_floating_point}
                return Loaded(graph_module if floats <= {torch.float32} else graph_module.float())
        loaded = _with_architecture(path, Weights(read_tensors(path)), arch)
    elif kind == "exported" or kind == "torchscript":
        loaded = Loaded(_trusted(path, kind, trust))
    else:
        loaded = _from_checkpoint(path, kind, arch, trust)
    model = loaded.model.eval()
    notes = rounded((*model.parameters(), *model.buffers()))
    try:
        model = model.float()
    except STRANGE as error:
        raise _of_another_version(path, error) from error
    check_finite(path, model)
    return Loaded(model, (*loaded.notes, *notes))


def refuse_architecture(path: Path, arch: str | None) -> None:
    """Of a file that holds its network. Raises LoadError."""
    if arch is not None:
        raise LoadError(f"{path}: holds its network; leave out `arch`")


def _trusted(path: Path, kind: Literal["exported", "torchscript"], trust: bool) -> nn.Module:
    if trust:
        return load_exported(path) if kind == "exported" else load_torchscript(path)
    if kind == "exported":
        what = "a torch.export archive (.pt2), which unpickles and evaluates what is in it"
    else:
        what = "a TorchScript archive, which runs the code in it"
    raise UnsafeFileError(f"{path}: {what}; save the nn.Module with torch.save, or {TRUST_ADVICE}")


def _from_checkpoint(
    path: Path, kind: Literal["zip", "legacy"], arch: str | None, trust: bool
) -> Loaded:
    script = None if arch is None else Architecture.parse(arch)
    loaded, of_script = load_pickle(path, script) if trust else (load_inert(path, kind), False)
    weights = find_weights(loaded)
    if weights is not None:
        tensors = (*weights.tensors.values(), *weights.averaged)
        check_sizes(path, tensors, unpacked_bytes(path, kind))
        return _with_architecture(path, weights, arch)
    whole, notes = find_module(loaded, _is_module)
    model = whole if trust else _rebuilt(path, whole, unpacked_bytes(path, kind))
    if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel | AveragedModel):
        model = dict(model.named_children()).get("module")
    if not isinstance(model, nn.Module):
        names = [name for name, _ in items_of(loaded)] if isinstance(loaded, dict) else []
        keys = f" with {first_few(names, 4)}" if names else ""
        what = type(cast(Any, loaded)).__name__
        raise LoadError(
            f"{path}: holds a {what}{keys}, neither a model nor a state dict; save one of these"
        )
    refuse_architecture(path, None if of_script else arch)
    # a graph that is not ours must not be taken for a canonical one
    model = ExportedNetwork(model.eval()) if isinstance(model, fx.GraphModule) else model
    return Loaded(model, notes)


def _is_module(value: Any) -> bool:
    """A network, or the record of one."""
    if isinstance(value, StandIn):
        return value.allowed is not None and value.allowed.kind == "module"
    return isinstance(value, nn.Module)


def _rebuilt(path: Path, inert: Any, unpacked: int) -> Any:
    rebuilder = Rebuilder()
    try:
        model = rebuilder.build(inert)
        if isinstance(model, nn.Module):
            model.eval()
    except RefusedError as error:
        raise UnsafeFileError(
            f"{path}: it holds {error}, which could run code; {TRUST_ADVICE}"
        ) from error
    except STRANGE as error:
        raise _of_another_version(path, error) from error
    check_sizes(path, rebuilder.tensors, unpacked)
    return model


def _of_another_version(path: Path, error: Exception) -> LoadError:
    return LoadError(
        f"{path}: damaged, or of another version of its library ({one_line(error)}); "
        "save a state dict and give `arch` package.module:factory"
    )


def _with_architecture(path: Path, weights: Weights, arch: str | None) -> Loaded:
    if arch is None:
        raise LoadError(
            f"{path}: a state dict, weights without a network ({first_few(weights.tensors, 4)}); "
            "name the network with `arch` package.module:factory"
        )
    architecture = Architecture.parse(arch)
    model = architecture.build()
    return Loaded(model, load_weights(path, model, weights, architecture))

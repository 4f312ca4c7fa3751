"""Model files in, modules out. Nothing in a file is run unless the user says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, cast

from torch import Tensor, fx, nn

from shrinkc.compiler.load.check_weights import check_finite, check_sizes
from shrinkc.compiler.load.file_kind import identify, unpacked_bytes
from shrinkc.compiler.load.rebuild_module import Rebuilder, RefusedError
from shrinkc.compiler.load.safe_pickle import TRUST_ADVICE, load_inert
from shrinkc.compiler.load.state_dict import (
    build_architecture,
    find_state_dict,
    keys_shown,
    load_weights,
)
from shrinkc.compiler.load.trusted import (
    ExportedNetwork,
    load_exported,
    load_pickle,
    load_torchscript,
)
from shrinkc.compiler.model_file.file import is_model_file, load_model_file, read_tensors
from shrinkc.compiler.support.text import one_line
from shrinkc.errors import LoadError, UnsafeFileError

MAX_BYTES = 4 << 30


def load_model(
    path: Path, *, arch: str | None = None, trust: bool = False, max_bytes: int = MAX_BYTES
) -> nn.Module | fx.GraphModule:
    """The network in a file, in eval mode on the CPU.

    shrinkc's own `.safetensors` gives the canonical `fx.GraphModule` that was saved. Everything
    else gives another `nn.Module`, to be captured:

    * a pickled `nn.Module` of torch.nn, torchvision, timm, pytorchcv or transformers classes,
      rebuilt without running anything (`safe_pickle`, `rebuild`);
    * a state dict (`.pt`, `.pth`, `.th`, `.safetensors`), with `arch="package.module:factory"`,
      which imports and calls that code (`state_dict`);
    * with `trust`, which runs code from the file: any pickle, `.pt2`, TorchScript (`trusted`).

    Raises UnsafeFileError where loading would run code and `trust` is not given; LoadError for a
    file that is missing, damaged, larger than `max_bytes` (checked before parsing) or holds NaN
    or infinite weights; InputError for an `arch` that does not work.
    """
    kind = identify(path, max_bytes)
    if kind == "safetensors":
        if is_model_file(path):
            if arch is not None:
                raise LoadError(f"{path}: shrinkc's own file holds its network; leave out `arch`")
            graph_module, _ = load_model_file(path)
            check_finite(path, graph_module)
            return graph_module
        model = _with_architecture(path, read_tensors(path), arch)
    elif kind == "exported" or kind == "torchscript":
        model = _trusted(path, kind, trust)
    else:
        model = _from_checkpoint(path, kind, arch, trust)
    model.eval()
    check_finite(path, model)
    return model


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
) -> nn.Module:
    loaded: Any = load_pickle(path) if trust else load_inert(path, kind)
    weights = find_state_dict(loaded)
    if weights is not None:
        check_sizes(path, weights.values(), unpacked_bytes(path, kind))
        return _with_architecture(path, weights, arch)
    whole: Any = cast(Any, loaded).get("model") if isinstance(loaded, dict) else loaded
    model = whole if trust else _rebuilt(path, whole, unpacked_bytes(path, kind))
    if isinstance(model, nn.DataParallel):
        model = dict(model.named_children()).get("module")
    if not isinstance(model, nn.Module):
        keys = f" with {keys_shown(cast(Any, loaded))}" if isinstance(loaded, dict) else ""
        what = type(cast(Any, loaded)).__name__
        raise LoadError(
            f"{path}: holds a {what}{keys}, neither a model nor a state dict; save one of these"
        )
    if arch is not None:
        raise LoadError(f"{path}: holds a whole model; leave out `arch`")
    # a graph that is not ours must not be taken for a canonical one
    return ExportedNetwork(model.eval()) if isinstance(model, fx.GraphModule) else model


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
    except (TypeError, AttributeError, RecursionError) as error:
        raise LoadError(
            f"{path}: damaged, or of another version of its library ({one_line(error)}); "
            "save a state dict and give `arch` package.module:factory"
        ) from error
    check_sizes(path, rebuilder.tensors, unpacked)
    return model


def _with_architecture(path: Path, weights: dict[str, Tensor], arch: str | None) -> nn.Module:
    if arch is None:
        raise LoadError(
            f"{path}: a state dict, weights without a network ({keys_shown(weights)}); "
            "name the network with `arch` package.module:factory"
        )
    model = build_architecture(arch)
    load_weights(path, model, weights, arch)
    return model

"""State dicts: the weights of a checkpoint, put into the network that `--arch` makes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from shrinkc.compiler.load.weights.architecture import Architecture, advice
from shrinkc.compiler.load.weights.checkpoint import Weights
from shrinkc.compiler.load.weights.match_names import first_few, is_counter, matched
from shrinkc.errors import LoadError

Shape = tuple[int, ...]


def load_weights(
    path: Path, model: nn.Module, weights: Weights, arch: Architecture
) -> tuple[str, ...]:
    """Copy `weights` into `model`, and tell what was taken, computed and left out.

    Raises LoadError naming the first keys that do not fit, and where another call of the factory
    would fit, that call.
    """
    own: dict[str, Tensor] = model.state_dict()
    try:
        fitting, notes = matched(weights.tensors, own)
        if weights.averaged:
            fitting, more = _with_averages(model, fitting, weights.averaged)
            notes.append(more)
    except LoadError as error:
        raise LoadError(f"{path}: {error}") from error
    missing, unexpected, shapes = _misfits(fitting, own)
    problems = [
        f"{len(names)} {what} ({first_few(names)})"
        for what, names in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("of another shape", [f"{k}: {_both(*pair)}" for k, pair in shapes.items()]),
        )
        if names
    ]
    if problems:
        hint = "check `arch`"
        if not missing and not unexpected:
            hint = advice(arch, shapes, lambda other: not any(_misfits(fitting, other)))
        raise LoadError(f"{path} does not fit {arch}: keys {'; '.join(problems)}", hint)
    with torch.no_grad():
        for key, value in fitting.items():
            own[key].copy_(value)
    return (*weights.notes, *notes, *rounded(fitting.values()))


def rounded(tensors: Iterable[Tensor]) -> tuple[str, ...]:
    """A note where numbers of another precision become float32."""
    kinds = {x.dtype for x in tensors if x.is_floating_point()} - {torch.float32}
    names = sorted(str(kind).removeprefix("torch.") for kind in kinds)
    return (f"weights in {' and '.join(names)} become float32",) if names else ()


def _misfits(
    weights: Mapping[str, Tensor], own: Mapping[str, Tensor]
) -> tuple[list[str], list[str], dict[str, tuple[Shape, Shape]]]:
    """Missing keys, unexpected ones, and those of another shape."""
    given = {own[k].data_ptr() for k in weights if k in own}
    missing = [  # tied weights may be stored once
        k
        for k, v in own.items()
        if k not in weights and not is_counter(k) and (v.data_ptr() not in given or v.numel() == 0)
    ]
    unexpected = [k for k in weights if k not in own]
    shapes = {
        k: (tuple(v.shape), tuple(own[k].shape))
        for k, v in weights.items()
        if k in own and v.shape != own[k].shape
    }
    return missing, unexpected, shapes


def _both(file: Shape, model: Shape) -> str:
    return f"{file} in the file, {model} in the model"


def _with_averages(
    model: nn.Module, weights: Mapping[str, Tensor], averaged: tuple[Tensor, ...]
) -> tuple[dict[str, Tensor], str]:
    """Averages that have an order and no names, under the names of the parameters in that order.

    Raises LoadError where their number, a shape, or the order of the named weights beside them says
    that it is another order.
    """
    names = [name for name, _ in model.named_parameters()]
    shapes = [tuple(parameter.shape) for parameter in model.parameters()]
    beside = [name for name in weights if name in set(names)]
    if [tuple(x.shape) for x in averaged] != shapes or (beside and beside != names):
        raise LoadError(
            f"its averaged weights are a list of {len(averaged)} without names, which does not "
            f"fit the {len(names)} parameters of the network in their order; save its state dict "
            "with the averages copied into the network"
        )
    found = {**weights, **dict(zip(names, averaged, strict=True))}
    return found, "the averaged weights are taken, named by the order of the parameters"

"""Checkpoints: tensors and plain containers, read without running anything, written whole."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from shrinkc.compiler.load.safe_pickle import load_inert
from shrinkc.compiler.load.zip_archive import open_archive
from shrinkc.compiler.support.atomic_files import write_file
from shrinkc.compiler.support.reading.regular_file import require_regular
from shrinkc.compiler.support.text import one_line
from shrinkc.errors import InputError, LoadError, TrainingError

LAST, BEST = "last.pt", "best.pt"
VERSION = 1


def save(path: Path, state: Mapping[str, Any]) -> None:
    """Write `state`, whole or not at all: a crash leaves what was there before.

    Raises TrainingError where the folder cannot be written.
    """
    stream = io.BytesIO()
    torch.save({"version": VERSION, **state}, stream)
    try:
        write_file(path, stream.getvalue())
    except InputError as error:
        raise TrainingError(f"no checkpoint can be written: {error}") from error


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU. Raises TrainingError where it is damaged or another file."""
    try:
        require_regular(path)
        open_archive(path).check()
        state: Any = load_inert(path, "zip")
    except (OSError, LoadError) as error:
        reason = getattr(error, "strerror", None) or str(error).removeprefix(f"{path}: ")
        raise TrainingError(
            f"{path}: not a readable checkpoint ({one_line(reason, 80)}); remove it to start anew"
        ) from error
    version = cast(dict[str, Any], state).get("version") if isinstance(state, dict) else None
    if type(version) is not int or version != VERSION:
        raise TrainingError(f"{path}: not a checkpoint of this version; remove it to start anew")
    return cast(dict[str, Any], state)


def load_weights(model: nn.Module, path: Path) -> None:
    """Give `model` the weights of `best.pt` or `last.pt`: the averaged ones where there are such.

    Raises TrainingError where they do not fit.
    """
    state = load(path)
    try:
        model.load_state_dict(state.get("average") or state["model"])
    except (KeyError, RuntimeError) as error:
        raise TrainingError(f"{path}: does not fit the network: {one_line(error)}") from error


# What a training that goes on needs, of these types.
_PARTS: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("settings", "model", "optimiser", "window", "epoch"), (dict,)),
    **dict.fromkeys(("average", "scaler", "hooks"), (dict, type(None))),
    **dict.fromkeys(("step", "epochs"), (int,)),
    "seconds": (float,),
    "best": (float, type(None)),
    "history": (list,),
}


_COUNTED = ("step", "epochs", "seconds")


def load_whole(path: Path) -> dict[str, Any]:
    """A checkpoint that a training goes on from. Raises TrainingError."""
    state = load(path)
    for name, kinds in _PARTS.items():
        value: Any = state.get(name)
        if not isinstance(value, kinds) or (name in _COUNTED and not value >= 0):
            raise damaged(path, name)
    return state


def damaged(path: Path, what: str) -> TrainingError:
    return TrainingError(f"{path}: damaged ({one_line(what, 80)}); remove it to start anew")


def check_same(path: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Raises TrainingError where a checkpoint belongs to a training with other settings."""
    for name in wanted:
        if not _same(found.get(name), wanted[name]):
            raise TrainingError(
                f"{path.parent}: holds a training with {name} {_told(found.get(name))}, not "
                f"{wanted[name]}; give another folder, or the former settings to go on"
            )


def _same(found: object, wanted: object) -> bool:
    try:
        return bool(found == wanted)
    except (RuntimeError, ValueError):  # a damaged one may hold tensors, which compare one by one
        return False


def _told(value: object) -> str:
    return one_line(str(value), 400)

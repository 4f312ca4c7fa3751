"""Checkpoints: tensors and plain containers, read without running anything, written whole."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from shrinkc.compiler.support.atomic_files import write_file
from shrinkc.compiler.support.text import one_line
from shrinkc.errors import InputError, TrainingError

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
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # unpickling damaged bytes raises anything
        raise TrainingError(
            f"{path}: not a readable checkpoint ({one_line(error, 80)}); remove it to start anew"
        ) from error
    if not isinstance(state, dict) or cast(dict[str, Any], state).get("version") != VERSION:
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


def check_same(path: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Raises TrainingError where a checkpoint belongs to a training with other settings."""
    for name in wanted:
        if found.get(name) != wanted[name]:
            raise TrainingError(
                f"{path.parent}: holds a training with {name} {found.get(name)}, not "
                f"{wanted[name]}; give another folder, or the former settings to go on"
            )

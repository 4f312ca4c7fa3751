"""State dicts: weights without a network, put into the one that `--arch` makes.

`--arch package.module:factory` imports and calls code that the user names, with the current
directory importable, as `python` would run it.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from shrinkc.compiler.support.text import named, shown
from shrinkc.errors import InputError, LoadError

WRAPPERS = ("state_dict", "model", "model_state_dict", "model_ema")
_PREFIXES = ("module.", "_orig_mod.")  # DataParallel, torch.compile
_NO_WEIGHT = ("n_averaged",)  # torch.optim.swa_utils.AveragedModel's counter
_ARCH = re.compile(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):([A-Za-z_]\w*)")


def find_state_dict(loaded: Any) -> dict[str, Tensor] | None:
    """The weights in what a checkpoint held: itself, or under one of WRAPPERS; else None."""
    if not isinstance(loaded, Mapping):
        return None
    mapping = cast(Mapping[Any, Any], loaded)
    for candidate in (mapping, *(mapping.get(name) for name in WRAPPERS)):
        if isinstance(candidate, Mapping) and candidate:
            items = cast(Mapping[Any, Any], candidate).items()
            if all(type(k) is str and _is_weight(v) for k, v in items):
                return {k: Tensor.detach(v) for k, v in items}
    return None


def build_architecture(arch: str) -> nn.Module:
    """Import and call `package.module:factory`, without arguments.

    Raises InputError: not of that form, no such module or factory, the factory raises, or it
    returns something else than an nn.Module.
    """
    match = _ARCH.fullmatch(arch)
    if not match:
        raise InputError(f"`arch` {arch}: give package.module:factory, such as models:resnet20")
    module_name, factory_name = match.groups()
    with current_directory_importable():
        try:
            factory: Any = getattr(importlib.import_module(module_name), factory_name)
        except AttributeError as error:
            raise InputError(
                f"`arch` {arch}: {module_name} has no {factory_name}; check the name"
            ) from error
        except Exception as error:  # the user's module runs
            raise InputError(
                f"`arch` {arch}: cannot import {module_name} ({named(error)}); "
                "run in the folder that holds it"
            ) from error
        try:
            model = factory()
        except Exception as error:  # the user's factory runs
            raise InputError(
                f"`arch` {arch}: calling {factory_name}() failed ({named(error)}); "
                "it must work without arguments"
            ) from error
    if not isinstance(model, nn.Module):
        raise InputError(f"`arch` {arch}: returned a {type(model).__name__}, not an nn.Module")
    return model


def load_weights(path: Path, model: nn.Module, weights: dict[str, Tensor], arch: str) -> None:
    """Copy `weights` into `model`. Raises LoadError naming the first keys that do not fit."""
    own: dict[str, Tensor] = model.state_dict()
    stripped = {_stripped(k): v for k, v in weights.items() if k not in _NO_WEIGHT}
    if len(own.keys() & stripped.keys()) > len(own.keys() & weights.keys()):
        weights = stripped
    given = {own[k].data_ptr() for k in weights if k in own}
    missing = [  # batch counters are of no use here, tied weights may be stored once
        k
        for k, v in own.items()
        if k not in weights
        and not k.endswith("num_batches_tracked")
        and (v.data_ptr() not in given or v.numel() == 0)
    ]
    unexpected = [k for k in weights if k not in own]
    shapes = [
        f"{k}: {tuple(v.shape)} in the file, {tuple(own[k].shape)} in the model"
        for k, v in weights.items()
        if k in own and v.shape != own[k].shape
    ]
    problems = [
        f"{len(names)} {what} ({', '.join(map(shown, names[:3]))}{', …' * (len(names) > 3)})"
        for what, names in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("of another shape", shapes),
        )
        if names
    ]
    if problems:
        raise LoadError(f"{path} does not fit {arch}: keys {'; '.join(problems)}; check `arch`")
    with torch.no_grad():
        for key, value in weights.items():
            own[key].copy_(value)


@contextmanager
def current_directory_importable() -> Generator[None]:
    """As if run by `python` in the current directory, while the block runs."""
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        yield
    finally:
        sys.path.remove(here)


def keys_shown(keys: Iterable[Any]) -> str:
    """The first few keys of a mapping, for a message."""
    names = [shown(str(key)) for key in keys]
    return ", ".join(names[:4]) + ", …" * (len(names) > 4)


def _is_weight(value: Any) -> bool:
    return type(value) in (Tensor, nn.Parameter)


def _stripped(key: str) -> str:
    for prefix in _PREFIXES:
        if key.startswith(prefix):
            return _stripped(key.removeprefix(prefix))
    return key

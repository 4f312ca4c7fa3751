"""The network of a state dict: `--arch package.module:factory`, or with what the factory is called
with, `--arch 'torchvision.models:resnet18(num_classes=10)'`.

It imports and calls code that the user names, with the current directory importable, as `python`
would run it.
"""

from __future__ import annotations

import ast
import importlib
import re
import sys
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from shrinkc.compiler.support.quiet import quiet
from shrinkc.compiler.support.text import named
from shrinkc.errors import InputError

_ARCH = re.compile(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):([A-Za-z_]\w*)(\(.*\))?", re.DOTALL)
_FORM = "give package.module:factory, such as models:resnet20 or 'models:resnet20(num_classes=10)'"

# What factories call the classes that they tell apart, and the channels of their images
_CLASSES = ("num_classes", "n_classes", "num_labels", "classes", "nc", "out_channels")
_CHANNELS = ("in_chans", "in_channels", "input_channels", "num_channels", "n_channels")


@dataclass(frozen=True)
class Architecture:
    """A factory, and what it is called with."""

    module: str
    factory: str
    args: tuple[Any, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @classmethod
    def parse(cls, text: str) -> Architecture:
        """Raises InputError for what is not of that form."""
        found = _ARCH.fullmatch(text)
        if not found:
            raise InputError(f"`arch` {text}: {_FORM}")
        try:
            call: Any = ast.parse(f"f{found[3] or '()'}", mode="eval").body
            args = tuple(ast.literal_eval(one) for one in call.args)
            options = {
                str(one.arg): ast.literal_eval(one.value) for one in call.keywords if one.arg
            }
            if len(options) < len(call.keywords) or not isinstance(call.func, ast.Name):
                raise ValueError("**, or the call of a call")
        except (ValueError, SyntaxError, TypeError, AttributeError, RecursionError) as error:
            raise InputError(
                f"`arch` {text}: its arguments are no plain values; {_FORM}"
            ) from error
        return cls(found[1], found[2], args, options)

    @property
    def call(self) -> str:
        """'resnet18(num_classes=10)'"""
        given = [*map(repr, self.args), *(f"{name}={v!r}" for name, v in self.options.items())]
        return f"{self.factory}({', '.join(given)})"

    def __str__(self) -> str:
        called = self.args or self.options
        return f"{self.module}:{self.call}" if called else f"{self.module}:{self.factory}"

    def build(self) -> nn.Module:
        """Import and call it.

        Raises InputError: no such module or factory, the factory raises, or it returns something
        else than an nn.Module.
        """
        factory = self.found()
        try:
            with current_directory_importable():
                model = factory(*self.args, **self.options)
        except Exception as error:  # the user's factory runs
            given = self.args or self.options
            hint = "check its arguments" if given else "it must work without arguments, or " + _FORM
            raise InputError(
                f"`arch` {self}: calling {self.call} failed ({named(error)})", hint
            ) from error
        if not isinstance(model, nn.Module):
            raise InputError(f"`arch` {self}: returned a {type(model).__name__}, not an nn.Module")
        return model

    def found(self) -> Any:
        """The factory itself. Raises InputError."""
        module = self.imported()
        try:
            return getattr(module, self.factory)
        except AttributeError as error:
            raise InputError(
                f"`arch` {self}: {self.module} has no {self.factory}; check the name"
            ) from error

    def imported(self) -> Any:
        """The module that holds it. Raises InputError."""
        return imported("arch", self, self.module)


def advice(
    arch: Architecture,
    shapes: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]],
    fits: Callable[[Mapping[str, Tensor]], bool],
) -> str:
    """What to give instead of `arch`, whose network differs from the file in `shapes` alone (name →
    the file's, the network's): tried before it is said.

    `fits` judges a network's state dict.
    """
    outputs = {a[0] for a, b in shapes.values() if a[1:] == b[1:] and a}
    channels = {a[1] for a, b in shapes.values() if (a[:1], a[2:]) == (b[:1], b[2:]) and len(a) > 1}
    if outputs | channels and max(len(outputs), len(channels)) == 1:
        choices = [
            [(name, count) for count in counts for name in names] or [None]
            for names, counts in ((_CLASSES, outputs), (_CHANNELS, channels))
        ]
        for options in product(*choices):
            other = replace(arch, options={**arch.options, **dict(filter(None, options))})
            if _fits(other.build, fits):
                return f"give `arch` '{other}'"
    layers = {name.rpartition(".")[0] for name in shapes}
    if len(outputs) == 1 and len(layers) == 1:
        return _own_factory(arch, layers.pop(), outputs.pop(), fits) or "check `arch`"
    return "check `arch`"


def _own_factory(
    arch: Architecture, layer: str, outputs: int, fits: Callable[[Mapping[str, Tensor]], bool]
) -> str | None:
    """A file with a function that replaces the last layer, where that is all that it takes."""
    made: list[str] = []

    def changed() -> nn.Module:
        model = arch.build()
        old = model.get_submodule(layer)
        if type(old) is not nn.Linear:
            raise InputError("the layer is of another kind")
        biased = "bias" in dict(old.named_parameters())
        model.set_submodule(layer, nn.Linear(old.in_features, outputs, biased))
        bias = "" if biased else ", bias=False"
        made.append(f"torch.nn.Linear({old.in_features}, {outputs}{bias})")
        return model

    if not _fits(changed, fits):
        return None
    return (
        "put this line into a file net.py here and give `arch` net:net: "
        f"def net(): import torch, {arch.module}; model = {arch.module}.{arch.call}; "
        f"model.set_submodule('{layer}', {made[0]}); return model"
    )


def _fits(build: Callable[[], nn.Module], fits: Callable[[Mapping[str, Tensor]], bool]) -> bool:
    with suppress(Exception), quiet():  # a factory that has no such argument may do anything
        return fits(build().state_dict())
    return False


def imported(option: str, text: object, module: str) -> Any:
    """A module that the user names with `option`, from the current folder too. Raises
    InputError."""
    with current_directory_importable():
        try:
            return importlib.import_module(module)
        except Exception as error:  # the user's module runs
            raise InputError(
                f"`{option}` {text}: cannot import {module} ({named(error)}); run in the folder "
                "that holds it"
            ) from error


@contextmanager
def current_directory_importable() -> Generator[None]:
    """As if run by `python` in the current directory, while the block runs."""
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        yield
    finally:
        sys.path.remove(here)

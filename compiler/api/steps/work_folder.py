"""The folder that keeps what a long call needs to go on: one call at a time works in it."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from pathlib import Path
from typing import ParamSpec, TypeVar

from shrinkc.compiler.support.checks import path_of
from shrinkc.compiler.support.disk.lock import alone_in
from shrinkc.compiler.support.text import one_line
from shrinkc.errors import InputError

P = ParamSpec("P")
R = TypeVar("R")


def alone_in_folder(function: Callable[P, R]) -> Callable[P, R]:
    """A call with `folder` makes it and is alone there, or raises InputError that says who is, or
    why nothing can be kept in it. Of several ranks the first one locks it for all."""

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        folder = kwargs.get("folder")
        if folder is None or os.environ.get("RANK", "0") != "0":
            return function(*args, **kwargs)
        path = _writable(folder)
        try:
            with alone_in(path):
                return function(*args, **kwargs)
        finally:
            with suppress(OSError):  # it is not empty
                path.rmdir()

    return call


def _writable(folder: object) -> Path:
    """Made where it is missing. Raises InputError where nothing can be kept in it."""
    path = path_of("folder", folder)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"`folder` {path} cannot be made: {one_line(error)}") from error
    if not os.access(path, os.W_OK):
        raise InputError(f"`folder` {path}: no permission to write there")
    return path

"""The methods of `shrinkc shrink`, by name."""

from __future__ import annotations

from typing import get_args

from shrinkc.compiler.depth.trained import Method

TRAINED: dict[str, Method] = {method: method for method in get_args(Method)}
METHODS = ("closed-form", *TRAINED, "expand")

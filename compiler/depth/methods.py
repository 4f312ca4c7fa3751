"""The methods of `shrinkc shrink` that train for their choices, by name."""

from __future__ import annotations

from typing import get_args

from shrinkc.compiler.depth.trained import Method

TRAINED: dict[str, Method] = {method: method for method in get_args(Method)}

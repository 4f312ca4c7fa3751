"""shrinkc: a trained CNN in, the file that runs fastest on one named device out.

    import shrinkc

    report = shrinkc.compile(model, [(1, 3, 224, 224)], Path("out"), shrinkc.Options(target="rpi4"))

Everything else lives in `shrinkc.compiler`, `shrinkc.passes` and `shrinkc.latency_tables`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from shrinkc.version import __version__

if TYPE_CHECKING:
    from shrinkc.compiler.api.compile import compile_model as compile
    from shrinkc.compiler.capture import capture
    from shrinkc.compiler.load.load import load_model as load
    from shrinkc.compiler.options import Options
    from shrinkc.errors import ShrinkcError

__all__ = ["Options", "ShrinkcError", "__version__", "capture", "compile", "load"]

_HOMES = {
    "Options": ("compiler.options", "Options"),
    "ShrinkcError": ("errors", "ShrinkcError"),
    "capture": ("compiler.capture", "capture"),
    "compile": ("compiler.api.compile", "compile_model"),
    "load": ("compiler.load.load", "load_model"),
}


def __getattr__(name: str) -> Any:
    """Names are imported when first used, so that `import shrinkc` costs nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module 'shrinkc' has no attribute '{name}'")
    module, attribute = _HOMES[name]
    return getattr(importlib.import_module(f".{module}", __name__), attribute)

"""Operators that no rule can cover, each with what to do instead."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any, cast

from torch import nn
from torch.nn.utils import rnn

from shrinkc.compiler.capture.context import Context
from shrinkc.errors import CaptureError

_FOLLOWS = "its shape follows the numbers; leave selecting to whoever reads the files"
_BOXES = "as many boxes come out as the numbers say; cut the decoded head before NMS"
_REASONS = {
    **dict.fromkeys(("nonzero", "argwhere", "masked_select", "flatnonzero"), _FOLLOWS),
    **dict.fromkeys(("unique", "unique_consecutive", "_unique2", "unique_dim"), _FOLLOWS),
    **dict.fromkeys(("bincount", "histc", "histogram"), "counts by value have no operator"),
    **dict.fromkeys(("nms", "batched_nms"), _BOXES),
    **dict.fromkeys(("deform_conv2d",), "deformable convolutions have no operator in the runtimes"),
    **dict.fromkeys(("roi_align", "roi_pool"), "regions have no operator in TFLite"),
    **dict.fromkeys(("ps_roi_align", "ps_roi_pool"), "regions have no operator in the runtimes"),
    **dict.fromkeys(("lgamma", "digamma", "erfinv", "i0", "polygamma"), "no runtime computes it"),
}


def packed_sequence(model: nn.Module, error: Exception) -> CaptureError | None:
    """What to do, where tracing failed on packed sequences, whose operators look at lengths."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    packing = [f.f_code.co_name for f in frames if f.f_code.co_filename == rnn.__file__]
    if not packing:
        return None
    named: Any = cast(Any, model).named_modules()
    paths: dict[int, str] = {id(module): path for path, module in named}
    callers = [paths.get(id(frame.f_locals.get("self"))) for frame in frames]
    path = [one for one in callers if one is not None][-1:]
    where = f" in '{path[0]}'" if path and path[0] else ""
    return CaptureError(
        f"{packing[0]}{where}: packed sequences follow their lengths; give the recurrent layer "
        "padded sequences, all of one length"
    )


def _refusal(reason: str) -> Callable[..., Any]:
    def rule(c: Context, *args: Any, **kwargs: Any) -> Any:
        raise c.unsupported(reason)

    return rule


RULES: dict[str, Callable[..., Any]] = {n: _refusal(reason) for n, reason in _REASONS.items()}

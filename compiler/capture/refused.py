"""Operators that no rule can cover, each with what to do instead."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from shrinkc.compiler.capture.context import Context

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


def _refusal(reason: str) -> Callable[..., Any]:
    def rule(c: Context, *args: Any, **kwargs: Any) -> Any:
        raise c.unsupported(reason)

    return rule


RULES: dict[str, Callable[..., Any]] = {n: _refusal(reason) for n, reason in _REASONS.items()}

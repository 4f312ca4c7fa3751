"""What every option saves in the whole network, and whether it can be carried out at all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from shrinkc.compiler.depth.options import DepthOption
from shrinkc.compiler.depth.surgery import DepthPlan
from shrinkc.errors import InputError
from shrinkc.passes.analysis.linear.spans import NoSpan


def priced(
    options: Sequence[DepthOption], cost_ms: Callable[[DepthPlan], float]
) -> tuple[list[DepthOption], list[NoSpan]]:
    """Options with what they save in the network that is deployed, the activation behind each
    merged span counted in; and why others are not among them.

    cost_ms  of the whole network with a plan carried out; raises InputError where that cannot be
    """
    before_ms = cost_ms(DepthPlan())
    found: list[DepthOption] = []
    refused: list[NoSpan] = []
    for option in options:
        try:
            saving = before_ms - cost_ms(option.plan)
        except InputError as error:
            refused.append(NoSpan(option.span.sink, f"{option.label}: {error}"))
            continue
        if saving > 0:
            found.append(replace(option, saving_ms=saving))
        else:
            reason = f"{option.label}: does not pay, activations behind merged layers counted in"
            refused.append(NoSpan(option.span.sink, reason))
    return found, refused

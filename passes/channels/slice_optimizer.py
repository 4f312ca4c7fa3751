"""An optimiser's state, carried over to sliced parameters.

Moments and momenta are cut as their parameters are: what stays goes on as if nothing else had
been there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from shrinkc.errors import TrainingError
from shrinkc.passes.channels.channel_cuts import Cuts


def slice_optimizer(optimizer: Optimizer, old: nn.Module, new: nn.Module, cuts: Cuts) -> Optimizer:
    """An optimiser of the same kind, with the same options and the cut state, for `new`.

    `optimizer` trains parameters of `old`; `cuts` are those that made `new` of it (`sliced_cuts`).
    Schedulers have to be made anew for it.
    Raises TrainingError for a parameter that is not in `old`, and for state that has neither its
    parameter's shape nor a single number (Adafactor's rows and columns).
    """
    paths = {id(p): path for path, p in old.named_parameters(remove_duplicate=False)}
    parameters = dict(new.named_parameters(remove_duplicate=False))
    groups: list[dict[str, Any]] = []
    state: dict[Tensor, dict[str, Any]] = {}
    for group in optimizer.param_groups:
        found: list[Tensor] = []
        for parameter in cast("list[Tensor]", group["params"]):
            path = paths.get(id(parameter))
            if path is None or path not in parameters:
                raise TrainingError("the optimiser trains a parameter that is not the network's")
            found.append(parameters[path])
            if parameter in optimizer.state:
                known = cast("dict[str, Any]", optimizer.state[parameter])
                state[parameters[path]] = _cut_state(known, parameter, cuts, path)
        groups.append({**group, "params": found})
    make = cast("Callable[[list[dict[str, Any]]], Optimizer]", type(optimizer))
    carried = make(groups)
    carried.state.update(state)
    return carried


def _cut_state(state: dict[str, Any], parameter: Tensor, cuts: Cuts, path: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in state.items():
        if not isinstance(value, Tensor):
            found[name] = value
        elif value.shape == parameter.shape and path in cuts:
            found[name] = cuts[path](value)
        elif value.shape == parameter.shape or value.numel() == 1:
            found[name] = torch.clone(value)
        else:
            raise TrainingError(
                f"the optimiser's '{name}' of '{path}' has shape {tuple(value.shape)}, which has "
                "no channels to cut; start a new optimiser after slicing"
            )
    return found

"""Where a training runs: device, precision, ranks, through Lightning Fabric.

One process uses one device. Several processes come from `torchrun`, one per device, and share every
batch (DistributedDataParallel).
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

from torch import Tensor, distributed

from shrinkc.compiler.support.quiet import quiet
from shrinkc.compiler.support.text import one_line
from shrinkc.errors import TrainingError

if TYPE_CHECKING:
    from lightning_fabric import Fabric

Accelerator = Literal["auto", "cpu", "cuda", "mps"]
Precision = Literal["32-true", "bf16-mixed", "16-mixed"]


@dataclass(frozen=True)
class Compute:
    """Device and arithmetic.

    channels_last  keeps channels innermost in memory while training: depthwise convolutions are
                   1.5 times as fast on x86
    """

    accelerator: Accelerator = "auto"
    precision: Precision = "32-true"
    channels_last: bool = True


@dataclass(frozen=True)
class Ranks:
    """This process among those that share a training.

    total  adds a tensor up over all ranks
    same   overwrites tensors, in place, with those of rank 0
    """

    rank: int = 0
    count: int = 1
    total: Callable[[Tensor], Tensor] = lambda tensor: tensor
    same: Callable[[Iterable[Tensor]], None] = lambda tensors: None


ALONE = Ranks()


NEEDED = "training needs Lightning Fabric: pip install 'shrinkc[train]'"


def require_training() -> None:
    """Raise TrainingError where training could not start, before anything is read for it."""
    if importlib.util.find_spec("lightning_fabric") is None:
        raise TrainingError(NEEDED)


def start(compute: Compute) -> Fabric:
    """Take the device; under `torchrun`, meet the other ranks.

    Raises TrainingError: no such device, Lightning Fabric not installed.
    """
    try:
        from lightning_fabric import Fabric
        from lightning_fabric.strategies.ddp import DDPStrategy
    except ImportError as error:
        raise TrainingError(NEEDED) from error
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    everywhere = int(os.environ.get("WORLD_SIZE", "1"))
    try:
        with quiet():  # it logs what it found
            fabric = Fabric(
                accelerator=compute.accelerator,
                precision=compute.precision,
                devices=local,
                num_nodes=everywhere // local,
                strategy=DDPStrategy() if everywhere > 1 else "auto",
            )
            fabric.launch()
    except Exception as error:  # every device fails in its own way
        raise TrainingError(
            f"cannot train on {compute.accelerator} in {compute.precision}: {one_line(error)}"
        ) from error
    return fabric


def ranks_of(fabric: Fabric) -> Ranks:
    if fabric.world_size == 1:
        return ALONE

    def total(tensor: Tensor) -> Tensor:
        summed = tensor.clone()
        cast(Any, distributed).all_reduce(summed)
        return summed

    def same(tensors: Iterable[Tensor]) -> None:
        for tensor in tensors:
            cast(Any, distributed).broadcast(tensor, 0)

    return Ranks(fabric.global_rank, fabric.world_size, total, same)

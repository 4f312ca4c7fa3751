"""What a user chooses from, by name.

Nothing is imported here: the command line lists its choices, and completes them, without PyTorch.
"""

from __future__ import annotations

from typing import Literal

Precision = Literal["fp32", "int8"]
MeasuredPrecision = Literal["fp32", "fp16", "int8"]  # fp16 on CUDA devices alone
Merge = Literal["auto", "all", "none"]  # of linear segments
Int8Tuning = Literal["none", "bias", "equalise", "both"]
Io = Literal["float32", "int8", "uint8"]  # what files read and return
DepthMethod = Literal[
    "closed-form",
    "practise",
    "depthshrinker",
    "two-stage-dp",
    "layermerge",
    "layer-folding",
    "layer-pruning",
    "expand",
]
Importance = Literal["accuracy", "loss"]  # of what depth methods try alone
BlockSearch = Literal["learned", "random", "uniform"]  # of blocks that keep their activations
CriterionName = Literal[
    "l1",
    "l2",
    "random",
    "equal",
    "slimming",
    "ssl",
    "group-sl",
    "hrank",
    "dropnet",
    "group-fisher",
    "cap",
    "he",
    "mseb",
]
SearchName = Literal["abc", "ga", "amc", "cacp", "dmcp", "meta"]  # searches for widths
Scratch = Literal["E", "B"]  # as long as asked for; as much computation as the original
Per = Literal["memory", "flops", "budget"]  # what Fisher information is divided by
Allocated = Literal[  # how a budget is spread over channel groups
    "knapsack", "global", "uniform", "search", "sensitivity"
]
Normalise = Literal["share", "mean", "sum", "none", "cumulative", "measured"]
TaskName = Literal[  # what a network's outputs mean
    "auto", "classify", "segment", "detect", "regress", "embed", "dense"
]
HOST = "host"  # this machine, as a target and as a device


def is_host(name: str) -> bool:
    """Whether a target's or device's name is this machine's: what it takes can be timed here."""
    return name == HOST

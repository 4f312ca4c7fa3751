"""`python -m benchmarks.peer_scripts.prune_mobilenet_v2 DATA IMPORTANCE FOLDER`: by Torch-Pruning.

MobileNetV2 with its weights, at ratios from 2 to 60 %, by L1 or by the group norm as its README
shows (global, channels in multiples of 8), not trained; one `RATIO.pt` each. With "-inside" behind
IMPORTANCE only the hidden channels of blocks, the same ratio everywhere: gentler, for without
training hardly anything survives in narrow residual streams.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
import torch_pruning
from torch import nn

from benchmarks.shared.mobilenet_v2 import pretrained

RATIOS = range(2, 61, 2)
IMPORTANCE: dict[str, Any] = {
    "l1": lambda: torch_pruning.importance.MagnitudeImportance(p=1),
    "group-norm": lambda: torch_pruning.importance.GroupMagnitudeImportance(p=2),
}


def main() -> None:
    data, importance, folder = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
    inside = importance.endswith("-inside")
    folder.mkdir(parents=True, exist_ok=True)
    for percent in RATIOS:
        model = pretrained(data)
        kept: list[nn.Module] = [model.fc]
        if inside:
            kept += [model.stem, model.head, *(block.proj for block in model.blocks)]
        pruner: Any = torch_pruning.pruner.MagnitudePruner(
            model,
            torch.randn(1, 3, 224, 224),
            importance=IMPORTANCE[importance.removesuffix("-inside")](),
            pruning_ratio=percent / 100,
            global_pruning=not inside,
            round_to=8,
            ignored_layers=kept,
        )
        pruner.step()
        torch.save(model, folder / f"{percent}.pt")


if __name__ == "__main__":
    main()

"""`python -m benchmarks.peer_scripts.prune_mobilenet_v2 DATA IMPORTANCE FOLDER`: by Torch-Pruning.

MobileNetV2 with its weights, at ratios from 2 to 60 %, by L1 or by the group norm as its README
shows (global, channels in multiples of 8), not trained; one `RATIO.pt` each.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
import torch_pruning

from benchmarks.mobilenet_v2 import CLASSES, pretrained

RATIOS = range(2, 61, 2)
IMPORTANCE: dict[str, Any] = {
    "l1": lambda: torch_pruning.importance.MagnitudeImportance(p=1),
    "group-norm": lambda: torch_pruning.importance.GroupMagnitudeImportance(p=2),
}


def main() -> None:
    data, importance, folder = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
    folder.mkdir(parents=True, exist_ok=True)
    for percent in RATIOS:
        model = pretrained(data)
        heads = [m for m in model.modules() if getattr(m, "out_features", None) == CLASSES]
        pruner: Any = torch_pruning.pruner.MagnitudePruner(
            model,
            torch.randn(1, 3, 224, 224),
            importance=IMPORTANCE[importance](),
            pruning_ratio=percent / 100,
            global_pruning=True,
            round_to=8,
            ignored_layers=heads,
        )
        pruner.step()
        torch.save(model, folder / f"{percent}.pt")


if __name__ == "__main__":
    main()

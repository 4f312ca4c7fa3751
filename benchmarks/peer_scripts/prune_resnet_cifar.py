"""`python -m benchmarks.peer_scripts.prune_resnet_cifar WEIGHTS IMPORTANCE FOLDER`.

By Torch-Pruning: ResNet-56 with the state dict in WEIGHTS at ratios from 2 to 80 %; one `RATIO.pt`
each. IMPORTANCE is that of prune_mobilenet_v2; with "-uniform" behind it the same ratio everywhere
instead of one threshold. The layers that shortcuts join keep their widths: it has no rule for
channels that a padding adds.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
import torch_pruning

from benchmarks.peer_scripts.prune_mobilenet_v2 import IMPORTANCE
from benchmarks.shared.resnet_cifar import SIZE, Block, resnet56

RATIOS = range(2, 81, 2)
MULTIPLE = 4  # as ours


def main() -> None:
    weights, importance, folder = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
    folder.mkdir(parents=True, exist_ok=True)
    for percent in RATIOS:
        model = resnet56().eval()
        model.load_state_dict(torch.load(weights, weights_only=True))
        joined = [m.conv2 for m in model.modules() if isinstance(m, Block)]
        pruner: Any = torch_pruning.pruner.MagnitudePruner(
            model,
            torch.randn(1, 3, SIZE, SIZE),
            importance=IMPORTANCE[importance.removesuffix("-uniform")](),
            pruning_ratio=percent / 100,
            global_pruning=not importance.endswith("-uniform"),
            round_to=MULTIPLE,
            ignored_layers=[model.conv1, *joined, model.linear],
        )
        pruner.step()
        torch.save(model, folder / f"{percent}.pt")


if __name__ == "__main__":
    main()

"""`python -m benchmarks.peer_scripts.prune_cifar NETWORK WEIGHTS IMPORTANCE [TRAINING] FOLDER`.

By Torch-Pruning: NETWORK with the state dict in WEIGHTS at ratios from 2 to 80 %; one `RATIO.pt`
each. IMPORTANCE is that of prune_mobilenet_v2, or "group-sl": the network is trained with the
penalty of GroupNormPruner first, as its benchmarks do, on the images that the file TRAINING holds.
With "-uniform" behind it the same ratio everywhere instead of one threshold. The layers that
shortcuts of ResNets join keep their widths: it has no rule for channels that a padding adds.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import torch_pruning
from torch import Tensor, nn

from benchmarks.peer_scripts.prune_mobilenet_v2 import IMPORTANCE
from benchmarks.shared.inverted_cifar import ir_net
from benchmarks.shared.resnet_cifar import SIZE, Block, resnet20, resnet56

RATIOS = range(2, 81, 2)
MULTIPLE = 4  # as ours
SPARSE = "group-sl"
PENALTY = 5e-4  # of its script for ResNet-56 on CIFAR-10
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "resnet20": resnet20,
    "resnet56": resnet56,
    "inverted": ir_net,
}


def main() -> None:
    network, weights, importance = sys.argv[1:4]
    folder = Path(sys.argv[-1])
    folder.mkdir(parents=True, exist_ok=True)
    model = NETWORKS[network]().eval()
    model.load_state_dict(torch.load(weights, weights_only=True))
    name = importance.removesuffix("-uniform")
    if name == SPARSE:
        train_sparsely(model, torch.load(sys.argv[4], weights_only=True))
    everywhere = name != importance
    for percent in RATIOS:
        smaller = copy.deepcopy(model).eval()
        pruner_of(smaller, name, percent / 100, everywhere).step()
        torch.save(smaller, folder / f"{percent}.pt")


def pruner_of(model: nn.Module, name: str, ratio: float, everywhere: bool) -> Any:
    shared: dict[str, Any] = {
        "pruning_ratio": ratio,
        "global_pruning": not everywhere,
        "round_to": MULTIPLE,
        "ignored_layers": whole(model),
    }
    x = torch.randn(1, 3, SIZE, SIZE)
    if name == SPARSE:
        scores = torch_pruning.importance.GroupMagnitudeImportance(p=2, normalizer="max")
        return torch_pruning.pruner.GroupNormPruner(model, x, scores, reg=PENALTY, **shared)
    return torch_pruning.pruner.MagnitudePruner(model, x, importance=IMPORTANCE[name](), **shared)


def whole(model: nn.Module) -> Sequence[nn.Module]:
    """Layers that keep their widths: the classifier, and what shortcuts with padding join."""
    modules = list(model.modules())
    joined = [module.conv2 for module in modules if isinstance(module, Block)]
    first = [model.conv1] if joined else []
    return [*first, *joined, *(m for m in modules if isinstance(m, nn.Linear))]


def train_sparsely(model: nn.Module, told: dict[str, Any]) -> None:
    """Its loop: the penalty's gradient is added behind `backward`, and grows where channels are
    weak. `told`: images (n, 3, 32, 32) and labels, `epochs`, `batch`, `rate`, `seed`."""
    torch.manual_seed(told["seed"])
    pruner = pruner_of(model, SPARSE, 0.5, False)
    optimiser = torch.optim.SGD(model.parameters(), told["rate"], 0.9, weight_decay=5e-4)
    images, labels, batch = told["images"], told["labels"], told["batch"]
    steps = told["epochs"] * (len(images) // batch)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(told["epochs"]):
        model.train()
        pruner.update_regularizer()
        order = torch.randperm(len(images))
        for rows in order[: len(order) // batch * batch].split(batch):
            optimiser.zero_grad()
            F.cross_entropy(model(shifted(images[rows])), labels[rows]).backward()
            pruner.regularize(model)
            optimiser.step()
            schedule.step()
    model.eval()


def shifted(x: Tensor) -> Tensor:
    """Cut out of a margin of four pixels at random, half of them mirrored."""
    padded = F.pad(x, (4, 4, 4, 4))
    at = torch.randint(0, 9, (len(x), 2)).tolist()
    cut = [one[:, i : i + SIZE, j : j + SIZE] for one, (i, j) in zip(padded, at, strict=True)]
    mirrored = torch.rand(len(x)) < 0.5
    y = torch.stack(cut)
    return torch.where(mirrored[:, None, None, None], y.flip(3), y)


if __name__ == "__main__":
    main()

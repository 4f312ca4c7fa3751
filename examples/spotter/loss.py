"""The loss that the spotter is trained with."""

import torch.nn.functional as F
from torch import Tensor, nn


def loss(network: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    waves, labels = batch
    return F.cross_entropy(network(waves), labels, label_smoothing=0.05)

"""The loss that the regression is trained with, and that shrinkc trains with: --loss."""

import torch.nn.functional as F
from torch import Tensor, nn


def loss(network: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Mean absolute error, rounded off below a pixel (Huber, 1964)."""
    images, numbers = batch
    return F.smooth_l1_loss(network(images), numbers, beta=0.1)

"""The loss that the segmenter is trained with, and that shrinkc trains with: --loss."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from examples.segmenter.net import CLASSES


def loss(network: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Cross-entropy of all pixels, plus one minus the overlap of each class (soft Dice)."""
    images, masks = batch
    scores = network(images)
    shares = scores.softmax(1)
    wanted = F.one_hot(masks, CLASSES).movedim(-1, 1).to(shares)
    both = (shares * wanted).sum((0, 2, 3))
    dice = (2 * both + 1) / (shares.sum((0, 2, 3)) + wanted.sum((0, 2, 3)) + 1)
    return F.cross_entropy(scores, masks) + 1 - torch.mean(dice)

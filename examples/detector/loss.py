"""The loss that the detector is trained with, and that shrinkc trains with: --loss.

A cell is right for a box whose middle half its centre lies in. There the class's score is to be
the overlap that the box reaches (Zhang et al., VarifocalNet, 2021), elsewhere zero, and the box is
drawn to the true one by GIoU (Rezatofighi et al., 2019).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from examples.detector.net import SIZE, STRIDE

Boxes = list[dict[str, Tensor]]  # of each image: "boxes" (count, 4) in pixels, "labels" (count,)


def loss(network: nn.Module, batch: tuple[Tensor, Boxes]) -> Tensor:
    """Of a batch of (N, 1, 64, 64) and its boxes: summed, over the number of boxes."""
    images, truth = batch
    answers = network(images)
    middles, sizes, scores = answers.split([2, 2, answers.shape[1] - 4], dim=1)
    boxes = torch.cat([middles - sizes / 2, middles + sizes / 2], dim=1).transpose(1, 2)
    true = torch.cat([image["boxes"] for image in truth]).to(answers)
    labels = torch.cat([image["labels"] for image in truth]).to(answers.device)
    counts = torch.tensor([len(image["boxes"]) for image in truth], device=answers.device)
    owners = torch.arange(len(truth), device=answers.device).repeat_interleave(counts)
    right = inside(true)
    which, cells = right.nonzero(as_tuple=True)
    overlap, gap = overlap_and_giou(boxes[owners[which], cells], true[which])
    wanted = torch.zeros_like(scores)
    wanted[owners[which], labels[which], cells] = overlap.detach()
    distance = ((1 - gap) / right.sum(1)[which]).sum()
    scores = scores.clamp(1e-6, 1 - 1e-6)
    focus = torch.where(wanted > 0, wanted, 0.75 * scores.detach() ** 2)
    cross_entropy = F.binary_cross_entropy(scores, wanted, reduction="none")
    return ((focus * cross_entropy).sum() + 2 * distance) / max(len(true), 1)


def inside(boxes: Tensor) -> Tensor:
    """(count, cells): whether a cell's centre lies in the middle half of a box; one cell at least
    is each box's."""
    at = (torch.arange(SIZE // STRIDE, device=boxes.device) + 0.5) * STRIDE
    centres = torch.cartesian_prod(at, at).flip(1)  # row by row: (x, y)
    middles, sizes = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    away = ((centres - middles[:, None]).abs() / sizes[:, None]).amax(2)
    return (away < 0.25) | (away == away.amin(1, keepdim=True))


def overlap_and_giou(boxes: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """IoU and GIoU of (count, 4) boxes with as many others."""
    low, high = torch.minimum(boxes, others), torch.maximum(boxes, others)
    shared = area(high[:, :2], low[:, 2:])
    either = area(boxes[:, :2], boxes[:, 2:]) + area(others[:, :2], others[:, 2:]) - shared
    around = area(low[:, :2], high[:, 2:])
    overlap = shared / either.clamp(min=1e-6)
    return overlap, overlap - (around - either) / around.clamp(min=1e-6)


def area(low: Tensor, high: Tensor) -> Tensor:
    return (high - low).clamp(min=0).prod(-1)

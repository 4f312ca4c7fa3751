"""A class for every pixel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from shrinkc.compiler.tasks.classification import LEAST
from shrinkc.compiler.tasks.outputs import (
    Output,
    check_weights,
    outputs_of,
    sum_to_one,
    summed,
)
from shrinkc.compiler.tasks.task import Answer, Evidence, LabelKind, PooledTask
from shrinkc.errors import InputError

MOST_CLASSES = 65_536  # of masks, where the network names classes itself


@dataclass(frozen=True)
class Segmentation(PooledTask):
    """The first output holds scores (n, classes, height, width), before a softmax or behind it; one
    score (n, 1, height, width) for the class 1 against 0; or classes (n, height, width) that the
    network has chosen itself. Masks are classes (n, H, W); scores of another size are resized to
    theirs, bilinearly, before the class of the highest is taken.

    The metric is the mean over classes of intersection over union, each over the pixels of all
    images together (Everingham et al., 2010); classes that neither masks nor answers name are left
    out. Without masks it is told against the original's own classes.

    ignore   label of pixels that do not count
    outputs  by a network's own answers (`scaled`)
    weights  of every output in the divergence; without them all weigh the same
    """

    ignore: int = 255
    outputs: tuple[Output, ...] = ()
    weights: tuple[float, ...] = ()
    shares: bool | None = None  # of one score: whether it is a probability, cut at a half
    why: str = field(default="", repr=False, compare=False)

    def __post_init__(self) -> None:
        check_weights(self.weights)

    @property
    def name(self) -> str:
        return "segmentation"

    @property
    def metric(self) -> str:
        return "mIoU"

    @property
    def reads(self) -> LabelKind:
        return "masks"

    def scaled(self, reference: Answer, samples: int) -> Segmentation:
        outputs = outputs_of(reference, samples, self.weights)
        if not is_map(reference[0]):
            shape = "×".join(map(str, reference[0].shape))
            raise InputError(
                f"`task` segmentation: the first output is {shape}; scores of n×classes×H×W or "
                "classes of n×H×W are needed"
            )
        return replace(self, outputs=outputs, shares=_in_unit(reference[0]))

    def judges(self, answer: Answer) -> bool:
        return is_map(answer[0])

    def classes(self, answer: Answer) -> int | None:
        return self._count(answer[0])

    def counts(self, answer: Answer, labels: Tensor) -> bool:
        return self.judges(answer) and not labels.is_floating_point() and labels.ndim in (3, 4)

    def check_labels(self, answer: Answer, labels: Tensor, parameter: str) -> None:
        """Raises InputError where a mask has another form, or names a class that the network has
        not."""
        if (
            labels.is_floating_point()
            or labels.ndim not in (3, 4)
            or labels.shape[1:-2].numel() > 1
        ):
            shape = "×".join(map(str, labels.shape))
            kind = str(labels.dtype).removeprefix("torch.")
            raise InputError(
                f"`{parameter}` has labels of {kind}, shape {shape}; segmentation needs masks: one "
                "class index for each pixel, integers n×H×W"
            )
        self._check_classes(labels, self._count(answer[0]), f"`{parameter}` has")

    def truth(self, reference: Answer) -> Tensor:
        """(n, H, W), in the output's size."""
        found = self._chosen(reference[0], None)
        return torch.where(found < 0, self.ignore, found)

    def evidence(self, answer: Answer, labels: Tensor) -> Evidence:
        """Pixels of each class: in both, in the answer, in the mask: (3, classes) each."""
        masks = labels.reshape(len(labels), *labels.shape[-2:]).to(answer[0].device, torch.int64)
        found = self._chosen(answer[0], masks.shape[1:])
        known = masks != self.ignore
        count = self._count(answer[0])
        self._check_classes(masks, count, "masks have")
        if count is None:
            count = 1 + int(torch.where(known, masks.maximum(found), 0).max())
        rows = torch.arange(len(masks), device=masks.device)[:, None, None] * count
        both = known & (found == masks)
        parts = (both, masks), (known & (found >= 0), found), (known, masks)
        sums = [
            torch.bincount((rows + of)[where], minlength=count * len(masks)).reshape(-1, count)
            for where, of in parts
        ]
        return torch.stack(sums, 1).double().cpu()

    def score(self, evidence: Evidence) -> float:
        """Raises InputError where no pixel counts."""
        both, answered, labelled = _added(evidence)
        union = answered + labelled - both
        if not bool(union.any()):
            raise InputError(
                f"no pixel of the masks counts: all are {self.ignore}, which is ignored",
                "give masks with classes, or another `ignore`",
            )
        return float((both[union > 0] / union[union > 0]).mean())

    def details(self, evidence: Evidence) -> Mapping[str, float]:
        both, _, labelled = _added(evidence).sum(1)
        return {"pixel accuracy": float(both / labelled)}

    def divergence(self, answer: Answer, reference: Answer) -> Tensor:
        """Kullback-Leibler divergence of a pixel's classes in nats, the mean over all pixels, and
        of further outputs the squared error over their variance: (n,)."""
        outputs = self.outputs or self.scaled(reference, len(reference[0])).outputs
        own = {0: self._diverging} if reference[0].is_floating_point() else {}
        return summed(answer, reference, outputs, own, self.weights)

    def _diverging(self, got: Tensor, want: Tensor) -> Tensor:
        shares = self._shares(want)
        q, p = (_log_shares(x, shares) for x in (got, want))
        return F.kl_div(q, p, log_target=True, reduction="none").sum(1).mean((1, 2))

    def _single(self, evidence: Evidence, answer: Answer) -> Tensor:
        """An image on which nothing counts has nothing wrong."""
        found = [self.score([one]) if bool(one.any()) else 1.0 for one in evidence]
        return torch.tensor(found, dtype=torch.float64, device=answer[0].device)

    def _shares(self, scores: Tensor) -> bool:
        return _in_unit(scores) if self.shares is None else self.shares

    def _count(self, output: Tensor) -> int | None:
        """Classes; None where the network names them itself."""
        return max(2, output.shape[1]) if output.is_floating_point() else None

    def _check_classes(self, masks: Tensor, count: int | None, said: str) -> None:
        known = masks[masks != self.ignore]
        if not len(known):
            return
        least, most = int(known.min()), int(known.max())
        if least < 0 or most >= (count or MOST_CLASSES):
            raise InputError(
                f"{said} the class {least if least < 0 else most}; the network tells "
                f"{count or MOST_CLASSES} classes apart, 0 to {(count or MOST_CLASSES) - 1}, and "
                f"{self.ignore} is ignored"
            )

    def _chosen(self, output: Tensor, size: torch.Size | None) -> Tensor:
        """int64 (n, H, W), −1 where a score is NaN."""
        if not output.is_floating_point():
            found = output.reshape(len(output), *output.shape[-2:]).long()
            if size is not None and found.shape[1:] != size:
                raise InputError(
                    f"masks are {size[0]}×{size[1]}, the network's classes "
                    f"{found.shape[1]}×{found.shape[2]}; give masks of that size"
                )
            return found
        unclear = output.isnan().any(1, keepdim=True)
        shares = self._shares(output)
        if size is not None and output.shape[2:] != size:
            output = F.interpolate(output.float(), size=size, mode="bilinear", align_corners=False)
            unclear = F.interpolate(unclear.float(), size=size) > 0
        single = output.shape[1] == 1
        found = (output[:, 0] > (0.5 if shares else 0)).long() if single else output.argmax(1)
        return torch.where(unclear[:, 0], -1, found)


def is_map(output: Tensor) -> bool:
    """Whether it may be scores or classes of pixels."""
    if output.is_floating_point():
        return output.ndim == 4
    return output.ndim == 3 or (output.ndim == 4 and output.shape[1] == 1)


def _in_unit(scores: Tensor) -> bool:
    """Whether they are probabilities: along dimension 1, or of a single class."""
    if scores.ndim == 4 and scores.shape[1] == 1:
        return bool(((scores >= 0) & (scores <= 1)).all())
    return scores.is_floating_point() and sum_to_one(scores)


def _log_shares(scores: Tensor, shares: bool) -> Tensor:
    """Logarithms of probabilities (n, classes, H, W)."""
    if scores.shape[1] == 1:
        if not shares:
            return torch.cat((F.logsigmoid(-scores), F.logsigmoid(scores)), 1)
        return torch.cat((1 - scores, scores), 1).clamp(min=LEAST).log()
    return (scores.clamp(min=LEAST).log() if shares else scores).log_softmax(1)


def _added(evidence: Evidence) -> Tensor:
    """(3, classes): rows may know fewer."""
    most = max(one.shape[1] for one in evidence)
    whole = torch.zeros(3, most, dtype=torch.float64)
    for one in evidence:
        whole[:, : one.shape[1]] += one
    return whole

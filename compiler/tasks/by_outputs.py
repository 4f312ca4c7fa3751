"""What a network is for where nobody says so: told by its outputs on example images.

Few kinds of numbers are class scores, and whoever takes others for them promises points of top-1
of a network that has none. So outputs count as scores only on evidence: the images' labels, rows
that sum to one, or what training by cross-entropy leaves behind.
"""

from __future__ import annotations

from torch import Tensor

from shrinkc.compiler.tasks.classification import Classification, has_scores
from shrinkc.compiler.tasks.dense import Dense
from shrinkc.compiler.tasks.detection.detection import Detection
from shrinkc.compiler.tasks.embedding import Embedding
from shrinkc.compiler.tasks.outputs import sum_to_one
from shrinkc.compiler.tasks.regression import Regression
from shrinkc.compiler.tasks.segmentation import Segmentation, is_map
from shrinkc.compiler.tasks.task import Answer, LabelKind, Task

FEWEST = 8  # images, before statistics mean anything
FEW = 20  # columns, below which independent ones have more in common than scores have
COMMON = 0.4  # most of a column's variance that all share; of few columns, over their number
LENGTH = 2e-3  # by which squared lengths of vectors may be off
SURE = 0.5  # mean confidence, of the way from one class in k


def task_of(
    reference: Answer, samples: int, *, said: bool = False, labels: LabelKind | None = None
) -> Task:
    """By the outputs for `samples` images, and by the kind of `labels` that come with the images.

    Classification where there is one output (n, k) of class scores. `said`: one of that shape holds
    scores, by class labels. Segmentation where there are masks, or where one output is
    probabilities at every place; Embedding where one output is vectors of length 1; Dense where
    labels are maps of numbers; otherwise Regression. What was guessed says `why`.
    """
    kinds = tuple(has_scores(one) and holds_scores(one.flatten(1)) for one in reference)
    if labels not in (None, "classes"):
        return _by_labels(reference, labels, kinds).scaled(reference, samples)
    if len(reference) == 1:
        (one,) = reference
        if kinds[0] or (said and has_scores(one)):
            return Classification().scaled(reference, samples)
        if is_map(one) and one.is_floating_point() and one.shape[1] > 1 and sum_to_one(one):
            why = "its output is probabilities that sum to one at every place"
            return Segmentation(why=why).scaled(reference, samples)
        if _of_length_one(one):
            why = "its output is vectors of length 1"
            return Embedding(why=why).scaled(reference, samples)
    return Regression(scores=kinds).scaled(reference, samples)


def _by_labels(reference: Answer, labels: LabelKind, kinds: tuple[bool, ...]) -> Task:
    first = reference[0]
    if labels == "boxes":
        return Detection(why="its images come with boxes")
    if labels == "masks" and is_map(first):
        return Segmentation(why="its images come with masks")
    if labels == "numbers" and first.ndim == 4 and first.shape[2:].numel() > 1:
        return Dense(why="its images come with maps of numbers")
    return Regression(scores=kinds)


def _of_length_one(rows: Tensor) -> bool:
    if not has_scores(rows) or len(rows) < 2 or rows.shape[1] < FEWEST:
        return False
    lengths = rows.flatten(1).double().square().sum(1)
    return bool(((lengths - 1).abs() < LENGTH).all())


def holds_scores(rows: Tensor) -> bool:
    """Whether rows (n, k) are class scores for n images.

    Probabilities are, and their logarithms. Scores before a softmax show it by three things
    together: cross-entropy leaves the mean of a row about where it started, since its gradient sums
    to zero, so that the columns' common part varies little over images; the columns are of one
    scale; and a softmax of them is sure of itself. Coordinates, boxes and embeddings fail one or
    more.
    """
    rows = rows.double()
    if not bool(rows.isfinite().all()):
        return False
    if sum_to_one(rows) or sum_to_one(rows.exp()):
        return True
    count, k = rows.shape
    if count < FEWEST or bool((rows >= 0).all()):
        return False
    within = float(rows.var(0).mean())
    common = float(rows.mean(1).var())
    apart = float(rows.mean(0).var())
    sure = float(rows.softmax(1).amax(1).mean())
    return (
        common <= COMMON / (k if k < FEW else 1) * within
        and apart <= within
        and sure >= 1 / k + SURE * (1 - 1 / k)
    )

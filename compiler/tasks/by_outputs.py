"""What a network is for where nobody says so: told by its outputs on example images.

Few kinds of numbers are class scores, and whoever takes others for them promises points of top-1
of a network that has none. So outputs count as scores only on evidence: the images' labels, rows
that sum to one, or what training by cross-entropy leaves behind.
"""

from __future__ import annotations

from torch import Tensor

from shrinkc.compiler.tasks.classification import Classification, has_scores
from shrinkc.compiler.tasks.outputs import sum_to_one
from shrinkc.compiler.tasks.regression import Regression
from shrinkc.compiler.tasks.task import Answer, Task

FEWEST = 8  # images, before statistics mean anything
FEW = 20  # columns, below which independent ones have more in common than scores have
COMMON = 0.4  # most of a column's variance that all share; of few columns, over their number
SURE = 0.5  # mean confidence, of the way from one class in k


def task_of(reference: Answer, samples: int, *, said: bool = False) -> Task:
    """By the outputs for `samples` images: Classification where there is one output (n, k) of class
    scores, otherwise Regression. `said`: one of that shape holds scores, by the images' labels."""
    kinds = tuple(has_scores(one) and holds_scores(one.flatten(1)) for one in reference)
    if len(reference) == 1 and (kinds[0] or (said and has_scores(reference[0]))):
        return Classification().scaled(reference, samples)
    return Regression(scores=kinds).scaled(reference, samples)


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

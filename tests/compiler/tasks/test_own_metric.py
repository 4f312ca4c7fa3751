"""A metric of the user's own: what it is called with, what is refused, and which way is up."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from shrinkc.compiler.tasks.asked import AskedTask, asked_task, own_metric
from shrinkc.compiler.tasks.classification import Classification
from shrinkc.compiler.tasks.own_metric import OwnMetric
from shrinkc.compiler.tasks.regression import Regression
from shrinkc.compiler.tasks.tally import Tally
from shrinkc.errors import InputError

LABELS = torch.linspace(-1, 1, 24)[:, None]
NOISE = torch.randn(24, 1, generator=torch.Generator().manual_seed(0))


def less_error(outputs: Tensor, labels: Tensor) -> Tensor:
    return -(outputs - labels).abs().mean()


def error(outputs: Tensor, labels: Tensor) -> float:
    return float((outputs - labels).abs().mean())


def of(function: Any) -> OwnMetric:
    found = own_metric(function)
    assert found is not None
    return replace(found, base=Regression())


def test_it_is_called_with_all_images_at_once() -> None:
    seen: list[tuple[int, ...]] = []

    def watching(outputs: Tensor, labels: Tensor) -> Tensor:
        seen.append((*outputs.shape, len(labels)))
        return less_error(outputs, labels)

    tally = Tally(of(watching))
    for rows in torch.arange(24).split(10):
        tally.add((LABELS[rows] + 0.1,), (LABELS[rows],), LABELS[rows], len(rows))
    found = tally.judgement()
    assert found.score == pytest.approx(-0.1)
    assert found.original_score == 0
    assert found.drop is not None
    assert found.drop.value == pytest.approx(0.1)
    assert (24, 1, 24) in seen
    assert all(count >= 22 for count, *_ in seen)  # but for those that are left out in turn


def test_several_outputs_are_a_tuple() -> None:
    def second(outputs: tuple[Tensor, ...], labels: Tensor) -> float:
        return float((outputs[1] == labels).float().mean())

    task = of(second)
    answer = (NOISE, LABELS)
    assert task.score(task.evidence(answer, LABELS)) == 1.0


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (float("nan"), "`metric` function returned nan for 24 images; it must return a finite"),
        (float("inf"), "returned inf for 24 images"),
        (None, "returned a NoneType for 24 images"),
        (torch.zeros(2), "returned a Tensor for 24 images"),
        ("0.5", "returned a str for 24 images"),
    ],
)
def test_what_is_no_number_is_refused(returned: Any, message: str) -> None:
    def function(outputs: Tensor, labels: Tensor) -> Any:
        return returned

    with pytest.raises(InputError, match=message):
        of(function).check_labels((LABELS,), LABELS, "images")


def test_its_own_errors_are_told() -> None:
    def function(outputs: Tensor, labels: Tensor) -> float:
        return outputs["boxes"]  # pyright: ignore

    with pytest.raises(InputError, match="`metric` function fails: IndexError: too many indices"):
        of(function).check_labels((LABELS,), LABELS, "images")


def test_higher_must_be_better() -> None:
    close = (LABELS + 0.05 * NOISE,)
    of(less_error).check_labels(close, LABELS, "images")
    with pytest.raises(InputError, match=r"`metric` error is 0\.\d+ for the network's own answers"):
        of(error).check_labels(close, LABELS, "images")
    of(error).check_labels((LABELS[:2],), LABELS[:2], "images")  # two images tell nothing


def test_numbers_of_numpy_and_tensors_will_do() -> None:
    for value in (np.float32(0.5), torch.tensor(0.5), torch.tensor([0.5]), 1, np.int64(1)):
        task = of(lambda outputs, labels, value=value: value)
        assert task.score(task.evidence((LABELS,), LABELS)) in (0.5, 1.0)


def test_a_group_left_out_may_have_no_score() -> None:
    def strict(outputs: Tensor, labels: Tensor) -> float:
        return 1.0 if len(outputs) == 24 else float("nan")

    tally = Tally(of(strict))
    tally.add((LABELS,), (LABELS,), LABELS, 24)
    drop = tally.judgement().drop
    assert drop is not None
    assert (drop.value, drop.ends) == (0, None)


def test_the_rest_is_the_tasks() -> None:
    base = Classification()
    task = OwnMetric(less_error, "less_error", base)
    answer = (torch.randn(4, 3),)
    assert task.name == "classification"
    assert (task.metric, task.style, task.unit) == ("less_error", "number", "points of less_error")
    assert task.agree(answer, answer).tolist() == [1, 1, 1, 1]
    assert task.divergence(answer, answer).equal(base.divergence(answer, answer))
    assert not task.expects
    assert "function" not in repr(task)  # its address is another in every process


def test_what_is_asked_for() -> None:
    assert asked_task(None) == AskedTask()
    for given, message in ((3, "`task` is a int"), (Classification, "`task` is a ABCMeta")):
        with pytest.raises(InputError, match=message):
            asked_task(given)
    with pytest.raises(InputError, match="`metric` is a str; give a function"):
        asked_task(None, "top-5")
    weighed = asked_task(None, None, (1, 0.5)).completed(Classification())
    assert weighed == Classification(weights=(1, 0.5))
    both = asked_task(Regression(), less_error, (2.0,)).completed(Regression())
    assert isinstance(both, OwnMetric)
    assert both.base == Regression(weights=(2.0,))

"""A task of one's own is an object that is handed in; what an answer means stands in one place."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from closed_form_doubles import sample, small
from small_networks import NETWORKS
from torch import Tensor, nn
from within import Within

import shrinkc.compiler
from shrinkc.compiler.api.steps.compilation import compile_graph
from shrinkc.compiler.api.steps.request import judge
from shrinkc.compiler.capture import capture
from shrinkc.compiler.images.files import find_images
from shrinkc.compiler.images.preprocessing import Preprocessing
from shrinkc.compiler.options import Options
from shrinkc.compiler.plan.drop import promise_of
from shrinkc.compiler.recover.distil import Tuning, tune
from shrinkc.compiler.support.progress import Silent
from shrinkc.compiler.tasks.classification import CLASSIFICATION
from shrinkc.compiler.tasks.task import total
from shrinkc.errors import InputError
from shrinkc.passes.base import copy_graph

SIZE = 8
OTHERWISE_MEANT = {  # uses of argmax that are not about answers
    "images/augment.py": "the first random crop that fits",
    "capture/rules/lookup/gather.py": "the operator",
    "capture/rules/lookup/unpool.py": "the one in each window",
    "capture/rules/order.py": "the operator",
    "capture/rules/resize.py": "the one in each column of a matrix",
    "export/lower.py": "the operator",
    "load/onnx/rules/resize.py": "the one in each column of a matrix",
    "load/onnx/rules/select.py": "the operator",
    "quantise/simulate.py": "the operator",
    "tasks/classification.py": "the place",
    "tasks/segmentation.py": "the place",
    "verify/contributions.py": "the place",
}


class Brightness(nn.Module):
    """(n, 1): the mean of an image's pixels."""

    def __init__(self, gain: float = 1.0) -> None:
        super().__init__()
        self.grey = nn.Conv2d(3, 1, 1, bias=False)
        nn.init.constant_(self.grey.weight, gain / 3)
        self.pool = nn.AdaptiveAvgPool2d(1)

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(self.grey(x)).flatten(1)


@pytest.fixture
def options(tmp_path: Path) -> Options:
    """Dark images in folder 0, bright ones in folder 1, a grey one where it does not belong."""
    for label, value in ((0, 0), (0, 10), (1, 255), (1, 128)):
        folder = tmp_path / "images" / str(label)
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / f"{value}.npy", np.full((SIZE, SIZE, 3), value, np.uint8))
    return Options(
        images=find_images(tmp_path / "images"),
        preprocessing=Preprocessing(SIZE, (SIZE, SIZE), (0.0,), (1.0,), 3),
        runs=0,
        task=Within(0.25),
    )


def test_a_task_from_outside_reaches_the_report(options: Options) -> None:
    graph = capture(Brightness().eval(), (torch.zeros(1, 3, SIZE, SIZE),))
    made = compile_graph(graph, options)
    found = made.report
    assert found.original_top1 == 0.75
    assert [a.top1 for a in found.artefacts] == [0.75, 0.75]
    assert [a.agreement for a in found.artefacts] == [1.0, 1.0]
    written = json.loads(made.files["report.json"])
    assert written["task"] == {
        "name": "regression",
        "metric": "share within 0.25",
        "unit": "points of share within 0.25",
        "style": "percent",
        "likeness": "agreement with the original",
    }
    page = made.files["report.html"].decode("utf-8")
    assert "Share within 0.25, model.tflite" in page
    assert "op-1" not in page


def test_a_number_is_no_class(options: Options, tmp_path: Path) -> None:
    """Nobody is told to number class folders as the network does, however wrong it is."""
    for index in range(30):
        folder = tmp_path / "images" / "1"
        np.save(folder / f"dark-{index}.npy", np.zeros((SIZE, SIZE, 3), np.uint8))
    with_wrong = Options(
        images=find_images(tmp_path / "images"),
        preprocessing=options.preprocessing,
        runs=0,
        task=Within(0.001),
    )
    graph = capture(Brightness().eval(), (torch.zeros(1, 3, SIZE, SIZE),))
    found = compile_graph(graph, with_wrong).report
    assert found.original_top1 is not None
    assert found.original_top1 < 0.1
    assert not any("--classes" in note for note in found.notes)


def test_a_changed_network_is_judged_by_it(options: Options) -> None:
    original, changed = (
        capture(Brightness(gain).eval(), (torch.zeros(1, 3, SIZE, SIZE),)) for gain in (1.0, 0.7)
    )
    found = judge(original, changed, options)
    assert (found.images, found.agreement) == (4, 0.75)  # white is 0.3 darker
    assert (found.original_top1, found.changed_top1) == (0.75, 0.5)
    assert "share within 0.25 75.00% before, 50.00% after" in str(found)


def test_a_promise_is_made_in_its_terms() -> None:
    x = torch.tensor([[0.0], [1.0], [2.0], [3.0]])
    labels = torch.arange(4)
    task, halved = Within(0.6), (lambda x: (x[0] / 2,))
    counted = promise_of(lambda x: x, halved, [((x,), labels)], task=task)
    assert (counted.agreement, counted.drop, counted.labelled) == (0.5, 0.5, True)
    expected = promise_of(lambda x: x, halved, [((x,), None)], task=task)
    assert (expected.drop, expected.labelled) == (0.5, False)  # what no longer agrees


def test_tuning_descends_on_its_divergence() -> None:
    torch.manual_seed(0)
    graph = small(NETWORKS["vgg"]())
    student = copy_graph(graph)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.mul_(1 + 0.1 * torch.randn(parameter.shape))
    few = Tuning(steps=2, batch=8)
    tuned = [
        tune(student, graph, sample(), few, Silent(), task=task).losses
        for task in (CLASSIFICATION, Within(1.0), Within(1e-3))
    ]
    assert len({losses[0] for losses in tuned}) == 3


def test_a_task_that_does_not_tell_of_single_samples_is_refused() -> None:
    with pytest.raises(InputError, match=r"shape \(2, 3\) for 2 samples"):
        total(torch.ones(2, 3), 2)
    assert total(torch.tensor([True, False, True]), 3) == 2.0


def test_what_an_answer_means_stands_in_one_place() -> None:
    root = Path(shrinkc.compiler.__file__).parent
    found: set[str] = set()
    for path in root.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Attribute) and node.attr == "argmax":
                found.add(path.relative_to(root).as_posix())
    assert found == set(OTHERWISE_MEANT)

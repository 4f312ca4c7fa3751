"""Images of a user's, in whatever they come, through the functions that look at them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from untouched import small, untouched

import shrinkc
from shrinkc import Goal, ShrinkcError
from shrinkc.compiler.api.steps.results import Compiled

X = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
IMAGES = torch.randn(11, 3, 16, 16, generator=torch.Generator().manual_seed(1))
LABELS = torch.arange(11) % 5
HALF = Goal.macs(0.5)
LABELLED = TensorDataset(IMAGES, LABELS)


def in_int8(model: nn.Module, given: Any) -> Compiled:
    return shrinkc.compile(model, X, images=given, target="rpi4", precision="int8", runs=0)


@pytest.fixture(scope="module")
def wanted() -> Compiled:
    return in_int8(small(8), (IMAGES, LABELS))


@pytest.mark.parametrize(
    "given",
    [
        DataLoader(LABELLED, batch_size=4),
        ((x[None], y[None]) for x, y in zip(IMAGES, LABELS, strict=True)),
        LABELLED,
        [IMAGES, LABELS],
    ],
    ids=["loader", "generator", "dataset", "list"],
)
def test_a_loader_gives_the_same_bits_as_a_tensor(given: Any, wanted: Compiled) -> None:
    model = small(8)
    with untouched(model):
        found = in_int8(model, given)
    for name in ("model.onnx", "model.tflite", "model.safetensors"):
        assert found.files[name] == wanted.files[name]
    assert found.report.original_top1 == wanted.report.original_top1 is not None


def test_criteria_see_the_same_bits_of_a_loader() -> None:
    options: dict[str, Any] = {"goal": Goal.macs(0.5), "criterion": "group-fisher"}
    found = [
        shrinkc.prune(small(), X, images=given, **options)
        for given in ((IMAGES, LABELS), DataLoader(LABELLED, batch_size=4))
    ]
    assert torch.equal(found[0](IMAGES), found[1](IMAGES))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"images": None}, "`images` is a NoneType"),
        ({"images": (IMAGES, LABELS + 1)}, "`images` has the label 5; the network tells 5 classes"),
        ({"images": IMAGES, "criterion": "group-fisher"}, "needs labels; give `labels`"),
        ({"images": IMAGES, "labels": True}, "`labels`: the `images` have none"),
        ({"images": IMAGES, "limit": 0}, "`limit` 0"),
        ({"images": IMAGES, "limit": -1}, "`limit` -1"),
        ({"images": IMAGES, "task": 3}, "`task` is a int"),
    ],
)
def test_sensitivity_that_cannot_be_told(options: Any, message: str) -> None:
    with pytest.raises(ShrinkcError, match=message):
        shrinkc.sensitivity(small(8), X, **options)


def class_folders(root: Path, names: Sequence[str]) -> Path:
    """Three images of noise in each folder."""
    generator = np.random.default_rng(0)
    for name in names:
        (root / name).mkdir(parents=True)
        for index in range(3):
            noise = generator.integers(0, 255, (16, 16, 3), dtype=np.uint8)
            np.save(root / name / f"{index}.npy", noise)
    return root


READS_LABELS: dict[str, Callable[..., Any]] = {
    "compile": lambda x: shrinkc.compile(small(8), X, target="rpi4", images=x, runs=0),
    "evaluation": lambda x: shrinkc.prune(small(8), X, goal=HALF, evaluation=x),
    "train": lambda x: shrinkc.prune(small(8), X, goal=HALF, train=x, epochs=1),
    "labels": lambda x: shrinkc.prune(small(8), X, goal=HALF, images=x, labels=True, epochs=1),
    "fisher": lambda x: shrinkc.prune(
        small(8), X, goal=HALF, images=x, labels=True, criterion="group-fisher"
    ),
    "shrink": lambda x: shrinkc.shrink(
        small(8), X, goal=Goal.speedup(1.1), target="rpi4", images=x, labels=True
    ),
    "sensitivity": lambda x: shrinkc.sensitivity(small(8), X, images=x, labels=True),
}


@pytest.mark.parametrize("count", [4, 6])
@pytest.mark.parametrize("read", READS_LABELS)
def test_class_folders_that_do_not_number_the_outputs(
    read: str, count: int, tmp_path: Path
) -> None:
    images = class_folders(tmp_path / "set", "abcdef"[:count])
    message = f"{count} class folders cannot number the 5 classes .*`classes`"
    with pytest.raises(ShrinkcError, match=message):
        READS_LABELS[read](images)


def test_class_folders_that_a_user_numbers(tmp_path: Path) -> None:
    images = class_folders(tmp_path / "set", "abcd")
    numbered = shrinkc.ImageFolder(images, classes={"a": 0, "b": 1, "c": 2, "d": 4})
    found = shrinkc.compile(small(8), X, target="rpi4", images=numbered, runs=0)
    assert found.report.original_top1 is not None
    beyond = shrinkc.ImageFolder(images, classes={"a": 0, "b": 1, "c": 2, "d": 5})
    with pytest.raises(ShrinkcError, match="`classes` gives an index of 5"):
        shrinkc.compile(small(8), X, target="rpi4", images=beyond, runs=0)


def test_folders_that_are_no_classes_serve_where_no_labels_are_needed(tmp_path: Path) -> None:
    images = class_folders(tmp_path / "set", "abcd")
    judged = shrinkc.sensitivity(small(8), X, images=images).judged
    assert judged == "R² against the original"  # of random weights, which nothing says are classes
    classes = shrinkc.Classification()
    judged = shrinkc.sensitivity(small(8), X, images=images, task=classes).judged
    assert judged == "agreement with the original"
    found = shrinkc.prune(small(), X, goal=HALF, target="rpi4", images=images, runs=0)
    assert found.report.images == 12
    assert found.report.original_top1 is None

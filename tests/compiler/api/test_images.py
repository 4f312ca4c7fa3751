"""Images of a user's, in whatever they come, through the functions that look at them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset
from untouched import small, untouched

import shrinkc
from shrinkc import Goal, ShrinkcError

X = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
IMAGES = torch.randn(11, 3, 16, 16, generator=torch.Generator().manual_seed(1))
LABELS = torch.arange(11) % 5
LABELLED = TensorDataset(IMAGES, LABELS)


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
def test_a_loader_gives_the_same_bits_as_a_tensor(given: Any) -> None:
    model = small(8)
    options: dict[str, Any] = {"target": "rpi4", "precision": "int8", "runs": 0}
    wanted = shrinkc.compile(model, X, images=(IMAGES, LABELS), **options)
    with untouched(model):
        found = shrinkc.compile(model, X, images=given, **options)
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

"""A student of smaller images: it sees what its teacher sees, resized."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from small_networks import mobilenet_v2
from torch import Tensor, fx, nn

from shrinkc.compiler.capture import capture
from shrinkc.compiler.images.augment import scaled
from shrinkc.compiler.images.decoded import Images
from shrinkc.compiler.pipeline.deployed import deployed
from shrinkc.compiler.recover import distil
from shrinkc.compiler.recover.distil import Tuning, last_feature, tapped, tune
from shrinkc.compiler.recover.layer_problems import Sample
from shrinkc.compiler.support.progress import Silent

LARGE, SMALL, STORED = 40, 28, 48


def network(model: nn.Module, size: int) -> fx.GraphModule:
    return deployed(capture(model, (torch.zeros(1, 3, size, size),)))


@pytest.fixture(scope="module")
def pair() -> tuple[fx.GraphModule, fx.GraphModule]:
    torch.manual_seed(0)
    model = mobilenet_v2().eval()
    return network(model, LARGE), network(model, SMALL)


def images(count: int = 24) -> Images:
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 3, 5, 5, generator=generator)
    pixels = F.interpolate(coarse, (STORED, STORED), mode="bilinear").permute(0, 2, 3, 1)
    return Images((pixels * 255).round().to(torch.uint8).contiguous(), None, (0.5,), (0.25,))


@pytest.mark.parametrize("size", [(28, 28), (17, 31), (1, 1), (40, 28)])
def test_images_are_resized_as_pillow_does(size: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, LARGE, LARGE, generator=generator)
    wanted = [
        [
            np.asarray(Image.fromarray(band.numpy()).resize(size[::-1], Image.Resampling.BILINEAR))
            for band in one
        ]
        for one in x
    ]
    torch.testing.assert_close(scaled(x, size), torch.tensor(np.array(wanted)))
    assert scaled(x, (LARGE, LARGE)) is x


def test_the_student_sees_the_teachers_crops(
    pair: tuple[fx.GraphModule, fx.GraphModule], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that are kept apart, once; then every batch, mirrored or not, that was drawn."""
    teacher, student = pair
    seen: dict[int, list[Tensor]] = {LARGE: [], SMALL: []}
    answers = distil._Descent._answers  # pyright: ignore[reportPrivateUsage]

    def spy(self: Any, run: Any, x: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        seen[x[0].shape[2]].append(x[0].detach().clone())
        return answers(self, run, x)

    monkeypatch.setattr(distil._Descent, "_answers", spy)  # pyright: ignore[reportPrivateUsage]
    sample = Sample.of(images(), teacher)
    tune(student, teacher, sample, Tuning(steps=6, learning_rate=1e-3), Silent())
    assert len(seen[LARGE]) == len(seen[SMALL]) == 1 + 6
    for large, small in zip(seen[LARGE], seen[SMALL], strict=True):
        assert torch.equal(small, scaled(large, (SMALL, SMALL)))
    assert not torch.equal(seen[LARGE][1], seen[LARGE][2])


def test_its_features_come_nearer_to_the_teachers(
    pair: tuple[fx.GraphModule, fx.GraphModule],
) -> None:
    """The answers of a network that is not trained differ by rounding only."""
    teacher, student = pair
    sample, name = Sample.of(images(), teacher), last_feature(teacher, student)
    tuned = tune(student, teacher, sample, Tuning(steps=200), Silent()).graph_module
    (x,) = images().taken(torch.arange(24), (LARGE, LARGE))
    few = scaled(x, (SMALL, SMALL))
    with torch.no_grad():
        want, before, after = (
            tapped(network, name)(y)[0]
            for network, y in ((teacher, x), (student, few), (tuned, few))
        )
    want = scaled(want, (before.shape[2], before.shape[3]))
    assert (after - want).square().mean() < 0.7 * (before - want).square().mean()


def test_features_of_another_size_are_compared(
    pair: tuple[fx.GraphModule, fx.GraphModule],
) -> None:
    """The last map of features, as where both see the same."""
    teacher, student = pair
    assert last_feature(teacher, student) == last_feature(teacher, teacher)

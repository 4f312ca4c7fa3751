"""What is said of a network that is hardly right on its images."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch
from torch import Tensor, fx, nn

from shrinkc.compiler.capture import capture
from shrinkc.compiler.images.files import ImageSet, find_images
from shrinkc.compiler.images.preprocessing import Preprocessing
from shrinkc.compiler.images.tensors import TensorImages
from shrinkc.compiler.tasks.classification import CLASSIFICATION
from shrinkc.compiler.verify.hardly_right import best_order, why_hardly_right

# No colour is its own reverse, so that BGR makes every one of them another class; they differ in
# brightness, so that the darkest is the answer to whatever is too small.
COLOURS = tuple(
    tuple(value + 3 * index for value in colour)
    for index, colour in enumerate((*permutations((10, 110, 210)), *permutations((20, 70, 180))))
)
IMAGENET = Preprocessing(8, (8, 8), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 3)
BYTES = Preprocessing(8, (8, 8), (0.0,), (1 / 255,), 3)


def nearest_colour(
    mean: float = 0.0, std: float = 1 / 255, order: list[int] | None = None, bgr: bool = False
) -> fx.GraphModule:
    """The class of the nearest colour, of inputs that are normalised like that."""
    colours = torch.tensor(COLOURS, dtype=torch.float32)[order or list(range(12))]
    colours = (colours / 255 - mean) / std
    conv = nn.Conv2d(3, 12, 1)
    with torch.no_grad():
        conv.weight.copy_((2 * (colours.flip(1) if bgr else colours))[:, :, None, None])
        conv.bias.copy_(-(colours**2).sum(1))  # pyright: ignore[reportOptionalMemberAccess]
    net = nn.Sequential(conv, nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    return capture(net, (torch.randn(1, 3, 8, 8),))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> ImageSet:
    """Ten of every colour, with a little noise."""
    root, generator = tmp_path_factory.mktemp("colours"), np.random.default_rng(0)
    for label, colour in enumerate(COLOURS):
        (root / f"{label:02}").mkdir()
        for index in range(10):
            noise = generator.integers(-5, 6, (8, 8, 3))
            pixels = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
            np.save(root / f"{label:02}" / f"{index}.npy", pixels)
    return find_images(root)


def note(graph: fx.GraphModule, images: ImageSet, given: Preprocessing = IMAGENET) -> str:
    return " ".join(why_hardly_right(graph, images, given, CLASSIFICATION))


def test_the_normalisation_that_would_be_right_is_named(images: ImageSet) -> None:
    said = note(nearest_colour(), images)
    assert said.startswith("the network itself is right on 9.4% of the images as they are prepared")
    assert said.endswith(
        "with `mean` 0,0,0 and `std` 0.003922,0.003922,0.003922 it would be 100.0%"
    )
    assert note(nearest_colour(), images, BYTES) == ""
    assert note(nearest_colour(0.45, 0.23), images) == ""


def test_channels_in_reverse_are_named(images: ImageSet) -> None:
    said = note(nearest_colour(bgr=True), images, BYTES)
    assert "the network itself is right on 0.0%" in said
    assert said.endswith("with the channels in reverse (BGR) it would be 100.0%")
    assert "`mean` 0,0,0, `std` 0.003922" in note(nearest_colour(bgr=True), images)
    assert "and the channels in reverse (BGR) it would" in note(nearest_colour(bgr=True), images)


def test_another_order_of_classes_is_named(images: ImageSet) -> None:
    order = [5, 3, 8, 1, 11, 0, 10, 2, 6, 4, 7, 9]
    said = note(nearest_colour(order=order), images, BYTES)
    assert "with the classes in another order it would be 100.0%: give `classes`" in said
    shifted = note(nearest_colour(order=[11, *range(11)]), images, BYTES)
    assert "with the classes in another order it would be 100.0%" in shifted


def test_a_network_that_knows_nothing_is_not_explained_away(images: ImageSet) -> None:
    graph = nearest_colour()
    with torch.no_grad():
        next(graph.parameters()).zero_()  # the weights: the answer is the darkest
    said = note(graph, images, BYTES)
    assert "no usual way to normalise, resize or number them makes it right" in said


def test_tensors_are_taken_for_pixels_where_they_can_be(images: ImageSet) -> None:
    plain = Preprocessing(8, (8, 8), (0.0,), (1.0,), 3)
    batches = list(images.batches(plain))
    pixels = torch.cat([x for (x,), _ in batches])
    labels = torch.cat([y for _, y in batches if y is not None])

    def told(x: Tensor) -> str:
        found = TensorImages((x,), labels)
        return " ".join(why_hardly_right(nearest_colour(), found, None, CLASSIFICATION))

    assert told(pixels).endswith(
        "with mean 0,0,0 and std 0.003922,0.003922,0.003922 it would be 100.0%"
    )
    assert told(pixels * 255) == ""
    assert "no usual way" in told(pixels - 0.5)


def test_what_is_no_image_is_not_normalised() -> None:
    graph = capture(nn.Linear(40, 12).eval(), (torch.randn(1, 40),))
    x, labels = torch.randn(48, 40), torch.arange(48) % 12
    with torch.no_grad():
        labels = (graph(x)[0].argmax(1) + 1 + labels % 11) % 12
    (said,) = why_hardly_right(graph, TensorImages((x,), labels), None, CLASSIFICATION)
    assert said.endswith(
        "of the inputs as they are prepared: check its weights, and that the "
        "labels are of these inputs"
    )


def test_one_image_of_a_class_tells_no_order() -> None:
    generator = np.random.default_rng(0)
    labels = list(range(60))
    assert best_order([int(x) for x in generator.permutation(60)], labels, 60)[0] < 0.15
    share, words = best_order([y + 1 for y in labels], labels, 61)
    assert (share, words) == (1.0, "with +1 to every class")
    assert best_order([3] * 60, [y % 10 for y in range(60)], 10)[0] <= 0.2


@pytest.mark.parametrize(("batch", "answered"), [(5, True), (100, True), (121, False)])
def test_a_batch_that_is_fixed(batch: int, answered: bool, images: ImageSet) -> None:
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = next(m for m in nearest_colour().modules() if isinstance(m, nn.Conv2d))

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x).mean((2, 3)).reshape(batch, 12)

    said = note(capture(Fixed().eval(), (torch.randn(batch, 3, 8, 8),)), images)
    assert said.endswith("it would be 100.0%") == answered
    assert bool(said) == answered

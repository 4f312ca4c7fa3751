"""Windows and what is cut out of them, against one image at a time."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from shrinkc.compiler.images.augment import (
    Augmentation,
    RandomCrop,
    RandomResizedCrop,
    Windows,
    cut,
    draw,
)
from shrinkc.errors import DataError

STORED, SIZE = (10, 12), (8, 9)


def pixels(count: int, size: tuple[int, int] = STORED) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, *size, 3), generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize("padding", [0, 3])
def test_random_crops_equal_padding_and_slicing(padding: int) -> None:
    images = pixels(64)
    windows = draw(Augmentation(RandomCrop(padding), flip=True), 64, STORED, SIZE, seed=5)
    cuts = cut(images, windows, SIZE)
    assert cuts.dtype == torch.uint8
    assert cuts.shape == (64, *SIZE, 3)
    for image, found, box, flip in zip(images, cuts, windows.boxes, windows.flip, strict=True):
        padded = F.pad(image, (0, 0, padding, padding, padding, padding))
        top, left = int(box[0]) + padding, int(box[1]) + padding
        wanted = padded[top : top + SIZE[0], left : left + SIZE[1]]
        assert torch.equal(found, wanted.flip(1) if flip else wanted)


def test_every_place_and_both_directions_come_up() -> None:
    windows = draw(Augmentation(RandomCrop(2), flip=True), 4000, STORED, SIZE, seed=0)
    tops, lefts = windows.boxes[:, 0], windows.boxes[:, 1]
    assert sorted(set(tops.tolist())) == list(range(-2, 5))
    assert sorted(set(lefts.tolist())) == list(range(-2, 6))
    assert torch.bincount((tops + 2).long()).min() > 4000 / 7 * 0.8
    assert 0.45 < windows.flip.float().mean() < 0.55


def test_resized_windows_have_the_asked_area_and_aspect() -> None:
    crop = RandomResizedCrop((0.1, 0.3), (0.5, 2.0))  # all of them fit
    boxes = draw(Augmentation(crop), 5000, (200, 300), (32, 32), seed=0).boxes
    top, left, height, width = boxes.unbind(1)
    assert (boxes[:, :2] >= 0).all()
    assert (top + height <= 200).all()
    assert (left + width <= 300).all()
    area, ratio = height * width / 60_000, width / height
    assert area.min() > 0.098
    assert area.max() < 0.305
    assert ratio.min() > 0.48
    assert ratio.max() < 2.08
    assert area.mean() == pytest.approx(0.2, abs=0.003)
    assert ratio.log().mean() == pytest.approx(0, abs=0.02)
    assert (top == 200 - height).any()
    assert (left == 300 - width).any()


def test_windows_that_never_fit_are_the_whole_image() -> None:
    windows = draw(Augmentation(RandomResizedCrop((1, 1), (3, 3))), 9, (20, 20), (8, 8), seed=0)
    assert windows.boxes.tolist() == [[0, 0, 20, 20]] * 9


@pytest.mark.parametrize("flip", [False, True])
def test_resizing_equals_pillow(flip: bool) -> None:
    """Where pixels are made larger: bilinear interpolation has one meaning there."""
    image = pixels(1, (40, 40))
    box = (5, 3, 20, 26)  # top, left, height, width
    windows = Windows(torch.tensor([box], dtype=torch.float32), torch.tensor([flip]))
    found = cut(image, windows, (30, 30))[0]
    left, top, right, bottom = box[1], box[0], box[1] + box[3], box[0] + box[2]
    part = Image.fromarray(image[0].numpy()).crop((left, top, right, bottom))
    wanted = torch.from_numpy(np.array(part.resize((30, 30), Image.Resampling.BILINEAR)))
    wanted = wanted.flip(1) if flip else wanted
    inner = (slice(2, -2), slice(2, -2))  # our border sees the pixels beside the window
    assert (found - wanted)[inner].abs().max() <= 1


def test_without_a_crop_the_centre_is_taken() -> None:
    images = pixels(3)
    cuts = cut(images, draw(Augmentation(), 3, STORED, SIZE, seed=0), SIZE)
    assert torch.equal(cuts, images[:, 1:9, 1:10])


def test_the_same_seed_draws_the_same_and_ranks_share_it_out() -> None:
    augmentation = Augmentation(RandomResizedCrop(), flip=True)
    one, two, other = (draw(augmentation, 16, STORED, SIZE, seed) for seed in (1, 1, 2))
    assert torch.equal(one.boxes, two.boxes)
    assert torch.equal(one.flip, two.flip)
    assert not torch.equal(one.boxes, other.boxes)
    images = pixels(16)
    whole = cut(images, one, SIZE)
    for rank in range(3):
        assert torch.equal(cut(images[rank::3], one.part(rank, 3), SIZE), whole[rank::3])


def test_images_that_do_not_cover_the_network() -> None:
    with pytest.raises(DataError, match="stored as 10×12, smaller than the network's 16×16"):
        draw(Augmentation(), 1, STORED, (16, 16), seed=0)
    with pytest.raises(DataError, match=r"10×12 with 2 pixels around them do not cover .* 16×16"):
        draw(Augmentation(RandomCrop(2)), 1, STORED, (16, 16), seed=0)
    assert draw(Augmentation(RandomCrop(3)), 1, STORED, (16, 16), seed=0)


def test_bounds_that_cannot_be() -> None:
    for scale, ratio in (((0, 1), (1, 1)), ((0.5, 0.1), (1, 1)), ((0.1, 1), (2, 1))):
        with pytest.raises(DataError, match="give rising bounds"):
            RandomResizedCrop(scale, ratio)
    with pytest.raises(DataError, match="a padding of -1"):
        RandomCrop(-1)

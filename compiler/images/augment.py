"""Augmentation of whole batches at once, reproducible from a seed.

An image is cut to the network's size by a window, and mirrored or not. The windows of a batch are
drawn for the global batch and then shared out, so that they do not depend on the number of ranks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from shrinkc.errors import DataError

Size = tuple[int, int]  # height, width
_ATTEMPTS = 10  # to find a window that fits, as torchvision


@dataclass(frozen=True)
class RandomCrop:
    """A window of the network's size anywhere in the image, with `padding` black pixels around.

    He et al. 2016 for CIFAR: 4 pixels.
    """

    padding: int = 4

    def __post_init__(self) -> None:
        if self.padding < 0:
            raise DataError(f"a padding of {self.padding} pixels; give 0 or more")

    def boxes(self, count: int, stored: Size, size: Size, generator: torch.Generator) -> Tensor:
        room = (stored[0] + 2 * self.padding - size[0], stored[1] + 2 * self.padding - size[1])
        if min(room) < 0:
            raise DataError(
                f"images of {_times(stored)} with {self.padding} pixels around them do not cover "
                f"the network's {_times(size)}; store them larger or pad more"
            )
        top, left = (
            torch.randint(0, pixels + 1, (count,), generator=generator) - self.padding
            for pixels in room
        )
        return _boxes(top, left, torch.full((count,), size[0]), torch.full((count,), size[1]))


@dataclass(frozen=True)
class RandomResizedCrop:
    """A window of random area and aspect, resized to the network's size (Szegedy et al. 2015).

    `scale` bounds the share of the stored image's area, `ratio` width over height. Windows are
    drawn as torchvision's; resizing is bilinear without antialiasing, so store images at most
    about twice as large as the network's input.
    """

    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)

    def __post_init__(self) -> None:
        if not 0 < self.scale[0] <= self.scale[1] <= 1 or not 0 < self.ratio[0] <= self.ratio[1]:
            raise DataError(
                f"random resized crops of scale {self.scale}, ratio {self.ratio}: give rising "
                "bounds, scales in (0, 1]"
            )

    def boxes(self, count: int, stored: Size, size: Size, generator: torch.Generator) -> Tensor:
        def uniform(low: float, high: float) -> Tensor:
            drawn = torch.rand(count, _ATTEMPTS, generator=generator, dtype=torch.float64)
            return low + (high - low) * drawn

        area = uniform(*self.scale) * (stored[0] * stored[1])
        ratio = uniform(math.log(self.ratio[0]), math.log(self.ratio[1])).exp()
        widths, heights = (area * ratio).sqrt().round(), (area / ratio).sqrt().round()
        fits = (widths >= 1) & (heights >= 1) & (heights <= stored[0]) & (widths <= stored[1])
        first = fits.to(torch.int64).argmax(1, keepdim=True)
        width, height = widths.gather(1, first)[:, 0], heights.gather(1, first)[:, 0]
        none = ~fits.any(1)  # then the whole image
        width, height = width.masked_fill(none, stored[1]), height.masked_fill(none, stored[0])
        tops = (torch.rand(count, generator=generator) * (stored[0] - height + 1)).floor()
        lefts = (torch.rand(count, generator=generator) * (stored[1] - width + 1)).floor()
        return _boxes(tops, lefts, height, width)


@dataclass(frozen=True)
class Augmentation:
    """Without `crop` the centre is taken. With `flip` half of the images are mirrored."""

    crop: RandomCrop | RandomResizedCrop | None = None
    flip: bool = False


@dataclass(frozen=True)
class Windows:
    """What to cut out: `boxes` (n, 4) top, left, height, width in pixels; `flip` (n,) bool."""

    boxes: Tensor
    flip: Tensor

    def part(self, rank: int, ranks: int) -> Windows:
        return Windows(self.boxes[rank::ranks], self.flip[rank::ranks])


def draw(augmentation: Augmentation, count: int, stored: Size, size: Size, seed: int) -> Windows:
    """Windows for `count` images of size `stored`, the same for the same seed.

    Raises DataError where images of that size do not cover the network's.
    """
    generator = torch.Generator().manual_seed(seed)
    if augmentation.crop is None:
        boxes = centre(count, stored, size)
    else:
        boxes = augmentation.crop.boxes(count, stored, size, generator)
    flip = torch.zeros(count, dtype=torch.bool)
    if augmentation.flip:
        flip = torch.rand(count, generator=generator) < 0.5
    return Windows(boxes, flip)


def centre(count: int, stored: Size, size: Size) -> Tensor:
    """The middle window of the network's size. Raises DataError where there is none."""
    if stored[0] < size[0] or stored[1] < size[1]:
        raise DataError(
            f"images are stored as {_times(stored)}, smaller than the network's {_times(size)}; "
            "store them larger"
        )
    top, left = ((a - b) // 2 for a, b in zip(stored, size, strict=True))
    return torch.tensor([[top, left, *size]], dtype=torch.float32).expand(count, 4)


def cut(pixels: Tensor, windows: Windows, size: Size) -> Tensor:
    """Cut `windows` out of pixels (n, height, width, channels) → (n, *size, channels).

    Windows of the network's size are copied, others are resized, which gives float32.
    """
    if bool((windows.boxes[:, 2:] == torch.tensor(size)).all()):
        places = windows.boxes[:, :2].long()
        if tuple(pixels.shape[1:3]) == size and not (places.any() or windows.flip.any()):
            return pixels
        return _copied(pixels, places, windows.flip, size)
    return _resized(pixels, windows.boxes.to(pixels.device), windows.flip.to(pixels.device), size)


def _copied(pixels: Tensor, places: Tensor, flip: Tensor, size: Size) -> Tensor:
    """One gather over all pixels of the batch; the windows' numbers are on the CPU."""
    count, height, width, channels = pixels.shape
    beyond = places.amax(0) + torch.tensor(size) - torch.tensor((height, width))
    outside = max(0, int(beyond.max()), -int(places.min()))
    if outside:
        pixels = F.pad(pixels, (0, 0, outside, outside, outside, outside))
        height, width, places = height + 2 * outside, width + 2 * outside, places + outside
    rows = torch.arange(count)[:, None] * height + places[:, :1] + torch.arange(size[0])
    columns = torch.arange(size[1]).expand(count, -1)
    columns = places[:, 1:] + torch.where(flip[:, None], size[1] - 1 - columns, columns)
    index = (rows[:, :, None] * width + columns[:, None, :]).flatten().to(pixels.device)
    return pixels.reshape(-1, channels).index_select(0, index).view(count, *size, channels)


def _resized(pixels: Tensor, boxes: Tensor, flip: Tensor, size: Size) -> Tensor:
    count, height, width, channels = pixels.shape
    scale_y, scale_x = boxes[:, 2] / height, boxes[:, 3] / width
    middle_y = (2 * boxes[:, 0] + boxes[:, 2]) / height - 1
    middle_x = (2 * boxes[:, 1] + boxes[:, 3]) / width - 1
    theta = torch.zeros(count, 2, 3, device=pixels.device)
    theta[:, 0, 0] = torch.where(flip, -scale_x, scale_x)
    theta[:, 0, 2], theta[:, 1, 1], theta[:, 1, 2] = middle_x, scale_y, middle_y
    grid = F.affine_grid(theta, [count, channels, *size], align_corners=False)
    images = pixels.permute(0, 3, 1, 2).to(torch.float32)
    cuts = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    return cuts.permute(0, 2, 3, 1)


def scaled(x: Tensor, size: Size) -> Tensor:
    """Images (n, channels, height, width) resized to `size`, bilinear with antialiasing, as Pillow
    and torchvision do; those of that size are returned as they are."""
    if tuple(x.shape[2:]) == size:
        return x
    return F.interpolate(x, size, mode="bilinear", align_corners=False, antialias=True)


def _boxes(top: Tensor, left: Tensor, height: Tensor, width: Tensor) -> Tensor:
    return torch.stack((top, left, height, width), 1).to(torch.float32)


def _times(size: Size) -> str:
    return f"{size[0]}×{size[1]}"

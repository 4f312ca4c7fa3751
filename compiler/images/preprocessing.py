"""One image becomes one normalised tensor, the way ImageNet networks are evaluated.

Scaled to 0–1, shorter side resized (bilinear with antialiasing, as Pillow and torchvision do),
centre-cropped, normalised. EXIF rotation is ignored, as in training pipelines.
"""

from __future__ import annotations

import io
import math
import tokenize
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from shrinkc.compiler.support.text import counted, one_line
from shrinkc.errors import ImageError, InputError

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
GREY_MEAN, GREY_STD = (0.449,), (0.226,)  # the averages of ImageNet's
MAX_PIXELS = 100_000_000  # a larger image is taken for a decompression bomb
_SMALL = 64  # inputs up to this size are made for images of just that size
_LUMA = (0.299, 0.587, 0.114)  # ITU-R 601, as Pillow's mode "L"

Array = NDArray[Any]  # uint8, or float32


@dataclass(frozen=True)
class Preprocessing:
    """What happens to an image before the network sees it.

    resize   shorter side in pixels, before the crop
    size     (height, width) of the centre crop
    mean     subtracted after scaling to 0–1; one value, or one a channel
    std      divided by; likewise
    channels 1: grey; 3: RGB; any other number only fits `.npy` arrays
    """

    resize: int
    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    channels: int

    def __post_init__(self) -> None:
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, self.channels):
                needed = "1" if self.channels == 1 else f"1 or {self.channels}"
                raise InputError(
                    f"`{name}` has {counted(len(values), 'value')} for "
                    f"{counted(self.channels, 'channel')}; give {needed}"
                )
            if not all(map(math.isfinite, values)):
                raise InputError(f"`{name}` {','.join(map(str, values))}: give finite numbers")
        if min(self.std) <= 0:
            raise InputError(f"`std` {','.join(map(str, self.std))}: give numbers above 0")
        if self.resize < min(self.size):
            size = "×".join(map(str, self.size))
            raise InputError(f"`resize` {self.resize} is below the input size {size}; give more")

    def to_json(self) -> dict[str, Any]:
        """The fields, as JSON holds them."""
        return {
            "resize": self.resize,
            "size": list(self.size),
            "mean": list(self.mean),
            "std": list(self.std),
            "channels": self.channels,
        }


def preprocessing_for(
    input_shape: Sequence[int],
    *,
    resize: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Preprocessing:
    """The preprocessing for a network input (N, C, H, W); what is not given is chosen.

    resize: the longer side of the input up to 64 pixels (digits, CIFAR), else that times 256/224
    (224 → 256, 96 → 110). mean and std: ImageNet's; its averages for grey; 0 and 1 for other
    channel counts. Raises InputError for values that do not fit.
    """
    if len(input_shape) != 4:
        shape = ",".join(map(str, input_shape))
        raise InputError(f"`images` needs a network input of shape N,C,H,W, not {shape}")
    channels, height, width = input_shape[1:]
    side = max(height, width)
    defaults = {1: (GREY_MEAN, GREY_STD), 3: (IMAGENET_MEAN, IMAGENET_STD)}
    default_mean, default_std = defaults.get(channels, ((0.0,), (1.0,)))
    return Preprocessing(
        resize=resize or (side if side <= _SMALL else round(side * 256 / 224)),
        size=(height, width),
        mean=default_mean if mean is None else tuple(mean),
        std=default_std if std is None else tuple(std),
        channels=channels,
    )


def read_image(data: bytes, name: str, preprocessing: Preprocessing) -> Tensor:
    """Decode one JPEG, PNG or `.npy` file to a float32 tensor (channels, height, width).

    Raises ImageError with the reason alone; the caller knows the file's full name.
    """
    pixels = read_pixels(data, name, preprocessing)
    scaled = pixels.astype(np.float32) / np.float32(255 if pixels.dtype == np.uint8 else 1)
    mean, std = np.array(preprocessing.mean, np.float32), np.array(preprocessing.std, np.float32)
    return torch.tensor(np.ascontiguousarray(((scaled - mean) / std).transpose(2, 0, 1)))


def read_pixels(data: bytes, name: str, preprocessing: Preprocessing) -> Array:
    """Decode, resize and crop one file, without normalisation: (height, width, channels).

    uint8, or float32: grey images of 16 bits scaled to 0–1, `.npy` floats as they are. Raises
    ImageError with the reason alone.
    """
    if name.lower().endswith(".npy"):
        bands = _from_array(read_array(data), preprocessing.channels)
    else:
        bands = _decode(data, preprocessing.channels)
    return np.concatenate([np.atleast_3d(np.asarray(_fit(b, preprocessing))) for b in bands], 2)


def _decode(data: bytes, channels: int) -> list[Image.Image]:
    if channels not in (1, 3):
        raise ImageError(f"an image has 1 or 3 channels, the network input {channels}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # among them Pillow's own limit of pixels
            image = Image.open(io.BytesIO(data), formats=("JPEG", "PNG"))
            if image.width * image.height > MAX_PIXELS:
                raise ImageError(f"{image.width}×{image.height} pixels are too many")
            image.load()
    except ImageError:
        raise
    except Exception as error:  # decoders meet damaged data with whatever comes
        raise ImageError(f"not a readable JPEG or PNG ({one_line(error)})") from error
    if image.mode.startswith("I"):  # 16-bit grey
        grey = np.asarray(image).astype(np.float32) / np.float32(65535)
        return _from_array(grey, channels)
    if "transparency" in image.info:
        image = image.convert("RGBA")
    return [image.convert("L" if channels == 1 else "RGB")]


WHOLE = ("u1", "i4", "i8", "b1")


def read_array(data: bytes, whole: bool = False) -> Array:
    """A `.npy` file, uint8 or float32, or of WHOLE numbers, without `np.load`, which allocates what
    the header asks for. Raises ImageError with the reason alone."""
    stream = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(stream)
        read_header = (
            np.lib.format.read_array_header_1_0
            if version == (1, 0)
            else np.lib.format.read_array_header_2_0
        )
        shape, fortran_order, dtype = read_header(stream)
    except (ValueError, EOFError, SyntaxError, tokenize.TokenError) as error:
        raise ImageError(f"not a .npy file ({one_line(error)})") from error
    if whole and dtype.str[1:] not in WHOLE:
        raise ImageError(f"an array of {dtype}; int64, int32, uint8 or bool is needed")
    if not whole and dtype.str[1:] not in ("u1", "f2", "f4", "f8"):
        raise ImageError(f"an array of {dtype}; uint8 (0–255) or float is needed")
    body = memoryview(data)[stream.tell() :]
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != len(body):
        raise ImageError(f"shape {shape} does not fit its {len(body)} bytes")
    array = np.frombuffer(body, dtype).reshape(shape, order="F" if fortran_order else "C")
    if whole or dtype == np.uint8:
        return array
    if not np.isfinite(array).all():
        raise ImageError("NaN or infinite values")
    return array.astype(np.float32)


def _from_array(array: Array, channels: int) -> list[Image.Image]:
    """(H, W), (H, W, C) or (C, H, W) → images of `channels` bands together."""
    array = _channels_last(array, channels)
    found = array.shape[2]
    if found == 3 and channels == 1:
        if array.dtype == np.uint8:
            return [Image.fromarray(array).convert("L")]
        array = (array * np.array(_LUMA, np.float32)).sum(2, keepdims=True)
    elif found == 1:
        array = np.repeat(array, channels, 2)
    elif found != channels:
        raise ImageError(f"{found} channels, the network input has {channels}")
    return [Image.fromarray(np.ascontiguousarray(array[:, :, i])) for i in range(channels)]


def _channels_last(array: Array, channels: int) -> Array:
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or 0 in array.shape:
        raise ImageError(f"shape {array.shape} is not (H, W), (H, W, C) or (C, H, W)")
    for wanted in (channels, 3, 1):
        if array.shape[2] == wanted:
            return array
        if array.shape[0] == wanted:
            return array.transpose(1, 2, 0)
    raise ImageError(f"shape {array.shape} has no dimension of {channels} channels")


def _fit(image: Image.Image, preprocessing: Preprocessing) -> Image.Image:
    """Resize the shorter side, more where the crop would not be covered; crop the centre."""
    height, width = preprocessing.size
    shorter = min(image.size)
    scale = max(preprocessing.resize / shorter, height / image.height, width / image.width)
    target = (_side(image.width, scale), _side(image.height, scale))
    if target[0] * target[1] > MAX_PIXELS:
        raise ImageError(f"{image.width}×{image.height} is too narrow to be resized")
    if target != image.size:
        image = image.resize(target, Image.Resampling.BILINEAR)
    left, top = round((image.width - width) / 2), round((image.height - height) / 2)
    return image.crop((left, top, left + width, top + height))


def _side(pixels: int, scale: float) -> int:
    return int(pixels * scale + 1e-6)  # torchvision truncates; 1e-6 keeps whole results whole

"""One image becomes one normalised tensor, the way ImageNet networks are evaluated, or as it says.

Turned as its EXIF data say, scaled to 0–1, shorter side resized (bilinear with antialiasing, as
Pillow and torchvision do), centre-cropped, normalised.
"""

from __future__ import annotations

import io
import logging
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from shrinkc.compiler.support.text import counted, one_line
from shrinkc.errors import ImageError, InputError

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
GREY_MEAN, GREY_STD = (0.449,), (0.226,)  # the averages of ImageNet's
MAX_PIXELS = 100_000_000  # a larger image is taken for a decompression bomb
MAX_DEEP_PIXELS = MAX_PIXELS // 4  # of 16 bits and floats, which take four times the memory
# JPEG's own way of decoding to an eighth of the size and more, for what takes much memory
# otherwise; it changes the last bits, so that images of usual size are resized from all pixels.
DRAFTED_PIXELS = 16_000_000
_DRAFT = 2  # times the target's sides that are decoded at least
_SMALL = 64  # inputs up to this size are made for images of just that size
_ORIENTATION, _TURNED = 0x0112, (5, 6, 7, 8)  # EXIF's tag, and the values that swap the sides
_PLAIN = (
    "1",
    "L",
    "LA",
    "P",
    "PA",
    "RGB",
    "RGBA",
    "RGBX",
    "CMYK",
    "YCbCr",
    "LAB",
    "HSV",
    "La",
    "RGBa",
)
_LUMA = (0.299, 0.587, 0.114)  # ITU-R 601, as Pillow's mode "L"

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")
PADDING = 114  # grey of 255 around letterboxed images, as YOLO pads

# It writes on stderr what it raises as well.
logging.getLogger("PIL").addHandler(logging.NullHandler())

Array = NDArray[Any]  # uint8, or float32
Fit = Literal["crop", "letterbox", "stretch"]


@dataclass(frozen=True)
class Preprocessing:
    """What happens to an image before the network sees it.

    resize   shorter side in pixels, before the crop
    size     (height, width) of the network's input
    mean     subtracted after scaling to 0–1; one value, or one a channel
    std      divided by; likewise
    channels 1: grey; 3: RGB; any other number only fits `.npy` arrays
    fit      "crop": the centre of what `resize` leaves; "letterbox": all of the image, as large as
             it fits, with grey around; "stretch": all of it, whatever its shape
    bgr      the channels in reverse
    scale    pixels are multiplied by it before `mean`: 255 leaves them as they are stored
    """

    resize: int
    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    channels: int
    fit: Fit = "crop"
    bgr: bool = False
    scale: float = 1.0

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
        if not 0 < self.scale < math.inf:
            raise InputError(f"`scale` {self.scale:g}: give a number above 0, such as 255")
        if self.bgr and self.channels != 3:
            raise InputError(f"`bgr` is for 3 channels; the network reads {self.channels}")
        if self.fit == "crop" and self.resize < min(self.size):
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
            "fit": self.fit,
            "bgr": self.bgr,
            "scale": self.scale,
        }

    @property
    def normalisation(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and deviation of pixels of 0–1."""
        return tuple(m / self.scale for m in self.mean), tuple(s / self.scale for s in self.std)

    def at_size(self, size: tuple[int, int], closer: float = 1.0) -> Preprocessing:
        """The same for an input of another size: it shows as much of an image, or the middle of it
        as many times larger."""
        resize = round(closer * self.resize * size[0] / self.size[0])
        return replace(self, resize=max(resize, *size), size=size)

    def placed(self, width: int, height: int) -> Placement:
        """Where an image of this size comes to lie. Raises ImageError for one that is too narrow
        to be cropped."""
        rows, columns = self.size
        if self.fit == "stretch":
            return Placement((columns, rows), 0, 0)
        if self.fit == "letterbox":
            scale = min(rows / height, columns / width)
            target = max(1, round(width * scale)), max(1, round(height * scale))
            return Placement(target, (columns - target[0]) // 2, (rows - target[1]) // 2)
        scale = max(self.resize / min(width, height), rows / height, columns / width)
        target = (_side(width, scale), _side(height, scale))
        if target[0] * target[1] > MAX_PIXELS:
            raise ImageError(f"{width}×{height} is too narrow to be resized")
        left, top = round((target[0] - columns) / 2), round((target[1] - rows) / 2)
        return Placement(target, -left, -top)


@dataclass(frozen=True)
class Normalisation:
    """What `given` does to the numbers of an image of raw RGB, (n, C, H, W) of 0 to 255:
    x · scale + shift, its channels in reverse before where they are BGR."""

    given: Preprocessing

    @property
    def scale(self) -> Tensor:
        """(C,), float64"""
        return 1 / (255 * self._channels(self.given.normalisation[1]))

    @property
    def shift(self) -> Tensor:
        """(C,), float64"""
        mean, std = map(self._channels, self.given.normalisation)
        return -mean / std

    @property
    def raw(self) -> Preprocessing:
        """The same without it."""
        return replace(self.given, mean=(0.0,), std=(1.0,), scale=255.0, bgr=False)

    def __call__(self, x: Tensor) -> Tensor:
        """Raw → as the network reads it."""
        x = x.flip(1) if self.given.bgr else x
        scale, shift = (v.to(x.dtype)[:, None, None] for v in (self.scale, self.shift))
        return x * scale + shift

    def undone(self, x: Tensor) -> Tensor:
        """As the network reads it → raw."""
        scale, shift = (v.to(x.dtype)[:, None, None] for v in (self.scale, self.shift))
        raw = (x - shift) / scale
        return raw.flip(1) if self.given.bgr else raw

    def _channels(self, values: tuple[float, ...]) -> Tensor:
        return torch.tensor(values, dtype=torch.float64).expand(self.given.channels)

    def __str__(self) -> str:
        mean, std = (
            ",".join(f"{255 * v:.6g}" for v in values) for values in self.given.normalisation
        )
        order = "BGR " if self.given.bgr else ""
        return f"({order}x − {mean}) / {std}"


@dataclass(frozen=True)
class Placement:
    """An image is resized to `target` (width, height), its corner `left` and `top` pixels from the
    input's; negative where it is cropped."""

    target: tuple[int, int]
    left: int
    top: int


def preprocessing_for(
    input_shape: Sequence[int],
    *,
    resize: int | Fit | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    bgr: bool = False,
    scale: float | None = None,
) -> Preprocessing:
    """The preprocessing for a network input (N, C, H, W); what is not given is chosen.

    resize: the shorter side before the crop, "letterbox" or "stretch"; otherwise the longer side of
    the input up to 64 pixels (digits, CIFAR), else that times 256/224 (224 → 256, 96 → 110). mean
    and std: ImageNet's; its averages for grey; 0 and 1 for other channel counts, and where a scale
    is given. Raises InputError for values that do not fit.
    """
    if len(input_shape) != 4:
        shape = ",".join(map(str, input_shape))
        raise InputError(f"`images` needs a network input of shape N,C,H,W, not {shape}")
    channels, height, width = input_shape[1:]
    fit: Fit = "crop"
    if isinstance(resize, str):
        if resize not in get_args(Fit):
            raise InputError(
                f"`resize` {resize}: give pixels of the shorter side, letterbox or stretch"
            )
        fit, resize = resize, None
    side = max(height, width)
    defaults = {1: (GREY_MEAN, GREY_STD), 3: (IMAGENET_MEAN, IMAGENET_STD)}
    default_mean, default_std = defaults.get(channels, ((0.0,), (1.0,)))
    if scale is not None:
        default_mean, default_std = (0.0,), (1.0,)
    return Preprocessing(
        resize=resize or (side if side <= _SMALL else round(side * 256 / 224)),
        size=(height, width),
        mean=default_mean if mean is None else tuple(mean),
        std=default_std if std is None else tuple(std),
        channels=channels,
        fit=fit,
        bgr=bgr,
        scale=scale or 1.0,
    )


def read_image(data: bytes, name: str, preprocessing: Preprocessing) -> Tensor:
    """Decode one image or `.npy` file to a float32 tensor (channels, height, width).

    Raises ImageError with the reason alone; the caller knows the file's full name.
    """
    pixels = read_pixels(data, name, preprocessing)
    scaled = pixels.astype(np.float32) / np.float32(255 if pixels.dtype == np.uint8 else 1)
    mean, std = (np.array(values, np.float32) for values in preprocessing.normalisation)
    return torch.tensor(np.ascontiguousarray(((scaled - mean) / std).transpose(2, 0, 1)))


def read_pixels(data: bytes, name: str, preprocessing: Preprocessing) -> Array:
    """Decode, resize and crop one file, without normalisation: (height, width, channels).

    uint8, or float32: grey images of 16 bits scaled to 0–1, `.npy` floats as they are. Raises
    ImageError with the reason alone.
    """
    if name.lower().endswith(".npy"):
        bands = _from_array(read_array(data), preprocessing.channels)
        size = bands[0].size
    else:
        bands, size = _decode(data, preprocessing)
    place = preprocessing.placed(*size)
    fitted = [np.atleast_3d(np.asarray(_fit(band, place, preprocessing.size))) for band in bands]
    pixels = np.concatenate(fitted, 2)
    if pixels.shape[2] == 1:  # one band for all channels
        pixels = np.repeat(pixels, preprocessing.channels, 2)
    return pixels[:, :, ::-1] if preprocessing.bgr else pixels


def as_type(pixels: Array, dtype: Any) -> Array | ImageError:
    """As the other images of a set have them; an error where that would lose something."""
    if pixels.dtype == dtype:
        return pixels
    if dtype == np.uint8:
        return ImageError("an array of floats among images of bytes")
    return pixels.astype(np.float32) / np.float32(255)


def read_target(data: bytes, size: tuple[int, int], preprocessing: Preprocessing) -> Array:
    """An image that the network is to return for one of `size` (width, height): float32 (channels,
    height, width), grey or RGB, of 0 to 1 times `scale`. It is placed as the other one is; one that
    is a whole number of times as large comes out as much larger. Raises ImageError with the reason
    alone."""
    image = decode(data)
    times = image.width // size[0]
    if times < 1 or image.size != (times * size[0], times * size[1]):
        found, wanted = ("×".join(map(str, one)) for one in (image.size, size))
        raise ImageError(
            f"a map of {found} for an image of {wanted}; it must be as large, or a whole number "
            "of times as large"
        )
    grey = image.mode in ("1", "L", "LA", "F") or image.mode.startswith("I")
    place = preprocessing.placed(*size)
    target = place.target[0] * times, place.target[1] * times
    larger = Placement(target, place.left * times, place.top * times)
    bands = _bands(image, 1 if grey else 3)
    height, width = (times * side for side in preprocessing.size)
    fitted = [np.atleast_3d(np.asarray(_fit(band, larger, (height, width)))) for band in bands]
    pixels = np.concatenate(fitted, 2)
    scale = preprocessing.scale / (255 if pixels.dtype == np.uint8 else 1)
    whole = pixels.astype(np.float32) * np.float32(scale)
    whole = whole[:, :, ::-1] if preprocessing.bgr else whole
    return np.ascontiguousarray(whole.transpose(2, 0, 1))


def size_of_file(data: bytes, name: str, channels: int) -> tuple[int, int]:
    """(width, height) of an image as it is seen, without decoding it. Raises ImageError."""
    if name.lower().endswith(".npy"):
        height, width = _channels_last(read_array(data), channels).shape[:2]
        return width, height
    return _seen_size(opened(data))


def _seen_size(image: Image.Image) -> tuple[int, int]:
    """Once it is turned as its EXIF data say. Raises ImageError with the reason alone."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            turned = image.getexif().get(_ORIENTATION, 1) in _TURNED
    except Exception as error:
        raise _unreadable(error) from error
    return (image.height, image.width) if turned else (image.width, image.height)


def opened(data: bytes) -> Image.Image:
    """Of one of FORMATS, not decoded yet. Raises ImageError with the reason alone."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # among them Pillow's own limit of pixels
            image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Exception as error:  # decoders meet damaged data with whatever comes
        raise _unreadable(error) from error
    most = MAX_PIXELS if image.mode in _PLAIN else MAX_DEEP_PIXELS
    if image.width * image.height > most:
        raise ImageError(f"{image.width}×{image.height} pixels are too many")
    return image


def decode(data: bytes) -> Image.Image:
    """Turned as its EXIF data say. Raises ImageError with the reason alone."""
    return _loaded(opened(data))


def _loaded(image: Image.Image) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
            return image
    except Exception as error:
        raise _unreadable(error) from error


def _unreadable(error: Exception) -> ImageError:
    *most, last = FORMATS
    return ImageError(f"not a readable {', '.join(most)} or {last} ({one_line(error)})")


def _decode(data: bytes, preprocessing: Preprocessing) -> tuple[list[Image.Image], tuple[int, int]]:
    """The image, and the size (width, height) that it has in the file."""
    channels = preprocessing.channels
    if channels not in (1, 3):
        raise ImageError(f"an image has 1 or 3 channels, the network input {channels}")
    image = opened(data)
    size = _seen_size(image)
    if image.width * image.height > DRAFTED_PIXELS:
        width, height = preprocessing.placed(*size).target
        target = (width, height) if size == image.size else (height, width)
        image.draft(None, (_DRAFT * target[0], _DRAFT * target[1]))  # pyright: ignore[reportArgumentType] - keeps the mode
    return _bands(_loaded(image), channels), size


def _bands(image: Image.Image, channels: int) -> list[Image.Image]:
    """Of 1 channel or 3: one image of uint8, or one float a channel of more than 8 bits."""
    if image.mode.startswith("I"):  # 16-bit grey
        grey = np.asarray(image).astype(np.float32)
        grey /= np.float32(65535)
        return _from_array(grey, channels)
    if image.mode == "F":
        return _from_array(np.asarray(image), channels)
    if "transparency" in image.info:
        image = image.convert("RGBA")
    wanted = "L" if channels == 1 else "RGB"
    return [image if image.mode == wanted else image.convert(wanted)]


def read_array(data: bytes) -> Array:
    """A `.npy` file, uint8 or float32, without `np.load`, which allocates what the header asks for.
    Raises ImageError with the reason alone."""
    array = read_numbers(data)
    if array.dtype.str[1:] not in ("u1", "f4"):
        raise ImageError(f"an array of {array.dtype}; uint8 (0–255) or float is needed")
    return array


_BRACKETS = 20  # in the header of an array of numbers: of its dictionary and its shape


def _header(data: bytes) -> bytes:
    """Of an `.npy`, as long as it says."""
    start = 10 if data[6:7] == b"\1" else 12
    return data[start : start + int.from_bytes(data[8:start], "little")]


@dataclass(frozen=True)
class NumbersHeader:
    """What an `.npy` says of its numbers, which begin at byte `start`."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran_order: bool
    start: int


def numbers_header(data: bytes) -> NumbersHeader:
    """Of an `.npy`, of which the first 64 KiB are enough. Raises ImageError with the reason
    alone."""
    stream = io.BytesIO(data)
    if sum(map(_header(data).count, b"([{")) > _BRACKETS:  # Python's parser runs out of memory
        raise ImageError("not a .npy file (a header of values within values)")
    try:
        version = np.lib.format.read_magic(stream)
        read_header = (
            np.lib.format.read_array_header_1_0
            if version == (1, 0)
            else np.lib.format.read_array_header_2_0
        )
        shape, fortran_order, dtype = read_header(stream)
    except Exception as error:  # of Python's parser, which reads the header
        raise ImageError(f"not a .npy file ({one_line(error)})") from error
    if dtype.kind not in "uifb" or dtype.itemsize > 8:
        raise ImageError(f"an array of {dtype}; numbers are needed")
    return NumbersHeader(shape, dtype, fortran_order, stream.tell())


def read_numbers(data: bytes) -> Array:
    """The same, whole numbers of every size among them; floats become float32."""
    header = numbers_header(data)
    shape, dtype, body = header.shape, header.dtype, memoryview(data)[header.start :]
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != len(body):
        told = one_line(str(shape), 60)
        raise ImageError(f"shape {told} does not fit its {len(body)} bytes")
    order = "F" if header.fortran_order else "C"
    try:
        array = np.frombuffer(body, dtype).reshape(shape, order=order)
    except ValueError as error:  # more dimensions than there can be, or larger ones of nothing
        raise ImageError(f"an array of shape {one_line(str(shape), 60)}") from error
    if dtype.kind != "f":
        return array.astype(dtype.newbyteorder("="))  # a copy, as torch wants it
    with np.errstate(over="ignore"):
        floats = array.astype(np.float32)
    if not np.isfinite(floats).all():
        raise ImageError("NaN or infinite values, or larger ones than float32 has")
    return floats


def _from_array(array: Array, channels: int) -> list[Image.Image]:
    """(H, W), (H, W, C) or (C, H, W) → images of `channels` bands together, or one of a single."""
    array = _channels_last(array, channels)
    found = array.shape[2]
    if found == 3 and channels == 1:
        if array.dtype == np.uint8:
            return [Image.fromarray(array).convert("L")]
        array = (array * np.array(_LUMA, np.float32)).sum(2, keepdims=True)
    elif found not in (1, channels):
        raise ImageError(f"{found} channels, the network input has {channels}")
    bands = range(array.shape[2])
    return [Image.fromarray(np.ascontiguousarray(array[:, :, i])) for i in bands]


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


def _fit(image: Image.Image, place: Placement, size: tuple[int, int]) -> Image.Image:
    """One band, or all of them."""
    grey = PADDING / 255 if image.mode == "F" else PADDING
    fill = (PADDING,) * 3 if image.mode == "RGB" else grey
    return put(image, place, size, Image.Resampling.BILINEAR, fill)


def put(
    image: Image.Image,
    place: Placement,
    size: tuple[int, int],
    resampling: Image.Resampling,
    fill: float | tuple[int, ...],
) -> Image.Image:
    """An image of `size` (height, width) that holds another one where `place` says."""
    if place.target != image.size:
        image = image.resize(place.target, resampling)
    height, width = size
    right, bottom = place.left + image.width, place.top + image.height
    if max(place.left, place.top) <= 0 and right >= width and bottom >= height:  # it covers all
        return image.crop((-place.left, -place.top, width - place.left, height - place.top))
    whole = Image.new(image.mode, (width, height), fill)
    whole.paste(image, (place.left, place.top))
    return whole


def _side(pixels: int, scale: float) -> int:
    return int(pixels * scale + 1e-6)  # torchvision truncates; 1e-6 keeps whole results whole

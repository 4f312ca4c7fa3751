"""One image to one tensor: sizes, crops, channels, number ranges, damaged and hostile files."""

import io
import logging
import struct
import zlib

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from shrinkc.compiler.images import preprocessing
from shrinkc.compiler.images.preprocessing import (
    Preprocessing,
    preprocessing_for,
    read_image,
    size_of_file,
)
from shrinkc.errors import ImageError, InputError

PLAIN = Preprocessing(resize=8, size=(8, 8), mean=(0.0,), std=(1.0,), channels=3)
GREY = Preprocessing(resize=8, size=(8, 8), mean=(0.0,), std=(1.0,), channels=1)


def encode(image: Image.Image, kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind)
    return stream.getvalue()


def npy(array: NDArray[np.generic]) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    return stream.getvalue()


def random_rgb(height: int, width: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize(
    ("side", "resize"), [(224, 256), (299, 342), (96, 110), (65, 74), (64, 64), (32, 32), (8, 8)]
)
def test_the_resize_that_is_chosen(side: int, resize: int) -> None:
    assert preprocessing_for((1, 3, side, side)).resize == resize
    assert preprocessing_for((1, 3, side // 2, side)).resize == resize


def test_defaults_and_json() -> None:
    chosen = preprocessing_for((1, 3, 224, 192))
    assert chosen.to_json() == {
        "resize": 256,
        "size": [224, 192],
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "channels": 3,
        "fit": "crop",
        "bgr": False,
        "scale": 1.0,
    }
    assert preprocessing_for((1, 1, 28, 28)).mean == (0.449,)
    assert preprocessing_for((1, 4, 28, 28)).std == (1.0,)
    given = preprocessing_for((1, 3, 32, 32), resize=40, mean=[0.5], std=(0.5, 0.5, 0.25))
    assert (given.resize, given.mean, given.std) == (40, (0.5,), (0.5, 0.5, 0.25))


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((1, 3, 8, 8), {"mean": (0.1, 0.2)}, "`mean` has 2 values for 3 channels; give 1 or 3"),
        ((1, 1, 8, 8), {"std": (0.1, 0.2, 0.3)}, "`std` has 3 values for 1 channel; give 1"),
        ((1, 3, 8, 8), {"std": (0.0,)}, "`std` 0.0: give numbers above 0"),
        ((1, 3, 8, 8), {"mean": (float("nan"),)}, "`mean` nan: give finite numbers"),
        ((1, 3, 8, 8), {"resize": 7}, "`resize` 7 is below the input size 8×8; give more"),
        ((1, 64), {}, "`images` needs a network input of shape N,C,H,W, not 1,64"),
    ],
)
def test_values_that_do_not_fit(shape: tuple[int, ...], options: dict, message: str) -> None:
    with pytest.raises(InputError) as caught:
        preprocessing_for(shape, **options)
    assert str(caught.value) == message


@pytest.mark.parametrize(("height", "width"), [(300, 500), (333, 256), (40, 31)])
def test_resize_and_crop_are_pillows(height: int, width: int) -> None:
    """torchvision's Resize(256), CenterCrop(224), ToTensor, Normalize, spelled out."""
    image = Image.fromarray(random_rgb(height, width))
    shorter = min(height, width)
    size = (int(256 * width / shorter), int(256 * height / shorter))
    resized = image.resize(size, Image.Resampling.BILINEAR)
    left, top = round((size[0] - 224) / 2), round((size[1] - 224) / 2)
    pixels = torch.tensor(np.asarray(resized.crop((left, top, left + 224, top + 224))))
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    want = ((pixels.float() / 255 - mean) / std).permute(2, 0, 1)
    got = read_image(encode(image), "a.png", preprocessing_for((1, 3, 224, 224)))
    assert got.is_contiguous()
    torch.testing.assert_close(got, want, rtol=0, atol=1e-6)


def test_a_image_of_the_right_size_is_untouched() -> None:
    pixels = random_rgb(8, 8)
    want = torch.tensor(pixels).permute(2, 0, 1) / 255
    assert torch.equal(read_image(encode(Image.fromarray(pixels)), "a.png", PLAIN), want)
    for array in (pixels, pixels.transpose(2, 0, 1), np.asfortranarray(pixels)):
        assert torch.equal(read_image(npy(array), "a.npy", PLAIN), want)


def test_a_crop_wider_than_the_resized_image_is_covered() -> None:
    wide = Preprocessing(resize=8, size=(8, 16), mean=(0.0,), std=(1.0,), channels=3)
    image = Image.fromarray(random_rgb(20, 10))
    got = read_image(encode(image), "a.png", wide)
    resized = np.asarray(image.resize((16, 32), Image.Resampling.BILINEAR))[12:20]
    assert torch.equal(got, torch.tensor(resized).permute(2, 0, 1) / 255)


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "1", "RGB"])
def test_every_mode_becomes_grey_or_rgb(mode: str) -> None:
    image = Image.fromarray(random_rgb(8, 8)).convert(mode)
    assert read_image(encode(image), "a.png", PLAIN).shape == (3, 8, 8)
    assert read_image(encode(image), "a.png", GREY).shape == (1, 8, 8)


def test_a_palette_with_transparency() -> None:
    image = Image.fromarray(random_rgb(8, 8)).convert("P")
    image.info["transparency"] = bytes(range(256))
    assert read_image(encode(image), "a.png", PLAIN).shape == (3, 8, 8)


def test_what_is_wrong_with_an_image_is_said_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Pillow logs some of it, too."""
    monkeypatch.setattr(logging.root, "handlers", [])  # pytest's own
    stream = io.BytesIO()
    Image.new("RGB", (4, 4)).save(stream, "TIFF")
    samples = struct.pack("<HHI", 277, 3, 1)  # the tag SamplesPerPixel, one number
    data = stream.getvalue()
    assert data.count(samples) == 1
    at = data.index(samples) + len(samples)
    with pytest.raises(ImageError, match="not a readable"):
        read_image(
            data[:at] + b"\xff\xff" + data[at + 2 :], "a.tif", preprocessing_for((1, 3, 4, 4))
        )
    assert not capsys.readouterr().err


def test_sixteen_bit_grey() -> None:
    values = np.linspace(0, 65535, 64).reshape(8, 8).astype(np.uint16)
    got = read_image(encode(Image.fromarray(values)), "a.png", GREY)
    torch.testing.assert_close(got[0], torch.tensor(values.astype(np.float32) / 65535))


def test_grey_and_colour_arrays() -> None:
    rgb = random_rgb(8, 8)
    luma = torch.tensor(np.asarray(Image.fromarray(rgb).convert("L")))[None] / 255
    assert torch.equal(read_image(npy(rgb), "a.npy", GREY), luma)
    floats = (rgb / 255).astype(np.float32)
    got = read_image(npy(floats), "a.npy", GREY)
    torch.testing.assert_close(got, luma, atol=1 / 255, rtol=0)
    grey = floats[:, :, 0]
    assert torch.equal(read_image(npy(grey), "a.npy", PLAIN), torch.tensor(grey).expand(3, 8, 8))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_float_arrays_are_taken_as_they_are(dtype: type[np.floating]) -> None:
    values = np.random.default_rng(1).normal(0, 50, (8, 8)).astype(dtype)
    got = read_image(npy(values), "A.NPY", GREY)
    assert torch.equal(got[0], torch.tensor(values.astype(np.float32)))


def test_float_arrays_are_resized_like_images() -> None:
    pixels = random_rgb(30, 20)
    as_image = read_image(encode(Image.fromarray(pixels)), "a.png", PLAIN)
    as_floats = read_image(npy((pixels / 255).astype(np.float32)), "a.npy", PLAIN)
    torch.testing.assert_close(as_floats, as_image, atol=1 / 255, rtol=0)


def test_arrays_of_other_channel_counts() -> None:
    four = Preprocessing(resize=8, size=(8, 8), mean=(0.5,), std=(2.0,), channels=4)
    values = np.random.default_rng(2).random((4, 8, 8), np.float32)
    got = read_image(npy(values), "a.npy", four)
    torch.testing.assert_close(got, (torch.tensor(values) - 0.5) / 2)
    with pytest.raises(ImageError, match="an image has 1 or 3 channels, the network input 4"):
        read_image(encode(Image.fromarray(random_rgb(8, 8))), "a.png", four)


def header_only(shape: str, body: bytes = b"") -> bytes:
    text = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode() + body


def huge_png() -> bytes:
    """200,000 × 200,000 pixels in a hundred bytes."""
    chunks = b""
    header = struct.pack(">IIBBBBB", 200_000, 200_000, 8, 0, 0, 0, 0)
    for kind, data in ((b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 1000)), (b"IEND", b"")):
        checksum = zlib.crc32(kind + data)
        chunks += struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)
    return b"\x89PNG\r\n\x1a\n" + chunks


PNG = encode(Image.fromarray(random_rgb(40, 40)))
JPEG = encode(Image.fromarray(random_rgb(40, 40)), "JPEG")
OBJECTS = io.BytesIO()
np.save(OBJECTS, np.array([print], dtype=object), allow_pickle=True)


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("a.png", b"", "not a readable JPEG, PNG"),
        ("a.png", b"hello", "not a readable JPEG, PNG"),
        ("a.png", PNG[: len(PNG) // 2], "not a readable JPEG, PNG"),
        ("a.jpg", JPEG[: len(JPEG) // 2], "not a readable JPEG, PNG"),
        ("a.png", PNG[:60] + bytes(40) + PNG[100:], "not a readable JPEG, PNG"),
        ("a.png", huge_png(), "not a readable JPEG, PNG, WEBP, BMP or TIFF .Image size"),
        ("a.png", encode(Image.new("RGB", (1, 60_000))), "is too narrow to be resized"),
        ("a.jpg", encode(Image.new("RGB", (8, 8)), "GIF"), "not a readable JPEG, PNG"),
        ("a.npy", b"", "not a .npy file"),
        ("a.npy", b"\x93NUMPY\x01\x00\xff\xff{", "not a .npy file"),
        ("a.npy", b"\x93NUMPY\x09\x00\x00\x00", "not a .npy file"),
        ("a.npy", b"\x93NUMPY\x01\x00\xc8\x00" + b"(" * 200, "values within values"),
        ("a.npy", b"\x93NUMPY\x02\x00\xc8\x00\x00\x00" + b"{" * 200, "values within values"),
        ("a.npy", OBJECTS.getvalue(), "an array of object; numbers"),
        ("a.npy", npy(np.zeros((8, 8), np.int64)), "an array of int64; uint8"),
        ("a.npy", header_only("(1000000, 1000000)"), "does not fit its 0 bytes"),
        ("a.npy", header_only("(8, 8)", bytes(63)), "does not fit its 63 bytes"),
        ("a.npy", header_only("(-8, -8)", bytes(64)), "does not fit its 64 bytes"),
        ("a.npy", npy(np.zeros((0, 8), np.uint8)), r"is not \(H, W\)"),
        ("a.npy", npy(np.zeros((2, 3, 8, 8), np.uint8)), r"is not \(H, W\)"),
        ("a.npy", npy(np.zeros((7, 8, 9), np.uint8)), "no dimension of 3 channels"),
        ("a.npy", npy(np.full((8, 8), np.nan, np.float32)), "NaN or infinite"),
    ],
)
def test_images_that_cannot_be_used(name: str, data: bytes, reason: str) -> None:
    large = Preprocessing(resize=256, size=(224, 224), mean=(0.0,), std=(1.0,), channels=3)
    with pytest.raises(ImageError, match=reason) as caught:
        read_image(data, name, large)
    assert "\n" not in str(caught.value)


def test_large_jpegs_are_decoded_near_the_size_they_are_read_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Turned ones too; what comes out is nearly the same."""
    smooth = np.add.outer(np.arange(640) * 0.2, np.arange(900) * 0.1).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    loaded: list[tuple[int, int]] = []
    load = JpegImageFile.load
    monkeypatch.setattr(JpegImageFile, "load", lambda self: (load(self), loaded.append(self.size)))
    for turned in (Image.Exif(), exif):
        stream = io.BytesIO()
        Image.fromarray(np.stack([smooth] * 3, 2)).save(
            stream, "JPEG", quality=95, exif=turned or Image.Exif()
        )
        data = stream.getvalue()
        for fit in (64, "letterbox", "stretch"):
            reading = preprocessing_for((1, 3, 48, 64), resize=fit, scale=255)
            monkeypatch.setattr(preprocessing, "DRAFTED_PIXELS", 1 << 40)
            whole = read_image(data, "a.jpg", reading)
            monkeypatch.setattr(preprocessing, "DRAFTED_PIXELS", 0)
            drafted = read_image(data, "a.jpg", reading)
            assert drafted.shape == whole.shape == (3, 48, 64)
            assert float((drafted - whole).abs().max()) <= 4
            assert max(loaded[-1]) * 4 <= 900
            assert size_of_file(data, "a.jpg", 3) == ((640, 900) if turned else (900, 640))


def test_deep_images_may_have_fewer_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preprocessing, "MAX_DEEP_PIXELS", 99)
    grey = preprocessing_for((1, 1, 8, 8))
    read_image(encode(Image.new("L", (10, 10))), "a.png", grey)
    with pytest.raises(ImageError, match="10×10 pixels are too many"):
        read_image(encode(Image.fromarray(np.ones((10, 10), np.uint16))), "a.png", grey)


def test_many_frames_are_one_image() -> None:
    stream = io.BytesIO()
    frames = [Image.new("L", (8, 8), value) for value in (50, 200, 100)]
    frames[0].save(stream, "TIFF", save_all=True, append_images=frames[1:])
    read = read_image(stream.getvalue(), "a.tif", preprocessing_for((1, 1, 8, 8), scale=255))
    assert read.unique().round().tolist() == [50]


@pytest.mark.parametrize("value", [1e300, -1e300, 1e39, np.inf])
def test_numbers_beyond_float32(value: float) -> None:
    array = np.ones((8, 8, 3))
    array[0, 0, 0] = value
    with pytest.raises(ImageError, match="NaN or infinite values, or larger"):
        read_image(npy(array), "a.npy", preprocessing_for((1, 3, 8, 8)))


@pytest.mark.parametrize(
    "shape",
    ["(0, 4611686018427387904)", "(" + "1, " * 70 + ")", "((" * 400 + "))" * 400, "(2**9,)"],
)
def test_headers_of_odd_shapes(shape: str) -> None:
    with pytest.raises(ImageError):
        read_image(header_only(shape), "a.npy", preprocessing_for((1, 3, 8, 8)))

"""Images decoded once: memory and file, damage, bounds."""

import io
import json
import os
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from shrinkc.compiler.images import cache
from shrinkc.compiler.images.cache import Reading, load_images, with_margin
from shrinkc.compiler.images.decoded import Images
from shrinkc.compiler.images.files import find_images
from shrinkc.compiler.images.preprocessing import Preprocessing, read_image
from shrinkc.errors import DataError

RGB = Preprocessing(6, (6, 6), (0.4, 0.3, 0.2), (0.2, 0.25, 0.3), 3)
GREY = Preprocessing(6, (6, 6), (0.4,), (0.2,), 1)


def png(value: int, size: tuple[int, int] = (8, 7)) -> bytes:
    noise = np.random.default_rng(value).integers(0, 256, (size[1], size[0], 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(noise).save(stream, "PNG")
    return stream.getvalue()


def npy(array: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def folder(path: Path, count: int = 6, **more: bytes) -> Path:
    """`count` images in each of two classes; `more` by class and name: `a_x` is a/x.png."""
    files = {f"{name}/{i:03}.png": png(i) for i in range(count) for name in "ab"}
    files |= {f"{key.replace('_', '/', 1)}.png": data for key, data in more.items()}
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


def in_file(path: Path) -> Reading:
    return Reading(cache=path)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("cached", [False, True])
def test_inputs_have_the_bits_of_evaluation(tmp_path: Path, workers: int, cached: bool) -> None:
    image_set = find_images(folder(tmp_path / "set"))
    reading = Reading(cache=tmp_path / "cache" if cached else None, workers=workers)
    images = load_images(image_set, RGB, reading)
    assert images.pixels.shape == (12, 6, 6, 3)
    assert images.pixels.dtype == torch.uint8
    assert images.labels is not None
    assert images.labels.tolist() == [0] * 6 + [1] * 6
    inputs = images.inputs(images.pixels)
    for found, image in zip(inputs, image_set.entries, strict=True):
        data = (tmp_path / "set" / image.name).read_bytes()
        assert torch.equal(found, read_image(data, image.name, RGB))
    assert inputs.is_contiguous(memory_format=torch.channels_last)
    assert images.pixels.max() > 1  # the pixels themselves are as they were


def test_a_file_is_read_again_without_decoding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, reading = find_images(folder(tmp_path / "set")), in_file(tmp_path / "cache")
    first = load_images(images, RGB, reading)
    decode = cache.read_pixels
    monkeypatch.setattr(cache, "read_pixels", None)
    again = load_images(images, RGB, reading)
    assert torch.equal(again.pixels, first.pixels)
    assert again.digest == first.digest
    other_numbers = load_images(images, replace(RGB, mean=(0.5,)), reading)
    assert other_numbers.mean == (0.5,)
    (tmp_path / "set" / "a" / "000.png").write_bytes(png(77))
    os.utime(tmp_path / "set" / "a" / "000.png", ns=(1, 1))
    monkeypatch.setattr(cache, "read_pixels", decode)
    changed = load_images(find_images(tmp_path / "set"), RGB, reading)
    assert not torch.equal(changed.pixels[0], first.pixels[0])
    assert torch.equal(changed.pixels[1:], first.pixels[1:])
    assert changed.digest != first.digest


def test_writing_into_mapped_images_leaves_the_file(tmp_path: Path) -> None:
    images, reading = find_images(folder(tmp_path / "set")), in_file(tmp_path / "cache")
    load_images(images, RGB, reading).pixels.zero_()
    assert load_images(images, RGB, reading).pixels.any()


@pytest.mark.parametrize(
    "wrong",
    [
        *({"shape": shape} for shape in ([-3, 6, 6, 3], [1e400, 6, 6, 3], [2**70, 6, 6, 3], 5)),
        *({"shape": shape} for shape in ([0, 6, 6, 3], [11, 6, 6, 3], [12, 3, 12, 3], [12])),
        *({"type": kind} for kind in ("int8", "object", "S1", "float32", 5, None)),
        *({"skipped": some} for some in ([[1]], [["a", "b"]], [[99, "x"]], [[0, 1e400]])),
        {"checksum": 0},
    ],
    ids=str,
)
def test_descriptions_of_other_images_are_made_anew(tmp_path: Path, wrong: dict[str, Any]) -> None:
    images, reading = find_images(folder(tmp_path / "set")), in_file(tmp_path / "cache")
    wanted = load_images(images, RGB, reading).pixels.clone()
    (path,) = (tmp_path / "cache").glob("*.json")
    before = path.read_text()
    path.write_text(json.dumps(json.loads(before) | wrong))
    assert torch.equal(load_images(images, RGB, reading).pixels, wanted)
    assert path.read_text() == before


def test_a_bit_of_the_cache_that_changed(tmp_path: Path) -> None:
    images, reading = find_images(folder(tmp_path / "set")), in_file(tmp_path / "cache")
    wanted = load_images(images, RGB, reading).pixels.clone()
    (path,) = (tmp_path / "cache").glob("*.pixels")
    damaged = bytearray(path.read_bytes())
    damaged[100] ^= 4
    path.write_bytes(damaged)
    assert torch.equal(load_images(images, RGB, reading).pixels, wanted)


@pytest.mark.parametrize("damage", ["json", "pixels", "killed"])
def test_incomplete_files_are_made_anew(tmp_path: Path, damage: str) -> None:
    images, reading = find_images(folder(tmp_path / "set")), in_file(tmp_path / "cache")
    wanted = load_images(images, RGB, reading).pixels.clone()
    (description,) = (tmp_path / "cache").glob("*.json")
    if damage == "json":
        description.write_text('{"shape": [12')
    elif damage == "pixels":
        pixels = description.with_suffix(".pixels")
        pixels.write_bytes(pixels.read_bytes()[:-1])
    else:
        description.replace(description.with_suffix(".partial"))
    assert torch.equal(load_images(images, RGB, reading).pixels, wanted)
    assert json.loads(description.read_text())["shape"] == [12, 6, 6, 3]
    assert not list((tmp_path / "cache").glob("*.partial"))


@pytest.mark.parametrize("cached", [False, True])
def test_few_unreadable_images_are_named_and_left_out(tmp_path: Path, cached: bool) -> None:
    image_set = find_images(folder(tmp_path / "set", 60, a_bad=b"no image"))
    reading = Reading(cache=tmp_path / "cache" if cached else None)
    for _ in range(2):
        images = load_images(image_set, RGB, reading)
        assert len(images) == 120
        assert images.labels is not None
        assert images.labels.tolist() == [0] * 60 + [1] * 60
        assert [name for name, _ in images.skipped] == ["a/bad.png"]
        assert "not a readable JPEG, PNG" in images.skipped[0][1]
    strict = replace(reading, max_unreadable=0.005)
    with pytest.raises(DataError, match=r"more than 0\.5% of 121 .*first 'a/bad\.png': not a read"):
        load_images(image_set, RGB, strict)


def test_sets_that_cannot_be_used(tmp_path: Path) -> None:
    for path, message in (
        (folder(tmp_path / "1", a_bad=b"x"), r"more than 1\.0% of 13 images .*'a/bad\.png'"),
        (folder(tmp_path / "2", 0, a_x=b"x", b_x=b"y"), r"more than 1\.0% of 2"),
        (folder(tmp_path / "3", 60, c_x=b"x"), "no image of class 2 can be read, .*'c/x.png'"),
    ):
        with pytest.raises(DataError, match=message):
            load_images(find_images(path), RGB)
    none = find_images(folder(tmp_path / "4", 0, a_x=b"x", b_x=b"y"))
    with pytest.raises(DataError, match=r"no image can be used, first 'a/x\.png'"):
        load_images(none, RGB, Reading(max_unreadable=1))


def test_an_empty_class_folder_would_shift_the_others(tmp_path: Path) -> None:
    for place in (tmp_path / "flat", tmp_path / "deep" / "train"):
        folder(place)
        (place / ".git").mkdir()
        load_images(find_images(place), RGB)
        (place / "a2" / "deeper").mkdir(parents=True)
        with pytest.raises(DataError, match="class folder 'a2' holds no images; fill it or rem"):
            load_images(find_images(place), RGB)


def test_what_does_not_fit_is_decoded_when_it_is_read(tmp_path: Path) -> None:
    """In memory, and on the disk; what is read is the same to the bit, and so is the digest."""
    images = find_images(folder(tmp_path / "set"))
    held, all_bytes = load_images(images, RGB), 12 * 6 * 6 * 3
    large = Reading(memory_bytes=all_bytes - 1)
    cached = Reading(tmp_path / "cache", disk_bytes=all_bytes - 1)
    assert type(load_images(images, RGB, Reading(memory_bytes=all_bytes))) is Images
    assert type(load_images(images, RGB, replace(cached, disk_bytes=all_bytes))) is Images
    assert type(load_images(images, RGB, cached)) is Images  # it is there now
    shutil.rmtree(tmp_path / "cache")
    for reading in (large, cached):
        streamed = load_images(images, RGB, reading)
        assert streamed.pixels.is_meta
        assert not list(tmp_path.rglob("*.pixels"))
        assert (len(streamed), streamed.size, streamed.digest) == (12, (6, 6), held.digest)
        rows = torch.tensor([7, 0, 7, 11])
        assert torch.equal(streamed.taken(rows)[0], held.taken(rows)[0])
        part = streamed.part(rows).in_memory()
        assert torch.equal(part.pixels, held.pixels[rows])
        assert part.labels is not None
        assert held.labels is not None
        assert torch.equal(part.labels, held.labels[rows])


def test_a_tar_is_read_in_any_order_unless_it_is_compressed(tmp_path: Path) -> None:
    root = folder(tmp_path / "set")
    held = load_images(find_images(root), RGB)
    for suffix in ("tar", "tar.gz"):
        with tarfile.open(tmp_path / f"set.{suffix}", f"w:{suffix[4:]}") as tar:
            tar.add(root, "set")
    reading, rows = Reading(memory_bytes=1), torch.tensor([11, 3, 4])
    streamed = load_images(find_images(tmp_path / "set.tar"), RGB, reading)
    names = [one.name.removeprefix("set/") for one in find_images(tmp_path / "set.tar").entries]
    order = torch.tensor([[e.name for e in find_images(root).entries].index(n) for n in names])
    assert torch.equal(streamed.taken(rows)[0], held.taken(order[rows])[0])
    with pytest.raises(DataError, match="a compressed tar cannot be read in any order; decomp"):
        load_images(find_images(tmp_path / "set.tar.gz"), RGB, reading)


def test_an_image_that_goes_wrong_under_way_is_named(tmp_path: Path) -> None:
    images = find_images(folder(tmp_path / "set"))
    streamed = load_images(images, RGB, Reading(memory_bytes=1))
    broken = images.entries[5].name
    (images.path / broken).write_bytes(b"no image")
    streamed.taken(torch.tensor([4, 6]))
    with pytest.raises(DataError, match=f"'{broken}': .*; replace it and run again"):
        streamed.taken(torch.tensor([4, 5]))


def test_a_cache_that_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"file: decoded images cannot be kept there \("):
        load_images(find_images(folder(tmp_path / "set")), RGB, in_file(tmp_path / "file"))


def test_arrays_of_floats_stay_floats(tmp_path: Path) -> None:
    array = np.random.default_rng(0).normal(size=(6, 6)).astype(np.float32)
    (tmp_path / "a.npy").write_bytes(npy(array))
    (tmp_path / "b.npy").write_bytes(npy(np.full((6, 6), 51, np.uint8)))
    images = load_images(find_images(tmp_path), GREY)
    assert images.pixels.dtype == torch.float32
    assert images.labels is None
    inputs = images.inputs(images.pixels)
    assert torch.equal(inputs[0], read_image((tmp_path / "a.npy").read_bytes(), "a.npy", GREY))
    assert torch.allclose(inputs[1], torch.tensor((0.2 - 0.4) / 0.2))
    (tmp_path / "a.npy").rename(tmp_path / "c.npy")
    with pytest.raises(DataError, match=r"'c\.npy': an array of floats among images of bytes"):
        load_images(find_images(tmp_path), GREY)


def test_a_margin_for_random_crops() -> None:
    assert with_margin(replace(RGB, resize=10)).size == (10, 10)
    assert with_margin(replace(RGB, resize=10, size=(6, 12))).size == (10, 12)
    assert with_margin(replace(RGB, resize=256, size=(224, 224))).size == (256, 256)


@pytest.mark.parametrize("resize", range(6, 17))
@pytest.mark.parametrize("size", [(20, 20), (20, 23), (25, 22)])
def test_the_middle_of_what_has_a_margin_is_what_is_evaluated(
    tmp_path: Path, resize: int, size: tuple[int, int]
) -> None:
    """To the pixel: smaller images of plans are resized to all kinds of sides."""
    (tmp_path / "a.png").write_bytes(png(1, size))
    given = replace(RGB, resize=resize)
    margin = with_margin(given)
    assert margin.size[0] > resize - 4
    (got,) = load_images(find_images(tmp_path), margin).taken(torch.tensor([0]), given.size)
    assert torch.equal(got[0], read_image(png(1, size), "a.png", given))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pixels": torch.zeros(2, 3, 4)}, "pixels of 2×3×4 torch.float32; give uint8"),
        (
            {"pixels": torch.zeros(2, 3, 4, 3).double()},
            "pixels of 2×3×4×3 torch.float64; give uint8",
        ),
        ({"pixels": torch.zeros(0, 3, 4, 3)}, "no images"),
        ({"std": (1.0, 2.0)}, "std has 2 values"),
        ({"labels": torch.zeros(3)}, "3 labels for 2 images"),
    ],
)
def test_images_that_do_not_fit_together(changes: dict[str, Any], message: str) -> None:
    good: dict[str, Any] = {"pixels": torch.zeros(2, 3, 4, 3), "labels": torch.zeros(2).long()}
    assert Images(**good).size == (3, 4)
    with pytest.raises(DataError, match=f"images: {message}"):
        Images(**{**good, **changes})


def test_a_limit_below_the_number_of_classes_leaves_folders_out(tmp_path: Path) -> None:
    images = load_images(find_images(folder(tmp_path / "set")).spread(1), RGB)
    assert len(images) == 1

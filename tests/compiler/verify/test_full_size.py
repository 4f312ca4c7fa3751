"""A network of larger images beside files of smaller ones: of each image it answers for that."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from noise_images import noise_images
from PIL import Image
from torch import Tensor

from shrinkc.compiler.images import files
from shrinkc.compiler.images.files import find_images
from shrinkc.compiler.images.preprocessing import Preprocessing, preprocessing_for
from shrinkc.compiler.images.tensors import TensorImages
from shrinkc.compiler.options import Options
from shrinkc.compiler.reference import original
from shrinkc.compiler.verify import full_size
from shrinkc.compiler.verify.full_size import AtFullSize
from shrinkc.errors import ImageError

LARGE = preprocessing_for((1, 3, 12, 12), resize=14)
SMALL = LARGE.at_size((8, 8))


def itself(inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return inputs


def beside(folder: Path) -> tuple[AtFullSize, Options, Options]:
    images = find_images(folder)
    small = Options(target="rpi4", images=images, preprocessing=SMALL)
    large = replace(small, preprocessing=LARGE)
    return AtFullSize(itself, (12, 12), small, large), small, large


def batches(options: Options, size: int) -> list[Tensor]:
    assert isinstance(options.images, files.ImageSet)
    assert options.preprocessing is not None
    return [x for (x,), _ in options.images.batches(options.preprocessing, size)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    found = noise_images(tmp_path / "images")
    (found / "0" / "4.png").write_bytes(b"no image")
    return found


@pytest.mark.parametrize("kept", [True, False])
def test_the_same_images(folder: Path, kept: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice over, as int8 files are judged after fp32 ones; one image cannot be read."""
    if not kept:
        monkeypatch.setattr(original, "KEPT_BYTES", 0)
    one, small, large = beside(folder)
    wanted = batches(large, 5)
    for _ in range(2):
        for number, (x, want) in enumerate(zip(batches(small, 5), wanted, strict=True)):
            assert x.shape[2:] == (8, 8)
            assert np.array_equal(one.outputs(number, (x,))[0], want.numpy())


def test_batches_that_were_left_out_in_between(folder: Path) -> None:
    one, small, large = beside(folder)
    shown, wanted = batches(small, 5), batches(large, 5)
    for number in (0, 3, 1, 4, 2):
        found = one.outputs(number, (shown[number],))[0]
        assert np.array_equal(found, wanted[number].numpy())


def test_an_image_of_one_size_alone_is_no_other_image(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = full_size.read_image

    def fussy(data: bytes, name: str, preprocessing: Preprocessing) -> Tensor:
        if preprocessing == LARGE and name.endswith("/8.png"):
            raise ImageError("it is too large")
        return read(data, name, preprocessing)

    monkeypatch.setattr(full_size, "read_image", fussy)
    one, small, _ = beside(folder)
    said = r"8\.png' can be used in one size alone: it is too large"
    with pytest.raises(ImageError, match=said):
        _ = [one.outputs(number, (x,)) for number, x in enumerate(batches(small, 5))]


def test_tensors_and_what_was_drawn() -> None:
    x = torch.rand(7, 3, 12, 12)
    large = Options(target="rpi4", images=TensorImages((x,)))
    small = Options(target="rpi4", images=TensorImages((x,)).at_size((8, 8)))
    one = AtFullSize(itself, (12, 12), small, large)
    assert isinstance(small.images, TensorImages)
    for number, ((few,), _) in enumerate(small.images.batches(batch_size=3)):
        start = 3 * number
        assert np.array_equal(one.outputs(number, (few,))[0], x[start : start + 3].numpy())
    none = Options(target="rpi4")
    drawn = AtFullSize(itself, (12, 12), none, none)
    assert drawn.outputs(0, (x[:, :, :8, :8],))[0].shape == (7, 3, 12, 12)


def test_as_much_is_seen_of_an_image(tmp_path: Path) -> None:
    """In pixels of the original, whose left half is black: where that ends."""
    pixels = np.zeros((300, 400, 3), np.uint8)
    pixels[:, 230:] = 255
    path = tmp_path / "half.png"
    Image.fromarray(pixels).save(path)
    given = preprocessing_for((1, 3, 224, 224), mean=(0.0,), std=(1.0,))
    ends: list[float] = []
    for size in (224, 192, 160, 96):
        how = given.at_size((size, size))
        assert how.resize == round(256 * size / 224)
        x = files.read_image(path.read_bytes(), "half.png", how)
        ends.append(float((x[0, size // 2] < 0.5).float().mean()))
    assert max(ends) - min(ends) < 0.01
    letterbox = preprocessing_for((1, 3, 224, 224), resize="letterbox").at_size((160, 160))
    assert (letterbox.fit, letterbox.size) == ("letterbox", (160, 160))

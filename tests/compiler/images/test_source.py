"""Whatever a user gives as images: a folder, a tensor, a DataLoader, anything of tensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from noise_images import noise_images
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from shrinkc.compiler.images import tensors as module
from shrinkc.compiler.images.decoded import trainable
from shrinkc.compiler.images.source import ImageFolder, image_source
from shrinkc.compiler.support.progress import Silent
from shrinkc.errors import ImageError, InputError

SHAPES = ((1, 3, 8, 8),)
X = torch.randn(10, 3, 8, 8, generator=torch.Generator().manual_seed(0))
Y = torch.arange(10) % 3


def read(given: Any) -> tuple[Tensor, Tensor | None]:
    source = image_source(given, SHAPES, "images")
    batches = list(source.images.batches(source.preprocessing, 4))  # pyright: ignore
    labels = [y for _, y in batches if y is not None]
    return torch.cat([x for (x,), _ in batches]), torch.cat(labels) if labels else None


@pytest.mark.parametrize(
    "given",
    [
        X,
        X.double(),
        [X[:5], X[5:]],
        list(X),
        (x for x in X),
        DataLoader(TensorDataset(X), batch_size=4),
        TensorDataset(X),
        (X[:4], X[4:]),
    ],
    ids=["tensor", "float64", "batches", "samples", "generator", "loader", "dataset", "tuple"],
)
def test_tensors_without_labels(given: Any) -> None:
    inputs, labels = read(given)
    assert torch.equal(inputs, X)
    assert labels is None


@pytest.mark.parametrize(
    "given",
    [
        (X, Y),
        [(X[:5], Y[:5]), (X[5:], Y[5:])],
        [(x, int(y)) for x, y in zip(X, Y, strict=True)],
        DataLoader(TensorDataset(X, Y), batch_size=4),
        TensorDataset(X, Y),
    ],
    ids=["pair", "batches", "samples", "loader", "dataset"],
)
def test_tensors_with_labels(given: Any) -> None:
    inputs, labels = read(given)
    assert torch.equal(inputs, X)
    assert labels is not None
    assert torch.equal(labels, Y)


def test_arrays_of_numpy() -> None:
    inputs, labels = read((X.numpy(), Y.numpy()))
    assert torch.equal(inputs, X)
    assert labels is not None
    assert torch.equal(labels, Y)
    with pytest.raises(InputError, match="`images` holds an array of <U1; give numbers"):
        read((X.numpy(), np.array(["a"] * len(X))))


FACTS = torch.randn(10, 6, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    "given",
    [
        ((X, FACTS), Y),
        (X, FACTS, Y),
        [[X, FACTS], Y],
        ((X.numpy(), FACTS.numpy()), Y.numpy()),
        [((X[:4], FACTS[:4]), Y[:4]), ((X[4:], FACTS[4:]), Y[4:])],
        [((x.numpy(), f.numpy()), int(y)) for x, f, y in zip(X, FACTS, Y, strict=True)],
        DataLoader(TensorDataset(X, FACTS, Y), batch_size=4),
    ],
    ids=["nested", "flat", "lists", "numpy", "batches", "samples", "loader"],
)
def test_several_inputs_with_labels(given: Any) -> None:
    images: Any = image_source(given, (*SHAPES, (1, 6)), "images").images
    assert torch.equal(images.inputs[0], X)
    assert torch.equal(images.inputs[1], FACTS)
    assert torch.equal(images.labels, Y)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ((FACTS, X), "shape 10×6; the network reads n×3×8×8 and n×6"),
        ({"image": X, "facts": FACTS}, "tuples of 2 tensors, image n×3×8×8 and facts n×6, or"),
        ([{"image": X, "facts": FACTS}], "tuples of 2 tensors, image n×3×8×8 and facts n×6, or"),
        (((X, FACTS), (X, FACTS[:5])), "holds 10, 5 of the network's inputs"),
    ],
    ids=["swapped", "dictionary", "dictionaries", "counts"],
)
def test_several_inputs_are_told_by_name_and_shape(given: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        image_source(given, (*SHAPES, (1, 6)), "images", names=("image", "facts"))


def test_whole_numbers_of_other_types(tmp_path: Path) -> None:
    def words(given: Any, dtype: torch.dtype = torch.int64) -> Tensor:
        images: Any = image_source(given, ((1, 3),), "images", dtypes=[dtype]).images
        return images.inputs[0]

    numbers = np.arange(12).reshape(4, 3)
    for kind in ("<i4", ">i8", "u2", "u8"):
        np.save(tmp_path / "words.npy", numbers.astype(kind))
        assert words(tmp_path / "words.npy").tolist() == numbers.tolist()
        (tmp_path / kind).mkdir()
        for i, row in enumerate(numbers):
            np.save(tmp_path / kind / f"{i}.npy", row.astype(kind))
        assert words(tmp_path / kind).tolist() == numbers.tolist()
    with pytest.raises(InputError, match="`images` holds 300; the network reads uint8"):
        words(torch.tensor([[1, 2, 300]]), torch.uint8)
    np.save(tmp_path / "words.npy", np.full((4, 3), 2**63 + 5, np.uint64))
    with pytest.raises(ImageError, match=r"words\.npy holds 9223372036854775813"):
        words(tmp_path / "words.npy")


def test_a_file_of_arrays_that_is_not_there() -> None:
    with pytest.raises(ImageError, match="No such file"):
        image_source("missing.npz", (*SHAPES, (1, 6)), "images")


def test_what_fits_read_are_the_same_bits() -> None:
    source = image_source((X, Y), SHAPES, "images")
    images = source.decoded(Silent())
    assert torch.equal(images.inputs(images.pixels), X)
    assert images.labels is not None
    assert torch.equal(images.labels, Y)
    assert source.without_labels().decoded(Silent()).labels is None


def test_a_folder_is_read_as_it_says(tmp_path: Path) -> None:
    folder = noise_images(tmp_path / "images")
    plain = image_source(str(folder), SHAPES, "images")
    own = image_source(ImageFolder(folder, mean=(0.5,), std=(0.25,), limit=3), SHAPES, "images")
    assert len(own) == 3 < len(plain)
    assert own.preprocessing is not None
    assert own.preprocessing.mean == (0.5,)
    assert len(plain.at_most(2)) == 2
    assert not plain.without_labels().labelled


def test_at_most_so_many_are_spread_evenly() -> None:
    source = image_source((X, Y), SHAPES, "images")
    assert source.at_most(20) is source
    few = source.at_most(4).images
    ((x,), y), *_ = few.batches(None, 8)  # pyright: ignore
    assert torch.equal(x, X[[0, 2, 5, 7]])
    assert torch.equal(y, Y[[0, 2, 5, 7]])


def used_up() -> Any:
    generator = (x for x in X)
    list(generator)
    return generator


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (used_up(), "`calibration` gave no images; a generator can be read only once"),
        ([], "`calibration` gave no images"),
        (3, "`calibration` is a int; give a folder"),
        (X[:, :2], "`calibration` has shape 10×2×8×8; the network reads n×3×8×8"),
        ([X[0, :2]], "`calibration` has shape 2×8×8"),
        ([X[:5], X[5:, :2]], "`calibration` has shape 5×2×8×8"),
        ((X * 255).to(torch.uint8), "`calibration` holds uint8; give floats"),
        ([np.zeros((3, 8, 8), np.uint8)], "`calibration` holds uint8; give floats"),
        ([{"image": X}], "`calibration` yields a dict"),
        ((X, Y[:3]), "`calibration` has 3 labels for 10 images"),
        ((X, Y / 0), "`calibration` has labels that are NaN or infinite"),
        ((X, [{"box": 1}] * 10), r"`calibration` has labels of \['box'\]; give"),
        (
            (X[:1], [{"boxes": [[4, 2, 1, 3]], "labels": [0]}]),
            "`calibration` has the box 4, 2, 1, 3; give left, top, right, bottom",
        ),
        (
            (X[:1], [{"boxes": [[0, 0, 1, 3]], "labels": [-1]}]),
            "`calibration` has a box of class -1; count from 0",
        ),
        ((X, Y[:, None]), "`calibration` has labels of int64, shape 10×1"),
        ((X, Y - 1), "`calibration` has the label -1"),
        ((X, Y.tolist()), "`calibration` has labels in a list"),
        (X[:0], "`calibration` holds a tensor that is empty"),
        (X.to("meta"), "`calibration` holds a tensor that is empty, sparse or on device meta"),
        (X.to_sparse(), "`calibration` holds a tensor that is empty, sparse or on device meta"),
        ((1 / 0 for _ in range(1)), "`calibration` cannot be read: ZeroDivisionError"),
        ("", "`calibration` is empty; give a path"),
        ([(X[:5], Y[:5]), X[5:]], "`calibration` has labels for some batches only"),
        (X.where(X < 1, torch.nan), "`calibration` holds NaN or infinity"),
    ],
)
def test_what_is_no_image_names_the_parameter(given: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        image_source(given, SHAPES, "calibration")


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MEMORY_BYTES", X.numel() * 4 - 1)
    with pytest.raises(InputError, match="holds more than"):
        image_source([X[:5], X[5:]], SHAPES, "images")


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="no such folder or tar of images; check `train`"):
        image_source(tmp_path / "none", SHAPES, "train")


def test_networks_that_read_single_numbers() -> None:
    with pytest.raises(InputError, match=r"`images` works for networks that read \(N, …\)"):
        image_source(X, ((1,),), "images")


# --- several inputs ------------------------------------------------------------------------------

TWO = ((1, 3, 8, 8), (1, 4))
VECTORS = torch.randn(10, 4, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize(
    ("given", "labelled"),
    [
        ((X, VECTORS), False),
        (((X, VECTORS), Y), True),
        (((X, VECTORS, Y),), True),
        ([(X[:5], VECTORS[:5]), (X[5:], VECTORS[5:])], False),
        ([((x, v), int(y)) for x, v, y in zip(X, VECTORS, Y, strict=True)], True),
        (DataLoader(TensorDataset(X, VECTORS, Y), batch_size=4), True),
    ],
)
def test_tuples_of_inputs(given: Any, labelled: bool) -> None:
    source = image_source(given, TWO, "images")
    batches = list(source.images.batches(None, 4))  # pyright: ignore
    assert [len(x) for (x, _), _ in batches] == [4, 4, 2]
    assert torch.equal(torch.cat([x for (x, _), _ in batches]), X)
    assert torch.equal(torch.cat([v for (_, v), _ in batches]), VECTORS)
    if labelled:
        assert torch.equal(torch.cat([y for _, y in batches if y is not None]), Y)
    assert source.labelled is labelled
    stored = source.at_most(5).decoded(Silent())
    assert len(stored) == 5
    assert torch.equal(stored.taken(torch.tensor([4]))[1], VECTORS[8:9])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (X, r"shape 10×3×8×8; the network reads n×3×8×8 and n×4"),
        ([X], "the network has 2 inputs; give tuples of 2 tensors"),
        ([(X, VECTORS[:3])], "holds 10, 3 of the network's inputs; give equally many"),
        ([(VECTORS, X)], r"shape 10×4; the network reads n×3×8×8 and n×4"),
        ("folder", "the network has 2 inputs: give an .npz of the arrays input_0, input_1"),
    ],
)
def test_several_inputs_that_do_not_fit(tmp_path: Path, given: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        image_source(str(tmp_path) if given == "folder" else given, TWO, "images")


def test_a_number_for_each_sample() -> None:
    steps = torch.arange(10)
    how: Any = {"dtypes": (torch.float32, torch.int64)}
    source = image_source([(X, steps)], ((1, 3, 8, 8), (1,)), "images", **how)
    assert torch.equal(source.examples(10)[0][1], steps)  # pyright: ignore
    one = image_source([(X[0], torch.tensor(4))], ((1, 3, 8, 8), (1,)), "images", **how)
    assert one.examples(1)[0][1].tolist() == [4]  # pyright: ignore


def test_several_arrays_by_name(tmp_path: Path) -> None:
    arrays = {"image": X.numpy(), "vector": VECTORS.numpy(), "target": Y.numpy()}
    np.savez(tmp_path / "x.npz", **arrays)
    how: Any = {"names": ("vector", "image")}
    source = image_source(tmp_path / "x.npz", TWO[::-1], "images", **how)
    ((vectors, images), labels) = next(source.images.batches(None, 10))  # pyright: ignore
    assert torch.equal(vectors, VECTORS)
    assert torch.equal(images, X)
    assert labels is not None
    assert torch.equal(labels, Y)
    for name, change, said in (
        ("few", {"image": X[:3].numpy()}, "10, 3 of the network's inputs; give equally many"),
        ("more", {"y": X.numpy()}, "arrays image, vector, y beside 'target'; the network reads"),
        ("other", {"image": X[:, :1].numpy()}, "other.npz, image: 10×1×8×8 of float32"),
    ):
        np.savez(tmp_path / f"{name}.npz", **(arrays | change))
        with pytest.raises(ImageError, match=said):
            image_source(tmp_path / f"{name}.npz", TWO[::-1], "images", **how)


def sequences(folder: Path, count: int = 6) -> Tensor:
    """`.npy` files of 4 × 10 in two class folders."""
    x = torch.randn(count, 4, 10, generator=torch.Generator().manual_seed(1))
    for index, one in enumerate(x):
        place = folder / ("b" if index % 2 else "a")
        place.mkdir(exist_ok=True)
        np.save(place / f"{index}.npy", one.numpy())
    return x


def test_arrays_of_the_networks_own_shape(tmp_path: Path) -> None:
    x = sequences(tmp_path)
    source = image_source(tmp_path, ((2, 4, 10),), "images")
    assert source.preprocessing is None
    (((inputs,), labels),) = source.images.batches(None, 8)  # pyright: ignore
    assert torch.equal(inputs, torch.cat((x[::2], x[1::2])))
    assert labels is not None
    assert labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert len(image_source(ImageFolder(tmp_path, limit=4), ((2, 4, 10),), "images")) == 4
    stored = source.decoded(Silent())
    assert torch.equal(stored.taken(torch.tensor([1, 0]))[0], inputs[[1, 0]])
    assert stored.part(torch.tensor([2])).digest != stored.digest
    with pytest.raises(InputError, match="training reads images, one input"):
        trainable(stored)


@pytest.mark.parametrize(
    ("name", "array", "said"),
    [
        ("x.npy", np.zeros((10, 4), np.float32), "holds 10×4 of float32; the network reads 4×10"),
        ("x.npy", np.zeros((4, 10), np.uint8), "holds 4×10 of uint8; the network reads 4×10"),
        ("x.npy", np.full((4, 10), np.nan, np.float32), "NaN or infinite"),
        ("x.png", np.zeros((4, 10), np.float32), "reads 4×10, no images; give .npy"),
    ],
)
def test_arrays_that_do_not_fit(tmp_path: Path, name: str, array: Any, said: str) -> None:
    sequences(tmp_path)
    with (tmp_path / "a" / name).open("wb") as file:
        np.save(file, array)
    with pytest.raises(ImageError, match=said):
        image_source(tmp_path, ((1, 4, 10),), "images")


def test_arrays_have_no_mean(tmp_path: Path) -> None:
    sequences(tmp_path)
    with pytest.raises(InputError, match="`mean`, `std`, `bgr` and `scale` are for images"):
        image_source(ImageFolder(tmp_path, mean=(0.5,)), ((1, 4, 10),), "images")


KINDS = {
    "classes": Y,
    "masks": torch.zeros(10, 8, 8, dtype=torch.int64),
    "numbers": torch.randn(10, 4),
    "maps": torch.randn(10, 2, 8, 8),
    "arrays": np.linspace(0, 1, 10, dtype=np.float32),
}


@pytest.mark.parametrize("name", KINDS)
def test_labels_of_every_kind(name: str) -> None:
    given = KINDS[name]
    source = image_source([(X[:5], given[:5]), (X[5:], given[5:])], SHAPES, "images")
    assert source.kind == {"maps": "numbers", "arrays": "numbers"}.get(name, name)
    assert source.labels is not None
    assert torch.equal(source.labels, torch.as_tensor(given))
    one_by_one = image_source(list(zip(X, torch.as_tensor(given), strict=True)), SHAPES, "images")
    assert one_by_one.labels is not None
    assert torch.equal(one_by_one.labels, source.labels)


def test_boxes_are_filled_up() -> None:
    boxes = [
        {"boxes": torch.tensor([[0, 1, 4, 5]]), "labels": torch.tensor([2])},
        {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0)},
        {"boxes": [[1, 1, 2, 2], [0, 0, 8, 8]], "labels": [0, 1], "iscrowd": [0, 1]},
    ]
    source = image_source(zip(X[:3], boxes, strict=True), SHAPES, "images")
    assert source.kind == "boxes"
    assert source.labels is not None
    assert source.labels.tolist() == [
        [[2, 0, 1, 4, 5, 0], [-1] * 6],
        [[-1] * 6, [-1] * 6],
        [[0, 1, 1, 2, 2, 0], [1, 0, 0, 8, 8, 1]],
    ]
    assert source.at_most(2).kind == "boxes"


def test_two_tensors_in_a_list_are_two_batches() -> None:
    assert image_source([X[:5], X[5:]], SHAPES, "images").labels is None
    pair = image_source((X, torch.randn(10, 1, 8, 8)), SHAPES, "images")
    assert pair.kind == "numbers"

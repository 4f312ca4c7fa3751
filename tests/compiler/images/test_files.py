"""Sets of images: folders, class folders and tars; labels, order, limits, damage."""

import gzip
import io
import json
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from shrinkc.compiler.images import tars
from shrinkc.compiler.images.files import ImageSet, find_images, read_classes
from shrinkc.compiler.images.preprocessing import Preprocessing
from shrinkc.errors import ImageError, InputError

GREY = Preprocessing(resize=4, size=(4, 4), mean=(0.0,), std=(1.0,), channels=1)


def image(value: int, kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.new("L", (4, 4), value).save(stream, kind)
    return stream.getvalue()


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def write_tar(path: Path, files: dict[str, bytes], mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as tar:  # pyright: ignore
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def values(images: ImageSet, batch_size: int = 32) -> list[int]:
    """Every image is of one grey value."""
    return [
        round(float(x.mean()) * 255)
        for (batch,), _ in images.batches(GREY, batch_size)
        for x in batch
    ]


def labels(images: ImageSet) -> list[int]:
    return [int(y) for _, batch in images.batches(GREY) if batch is not None for y in batch]


CLASSES = {
    "dog/2.png": image(3),
    "cat/1.png": image(1),
    "cat/0.JPEG": image(0, "JPEG"),
    "dog/deep/x.jpg": image(4, "JPEG"),
    "cow/a.png": image(2),
}


def test_a_folder_is_read_by_name_without_labels(tmp_path: Path) -> None:
    np.save(tmp_path / "b.npy", np.full((4, 4), 7, np.uint8))
    other = {"notes.txt": b"", ".hidden.png": b"", ".git/x.png": b"", "__MACOSX/._a.png": b""}
    write(tmp_path, {"c.png": image(9), "a.jpg": image(5, "JPEG"), **other})
    images = find_images(tmp_path)
    assert [p.name for p in images.entries] == ["a.jpg", "b.npy", "c.png"]
    assert not images.labelled
    assert values(images) == [5, 7, 9]
    assert [batch[1] for batch in images.batches(GREY)] == [None]


def test_class_folders_are_labelled_in_sorted_order(tmp_path: Path) -> None:
    images = find_images(write(tmp_path, CLASSES))
    assert labels(images) == [0, 0, 1, 2, 2]
    assert values(images) == [0, 1, 2, 3, 4]
    _, batch = next(images.batches(GREY))
    assert batch is not None
    assert batch.dtype == torch.int64


def test_batches_stream(tmp_path: Path) -> None:
    images = find_images(write(tmp_path, CLASSES))
    batches = list(images.batches(GREY, batch_size=2))
    assert [tuple(x.shape) for (x,), _ in batches] == [(2, 1, 4, 4), (2, 1, 4, 4), (1, 1, 4, 4)]
    assert all(x.dtype == torch.float32 for (x,), _ in batches)
    stream = images.batches(GREY, batch_size=2)
    next(stream)
    (tmp_path / "dog" / "2.png").unlink()  # only read when it is its turn
    with pytest.raises(ImageError, match=r"'dog/2\.png': cannot be read"):
        list(stream)


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_a_tar_gives_the_same_as_the_folder(tmp_path: Path, mode: str) -> None:
    folder = find_images(write(tmp_path / "images", CLASSES))
    inside = {f"./data/test/{name}": data for name, data in CLASSES.items()}
    tar = find_images(write_tar(tmp_path / "images.tar", inside, mode))
    of_folder, of_tar = zip(values(folder), labels(folder)), zip(values(tar), labels(tar))  # noqa: B905
    assert sorted(of_tar) == sorted(of_folder)
    assert values(tar) == [3, 1, 0, 4, 2]  # as stored
    assert sorted(p.name for p in tmp_path.iterdir()) == ["images", "images.tar"]


def test_a_tar_whose_header_points_nowhere(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", {"a.png": image(1), "b.png": image(2)}, "w:")
    raw = bytearray(path.read_bytes())
    raw[124:136] = b"\x80" + b"\xff" * 11  # of the first: how long it is
    raw[148:156] = b" " * 8
    raw[148:156] = b"%06o\0 " % sum(raw[:512])
    path.write_bytes(raw)
    with pytest.raises(ImageError, match="the tar is damaged or cut off"):
        find_images(path)


def test_names_in_a_tar_are_only_labels(tmp_path: Path) -> None:
    """Nothing is written, links are not followed, the same name twice is two images."""
    path = tmp_path / "evil.tar"
    with tarfile.open(path, "w") as tar:
        link = tarfile.TarInfo("a/link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
        for name, value in (("../../a/x.png", 1), ("/b/x.png", 2), ("/b/x.png", 3)):
            member = tarfile.TarInfo(name)
            member.size = len(image(value))
            tar.addfile(member, io.BytesIO(image(value)))
    images = find_images(path)
    assert values(images) == [1, 2, 3]
    assert labels(images) == [0, 1, 1]
    assert list(tmp_path.iterdir()) == [path]


def test_classes_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "classes.json"
    file.write_text(json.dumps({"cat": 281, "cow": 345, "dog": 207, "unused": 1}))
    images = find_images(write(tmp_path / "set", CLASSES), classes=read_classes(file))
    assert labels(images) == [281, 281, 345, 207, 207]
    with pytest.raises(ImageError, match="`classes` has no index for folder 'cow'"):
        find_images(tmp_path / "set", classes={"cat": 0, "dog": 1})


@pytest.mark.parametrize(
    "text", ["", "[1]", '{"a": "b"}', '{"a": true}', '{"a": -1}', "{}", "[" * 10000]
)
def test_class_files_that_are_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "classes.json").write_text(text)
    with pytest.raises(ImageError, match=r"classes\.json: (not JSON; )?`classes` needs an object"):
        read_classes(tmp_path / "classes.json")
    with pytest.raises(
        ImageError, match=r"cannot be read \(no such file or directory\); check `classes`"
    ):
        read_classes(tmp_path / "missing.json")


def test_one_folder_is_a_class_only_when_named(tmp_path: Path) -> None:
    write(tmp_path, {"images/cat/1.png": image(1), "images/cat/2.png": image(2)})
    assert not find_images(tmp_path).labelled
    assert labels(find_images(tmp_path, classes={"cat": 5})) == [5, 5]


def test_images_beside_class_folders(tmp_path: Path) -> None:
    write(tmp_path, {"stray.png": image(1), **CLASSES})
    with pytest.raises(ImageError, match=r"'stray\.png' lies beside class folders; move it"):
        find_images(tmp_path)


def test_a_limit_is_spread_over_the_classes(tmp_path: Path) -> None:
    files = {f"a/{i:02}.png": image(i) for i in range(20)}
    files |= {f"b/{i:02}.png": image(100 + i) for i in range(20)}
    files |= {"c/00.png": image(200)}
    write(tmp_path, files)
    images = find_images(tmp_path).spread(9)
    assert values(images) == [0, 5, 10, 15, 100, 105, 110, 115, 200]
    assert labels(images) == [0, 0, 0, 0, 1, 1, 1, 1, 2]
    assert len(find_images(tmp_path).spread(1000)) == 41
    assert values(find_images(tmp_path / "a").spread(4)) == [0, 5, 10, 15]
    tar = find_images(write_tar(tmp_path / "set.tar.gz", files)).spread(9)
    assert sorted(values(tar)) == values(images)
    with pytest.raises(ImageError, match="a limit of 0 images"):
        find_images(tmp_path).spread(0)


def test_few_unreadable_images_are_named_and_skipped(tmp_path: Path) -> None:
    files = {f"{i:02}.png": image(i) for i in range(40)}
    write(tmp_path, files | {"03.png": b"broken", "39.png": b""})
    skipped: list[tuple[str, str]] = []
    batches = find_images(tmp_path).batches(GREY, 8, lambda *skip: skipped.append(skip))
    assert [len(x) for (x,), _ in batches] == [8, 8, 8, 8, 6]
    assert [name for name, _ in skipped] == ["03.png", "39.png"]
    assert all("not a readable JPEG, PNG" in reason for _, reason in skipped)
    write(tmp_path, {"20.png": b"broken"})
    with pytest.raises(ImageError, match=r"more than 5% of 40 images .* first '03\.png': not a"):
        list(find_images(tmp_path).batches(GREY))


def test_nothing_to_read(tmp_path: Path) -> None:
    for path, message in (
        (tmp_path, r"no \.jpg, .* in it; check `images`"),
        (tmp_path / "missing", "no such folder or tar of images; check `images`"),
        (write(tmp_path, {"a.txt": b"text"}) / "a.txt", "neither a folder nor a readable tar"),
        (write_tar(tmp_path / "empty.tar", {}), r"no \.jpg"),
    ):
        with pytest.raises(ImageError, match=message):
            find_images(path)


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz"])
def test_a_tar_that_is_cut_off(tmp_path: Path, mode: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (60, 60), np.uint8)
    stream = io.BytesIO()
    np.save(stream, noise)
    path = write_tar(tmp_path / "a.tar", {f"{i}.npy": stream.getvalue() for i in range(9)}, mode)
    images = find_images(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ImageError, match=r"the tar is damaged"):
        list(images.batches(GREY))
    with pytest.raises(ImageError, match="the tar is damaged or cut off"):
        find_images(path)


def test_a_member_that_is_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {f"{i:02}.png": image(i) for i in range(30)} | {"29.png": bytes(100_000)}
    images = find_images(write_tar(tmp_path / "a.tar.gz", files))
    monkeypatch.setattr(tars, "MAX_BYTES", 50_000)
    skipped: list[tuple[str, str]] = []
    assert sum(len(x) for (x,), _ in images.batches(GREY, 32, lambda *s: skipped.append(s))) == 29
    assert skipped == [("29.png", "100,000 bytes are too many")]


def test_a_tar_of_nothing_is_not_gone_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tars, "LEAST_UNPACKED", 1 << 20)
    path = write_tar(tmp_path / "a.tar.gz", {"a.png": image(1), "b.bin": bytes(4 << 20)})
    with pytest.raises(ImageError, match="the tar is damaged or cut off"):
        find_images(path)
    plain = write_tar(tmp_path / "a.tar", {"a.png": image(1), "b.bin": bytes(4 << 20)}, "w")
    assert len(find_images(plain)) == 1


def test_what_is_no_file_among_images_is_left_out(tmp_path: Path) -> None:
    write(tmp_path, {f"{i:02}.png": image(i) for i in range(30)})
    os.mkfifo(tmp_path / "x.png")
    skipped: list[tuple[str, str]] = []
    images = find_images(tmp_path)
    assert sum(len(x) for (x,), _ in images.batches(GREY, 32, lambda *s: skipped.append(s))) == 30
    assert skipped == [("x.png", "cannot be read (a pipe, no file)")]


def test_a_header_that_asks_for_gigabytes(tmp_path: Path) -> None:
    """A pax header of 8 GiB in a small file: refused before anything is allocated."""
    header = tarfile.TarInfo("pax")
    header.type, header.size = tarfile.XHDTYPE, 8 << 30
    path = tmp_path / "bomb.tar.gz"
    path.write_bytes(gzip.compress(header.tobuf() + bytes(1 << 20)))
    with pytest.raises(ImageError, match=r"neither a folder nor a readable tar|damaged"):
        find_images(path)


def test_a_limit_below_the_number_of_classes_is_spread_over_them(tmp_path: Path) -> None:
    write(tmp_path, {f"{i}/{j}.png": image(10 * i + j) for i in range(9) for j in range(2)})
    images = find_images(tmp_path).spread(3)
    assert labels(images) == [0, 3, 6]
    assert images.folders == tuple(map(str, range(9)))
    assert labels(find_images(tmp_path).spread(12)) == [0, 0, 1, 2, 3, 3, 4, 5, 6, 6, 7, 8]


def class_folders(root: Path, *names: str) -> ImageSet:
    return find_images(write(root, {f"{n}/{i}.png": image(i) for n in names for i in range(2)}))


def test_class_folders_number_the_outputs_or_are_refused(tmp_path: Path) -> None:
    three = class_folders(tmp_path / "words", "cat", "cow", "dog")
    assert three.numbering(3).entries == three.entries
    assert three.numbering(3).names == ("cat", "cow", "dog")
    for classes in (2, 4):
        message = rf"words: 3 class folders cannot number the {classes} classes .*`classes`"
        with pytest.raises(InputError, match=message):
            three.numbering(classes)
    assert three.without_labels().numbering(4).entries == three.without_labels().entries
    named = find_images(tmp_path / "words", classes={"cat": 0, "cow": 3, "dog": 1})
    assert labels(named.numbering(4)) == [0, 0, 3, 3, 1, 1]
    with pytest.raises(InputError, match="`classes` gives an index of 3 to a folder of `train`"):
        named.numbering(3, "train")


def test_folders_that_are_numbers_are_outputs(tmp_path: Path) -> None:
    some = class_folders(tmp_path / "some", "0", "11", "2")
    assert labels(some) == [0, 0, 1, 1, 2, 2]
    assert labels(some.numbering(12)) == [0, 0, 11, 11, 2, 2]
    for root, names in (("high", ("1", "12", "2")), ("twice", ("01", "1", "2"))):
        with pytest.raises(InputError, match="cannot number the 12 classes"):
            class_folders(tmp_path / root, *names).numbering(12)


def test_classes_for_images_without_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="no class folders in it that `classes` could number"):
        find_images(write(tmp_path, {"1.png": image(1)}), classes={"cat": 3})

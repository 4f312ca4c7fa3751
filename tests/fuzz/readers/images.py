"""Images, tars, folders, labels, arrays and the cache of decoded images."""

from __future__ import annotations

import io
import json
import os
import socket
import tarfile
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import archives
import mutate
import numpy as np
import torch
from PIL import Image
from reader import Files, Reader

from shrinkc.compiler.images.annotations import find_annotations
from shrinkc.compiler.images.arrays import read_stacked
from shrinkc.compiler.images.cache import Reading, load_images
from shrinkc.compiler.images.files import ImageSet, find_images, read_classes
from shrinkc.compiler.images.preprocessing import preprocessing_for, read_image
from shrinkc.compiler.images.tensors import Reads

_PREPROCESSING = preprocessing_for((1, 3, 8, 8))


def _pixels(mode: str = "RGB") -> Image.Image:
    array = np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    return Image.fromarray(array).convert(mode)


def _encoded(kind: str, mode: str = "RGB", **options: Any) -> bytes:
    stream = io.BytesIO()
    _pixels(mode).save(stream, kind, **options)
    return stream.getvalue()


def _npy(array: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


@cache
def _images() -> list[Files]:
    exif = Image.Exif()
    exif[0x0112] = 6
    array = np.asarray(_pixels())
    return [
        {"a.jpg": _encoded("JPEG", exif=exif)},
        {"a.jpg": _encoded("JPEG", "L", progressive=True)},
        {"a.jpg": _encoded("JPEG", "CMYK")},
        {"a.png": _encoded("PNG")},
        {"a.png": _encoded("PNG", "P")},
        {"a.png": _encoded("PNG", "RGBA", exif=exif)},
        {"a.webp": _encoded("WEBP")},
        {"a.webp": _encoded("WEBP", lossless=True)},
        {"a.bmp": _encoded("BMP")},
        {"a.tif": _encoded("TIFF", compression="tiff_lzw")},
        {"a.tif": _encoded("TIFF", save_all=True, append_images=[_pixels()] * 3)},
        {"a.npy": _npy(array)},
        {"a.npy": _npy((array / 255).astype(np.float32))},
    ]


_CHUNKS = (
    b"IHDR",
    b"IDAT",
    b"tEXt",
    b"iCCP",
    b"eXIf",
    b"\xff\xd8",
    b"\xff\xc0",
    b"\xff\xda",
    b"VP8X",
)


def _changed_image(rng: Random, files: Files) -> Files:
    ((name, data),) = files.items()
    return {name: _header(rng, data) if name.endswith(".npy") else mutate.data(rng, data, _CHUNKS)}


def _header(rng: Random, data: bytes) -> bytes:
    """Of an `.npy`: the text that says type, order and shape."""
    if rng.random() < 0.3:
        return mutate.data(rng, data)
    length = int.from_bytes(data[8:10], "little")
    words = (
        b"'O'",
        b"'|V8'",
        b"'<M8[s]'",
        b"'<U5'",
        b"(9, 12, 3)",
        b"(-1,)",
        b"(1000000, 1000000)",
    )
    changed = mutate.text(rng, data[10 : 10 + length], (*words, b"{}", b"[('a', '<f4')]", b"'<f8'"))
    size = len(changed) if rng.random() < 0.9 else length
    return data[:8] + (size % 65536).to_bytes(2, "little") + changed + data[10 + length :]


def _read_image(folder: Path) -> None:
    (path,) = folder.iterdir()
    read_image(path.read_bytes(), path.name, _PREPROCESSING)


# --- many images ---------------------------------------------------------------------------------


def _tar(kind: str) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=f"w:{kind}") as tar:
        for index, (name, data) in enumerate(one for f in _images()[:6] for one in f.items()):
            entry = tarfile.TarInfo(f"set/{'ab'[index % 2]}/{index}{name}")
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return stream.getvalue()


@cache
def _tars() -> list[Files]:
    return [{"images.tar": _tar(kind)} for kind in ("", "gz", "bz2", "xz")]


_TAR_FIELDS = ((0, 100), (100, 8), (124, 12), (148, 8), (156, 1), (157, 100), (257, 8), (345, 155))


def _changed_tar(rng: Random, files: Files) -> Files:
    raw = bytearray(files["images.tar"])
    if raw[257:262] != b"ustar" or rng.random() < 0.3:
        return {"images.tar": mutate.data(rng, bytes(raw))}
    headers = [at for at in range(0, len(raw), 512) if raw[at + 257 : at + 262] == b"ustar"]
    for _ in range(rng.choice((1, 1, 2))):
        at = rng.choice(headers)
        offset, size = rng.choice(_TAR_FIELDS)
        values = (
            b"\0",
            b"\xff" * 12,
            b"\x80" + b"\xff" * 11,
            b"77777777777",
            b"-1",
            b"2",
            b"L",
            b"x",
            b"g",
            b"S",
            b"K",
        )
        texts = tuple(t.encode("utf-8", "replace") for t in mutate.TEXTS)
        value = rng.choice((*values, *texts))[:size]
        raw[at + offset : at + offset + size] = value.ljust(size, b"\0")
        if rng.random() < 0.9:
            raw[at + 148 : at + 156] = b" " * 8
            raw[at + 148 : at + 156] = b"%06o\0 " % sum(raw[at : at + 512])
    return {"images.tar": bytes(raw)}


def _read_all(images: ImageSet) -> None:
    for _ in images.batches(_PREPROCESSING, 4):
        pass
    images.numbering(2)


def _read_tar(folder: Path) -> None:
    _read_all(find_images(folder / "images.tar"))


def _trees() -> list[Files]:
    """Folders as lists of what is in them, which `_read_tree` makes."""
    entry = lambda path, kind="image": {"path": path, "kind": kind}  # noqa: E731
    several = [entry(f"{kind}/{n}.png") for kind in ("cat", "dog") for n in range(2)]
    return [
        {"tree.json": json.dumps(one).encode()} for one in (several, several[:2], [entry("a.png")])
    ]


_KINDS = ("image", "text", "folder", "fifo", "socket", "link", "loop", "dangling", "zero", "locked")


def _changed_tree(rng: Random, files: Files) -> Files:
    entries = json.loads(files["tree.json"])
    for _ in range(rng.choice((1, 1, 2, 3))):
        kind, suffix = (
            rng.choice(_KINDS),
            rng.choice((".png", ".jpg", ".npy", ".gif", ".tif", "", ".PNG")),
        )
        name = rng.choice(
            (
                "x",
                ".hidden",
                "a b",
                "-rf",
                "\udcff\udcfe",
                "\x1b[31m",
                "é",
                "n" * 200,
                "12",
                "n01440764",
                "\n",
            )
        )
        folder = rng.choice(("", "", "cat/", "dog/", "new/", "__MACOSX/", "a/b/c/"))
        entries.append({"path": f"{folder}{name}{suffix}", "kind": kind})
        if rng.random() < 0.3:
            del entries[rng.randrange(len(entries))]
    return {"tree.json": json.dumps(entries).encode()}


def _make(path: Path, kind: str, image: bytes) -> None:
    match kind:
        case "text":
            path.write_text("text")
        case "folder":
            path.mkdir()
        case "fifo":
            os.mkfifo(path)
        case "socket":
            with socket.socket(socket.AF_UNIX) as one:
                one.bind(str(path))
        case "link":
            path.symlink_to(path.parent)
        case "loop":
            path.symlink_to(path)
        case "dangling":
            path.symlink_to("nowhere")
        case "zero":
            path.symlink_to("/dev/zero")
        case _:
            path.write_bytes(image)
            path.chmod(0 if kind == "locked" else 0o600)


def _lay_tree(folder: Path) -> None:
    image, root = _images()[3]["a.png"], folder / "root"
    root.mkdir()
    for entry in json.loads((folder / "tree.json").read_text()):
        path = root / entry["path"]
        if os.path.lexists(path):
            continue
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _make(path, entry["kind"], image)
        except OSError:
            continue


def _read_tree(folder: Path) -> None:
    images = find_images(folder / "root")
    _read_all(images)
    load_images(images, _PREPROCESSING)


# --- labels and arrays ---------------------------------------------------------------------------

_NAMES = ("a", "b")


def _mask(mode: str) -> bytes:
    stream = io.BytesIO()
    _pixels(mode).save(stream, "PNG")
    return stream.getvalue()


@cache
def _labels() -> list[Files]:
    coco = {
        "images": [{"id": i, "file_name": f"{n}.png"} for i, n in enumerate(_NAMES)],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        "annotations": [
            {"image_id": i, "category_id": 1 + i, "bbox": [1, 2, 3.5, 4], "iscrowd": 0}
            for i in (0, 1)
        ],
    }
    yolo = b"0 0.5 0.5 0.2 0.2\n1 0.25 0.5 0.25 0.125\n"
    return [
        {"coco.json": json.dumps(coco).encode()},
        {f"{name}.txt": yolo for name in _NAMES},
        {f"{name}.png": _mask("L") for name in _NAMES},
        {f"{name}.npy": _npy(np.ones(3, np.float32)) for name in _NAMES},
        {"classes.json": b'{"cat": 0, "dog": 1}'},
        {"names.txt": b"cat\ndog\n"},
    ]


def _changed_labels(rng: Random, files: Files) -> Files:
    found = dict(files)
    name = rng.choice(list(found))
    change: Callable[[Random, bytes], bytes] = mutate.text
    if name.endswith(".json"):
        found[name] = mutate.json_bytes(rng, mutate.tree(rng, json.loads(found[name])))
        return found
    if name.endswith(".png"):
        change = mutate.data
    elif name.endswith(".npy"):
        change = _header
    found[name] = change(rng, found[name])
    return found


def _read_labels(folder: Path) -> None:
    names = {path.name for path in folder.iterdir()}
    if names & {"classes.json", "names.txt"}:
        read_classes(folder / names.pop())
        return
    place = folder / "coco.json" if "coco.json" in names else folder
    images = [f"{name}.png" for name in _NAMES]
    found = find_annotations(place, "annotations").matched(folder, images).numbered(2)
    found.missing(images)
    found.joined([found.of(name, (12, 9), _PREPROCESSING) for name in images])


def _arrays() -> list[Files]:
    inputs, target = np.ones((4, 5), np.float32), np.arange(4)
    return [
        {"x.npy": _npy(inputs)},
        {"x.npz": archives.npz({"input": _npy(inputs), "target": _npy(target)})},
        {"x.npz": archives.npz({"input": _npy(inputs), "target": _npy(inputs)})},
        {"x.npz": archives.npz({"input": _npy(inputs), "second": _npy(target)})},
    ]


def _changed_arrays(rng: Random, files: Files) -> Files:
    ((name, data),) = files.items()
    if name == "x.npy":
        return {name: _header(rng, data)}
    if rng.random() < 0.5:
        return {name: archives.changed(rng, data)}
    names = [n for n in ("input", "second", "target") if f"{n}.npy".encode() in data]
    whole = {n: archives.member(data, f"{n}.npy") for n in names}
    one = rng.choice(list(whole))
    whole[one] = _header(rng, whole[one])
    return {name: archives.npz(whole)}


def _read_arrays(folder: Path) -> None:
    path = next(folder.iterdir())
    reads = [Reads((5,), name="input"), Reads((), torch.int64, "second")]
    if b"second.npy" in path.read_bytes():
        read_stacked(path, reads, "images")
    else:
        read_stacked(path, reads[:1], "images")


# --- the cache -----------------------------------------------------------------------------------


@cache
def _shelf() -> tuple[ImageSet, Path]:
    """Images, and where they are kept once they were decoded."""
    root = Path(tempfile.mkdtemp())
    (root / "images").mkdir()
    for index in range(3):
        (root / "images" / f"{index}.png").write_bytes(_images()[3]["a.png"])
    return find_images(root / "images"), root / "cache"


def _kept() -> list[Files]:
    images, cache_folder = _shelf()
    load_images(images, _PREPROCESSING, Reading(cache=cache_folder))
    return [{path.name: path.read_bytes() for path in cache_folder.iterdir()}]


def _changed_cache(rng: Random, files: Files) -> Files:
    found = dict(files)
    suffix = rng.choice((".json",) * 4 + (".pixels",))
    name = next(one for one in found if one.endswith(suffix))
    if name.endswith(".pixels"):
        found[name] = mutate.data(rng, found[name])
    else:
        words = ("float32", "uint8", "object", "float64", "S1", [3, 8, 8, 3], [2, 8, 8, 3])
        found[name] = mutate.json_bytes(rng, mutate.tree(rng, json.loads(found[name]), words))
    return found


def _read_cache(folder: Path) -> None:
    images, cache_folder = _shelf()
    for path in folder.iterdir():
        (cache_folder / path.name).write_bytes(path.read_bytes())
    found = load_images(images, _PREPROCESSING, Reading(cache=cache_folder))
    assert tuple(found.pixels.shape[1:]) == (8, 8, 3), f"pixels of {tuple(found.pixels.shape)}"


READERS = (
    Reader("image", _images, _changed_image, _read_image),
    Reader("tar", _tars, _changed_tar, _read_tar),
    Reader("folder", _trees, _changed_tree, _read_tree, _lay_tree),
    Reader("labels", _labels, _changed_labels, _read_labels),
    Reader("arrays", _arrays, _changed_arrays, _read_arrays),
    Reader("cache", _kept, _changed_cache, _read_cache),
)

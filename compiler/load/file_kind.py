"""What a model file is, told from its first bytes; its size is checked before it is parsed."""

from __future__ import annotations

import codecs
import struct
from pathlib import Path
from typing import Literal

from shrinkc.compiler.load.zip_archive import open_archive
from shrinkc.compiler.support.reading.regular_file import open_regular
from shrinkc.errors import LoadError, UnsafeFileError

# "zip" and "legacy" are the two formats of torch.save, since and before PyTorch 1.6.
FileKind = Literal["safetensors", "zip", "legacy", "exported", "torchscript", "onnx"]

MAX_PICKLE = 16 << 20  # bytes; ResNet-152's is 0.4 MB
_LEGACY = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."

_FOREIGN = (
    (0, b"\x89HDF", "a Keras/HDF5 file"),
    (4, b"TFL3", "a TFLite file, which is already compiled"),
    (257, b"ustar", "a tar archive"),
    (0, b"\x1f\x8b", "a gzip archive"),
    (0, b"%PDF", "a PDF"),
    (0, b"version https://git-lfs", "a Git LFS pointer, not the file itself (run `git lfs pull`)"),
)
_WANTED = "give a PyTorch model (.pt, .pth), an ONNX file or .safetensors"


def identify(path: Path, max_bytes: int) -> FileKind:
    """The kind of model file at `path`.

    Raises LoadError, in one line that says what to do: no such file, a folder, empty, larger
    than `max_bytes` (unpacked, for zip archives), truncated, or of no kind that shrinkc loads.
    """
    try:
        if path.is_dir():
            raise LoadError(f"{path}: a folder; {_WANTED}")
        with open_regular(path) as file:
            size, head = path.stat().st_size, file.read(1024)
    except FileNotFoundError as error:
        raise LoadError(f"{path}: no such file; check the path") from error
    except OSError as error:
        raise LoadError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    if size == 0:
        raise LoadError(f"{path}: empty; copy or download it again")
    if size > max_bytes:
        raise LoadError(_too_large(path, size, max_bytes))
    if head.startswith(b"PK\x03\x04"):
        return _zip_kind(path, max_bytes)
    if _is_safetensors(head):  # first: the length of its header may begin like a pickle
        if struct.unpack("<Q", head[:8])[0] > size - 8:
            raise LoadError(f"{path}: truncated safetensors; copy or download it again")
        return "safetensors"
    if head.startswith(_LEGACY):
        return "legacy"
    if head.startswith(b"\x80"):
        raise UnsafeFileError(
            f"{path}: a plain pickle, whose loading may run any code; "
            "load it in Python and save its state dict with torch.save"
        )
    if _is_onnx(path, head):
        return "onnx"
    raise LoadError(f"{path}: {_description(head)}; {_WANTED}")


def unpacked_bytes(path: Path, kind: FileKind) -> int:
    """The size of the file, of its contents where it is a zip archive."""
    if kind != "zip":
        return path.stat().st_size
    return open_archive(path).unpacked


def _zip_kind(path: Path, max_bytes: int) -> FileKind:
    archive = open_archive(path)
    if archive.unpacked > max_bytes:
        raise LoadError(_too_large(path, archive.unpacked, max_bytes))
    names = archive.inner_names
    whole = {entry.filename for entry in archive.entries}
    if "constants.pkl" in names:
        return "torchscript"
    if "archive_format" in names | whole or "serialized_exported_program.json" in names | whole:
        return "exported"
    if "data.pkl" not in names:
        raise LoadError(f"{path}: a zip archive that torch.save did not write; {_WANTED}")
    pickled = archive.inner("data.pkl").file_size
    if pickled > MAX_PICKLE:
        raise LoadError(
            f"{path}: a pickle of {pickled:,} bytes beside the weights is no network "
            f"(limit {MAX_PICKLE:,}); save a state dict and give `arch`"
        )
    return "zip"


def _is_safetensors(head: bytes) -> bool:
    return len(head) > 9 and head[8:9] == b"{" and head[6:8] == b"\0\0"


def _is_onnx(path: Path, head: bytes) -> bool:
    """Protobuf has no magic number: a file begins with its IR version and who made it, or, of that
    name, with any other field of a model."""
    if any(head[offset:].startswith(magic) for offset, magic, _ in _FOREIGN):
        return False
    if head[:1] == b"\x08" and 1 <= head[1] < 32 and head[2:3] in _ONNX_FIELDS:
        return True
    return path.suffix == ".onnx" and head[:1] in (b"\x08", *_ONNX_FIELDS)


_ONNX_FIELDS = tuple(bytes([number]) for number in (0x12, 0x1A, 0x22, 0x28, 0x32, 0x3A, 0x42))


def _description(head: bytes) -> str:
    for offset, magic, text in _FOREIGN:
        if head[offset:].startswith(magic):
            return text
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head)  # its end may be cut
    except UnicodeDecodeError:
        return "of no known kind, or damaged"
    if not all(c.isprintable() or c.isspace() for c in text):
        return "of no known kind, or damaged"
    html = text.lstrip().lower().startswith(("<!doctype html", "<html"))
    return "a web page, not a model: the download went wrong" if html else "a text file"


def _too_large(path: Path, size: int, limit: int) -> str:
    return (
        f"{path}: {size / 2**30:.1f} GiB unpacked, the limit is {limit / 2**30:.1f} GiB; "
        "save only the weights, without optimizer state"
    )

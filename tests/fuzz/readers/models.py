"""Models: `.pt` by bytes and by operations, `.safetensors`, ONNX, TFLite."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import archives
import flatbuffer_fields
import mutate
import numpy as np
import onnx
import pickles
import protobufs
import safetensors.torch
import torch
from onnx_files import model_of
from reader import Files, Reader
from torch import Tensor, nn

from shrinkc.compiler.capture import capture
from shrinkc.compiler.export.lower import lower
from shrinkc.compiler.export.tflite.write import write_tflite
from shrinkc.compiler.formats.onnx import ONNX
from shrinkc.compiler.formats.registry import open_runner
from shrinkc.compiler.formats.runner import random_inputs
from shrinkc.compiler.formats.tflite_operators import read_operators
from shrinkc.compiler.load.load import load_model
from shrinkc.compiler.measure.compare_files import compare_files
from shrinkc.compiler.model_file.file import model_bytes
from shrinkc.errors import LoadError


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU6())
        self.two = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, groups=4), nn.Hardswish())
        self.last = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.one(x)
        y = torch.cat((x + self.two(x), x[:, :, ::1]), 1)
        return self.last(y.mean((2, 3))).softmax(1)


def plain() -> nn.Module:
    torch.manual_seed(0)
    pool = (nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.1))
    layers = (nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.PReLU(), *pool, nn.Linear(4, 2))
    return nn.Sequential(*layers).eval()


def block() -> nn.Module:
    torch.manual_seed(0)
    return Block().eval()


@cache
def graphs() -> tuple[Any, ...]:
    return tuple(capture(one, (torch.randn(1, 3, 6, 6),)) for one in (plain(), block()))


# --- pickles -------------------------------------------------------------------------------------


def _saved(value: Any, zipped: bool = True) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream, _use_new_zipfile_serialization=zipped)
    return stream.getvalue()


def _models() -> list[Any]:
    return [
        plain(),
        nn.Sequential(nn.LSTM(3, 4), nn.ReLU()),
        nn.Sequential(nn.GELU(), nn.Upsample((2, 2))),
    ]


def _pt_files() -> list[Files]:
    return [{"m.pt": _saved(model)} for model in _models()]


def _changed_pt(rng: Random, files: Files) -> Files:
    return {"m.pt": archives.changed(rng, files["m.pt"])}


def _changed_legacy(rng: Random, files: Files) -> Files:
    """One of its five pickles, or bytes."""
    if rng.random() < 0.4:
        return {"m.pt": mutate.data(rng, files["m.pt"])}
    *parts, rest = pickles.several(files["m.pt"], 5)
    at = rng.choice((0, 1, 2, 3, 3, 4))
    parts[at] = pickles.changed(rng, parts[at])
    return {"m.pt": b"".join((*parts, rest))}


def _changed_pickle(rng: Random, files: Files) -> Files:
    pickle = pickles.changed(rng, archives.content(files["m.pt"], "data.pkl"))
    return {"m.pt": archives.repacked(files["m.pt"], {"data.pkl": pickle})}


def _read_model(folder: Path) -> None:
    load_model(next(folder.iterdir()))


# --- safetensors ---------------------------------------------------------------------------------


def _own_files() -> list[Files]:
    return [{"m.safetensors": model_bytes(graph, {"classes": ["a", "b"]})} for graph in graphs()]


def _parts(data: bytes) -> tuple[Any, bytes]:
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def _changed_header(rng: Random, files: Files) -> Files:
    """The list of tensors, lengths and offsets; or bytes."""
    data = files["m.safetensors"]
    if rng.random() < 0.4:
        return {"m.safetensors": mutate.data(rng, data)}
    header, numbers = _parts(data)
    text = mutate.json_bytes(rng, mutate.tree(rng, header, ("F32", "I64", "F4", [0, 4])))
    if rng.random() < 0.1:
        numbers = mutate.data(rng, numbers)
    return {"m.safetensors": archives.safetensors(text, numbers)}


def _changed_graph(rng: Random, files: Files) -> Files:
    """The graph in the metadata."""
    header, numbers = _parts(files["m.safetensors"])
    entry = json.loads(header["__metadata__"]["shrinkc"])
    words = ("conv2d", "relu", "input_1", "_0", {"node": "_0"}, {"list": []}, {"float": "nan"})
    made = mutate.json_bytes(rng, mutate.tree(rng, entry, words))
    header["__metadata__"]["shrinkc"] = made.decode("utf-8", "surrogateescape")
    text = json.dumps(header).encode("utf-8", "surrogateescape")
    return {"m.safetensors": archives.safetensors(text, numbers)}


def _read_graph(folder: Path) -> None:
    """And what uses it first."""
    graph = load_model(folder / "m.safetensors")
    lower(graph)  # pyright: ignore[reportArgumentType]


# --- ONNX and TFLite -----------------------------------------------------------------------------


def _onnx_files() -> list[Files]:
    def weights(*shape: int) -> Any:
        return np.linspace(-1, 1, int(np.prod(shape)), dtype=np.float32).reshape(shape)

    def node(kind: str, reads: Sequence[str], makes: Sequence[str], **attributes: Any) -> Any:
        return kind, reads, makes, attributes

    ints = lambda *numbers: np.array(numbers, np.int64)  # noqa: E731
    network = model_of(
        [
            node("Conv", ["x", "w", "b"], ["c"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
            node("Relu", ["c"], ["r"]),
            node("MaxPool", ["r"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
            node("Shape", ["p"], ["s"]),
            node("Gather", ["s", "zero"], ["n"], axis=0),
            node("Unsqueeze", ["n", "axis"], ["n1"]),
            node("Concat", ["n1", "minus"], ["to"], axis=0),
            node("Reshape", ["p", "to"], ["f"]),
            node("Gemm", ["f", "g"], ["y"], transB=1),
        ],
        {"x": (1, 3, 4, 4)},
        ["y"],
        {
            **{"w": weights(4, 3, 3, 3), "b": weights(4), "g": weights(2, 16)},
            **{"zero": np.array(0, np.int64), "axis": ints(0), "minus": ints(-1)},
        },
    )
    other = model_of(
        [
            node("Slice", ["x", "from", "until"], ["s"]),
            node("Transpose", ["s"], ["t"], perm=[0, 2, 3, 1]),
            node("ReduceMean", ["t"], ["m"], axes=[1, 2], keepdims=1),
            node("Mul", ["t", "m"], ["q"]),
            node("Clip", ["q", "low"], ["k"]),
            node("Resize", ["x", "", "by"], ["z"], mode="nearest"),
            node("Softmax", ["k"], ["y"], axis=-1),
        ],
        {"x": ("n", 3, 4, 4)},
        ["y", "z"],
        {
            **{"from": ints(0, 0), "until": ints(1, 2), "low": np.array(0, np.float32)},
            "by": np.array([1, 1, 2, 2], np.float32),
        },
        domains=(),
    )
    return [{"m.onnx": one.SerializeToString()} for one in (network, other)]


_OPERATORS = (
    *("Conv", "Relu", "Gemm", "MatMul", "Reshape", "Concat", "Slice", "Gather", "Pad", "Resize"),
    *("LSTM", "If", "Loop", "Expand", "Tile", "Split", "Squeeze", "ConstantOfShape", "Range", "x"),
    *("ReduceSum", "MaxPool", "BatchNormalization", "Cast", "Identity", "Where", "TopK", "y", "w"),
)


def _changed_onnx(rng: Random, files: Files) -> Files:
    if rng.random() < 0.25:
        return {"m.onnx": mutate.data(rng, files["m.onnx"])}
    model = onnx.ModelProto.FromString(files["m.onnx"])
    protobufs.change(rng, model, _OPERATORS)
    return {"m.onnx": model.SerializeToString()}


@cache
def _written() -> list[Files]:
    programs = [lower(graph) for graph in graphs()]
    return [
        *({"m.tflite": write_tflite(program)} for program in programs),
        *({"m.onnx": ONNX.encode(program)} for program in programs),
    ]


def _tflite_files() -> list[Files]:
    return [files for files in _written() if "m.tflite" in files]


def _changed_tflite(rng: Random, files: Files) -> Files:
    data = files["m.tflite"]
    if rng.random() < 0.5:
        return {"m.tflite": mutate.data(rng, data)}
    model = flatbuffer_fields.unpacked(data)
    flatbuffer_fields.change(rng, model)
    try:
        return {"m.tflite": flatbuffer_fields.packed(model)}
    except Exception:  # what the schema cannot write
        return {"m.tflite": mutate.data(rng, data)}


def _read_tflite(folder: Path) -> None:
    read_operators((folder / "m.tflite").read_bytes())


def _changed_file(rng: Random, files: Files) -> Files:
    return _changed_onnx(rng, files) if "m.onnx" in files else _changed_tflite(rng, files)


def _run(folder: Path) -> None:
    """As `compare` does, of two files and of two folders."""
    path = next(folder.iterdir())
    compare_files(path, path, None, 1, 0)
    runner = open_runner(path)
    runner.run(random_inputs(runner))


def _refused(reader: Any) -> Any:
    """Weights without a network are never more than refused: the sound ones, too."""

    def read(folder: Path) -> None:
        try:
            reader(folder)
        except LoadError as error:
            if "a state dict, weights without a network" not in str(error):
                raise

    return read


def _weights() -> list[Files]:
    state = plain().state_dict()
    whole = {"epoch": 3, "state_dict": state, "optimizer": {"lr": 0.1}, "best": 0.5}
    return [{"m.pt": _saved(value, zipped)} for value in (state, whole) for zipped in (True, False)]


def _changed_weights(rng: Random, files: Files) -> Files:
    if not files["m.pt"].startswith(b"PK"):
        return _changed_legacy(rng, files)
    return rng.choice((_changed_pt, _changed_pickle, _changed_pickle))(rng, files)


def _tensors() -> list[Files]:
    return [{"m.safetensors": safetensors.torch.save(dict(plain().state_dict()))}]


READERS = (
    Reader("pt", _pt_files, _changed_pt, _read_model),
    Reader("pickle", _pt_files, _changed_pickle, _read_model),
    Reader("weights", _weights, _changed_weights, _refused(_read_model)),
    Reader("safetensors", _own_files, _changed_header, _read_model),
    Reader("tensors", _tensors, _changed_header, _refused(_read_model)),
    Reader("graph", _own_files, _changed_graph, _read_graph),
    Reader("onnx", _onnx_files, _changed_onnx, _read_model),
    Reader("tflite", _tflite_files, _changed_tflite, _read_tflite),
    Reader("runtimes", _written, _changed_file, _run),
)

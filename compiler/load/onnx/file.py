"""An ONNX file, read and checked before anything of it is used.

What it declares is not believed: sizes are compared with the bytes that are there, external data
must lie beside the file, and operators of unknown domains end the load.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
from onnx import external_data_helper, numpy_helper

from shrinkc.compiler.support.quiet import quiet
from shrinkc.compiler.support.text import counted, one_line, shown
from shrinkc.errors import CaptureError, InputError, LoadError

Proto = Any  # protobuf's classes say nothing of types
Array = np.ndarray[Any, Any]
MOST_BYTES = (2 << 30) - 1  # protobuf's own limit, weights that lie beside the file included
OPSETS = range(7, 27)
MOST_DIMENSIONS, MOST_NUMBERS = 16, 1 << 28  # of an input: 1 GiB
MOST_BATCH = 1 << 12
_AGAIN = "copy or export it again"
_STANDARD = ("", "ai.onnx")


@dataclass(frozen=True)
class FileInput:
    """One input as the file declares it: sizes, names of open ones, None where nothing is said."""

    name: str
    dims: tuple[int | str | None, ...] | None

    def admits(self, shape: Sequence[int]) -> bool:
        """Whether an input of this shape is one that is declared."""
        if self.dims is None:
            return True
        pairs = zip(self.dims, shape, strict=False)
        return len(self.dims) == len(shape) and all(
            not isinstance(wanted, int) or wanted == size for wanted, size in pairs
        )

    @property
    def dims_shown(self) -> str:
        """Such as 'N,3,224,224'."""
        return shown(",".join("?" if d is None else str(d) for d in self.dims or ()))


@dataclass(frozen=True, eq=False)
class OnnxFile:
    """A checked file. `model` holds all weights, those that lay beside it too."""

    path: Path
    model: Proto
    opset: int
    inputs: tuple[FileInput, ...]

    @property
    def graph(self) -> Proto:
        return self.model.graph

    @property
    def outputs(self) -> tuple[str, ...]:
        return tuple(value.name for value in self.graph.output)

    def shapes(self, given: Sequence[tuple[int, ...]] | None = None) -> tuple[tuple[int, ...], ...]:
        """Of every input: what the file says, an open batch as 1, or `given`, which must fit.

        Raises InputError where a size is open, or given otherwise than the file has it.
        """
        if given is None:
            return tuple(self._own_shape(one) for one in self.inputs)
        if len(given) != len(self.inputs):
            names = ", ".join(shown(one.name) for one in self.inputs)
            raise InputError(
                f"`inputs` holds {counted(len(given), 'shape')}; the file reads "
                f"{counted(len(self.inputs), 'input')}: {names}"
            )
        for shape, one in zip(given, self.inputs, strict=True):
            if not one.admits(shape):
                raise InputError(
                    f"`inputs` {','.join(map(str, shape))}: the file's '{shown(one.name)}' is "
                    f"{one.dims_shown}; give its fixed sizes as they are"
                )
        return tuple(given)

    def batch_is_open(self) -> bool:
        """Whether the file says of no input how large its batch is."""
        return all(not one.dims or not isinstance(one.dims[0], int) for one in self.inputs)

    def _own_shape(self, one: FileInput) -> tuple[int, ...]:
        name = shown(one.name)
        if one.dims is None:
            raise InputError(f"`inputs` are needed: the file gives '{name}' no shape")
        for axis, size in enumerate(one.dims):
            if axis > 0 and not isinstance(size, int):
                what = f"dimension {axis} of '{name}'" + (f" ({shown(size)})" if size else "")
                raise InputError(
                    f"`inputs` are needed: the file leaves {what} open; "
                    "give a shape such as 1,3,224,224"
                )
        if len(one.dims) < 2:
            raise InputError(f"the file's input '{name}' has no batch; export it as (N, …)")
        shape = tuple(size if isinstance(size, int) else 1 for size in one.dims)
        if shape[0] > MOST_BATCH:
            raise InputError(
                f"the file's input '{name}' has a batch of {shape[0]:,}, the most is "
                f"{MOST_BATCH:,}; export it with an open one"
            )
        if len(shape) > MOST_DIMENSIONS or math.prod(shape) > MOST_NUMBERS:
            raise InputError(
                f"the file's input '{name}' is of shape {shown(','.join(map(str, shape)))}, which "
                f"is no network's: the most are {MOST_DIMENSIONS} dimensions of {MOST_NUMBERS:,} "
                "numbers"
            )
        return shape


def read_onnx(path: Path, max_bytes: int = MOST_BYTES) -> OnnxFile:
    """The file at `path`.

    Raises LoadError for what is damaged, too large or reaches out of its folder, CaptureError for
    a network in another precision or with operators of unknown domains, InputError for inputs
    that are no floats.
    """
    limit = min(max_bytes, MOST_BYTES)
    size = path.stat().st_size
    if size > limit:
        raise LoadError(_too_large(path, size, limit))
    try:
        model: Proto = cast(Any, onnx).load_model(str(path), load_external_data=False)
    except Exception as error:  # protobuf's, which differ from version to version
        raise LoadError(f"{path}: truncated or damaged ({one_line(error)}); {_AGAIN}") from error
    if not model.HasField("graph") or not model.graph.output or not model.opset_import:
        raise LoadError(f"{path}: damaged, or no ONNX file: it holds no network; {_AGAIN}")
    if not all(isinstance(name, str) for name in _names(model)):  # protobuf lets bytes pass
        raise LoadError(f"{path}: damaged: a name that is no text; {_AGAIN}")
    _load_weights_beside(path, model, size, limit)
    try:
        with quiet():
            model = _inlined(model)
    except Exception as error:
        raise LoadError(
            f"{path}: its functions are damaged ({one_line(error)}); {_AGAIN}"
        ) from error
    opset = _opset(path, model)
    _refuse_foreign(path, model.graph)
    if model.graph.sparse_initializer:
        raise CaptureError(f"{path}: holds sparse weights; export it with dense ones")
    return OnnxFile(path, model, opset, _inputs(path, model.graph))


def array_of(path: Path, tensor: Proto) -> Array:
    """The numbers of a stored tensor. Raises LoadError where it declares more than it holds."""
    try:
        count = int(np.prod([int(d) for d in tensor.dims], dtype=object))
        held = max(
            len(tensor.raw_data),
            *(8 * len(getattr(tensor, kind)) for kind in ("float_data", "int32_data")),
            *(8 * len(getattr(tensor, kind)) for kind in ("int64_data", "double_data")),
            8 * len(tensor.uint64_data),
        )
        if any(d < 0 for d in tensor.dims) or count > 8 * held:  # 8: of bits, of truth
            raise ValueError(f"{count:,} numbers declared, {held:,} bytes there")
        return numpy_helper.to_array(tensor)
    except Exception as error:
        name = shown(tensor.name)
        raise LoadError(
            f"{path}: damaged: tensor '{name}' ({one_line(error)}); {_AGAIN}"
        ) from error


def graphs_in(graph: Proto) -> Iterator[Proto]:
    """The graph, and those in its nodes' attributes."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from graphs_in(attribute.g)
            for one in attribute.graphs:
                yield from graphs_in(one)


def _tensors(graph: Proto) -> Iterator[Proto]:
    for one in graphs_in(graph):
        yield from one.initializer
        for node in one.node:
            for attribute in node.attribute:
                if attribute.HasField("t"):
                    yield attribute.t
                yield from attribute.tensors


def _names(model: Proto) -> Iterator[object]:
    yield from (one.domain for one in model.opset_import)
    for graph in graphs_in(model.graph):
        yield from (value.name for value in (*graph.input, *graph.output, *graph.initializer))
        for node in graph.node:
            yield from (node.name, node.op_type, node.domain, *node.input, *node.output)
            yield from (attribute.name for attribute in node.attribute)
        for value in graph.input:
            yield from (dim.dim_param for dim in value.type.tensor_type.shape.dim)
        for tensor in graph.initializer:
            yield from (part for e in tensor.external_data for part in (e.key, e.value))


def _load_weights_beside(path: Path, model: Proto, size: int, limit: int) -> None:
    """External data, only from files in the folder of this one."""
    outside = [t for t in _tensors(model.graph) if external_data_helper.uses_external_data(t)]
    if not outside:
        return
    folder = path.parent.resolve()
    files: dict[str, int] = {}
    for tensor in outside:
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = entries.get("location", "")
        name = shown(location)
        if not location or Path(location).is_absolute() or ".." in Path(location).parts:
            raise LoadError(f"{path}: its weights are said to lie at '{name}', outside its folder")
        beside = folder / location
        if beside.is_symlink() or not beside.resolve().is_relative_to(folder):
            raise LoadError(f"{path}: its weights '{name}' are a link; put the file itself there")
        if not beside.is_file():
            raise LoadError(f"{path}: its weights '{name}' are missing; put them beside it")
        files[location] = beside.stat().st_size
    total = size + sum(files.values())
    if total > limit:
        raise LoadError(_too_large(path, total, limit))
    try:
        external_data_helper.load_external_data_for_model(model, str(folder))
    except Exception as error:  # onnx's own checks of the same
        raise LoadError(
            f"{path}: its weights cannot be read ({one_line(error)}); {_AGAIN}"
        ) from error


def _inlined(model: Proto) -> Proto:
    if not model.functions:
        return model
    from onnx import inliner

    return inliner.inline_local_functions(model)


def _opset(path: Path, model: Proto) -> int:
    versions = [one.version for one in model.opset_import if one.domain in _STANDARD]
    if not versions:
        raise CaptureError(f"{path}: holds no standard ONNX operators; export it with them")
    opset = int(versions[0])
    if opset not in OPSETS:
        raise CaptureError(
            f"{path}: opset {opset}; shrinkc reads {OPSETS.start} to {OPSETS.stop - 1}: "
            "convert it with onnx.version_converter"
        )
    return opset


def _refuse_foreign(path: Path, graph: Proto) -> None:
    """Operators that no ONNX standard defines, and quantised ones."""
    nodes = [node for one in graphs_in(graph) for node in one.node]
    quantised = [n for n in nodes if n.op_type in _QUANTISED]
    if quantised:
        raise CaptureError(
            f"{path}: a quantised file ({counted(len(quantised), 'node')} such as "
            f"{quantised[0].op_type}); give the fp32 file that it was made of"
        )
    foreign = Counter(
        f"{n.domain}.{n.op_type}" for n in nodes if n.domain not in (*_STANDARD, *_KNOWN_DOMAINS)
    )
    if foreign:
        names = ", ".join(f"{count} × {shown(name)}" for name, count in foreign.most_common(3))
        raise CaptureError(f"{path}: holds operators of other makers: {names}; export without them")


_KNOWN_DOMAINS = ("com.microsoft",)  # where rules name what is read of them
_QUANTISED = (
    *("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "ConvInteger"),
    *("MatMulInteger", "DynamicQuantizeMatMul", "MatMulIntegerToFloat", "MatMulNBits", "QGemm"),
    *("QLinearConv", "QLinearMatMul", "QLinearAdd", "QLinearMul", "QLinearConcat"),
    *("QLinearSigmoid", "QLinearLeakyRelu", "QLinearSoftmax", "QLinearAveragePool"),
    "QLinearGlobalAveragePool",
)


def _inputs(path: Path, graph: Proto) -> tuple[FileInput, ...]:
    weights = {tensor.name for tensor in graph.initializer}  # old files list them as inputs too
    found: list[FileInput] = []
    for value in graph.input:
        if value.name in weights:
            continue
        name, kind = shown(value.name), value.type.WhichOneof("value")
        if kind != "tensor_type":
            what = (kind or "nothing").removesuffix("_type")
            raise CaptureError(f"{path}: input '{name}' is a {what}; networks read tensors here")
        element = value.type.tensor_type.elem_type
        if element != onnx.TensorProto.FLOAT:
            raise _wrong_type(path, name, element)
        dims: tuple[int | str | None, ...] | None = None
        if value.type.tensor_type.HasField("shape"):
            dims = tuple(_dim(one) for one in value.type.tensor_type.shape.dim)
        found.append(FileInput(value.name, dims))
    if not found:
        raise CaptureError(f"{path}: reads no input; export it with one")
    return tuple(found)


def _dim(dim: Proto) -> int | str | None:
    if dim.HasField("dim_value"):
        return int(dim.dim_value) if dim.dim_value > 0 else None
    return cast(str, dim.dim_param) or None


def _wrong_type(path: Path, name: str, element: int) -> Exception:
    known = element in onnx.TensorProto.DataType.values()
    kind = onnx.TensorProto.DataType.Name(cast(Any, element)).lower() if known else "unknown"
    if kind in ("float16", "bfloat16", "double"):
        return CaptureError(f"{path}: input '{name}' holds {kind}; give the float32 file")
    return InputError(
        f"{path}: input '{name}' holds {kind}; networks read float32 here: export it with inputs "
        "scaled and normalised outside"
    )


def _too_large(path: Path, size: int, limit: int) -> str:
    return (
        f"{path}: {size / 2**30:.1f} GiB with its weights, the limit is {limit / 2**30:.1f} GiB; "
        "give a smaller network"
    )

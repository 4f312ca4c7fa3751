"""Small ONNX files, made by hand, and what ONNX Runtime computes of them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from shrinkc.compiler.load.onnx.file import read_onnx
from shrinkc.compiler.load.onnx.network import onnx_network
from shrinkc.compiler.reference.probes import batch_sizes, probes
from shrinkc.compiler.reference.reference import Reference, tensors_of

Node = tuple[str, Sequence[str], Sequence[str], Mapping[str, Any]]


def model_of(
    nodes: Sequence[Node],
    inputs: Mapping[str, Sequence[int | str]],
    outputs: Sequence[str],
    weights: Mapping[str, Any] | None = None,
    opset: int = 17,
    element: int = TensorProto.FLOAT,
    domains: Sequence[str] = (),
) -> onnx.ModelProto:
    """Nodes are (operator, inputs, outputs, attributes); an open size is a name."""
    graph = helper.make_graph(
        [
            helper.make_node(kind, list(reads), list(makes), name=f"{kind}_{index}", **attributes)
            for index, (kind, reads, makes, attributes) in enumerate(nodes)
        ],
        "graph",
        [helper.make_tensor_value_info(n, element, list(s)) for n, s in inputs.items()],
        [onnx.ValueInfoProto(name=name) for name in outputs],
        [numpy_helper.from_array(np.asarray(a), n) for n, a in (weights or {}).items()],
    )
    versions = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)]
    return helper.make_model(graph, opset_imports=versions, ir_version=8 if opset < 20 else 10)


def one_node(
    kind: str,
    shape: Sequence[int | str],
    weights: Sequence[Any] = (),
    opset: int = 17,
    outputs: int = 1,
    **attributes: Any,
) -> onnx.ModelProto:
    """A file of one operator that reads the input, then these weights; None leaves one out."""
    names = ["" if w is None else f"w{i}" for i, w in enumerate(weights)]
    held = {n: w for n, w in zip(names, weights, strict=True) if w is not None}
    made = [f"y{i}" for i in range(outputs)]
    return model_of([(kind, ["x", *names], made, attributes)], {"x": shape}, made, held, opset)


def written(model: onnx.ModelProto, folder: Path) -> Path:
    path = folder / "net.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def worst_difference(
    model: onnx.ModelProto, folder: Path, shapes: Sequence[tuple[int, ...]] | None = None
) -> float:
    """Of the translation from ONNX Runtime, as a share of the largest number of an output, on all
    probes; at several batches where the translation runs at any.

    Asserts that numbers, shapes and types of the outputs are the same.
    """
    file = read_onnx(written(model, folder))
    sizes = file.shapes(shapes)
    network = onnx_network(file, sizes)
    generator = torch.Generator().manual_seed(7)
    inputs = tuple(torch.randn(shape, generator=generator) for shape in sizes)
    reference, worst = Reference(network.original), 0.0
    free = network.module.meta["dynamic_batch"]
    for probe in probes(inputs, batch_sizes(inputs) if free else (len(inputs[0]),)):
        with torch.no_grad():
            got = tensors_of(network.module(*probe.inputs))
        want = reference(probe.inputs)
        assert len(got) == len(want)
        for a, b in zip(got, want, strict=True):
            assert a.shape == b.shape
            assert a.dtype == b.dtype
            worst = max(worst, _relative(a, b))
    return worst


def _relative(a: Tensor, b: Tensor) -> float:
    if not b.is_floating_point() or not b.numel():
        return float(not torch.equal(a, b))
    a, b = a.nan_to_num(), b.nan_to_num()
    return float((a - b).abs().max() / b.abs().max().clamp(min=1e-3))

"""An ONNX graph as a `torch.fx` graph of torch's layers and functions, node by node."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import onnx
import torch
from torch import fx

from shrinkc.compiler.load.onnx.build import Build, FollowsBatch, Value
from shrinkc.compiler.load.onnx.context import Context, Rule, torch_tensor, values_of
from shrinkc.compiler.load.onnx.file import OnnxFile, array_of, graphs_in
from shrinkc.compiler.load.onnx.rules import (
    activation,
    conv,
    elementwise,
    matrix,
    norm,
    pool,
    reduce,
    resize,
    select,
    sequence,
    shape,
)
from shrinkc.compiler.support.quiet import quiet
from shrinkc.compiler.support.text import one_line, shown
from shrinkc.errors import CaptureError, LoadError

RULES: dict[str, Rule] = {
    **conv.RULES,
    **pool.RULES,
    **norm.RULES,
    **activation.RULES,
    **elementwise.RULES,
    **shape.RULES,
    **select.RULES,
    **reduce.RULES,
    **matrix.RULES,
    **resize.RULES,
    **sequence.RULES,
}
_CONTROL = "its flow depends on the data; export the network without it"
_LISTS = "lists of tensors; export the network without them"
_WHY = {
    "NonMaxSuppression": "how many boxes are left depends on the data; cut it off",
    "Unique": "how many there are depends on the data; cut it off",
    **dict.fromkeys(("Loop", "Scan"), _CONTROL),
    **dict.fromkeys(("Optional", "OptionalGetElement", "OptionalHasElement"), _LISTS),
    **dict.fromkeys(
        ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli"),
        "random numbers; give them as an input",
    ),
}


def translate(file: OnnxFile, shapes: Sequence[tuple[int, ...]]) -> fx.GraphModule:
    """The network of a file for inputs of these shapes, in eval mode: it returns a tensor, or a
    tuple of those of all outputs.

    It runs at any batch size where the file leaves the batch open and nothing follows it in a way
    that torch's shapes cannot say.

    Raises CaptureError, in one line, that names the operators that have no rule, or the node that
    is used in a form no rule covers; LoadError for a damaged graph.
    """
    nodes = _needed(file)
    _refuse_unknown(file, nodes)
    batch = shapes[0][0]
    free = file.batch_is_open() and all(shape[0] == batch for shape in shapes)
    with quiet(), torch.no_grad():
        if free:
            try:
                return _Translator(file, nodes, [[s, (2 * batch, *s[1:])] for s in shapes]).run()
            except FollowsBatch:
                pass
        return _Translator(file, nodes, [[s] for s in shapes]).run()


class _Translator:
    def __init__(
        self, file: OnnxFile, nodes: Sequence[Any], shapes: Sequence[Sequence[tuple[int, ...]]]
    ) -> None:
        self.file, self.nodes = file, nodes
        self.build = Build([one.name for one in file.inputs], shapes)
        self.values: dict[str, Value] = {}
        self.readers = Counter(name for node in nodes for name in node.input)
        self.readers.update(file.outputs)

    def run(self) -> fx.GraphModule:
        for one, value in zip(self.file.inputs, self.build.inputs, strict=True):
            self.values[one.name] = value
        self._store(self.file.graph)
        for node in self.nodes:
            self._translate(node)
        outputs = [self._read(name) for name in self.file.outputs]
        return self.build.finished(outputs)

    def _store(self, graph: Any) -> None:
        read = set(self.readers)
        for tensor in graph.initializer:
            if tensor.name in read or graph is not self.file.graph:
                array = array_of(self.file.path, tensor)
                self.values[tensor.name] = self.build.constant(torch_tensor(array), (tensor.name,))

    def _read(self, name: str) -> Value:
        if name not in self.values:
            raise LoadError(
                f"{self.file.path}: damaged: nothing makes '{shown(name)}' before it is read; "
                "copy or export it again"
            )
        return self.values[name]

    def _translate(self, node: Any) -> None:
        if node.op_type == "If":
            self._branch(node)
            return
        inputs = tuple(self._read(name) if name else None for name in node.input)
        alone = tuple(self.readers[name] == 1 for name in node.input)
        attributes = self._attributes(node)
        context = Context(self.build, node, self.file.opset, inputs, attributes, alone)
        try:
            results = values_of(RULES[node.op_type](context))
        except CaptureError as error:
            if isinstance(error, FollowsBatch):
                raise
            said = (
                error if error.message.startswith("node '") else context.unsupported(error.message)
            )
            raise CaptureError(f"{self.file.path}: {said.message}") from error
        except (RuntimeError, TypeError, ValueError, IndexError, KeyError, MemoryError) as error:
            said = context.unsupported(f"used in a form that no rule covers ({one_line(error)})")
            raise CaptureError(f"{self.file.path}: {said.message}") from error
        for name, value in zip(node.output, results, strict=False):
            if name:
                self.values[name] = value

    def _branch(self, node: Any) -> None:
        """An `If` whose condition no input decides: the branch that is taken, in line."""
        inputs = (self._read(node.input[0]),)
        context = Context(self.build, node, self.file.opset, inputs, {})
        if not context.x().same() or context.tensor(0).numel() != 1:
            said = context.unsupported(_CONTROL)
            raise CaptureError(f"{self.file.path}: {said.message}")
        name = "then_branch" if bool(context.tensor(0)) else "else_branch"
        graph = next((a.g for a in node.attribute if a.name == name), None)
        if graph is None:
            raise LoadError(
                f"{self.file.path}: damaged: an If without its {name}; copy or export it again"
            )
        outside = dict(self.values)
        self._store(graph)
        for inner in graph.node:
            if inner.op_type not in RULES and inner.op_type != "If":
                raise CaptureError(f"{self.file.path}: {_unknown([inner])}")
            self._translate(inner)
        results = [self._read(value.name) for value in graph.output]
        self.values = outside | dict(zip(node.output, results, strict=False))

    def _attributes(self, node: Any) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for one in node.attribute:
            if one.type == onnx.AttributeProto.TENSOR:
                found[one.name] = torch_tensor(array_of(self.file.path, one.t))
            elif one.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS):
                raise CaptureError(f"{self.file.path}: {_unknown([node])}")
            elif one.ref_attr_name:
                raise LoadError(
                    f"{self.file.path}: damaged: attribute '{shown(one.name)}' of no function; "
                    "copy or export it again"
                )
            else:
                found[one.name] = onnx.helper.get_attribute_value(one)
        return found


def _needed(file: OnnxFile) -> list[Any]:
    """The nodes that the outputs depend on, in the file's order."""
    wanted, needed = set(file.outputs), list[Any]()
    for node in reversed(file.graph.node):
        if wanted & set(node.output):
            needed.append(node)
            wanted |= set(node.input)
            for graph in (a.g for a in node.attribute if a.type == onnx.AttributeProto.GRAPH):
                wanted |= set(_outer_names(graph))
    return needed[::-1]


def _outer_names(graph: Any) -> Iterator[str]:
    for one in graphs_in(graph):
        yield from (value.name for value in one.output)
        for node in one.node:
            yield from node.input


def _refuse_unknown(file: OnnxFile, nodes: Sequence[Any]) -> None:
    """Raise CaptureError that counts the operators without a rule."""
    unknown = [n for n in nodes if n.op_type not in RULES and n.op_type != "If"]
    if unknown:
        raise CaptureError(f"{file.path}: {_unknown(unknown)}")


def _unknown(nodes: Sequence[Any]) -> str:
    counts = Counter(node.op_type for node in nodes)
    first = {node.op_type: node for node in reversed(nodes)}
    named: list[str] = []
    for kind, count in counts.most_common(3):
        node = first[kind]
        why = _WHY.get(kind) or (_LISTS if "Sequence" in kind else "")
        at = shown(node.name or next(iter(node.output), ""))
        named.append(f"{count} × {shown(kind)} ('{at}'{', ' + why if why else ''})")
    more = f" and {len(counts) - 3} more kinds" if len(counts) > 3 else ""
    return f"operators that cannot be translated: {'; '.join(named)}{more}"

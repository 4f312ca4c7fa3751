"""Loading that runs code from the file: only after `--trust`.

What each format runs: a pickle calls any function it names; `.pt2` unpickles its sample inputs
and evaluates symbolic expressions; TorchScript runs its own bytecode, in an interpreter with a
history of memory errors.
"""

from __future__ import annotations

import functools
import pickle
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import torch
from torch import Tensor, fx, nn

from shrinkc.compiler.load.weights.architecture import Architecture, current_directory_importable
from shrinkc.compiler.support.quiet import quiet
from shrinkc.compiler.support.text import named, one_line
from shrinkc.errors import LoadError

_TOLERANCE = 1e-5  # of the output range, float32


class ExportedNetwork(nn.Module):
    """A graph of torch.export or of torch.fx as an ordinary module in eval mode.

    Up to four inputs, by name: tracers cannot see through `*inputs`.

    input_shapes  an example's, where the file tells
    open_sizes    of each of their dimensions, whether it may be another
    """

    def __init__(
        self,
        network: nn.Module,
        input_shapes: tuple[tuple[int, ...], ...] | None = None,
        open_sizes: tuple[tuple[bool, ...], ...] = (),
    ) -> None:
        super().__init__()
        self.network = network
        self.input_shapes, self.open_sizes = input_shapes, open_sizes
        self.training = False

    def forward(
        self, a: Tensor, b: Tensor | None = None, c: Tensor | None = None, d: Tensor | None = None
    ) -> Any:
        return self.network(*(x for x in (a, b, c, d) if x is not None))

    def train(self, mode: bool = True) -> ExportedNetwork:
        """Exported graphs have no modes: they stay what they were exported in."""
        return self


class ScriptedNetwork(ExportedNetwork):
    """A TorchScript network, translated to ATen operators by the first input it meets.

    The translation needs an input; what it gives is compared with the script on that input.
    """

    first_input_translates = True

    def __init__(self, script: nn.Module) -> None:
        super().__init__(script)
        self._translated = False

    def forward(
        self, a: Tensor, b: Tensor | None = None, c: Tensor | None = None, d: Tensor | None = None
    ) -> Any:
        if not self._translated:
            given = tuple(x for x in (a, b, c, d) if x is not None)
            self.network = _translated(self.network, given)
            self._translated = True
        return super().forward(a, b, c, d)


def load_pickle(path: Path, script: Architecture | None = None) -> tuple[Any, bool]:
    """Unpickle whatever is there, the current directory importable. What the file calls
    `__main__`, the script that saved it, is the module of `script`; the truth is whether the file
    does.

    Raises LoadError, and InputError where `script` cannot be imported.
    """
    pickles = _Pickles(None if script is None else script.imported())
    advice = "run in the folder that holds its classes, or save a state dict and give `arch`"
    if script is None:
        advice += "; for a class of __main__ give `arch` train:Class, where train.py has it"

    def load() -> Any:
        return torch.load(
            path, map_location="cpu", pickle_module=pickles.module, weights_only=False
        )

    with current_directory_importable():
        return _guarded(path, load, advice), pickles.asked


class _Pickles:
    """The module pickle, with `main` as `__main__`.

    asked  whether a file named that
    """

    def __init__(self, main: ModuleType | None) -> None:
        self.asked = False
        outer = self

        class Unpickler(pickle.Unpickler):
            def find_class(self, module: str, name: str, /) -> Any:
                if module != "__main__" or main is None:
                    return super().find_class(module, name)
                outer.asked = True
                return functools.reduce(getattr, name.split("."), main)

        self.module: Any = ModuleType("pickle")
        self.module.Unpickler = Unpickler

        def load(file: Any, **options: Any) -> Any:
            return Unpickler(file, **options).load()

        self.module.load = load


def load_exported(path: Path) -> nn.Module:
    """A `.pt2` of torch.export. Raises LoadError."""

    def load() -> nn.Module:
        program: Any = torch.export.load(path)
        network = cast(nn.Module, program.module(check_guards=False))
        return ExportedNetwork(network, *_input_shapes(program))

    return _guarded(path, load, "export it again with this version of PyTorch")


def load_torchscript(path: Path) -> nn.Module:
    """A TorchScript archive. Raises LoadError."""

    def load() -> nn.Module:
        script: Any = cast(Any, torch.jit).load(str(path), map_location="cpu")
        return ScriptedNetwork(script.eval())

    return _guarded(path, load, "save the nn.Module or a state dict instead")


def _input_shapes(
    program: Any,
) -> tuple[tuple[tuple[int, ...], ...] | None, tuple[tuple[bool, ...], ...]]:
    """Of the inputs it was exported with, one sample where the batch is free; and which sizes are.
    None where an input is no tensor, or a size is neither fixed nor known."""
    values = {node.name: node.meta.get("val") for node in program.graph.nodes}
    inputs: list[Any] = [values.get(name) for name in program.graph_signature.user_inputs]
    if not inputs or not all(isinstance(value, Tensor) for value in inputs):
        return None, ()
    given: Any = (program.example_inputs or ((),))[0]
    examples: list[Any] = list(given) if len(given) == len(inputs) else [None] * len(inputs)
    shapes: list[tuple[int, ...]] = []
    opened: list[tuple[bool, ...]] = []
    for value, example in zip(inputs, examples, strict=True):
        free = tuple(not isinstance(size, int) for size in value.shape)
        known = value.shape if example is None else example.shape
        shape = [0 if not isinstance(size, int) else size for size in known]
        if free[:1] == (True,) and _least(program, value.shape[0]) <= 1:
            shape[0] = 1
        if 0 in shape:
            return None, ()
        shapes.append(tuple(shape))
        opened.append(free)
    return tuple(shapes), tuple(opened)


def _least(program: Any, size: Any) -> int:
    """The smallest value of a free size."""
    known = program.range_constraints.get(size.node.expr)
    return 2 if known is None else int(known.lower)


def _guarded(path: Path, load: Callable[[], Any], advice: str) -> Any:
    try:
        with quiet():
            return load()
    except Exception as error:  # the file's own code runs
        raise LoadError(f"{path}: cannot be loaded ({named(error)}); {advice}") from error


def _translated(script: nn.Module, inputs: tuple[Tensor, ...]) -> nn.Module:
    with quiet(), torch.no_grad():
        try:
            # at batch 1 the batch size would be written into the graph
            network = _converted(script, tuple(torch.cat((x, x)) for x in inputs))
        except Exception:  # a script for one batch size
            try:
                network = _converted(script, inputs)
            except Exception as error:  # the converter gives up in many ways
                raise LoadError(
                    f"the TorchScript code cannot be captured ({one_line(error)}); "
                    "save the nn.Module or a state dict instead"
                ) from error
        want, got = _tensors(script(*inputs)), _tensors(network(*inputs))
    if len(want) != len(got) or not all(map(_close, want, got)):
        raise LoadError(
            "PyTorch's translation of the TorchScript code computes something else; "
            "save the nn.Module or a state dict instead"
        )
    return network


def _converted(script: nn.Module, inputs: tuple[Tensor, ...]) -> nn.Module:
    # imported here: it takes a second
    from torch._export.converter import TS2EPConverter

    converter: Any = TS2EPConverter(cast(Any, script), inputs, {})
    return _with_plain_convolutions(converter.convert().module(check_guards=False))


def _tensors(outputs: Any) -> list[Tensor]:
    leaves: list[Any] = cast(Any, torch.utils)._pytree.tree_leaves(outputs)
    return [leaf for leaf in leaves if isinstance(leaf, Tensor)]


def _with_plain_convolutions(network: fx.GraphModule) -> fx.GraphModule:
    """`aten.convolution`, which traces are full of, as the 2-D operators that capture knows."""
    aten: Any = torch.ops.aten
    for node in network.graph.nodes:
        if node.target is aten.convolution.default and len(node.args[3]) == 2:
            *tensors, stride, padding, dilation, transposed, output_padding, groups = node.args
            node.target = aten.conv2d.default
            node.args = (*tensors, stride, padding, dilation, groups)
            if transposed:
                node.target = aten.conv_transpose2d.input
                node.args = (*tensors, stride, padding, output_padding, groups, dilation)
    network.recompile()
    return network


def _close(want: Tensor, got: Tensor) -> bool:
    spread = float(want.abs().max()) or 1.0
    return want.shape == got.shape and float((want - got).abs().max()) <= _TOLERANCE * spread

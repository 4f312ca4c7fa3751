"""a model becomes a captured network"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, fx, nn

from shrinkc.compiler.capture import capture
from shrinkc.compiler.cli.inputs import parse_shape
from shrinkc.errors import InputError


def input_shapes(model: nn.Module, given: tuple[str, ...]) -> list[tuple[int, ...]]:
    """From --input, from the file, or 1,C,224,224 with the first convolution's channels."""
    if isinstance(model, fx.GraphModule) and "input_shapes" in model.meta:
        known = [tuple(s) for s in model.meta["input_shapes"].values()]
        if given and [parse_shape(s) for s in given] != known:
            shapes = " ".join(",".join(map(str, s)) for s in known)
            raise InputError(f"this file is made for `inputs` {shapes}; compile the original anew")
        return known
    if given:
        return [parse_shape(s) for s in given]
    first = next((m for m in model.modules() if isinstance(m, nn.Conv2d)), None)
    if first is None:
        raise InputError("give the input's shape with `inputs` N,C,H,W")
    return [(1, first.in_channels, 224, 224)]


def example_inputs(input_shapes: Sequence[tuple[int, ...]]) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(shape, generator=generator) for shape in input_shapes)


def captured(model: nn.Module, input_shapes: Sequence[tuple[int, ...]]) -> fx.GraphModule:
    """The model as a canonical graph; one that is canonical already is taken as it is."""
    if isinstance(model, fx.GraphModule) and "input_shapes" in model.meta:
        return model
    return capture(model, example_inputs(input_shapes))


def require_convolutions(graph_module: fx.GraphModule) -> None:
    """Raise InputError for a network that is none of ours."""
    if not any(isinstance(m, nn.Conv2d | nn.ConvTranspose2d) for m in graph_module.modules()):
        raise InputError("the model has no convolution; shrinkc compiles convolutional networks")

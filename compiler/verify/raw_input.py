"""Files that read images as cameras give them: RGB, 0 to 255."""

from __future__ import annotations

import torch
from torch import Tensor, fx, nn

from shrinkc.compiler.images.preprocessing import Normalisation
from shrinkc.compiler.options import Options
from shrinkc.compiler.pipeline.run import Step, run_exact_passes
from shrinkc.compiler.reference.original import Original
from shrinkc.errors import InputError
from shrinkc.passes.base import copy_graph
from shrinkc.passes.fold.fold_normalisation import FoldNormalisation

LAYER = "normalise"
BYTES = (0.0, 255.0)  # the range of a raw image


def normalisation_of(options: Options) -> Normalisation | None:
    """What is to be folded into the files. Raises InputError where it is not known."""
    if not options.fold_normalisation:
        return None
    if options.preprocessing is None:
        raise InputError(
            "`fold_normalisation`: how images are normalised is not known",
            "give `images`, a folder or a tar, with `mean` and `std` where they are not ImageNet's",
        )
    return Normalisation(options.preprocessing)


def reading_raw(original: Original, normalisation: Normalisation) -> Original:
    """The network as a function of raw images."""

    def normalised(inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(map(normalisation, inputs))

    example = original.example and tuple(map(normalisation.undone, original.example))
    return original.behind(normalised, example)


def folded(
    graph_module: fx.GraphModule, normalisation: Normalisation, *, pads: bool
) -> tuple[fx.GraphModule, Step]:
    """The network with its normalisation in front, as a layer or in its first convolutions, in
    float64 the same. `pads`: raw images may be padded with something else than zeros."""
    raw = _with_layer(graph_module, normalisation)
    final, (step,) = run_exact_passes(raw, (FoldNormalisation(LAYER, pads),))
    return final.float(), step


def said(step: Step, normalisation: Normalisation) -> str:
    """For the report: what the files read, and where it is normalised."""
    where = "; ".join(f"'{change.node}' {change.detail}" for change in step.changes)
    if not where:
        why = "; ".join(skip.reason for skip in step.skipped)
        where = f"the layer '{LAYER}' in front normalises it, since {why}"
    return f"the files read raw RGB of 0 to 255, and {normalisation} is in them: {where}"


def _with_layer(graph_module: fx.GraphModule, normalisation: Normalisation) -> fx.GraphModule:
    result = copy_graph(graph_module).double()
    (image,) = result.graph.find_nodes(op="placeholder")
    channels = len(normalisation.scale)
    groups = 1 if normalisation.given.bgr else channels
    layer = nn.Conv2d(channels, channels, 1, groups=groups).double()
    with torch.no_grad():
        diagonal = normalisation.scale.reshape(channels, 1)
        matrix = torch.diag(diagonal[:, 0]).flip(1) if groups == 1 else diagonal
        layer.weight.copy_(matrix[:, :, None, None])
        assert layer.bias is not None
        layer.bias.copy_(normalisation.shift)
    readers = list(image.users)
    result.add_module(LAYER, layer.eval())
    with result.graph.inserting_after(image):
        made = result.graph.create_node("call_module", LAYER, (image,), name=LAYER)
    for reader in readers:
        reader.replace_input_with(image, made)
    result.recompile()
    return result

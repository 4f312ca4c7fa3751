"""Capture: an `nn.Module` becomes a canonical graph (`shrinkc.passes.ir`) that computes the same.

Symbolic trace first: it trains like the module. Where Python control flow defeats it,
`torch.export`, whose ATen nodes are lifted back into modules. The graph runs at any batch size
when the model does; shapes that the model computes from the input size are fixed to the captured
one. The result is compared with the model before it is handed out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn

from shrinkc.compiler.capture.convert import convert
from shrinkc.compiler.capture.observe import observe
from shrinkc.compiler.capture.trace import export, symbolic_trace
from shrinkc.compiler.reference.reference import leaves
from shrinkc.compiler.support.quiet import quiet
from shrinkc.compiler.support.text import one_line
from shrinkc.errors import CaptureError, IllegalGraphError, ModelRunError
from shrinkc.passes import ir

# float32 against float32 of the same arithmetic in another order
TOLERANCE = 1e-4


def capture(model: nn.Module, inputs: tuple[Tensor, ...]) -> fx.GraphModule:
    """The canonical graph of `model` for inputs of these shapes.

    The first dimension of every input is the batch. `graph_module.meta` holds `input_shapes`,
    `captured_by` ("symbolic_trace" or "torch.export") and `dynamic_batch`.

    Raises CaptureError with the operator that could not be captured, ModelRunError with the model's
    own error when it cannot run on such inputs.
    """
    model.eval()
    batch = inputs[0].shape[0]
    doubled = tuple(torch.cat((x, x.flip(0) * 0.5)) for x in inputs)
    reference = _run_model(model, inputs)
    reasons: list[str] = []
    for method, trace, batches in _attempts(model, inputs, doubled, batch):
        try:
            with quiet():
                raw = trace()
                graph_module = _canonical(model, raw, inputs, doubled, batches, reference)
        except Exception as error:  # the model's own Python may raise anything
            reasons.append(f"{method}: {one_line(error, 300)}")
            continue
        graph_module.meta["captured_by"] = method
        graph_module.meta["dynamic_batch"] = len(batches) > 1
        return graph_module.eval()
    raise CaptureError("cannot capture the model; " + "; ".join(dict.fromkeys(reasons)))


def _attempts(
    model: nn.Module, inputs: tuple[Tensor, ...], doubled: tuple[Tensor, ...], batch: int
) -> list[tuple[str, Callable[[], fx.GraphModule], tuple[int, ...]]]:
    both, one = (batch, 2 * batch), (batch,)
    return [
        ("symbolic_trace", lambda: symbolic_trace(model, len(inputs)), both),
        ("torch.export", lambda: export(model, doubled, dynamic_batch=True), both),
        ("torch.export", lambda: export(model, inputs, dynamic_batch=False), one),
    ]


def _canonical(
    model: nn.Module,
    raw: fx.GraphModule,
    inputs: tuple[Tensor, ...],
    doubled: tuple[Tensor, ...],
    batches: tuple[int, ...],
    reference: list[Tensor],
) -> fx.GraphModule:
    raw.graph.eliminate_dead_code()
    raw.recompile()
    seen = tuple(observe(raw, x) for x in (inputs, doubled)[: len(batches)])
    reserved = frozenset(name for name, _ in (*model.named_children(), *model.named_parameters()))
    graph_module = convert(raw, seen, batches, reserved)
    graph_module.graph.eliminate_dead_code()
    graph_module.delete_all_unused_submodules()
    graph_module.recompile()
    ir.check_legal(graph_module)
    _compare(graph_module, inputs, reference)
    if len(batches) > 1:
        _compare(graph_module, doubled, _run_model(model, doubled))
    return graph_module


def _run_model(model: nn.Module, inputs: tuple[Tensor, ...]) -> list[Tensor]:
    try:
        with torch.no_grad(), quiet():
            outputs: Any = model(*(x.clone() for x in inputs))  # it may change what it reads
    except Exception as error:
        shapes = ", ".join("×".join(map(str, x.shape)) for x in inputs)
        raise ModelRunError(
            f"the model does not run on input {shapes}: {one_line(error, 300)}; "
            "give the right shape with `inputs`"
        ) from error
    return [x for x in leaves(outputs) if isinstance(x, Tensor)]


def _compare(graph_module: fx.GraphModule, inputs: tuple[Tensor, ...], want: list[Tensor]) -> None:
    with torch.no_grad():
        got: tuple[Tensor, ...] = graph_module(*inputs)
    if len(got) != len(want):
        raise IllegalGraphError(f"the graph returns {len(got)} tensors, the model {len(want)}")
    for index, (a, b) in enumerate(zip(got, want, strict=True)):
        if a.shape != b.shape:
            raise IllegalGraphError(f"output {index} has shape {tuple(a.shape)}, not {b.shape}")
        spread = float(b.abs().max()) or 1.0
        error = float((a - b).abs().max()) / spread
        if not error <= TOLERANCE:
            raise IllegalGraphError(f"output {index} differs by {error:.1e} of its range")

"""Is a model a function of its inputs? Not if it draws random numbers, or remembers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)
from torch.utils._python_dispatch import TorchDispatchMode

from shrinkc.compiler.reference.probes import batch_sizes, probes
from shrinkc.compiler.reference.reference import Reference, tensors_of
from shrinkc.compiler.support.difference import OutputError
from shrinkc.errors import ModelRunError

EXACT = 1e-6  # of a channel's range: the same arithmetic on the same numbers
ROUNDS = 4  # of runs one after the other, where the model changes something of itself


def require_function(reference: Reference, inputs: tuple[Tensor, ...]) -> None:
    """Raise ModelRunError, in one line, where the model's outputs depend on more than its inputs:
    on random numbers, or on what it has seen before; and where numbers that it returns beside
    tensors follow the input."""
    returned = _two(reference, inputs)
    for batch, fresh in returned:
        if not _agree(reference(batch, seed=1), tensors_of(fresh)):
            raise ModelRunError(_drawing(reference, batch), NOT_RANDOM)
    _require_memoryless(reference, [(batch, tensors_of(fresh)) for batch, fresh in returned])
    _require_constant(*(_beside(fresh) for _, fresh in returned))


NOT_RANDOM = (
    "give a `model` that calls F.dropout with training=self.training and draws nothing in forward"
)


def _two(reference: Reference, inputs: tuple[Tensor, ...]) -> list[tuple[tuple[Tensor, ...], Any]]:
    """The example, other inputs of its shape that the model runs on, and what it returns."""
    found = [(inputs, _fresh(reference, inputs))]
    for probe in probes(inputs, batch_sizes(inputs)[:1]):
        if probe.group != "example":
            try:
                found.append((probe.inputs, _fresh(reference, probe.inputs)))
            except ModelRunError:  # of values that it refuses
                continue
            break
    return found


def _fresh(reference: Reference, batch: tuple[Tensor, ...]) -> Any:
    with reference.preserved():
        return reference.returned(batch)


def _agree(got: Sequence[Tensor], want: Sequence[Tensor]) -> bool:
    if len(got) != len(want):
        return False
    for a, b in zip(got, want, strict=True):
        error = OutputError()
        error.add(a.numpy(), b.numpy())
        if error.relative() > EXACT:
            return False
    return True


# --- memory --------------------------------------------------------------------------------------


Known = tuple[tuple[Tensor, ...], tuple[Tensor, ...]]  # inputs, the outputs of a fresh model


def _require_memoryless(reference: Reference, known: Sequence[Known]) -> None:
    with reference.preserved():
        reference.run(known[0][0])
        for _ in range(ROUNDS if reference.changed() else 1):
            for batch, fresh in reversed(known):
                if not _agree(reference.run(batch), fresh):
                    raise ModelRunError(
                        f"the model changes {_remembered(reference, known)} in forward, and later "
                        "outputs depend on it",
                        "give a `model` that takes its state as an input and returns it",
                    )


def _remembered(reference: Reference, known: Sequence[Known]) -> str:
    """What later outputs depend on: what changes them when all else is put back."""
    changed = reference.changed()
    matter: list[str] = []
    for path in changed:
        for batch, fresh in known:
            reference.restore()
            for one, _ in (*known, *known):
                reference.run(one)
            reference.restore(but=path)
            if path not in matter and not _agree(reference.run(batch), fresh):
                matter.append(path)
    buffers = dict(reference.model.named_buffers())
    named = [f"its {_kind(p, buffers)} '{p}'" for p in (matter or changed)[:3]]
    return " and ".join(named) or "something of its own"


def _kind(path: str, buffers: dict[str, Tensor]) -> str:
    return "buffer" if path in buffers else "attribute"


# --- random numbers ------------------------------------------------------------------------------


def _drawing(reference: Reference, batch: tuple[Tensor, ...]) -> str:
    """Where random numbers are drawn, as far as torch draws them."""
    with reference.preserved(), _Draws(reference.model) as draws:
        reference.run(batch)
    said = "the same input gives other outputs every time"
    if not draws.found:
        return f"the model is not deterministic: {said}"
    name, path = draws.found[0]
    where = f"in '{path}'" if path else "in its own forward"
    return f"the model is not deterministic: it draws random numbers ({name}) {where}, so {said}"


class _Draws(TorchDispatchMode):
    """Notes every operator that draws random numbers, and the module that calls it."""

    def __init__(self, model: nn.Module) -> None:
        cast(Any, super()).__init__()
        self.found: list[tuple[str, str]] = []
        named = cast("Iterator[tuple[str, nn.Module]]", model.named_modules())
        self._paths = {module: path for path, module in named}
        self._inside: list[str] = []
        self._hooks: list[Any] = []

    def __enter__(self) -> _Draws:
        self._hooks = [
            register_module_forward_pre_hook(self._enter_module),
            register_module_forward_hook(self._leave_module),
        ]
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        cast(Any, super()).__exit__(*error)
        for hook in self._hooks:
            hook.remove()

    def _enter_module(self, module: nn.Module, *_: Any) -> None:
        self._inside.append(self._paths.get(module, ""))

    def _leave_module(self, *_: Any) -> None:
        self._inside.pop()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if torch.Tag.nondeterministic_seeded in func.tags:
            path = next((p for p in reversed(self._inside) if p), "")
            self.found.append((func._schema.name, path))
        return func(*args, **(kwargs or {}))


# --- numbers beside tensors ----------------------------------------------------------------------


def _require_constant(first: dict[str, Any], *others: dict[str, Any]) -> None:
    for place, value in first.items():
        number = isinstance(value, int | float | complex)
        if number and not all(_equal(value, one.get(place, value)) for one in others):
            raise ModelRunError(
                f"the model returns a Python number, {place}, that follows its input",
                "return a tensor there, or nothing: files hold tensors",
            )


def beside_tensors(reference: Reference, inputs: tuple[Tensor, ...]) -> tuple[str, ...]:
    """What the model returns that is no tensor: "output['size'] (int)"."""
    return tuple(
        f"{place} ({'None' if value is None else type(value).__name__})"
        for place, value in _beside(_fresh(reference, inputs)).items()
    )


def _beside(returned: Any) -> dict[str, Any]:
    """Where in a model's return value things are that are no tensors."""
    tree: Any = torch.utils
    found = tree._pytree.tree_flatten_with_path(returned)[0]
    named = ((f"output{tree._pytree.keystr(path)}", value) for path, value in found)
    return {place: value for place, value in named if not isinstance(value, Tensor)}


def _equal(a: Any, b: Any) -> bool:
    return bool(a == b or (a != a and b != b))  # NaN where it was NaN

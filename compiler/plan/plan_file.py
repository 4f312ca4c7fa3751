"""`plan.json` and `plan.safetensors`: what was done to a network, to be done again anywhere.

The first names the network by what it computes, and every step with what it saved and cost; the
second holds the numbers that images gave, of the layers that are not the network's own, and with
"int8." before the name those that only int8 files have. So a plan replays without device and
images. Files may come from anyone: types are strict, sizes are limited, nothing in them is code.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import safetensors.torch
import torch
from pydantic import AfterValidator, Field, StringConstraints, ValidationError, model_validator
from torch import Tensor

from shrinkc.compiler.model_file.file import read_tensors
from shrinkc.compiler.model_file.schema import Identifier, Strict
from shrinkc.compiler.support.reading.regular_file import read_regular
from shrinkc.compiler.support.text import placed
from shrinkc.errors import LoadError

INT8 = "int8."
NAME, TENSORS = "plan.json", "plan.safetensors"
FORMAT = 2
LARGEST = 1e30  # number of a network
MAX_BYTES = 16 << 20  # of plan.json
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{24}$")]
Place = Annotated[  # a node, or a channel group: a layer's path, numbered where it starts several
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*(#[0-9]+)?$", max_length=1010),
]
Drop = Annotated[float, Field(allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
Side = Annotated[int, Field(ge=1, le=1 << 16)]  # of an image, in pixels
Ratio = Annotated[float, Field(ge=0)]
Closer = Annotated[float, Field(ge=1, le=4)]


def _rising(found: tuple[float, float]) -> tuple[float, float]:
    if not -LARGEST <= found[0] <= found[1] <= LARGEST:
        raise ValueError(f"a range is two rising numbers up to {LARGEST:g}")
    return found


Range = Annotated[tuple[float, float], AfterValidator(_rising)]


class Step(Strict):
    """One span. Its layers between `source` and `sink` become one convolution ("merge"), go
    ("drop"), or keep `channels` of `channels_before` hidden channels ("narrow"). Or one channel
    group, which both name, of which the channels in `kept`, rising, stay ("slice"). Or layers that
    are linear already become one, which changes nothing ("exact"); that comes before all others.

    saving_ms  by the target's table
    loss       divergence of the answers that it alone causes; `agreement` of them
    """

    kind: Literal["merge", "drop", "narrow", "slice", "exact"]
    source: Place
    sink: Place
    channels: Annotated[int, Field(ge=0, le=1 << 20)] = 0
    channels_before: Annotated[int, Field(ge=0, le=1 << 20)] = 0
    saving_ms: float = 0.0
    loss: float | None = None
    agreement: Share | None = None
    kept: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(max_length=1 << 20)] = ()


class Resolution(Strict):
    """The network reads images of `size` (height, width) instead of `size_before`, which are made
    smaller; its layers stay as they are. `closer`: times as large as what shows as much of an
    image. `saving_ms`, `loss`, `agreement`: as of a step."""

    size: tuple[Side, Side]
    size_before: tuple[Side, Side]
    closer: Closer = 1.0
    saving_ms: float = 0.0
    loss: float | None = None
    agreement: Share | None = None

    @model_validator(mode="after")
    def _smaller(self) -> Resolution:
        pairs = zip(self.size, self.size_before, strict=True)
        if any(size >= before for size, before in pairs):
            raise ValueError("`size` must be below `size_before`")
        return self

    def __str__(self) -> str:
        size, before = ("×".join(map(str, one)) for one in (self.size, self.size_before))
        return f"images of {size} instead of {before}"


class OutputPromise(Strict):
    """Of one output.

    error     its mean squared error over its variance: 0 for equal outputs, 1 where nothing is left
              of it but the mean
    interval  of the error on as many other images, with a confidence of 95%; None where a single
              image judged, which tells nothing of others
    worst     of its columns (numbers of a row, channels of a map) the largest error over the
              column's own variance, with its `worst_interval`
    """

    error: Ratio
    interval: tuple[Ratio, Ratio] | None
    worst: Ratio
    worst_interval: tuple[Ratio, Ratio] | None


class Promise(Strict):
    """What the plan was judged to cost, on images that it was not fitted to.

    outputs    every one, in the network's order
    drop       of the task's metric, such as top-1, a share; `labelled`: counted, otherwise what the
               task expects of the answers alone; None where answers are not scored
    interval   of the drop on images of the kind, with a confidence of 95%
    agreement  with the original's answers, where they are scored
    """

    images: Annotated[int, Field(ge=0)]
    outputs: Annotated[tuple[OutputPromise, ...], Field(max_length=10_000)]
    drop: Drop | None = None
    interval: tuple[Drop, Drop] | None = None
    agreement: Share | None = None
    labelled: bool = False

    @property
    def lost(self) -> float:
        """Of the metric; where answers are not scored, the largest error of any column."""
        if self.drop is not None:
            return self.drop
        return max((output.worst for output in self.outputs), default=0.0)


class Plan(Strict):
    """`model`: digest of the captured network. Times by the target's table; `before_ms` is the
    original's in fp32. Where the target was at hand that was measured, `after_ms` is the table's in
    its units, and `measured_speedup` what counts.

    resolution  of the images, where they are made smaller; that comes before all steps
    ranges     of activations for int8: name of the value → lowest, highest
    keep_fp32  layers that compute in fp32 although the precision is int8
    """

    format: Literal[2] = FORMAT
    shrinkc: Annotated[str, StringConstraints(max_length=40)]
    model: Digest
    target: Annotated[str, StringConstraints(max_length=500)]
    precision: Literal["fp32", "int8"]
    before_ms: Annotated[float, Field(gt=0)]
    after_ms: Annotated[float, Field(gt=0)]
    measured_speedup: Annotated[float, Field(gt=0)] | None = None
    promise: Promise | None = None
    resolution: Resolution | None = None
    steps: Annotated[tuple[Step, ...], Field(max_length=10_000)] = ()
    ranges: Annotated[dict[str, Range], Field(max_length=100_000, default_factory=dict)]
    keep_fp32: Annotated[tuple[Identifier, ...], Field(max_length=10_000)] = ()

    @property
    def speedup(self) -> float:
        """By the table."""
        return self.before_ms / self.after_ms


def plan_files(plan: Plan, tensors: dict[str, Tensor]) -> dict[str, bytes]:
    """File name → content."""
    left_out = {"resolution"} if plan.resolution is None else None
    text = json.dumps(plan.model_dump(mode="json", exclude=left_out), indent=2, allow_nan=False)
    # layers may share one tensor, which the format does not take
    apart = {n: x.clone(memory_format=torch.contiguous_format) for n, x in tensors.items()}
    return {NAME: f"{text}\n".encode(), TENSORS: safetensors.torch.save(apart)}


def read_plan(path: Path) -> tuple[Plan, dict[str, Tensor]]:
    """From plan.json, or the folder that it is in. Raises LoadError."""
    path = path / NAME if path.is_dir() else path
    try:
        text = read_regular(path, MAX_BYTES).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "no text"
        raise LoadError(f"{path}: cannot be read ({reason}); check the path") from error
    try:
        plan = Plan.model_validate_json(text)
    except ValidationError as error:
        errors = error.errors(include_url=False, include_input=False)
        first = next((one for one in errors if one["loc"] == ("format",)), errors[0])
        said = placed(first["loc"], first["msg"])
        raise LoadError(f"{path}: no plan of this shrinkc ({said})") from error
    tensors = path.with_name(TENSORS)
    if not tensors.is_file():
        raise LoadError(f"{tensors} is missing; it belongs beside {path.name}")
    return plan, read_tensors(tensors)

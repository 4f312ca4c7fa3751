"""Files of detectors that end with the suppression of their boxes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import torch

from shrinkc.compiler.support.choices import is_host
from shrinkc.compiler.tasks.detection.average_precision import Found, average_precision
from shrinkc.compiler.tasks.detection.detection import Detection
from shrinkc.compiler.tasks.own_metric import OwnMetric
from shrinkc.compiler.tasks.task import Task
from shrinkc.compiler.verify.data import Data
from shrinkc.compiler.verify.files import Artefact
from shrinkc.errors import InputError, VerificationError

BATCHES = 4  # that are compared
SAME = 0.99  # mean average precision


def detections(files: Sequence[Artefact], data: Data) -> dict[str, bytes]:
    """By name, where the task asks for them: the same detections as its own suppression leaves of
    what the network returns. Raises InputError where no format has it, VerificationError."""
    task = _asked(data.options.task)
    if task is None:
        return {}
    if any(port.scale is not None for file in files for port in file.boundary.outputs):
        raise InputError("`task` detect: `nms` reads floats; leave `io` out")
    made = {one: one.format.with_suppression(one.data, task.suppression) for one in files}
    if not any(made.values()):
        raise InputError("`task` detect: `nms` is for ONNX files, of which none is written")
    for one, content in made.items():
        if content is not None:
            _require_same(one, content, task, data)
    return {f"detections{a.format.suffix}": x for a, x in made.items() if x is not None}


def _asked(task: Task) -> Detection | None:
    base = task.task if isinstance(task, OwnMetric) else task
    return base if isinstance(base, Detection) and base.nms else None


def _require_same(file: Artefact, content: bytes, task: Detection, data: Data) -> None:
    """By the metric: which of equal scores, of which int8 has many, goes first is nobody's
    mistake."""
    runner = file.format.open_to_judge(content, is_host(data.options.target))
    some, every = list[Found](), list[Found]()
    for inputs, _ in islice(data.batches(), BATCHES):
        (rows,) = map(torch.as_tensor, runner.run([x.numpy() for x in inputs]))
        answer = tuple(map(torch.as_tensor, file.run(inputs)))
        for image, own in enumerate(task.suppression.detections(answer)):
            got = rows[rows[:, 0] == image, 1:].double().numpy()
            wanted = torch.cat((own[:, 5:], own[:, :4], 0 * own[:, :1]), 1).double().numpy()
            some.append(Found(got, wanted[own[:, 4] >= task.sure]))
            every.append(Found(got, wanted))
    found = average_precision(some) or average_precision(every)
    if found is not None and found[0] < SAME:
        raise VerificationError(
            f"detections{file.format.suffix} reaches an mAP of {found[0]:.3f} where what the "
            f"suppression leaves of {file.format.file}'s boxes is the truth, {SAME:g} is needed",
            "leave `nms` out, and suppress outside",
        )

"""A changed network beside the one it was made from, both in PyTorch."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import fx

from shrinkc.compiler.options import Options
from shrinkc.compiler.report.sections import Judged
from shrinkc.compiler.tasks.task import Answer, total
from shrinkc.compiler.verify.data import split


@torch.no_grad()
def judge(original: fx.GraphModule, changed: fx.GraphModule, options: Options) -> Judged:
    """On `options.images`, by `options.task`."""
    task, images, labelled = options.task, 0, True
    same = right = right_now = 0.0
    for (x,), labels in split(original, replace(options, precision="fp32")).batches():
        before: Answer = original(x)
        after: Answer = changed(x)
        images += len(x)
        same += total(task.agree(after, before), len(x))
        labelled = labelled and labels is not None
        if labels is not None:
            right += total(task.correct(before, labels), len(x))
            right_now += total(task.correct(after, labels), len(x))
    shares = (right / images, right_now / images) if labelled else (None, None)
    return Judged(images, same / images, *shares, task.metric)

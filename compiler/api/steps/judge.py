"""A changed network beside the one it was made from, both in PyTorch."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import fx

from shrinkc.compiler.options import Options
from shrinkc.compiler.report.sections import Judged
from shrinkc.compiler.tasks.tally import Tally
from shrinkc.compiler.verify.data import split


@torch.no_grad()
def judge(original: fx.GraphModule, changed: fx.GraphModule, options: Options) -> Judged:
    """On `options.images`, by `options.task`."""
    tally = Tally(options.task)
    for (x,), labels in split(original, replace(options, precision="fp32")).batches():
        tally.add(changed(x), original(x), labels, len(x))
    return Judged.of(tally.judgement(), options.task)

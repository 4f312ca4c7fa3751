"""Random modules with in-place writes: graph and files compute what the module computes."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from random_modules import RandomModule, random_module
from torch import Tensor, fx

from shrinkc.compiler.capture import capture
from shrinkc.compiler.formats.exported import export
from shrinkc.compiler.formats.registry import FORMATS
from shrinkc.compiler.reference.differences import Differences
from shrinkc.compiler.reference.original import Original
from shrinkc.compiler.reference.reference import Reference
from shrinkc.compiler.verify.files import artefacts
from shrinkc.errors import CaptureError, ExportError

EXAMPLE = torch.randn(1, 3, 6, 5, generator=torch.Generator().manual_seed(5))
SCALES = (0.05, 1.0, 20.0)


def outcome(seed: int, files: bool, why: bool = False) -> str:
    """ "refused" or "equal", and how it was captured. Raises AssertionError where anything that was
    made differs from the module, or the module was changed."""
    module = random_module(seed).eval()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    example = EXAMPLE.clone()
    try:
        graph = capture(module, (example,))
    except CaptureError as error:
        return f"refused: {error}" if why else "refused"
    finally:
        assert torch.equal(example, EXAMPLE)
        assert all(torch.equal(v, before[n]) for n, v in module.state_dict().items())
    free = graph.meta["dynamic_batch"]
    reference = Reference(module)
    for batch in (1, 4) if free else (1,):
        assert_equal(reference, lambda x: [y.numpy() for y in run(graph, x)], batch, module)
    if files:
        assert_files_equal(reference, graph, module)
    return f"equal, {graph.meta['captured_by']}{'' if free else ', fixed'}"


@torch.no_grad()
def run(graph: fx.GraphModule, x: Tensor) -> tuple[Tensor, ...]:
    return graph(x)


def assert_files_equal(reference: Reference, graph: fx.GraphModule, module: RandomModule) -> None:
    try:
        exported = export(graph, 17, FORMATS)
    except ExportError:  # as honest as a refusal to capture
        return
    for file in artefacts(exported, graph, FORMATS, apart=True):
        assert_equal(reference, lambda x, file=file: file.run((x,)), 1, module)


def assert_equal(reference: Reference, compute: Any, batch: int, module: RandomModule) -> None:
    """On numbers of other seeds than the probes'."""
    generator, differences = torch.Generator().manual_seed(99), Differences()
    whole: list[float] = []
    for scale in SCALES:
        for _ in range(4 // batch):
            x = scale * torch.randn(batch, *EXAMPLE.shape[1:], generator=generator)
            want = [y.numpy() for y in reference((x,))]
            got: list[NDArray[np.float32]] = compute(x.clone())
            assert len(got) == len(want)
            differences.add(f"{scale} at {batch}", (x,), got, want)
            whole += [
                float(np.abs(a - b).max() / (np.ptp(b) or 1))
                for a, b in zip(got, want, strict=True)
            ]
    excess = differences.excess(Original.of_model(reference), 1e-3)
    far = excess is not None and max(whole) > 1e-6  # a runtime's own sigmoid of -80 is 1e-9, not 0
    assert not far, f"{excess}:\n{module.source}"


@pytest.mark.parametrize("part", range(4))
def test_random_modules(part: int) -> None:
    seen = Counter(outcome(seed, files=seed % 4 == 0) for seed in range(7 * part, 7 * part + 7))
    assert seen["refused"] <= 3, seen


if __name__ == "__main__":  # python tests/compiler/capture/test_random_modules.py FIRST COUNT
    first, count = int(sys.argv[1]), int(sys.argv[2])
    started, tally = time.perf_counter(), Counter[str]()
    for one in range(first, first + count):
        try:
            tally[outcome(one, files=True, why=True)] += 1
        except AssertionError as failure:
            tally["WRONG"] += 1
            print(one, failure, flush=True)
    print(os.getpid(), dict(tally), f"{time.perf_counter() - started:.0f} s")

"""Gradients that oneDNN would write beyond, as on a processor with AVX2 alone."""

from __future__ import annotations

import os
import subprocess
import sys

import torch
from torch import nn

from shrinkc.compiler.train.onednn import safe_gradients

# Without `safe_gradients` this ends in a corrupted heap (torch 2.13).
FITTED = """
import torch
from torch import fx, nn
from shrinkc.compiler.recover.relative_adam import Relative

layers = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 8, 1, stride=2), nn.Conv2d(8, 4, 1)
network = nn.Sequential(*layers).to(memory_format=torch.channels_last)
for _ in range(3):
    trained = Relative(fx.symbolic_trace(network), 0.01, 10)
    for step in range(120):
        x = torch.randn(16, 3, 32, 32).contiguous(memory_format=torch.channels_last)
        trained.step(trained(x).square().mean(), step / 120)
"""
AVX2_ALONE = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "OMP_NUM_THREADS": "1"}


def test_fits_stay_in_their_memory() -> None:
    told = subprocess.run(
        [sys.executable, "-c", FITTED], env=os.environ | AVX2_ALONE, capture_output=True, text=True
    )
    assert told.returncode == 0, told.stderr[-2000:]


def test_onednn_is_as_it_was_afterwards() -> None:
    before = torch.backends.mkldnn.enabled
    with safe_gradients(nn.Conv2d(8, 8, 1, stride=2)):
        assert torch.backends.mkldnn.enabled == before
    with safe_gradients(nn.Conv2d(6, 8, 1, stride=2)):
        pass
    assert torch.backends.mkldnn.enabled == before

"""Ranks under torchrun, gloo on the CPU, compute what one process does, and go on as others."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from ranks_example import shared
from training_examples import rows

from shrinkc.compiler.train.state import load

SCRIPT = Path(__file__).parents[2] / "support/ranks_example.py"


def torchrun(folder: Path, ranks: int, *more: str) -> subprocess.CompletedProcess[str]:
    command = (sys.executable, "-m", "torch.distributed.run", "--standalone")
    options = (f"--nproc-per-node={ranks}", SCRIPT, folder, *more)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "error"}
    return subprocess.run(
        (*command, *options), env=environment, capture_output=True, text=True, timeout=300
    )


def same_training(one: Path, other: Path) -> None:
    """Losses, validations, and the weights' average; how fast they were is left out."""
    first, second = rows(one), rows(other)
    assert len(first) == len(second) == 3 * 6 + 3
    for a, b in zip(first, second, strict=True):
        assert a.pop("event") == b.pop("event")
        validated = a.pop("validation", None), b.pop("validation", None)
        assert b == pytest.approx(a, rel=1e-5)
        if validated[0]:
            assert validated[1] == pytest.approx(validated[0], rel=1e-5)
    states = load(one / "last.pt"), load(other / "last.pt")
    for name in states[0]["average"]:
        torch.testing.assert_close(states[0]["average"][name], states[1]["average"][name])


def test_two_ranks_have_the_losses_of_one(tmp_path: Path) -> None:
    run = torchrun(tmp_path / "two", 2)
    assert run.returncode == 0, run.stderr
    shared(tmp_path / "one")
    same_training(tmp_path / "one", tmp_path / "two")


def test_where_a_rank_died_another_number_goes_on(tmp_path: Path) -> None:
    """Killed after step 8, the last of two: four ranks go on behind step 6."""
    killed = torchrun(tmp_path / "two", 2, "8")
    assert killed.returncode != 0
    assert load(tmp_path / "two" / "last.pt")["step"] == 6
    run = torchrun(tmp_path / "two", 4)
    assert run.returncode == 0, run.stderr
    shared(tmp_path / "one")
    same_training(tmp_path / "one", tmp_path / "two")

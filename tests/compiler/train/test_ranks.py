"""Two ranks under torchrun, gloo on the CPU, compute what one process does."""

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


def torchrun(folder: Path, ranks: int) -> None:
    command = (sys.executable, "-m", "torch.distributed.run", "--standalone")
    options = (f"--nproc-per-node={ranks}", SCRIPT, folder)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "error"}
    run = subprocess.run(
        (*command, *options), env=environment, capture_output=True, text=True, timeout=300
    )
    assert run.returncode == 0, run.stderr


def test_two_ranks_have_the_losses_of_one(tmp_path: Path) -> None:
    torchrun(tmp_path / "two", 2)
    shared(tmp_path / "one")
    one, two = rows(tmp_path / "one"), rows(tmp_path / "two")
    assert len(one) == len(two) == 3 * 6 + 3
    for a, b in zip(one, two, strict=True):
        assert a.pop("event") == b.pop("event")
        validated = a.pop("validation", None), b.pop("validation", None)
        assert b == pytest.approx(a, rel=1e-5)
        if validated[0]:
            assert validated[1] == pytest.approx(validated[0], rel=1e-5)
    state = load(tmp_path / "one" / "last.pt"), load(tmp_path / "two" / "last.pt")
    for name in state[0]["average"]:
        torch.testing.assert_close(state[0]["average"][name], state[1]["average"][name])
    assert state[1]["settings"]["ranks"] == 2

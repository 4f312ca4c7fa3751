"""The emulator, and what its inferences counted, printed below the results."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from arm_emulator import Emulator

LINES = pytest.StashKey[list[str]]()


@pytest.fixture(scope="session")
def emulator() -> Emulator:
    folder = os.environ.get("SHRINKC_ARM")
    if folder is None:
        pytest.skip("needs an emulated Arm: make test-arm")
    return Emulator(Path(folder).resolve())


@pytest.fixture(scope="session")
def summary(request: pytest.FixtureRequest) -> list[str]:
    """Lines added here are printed when all tests are done."""
    return request.config.stash.setdefault(LINES, [])


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    lines = config.stash.get(LINES, [])
    if lines:
        terminalreporter.section("emulated Cortex-A72")
        for line in lines:
            terminalreporter.write_line(line)

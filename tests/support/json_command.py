"""A command as machines use it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from shrinkc.compiler.cli.main import main


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    """What it prints with `--json`; it must succeed."""
    assert main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)

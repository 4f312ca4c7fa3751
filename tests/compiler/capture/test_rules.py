"""Rules are merged into one table by the operator's name, where the last would win in silence."""

from __future__ import annotations

from collections import Counter
from importlib import import_module
from pkgutil import walk_packages
from typing import Any

import pytest

from shrinkc.compiler.capture import refused


def rule_tables(package: str) -> list[dict[str, Any]]:
    """Of all modules that have one."""
    found = walk_packages(import_module(package).__path__, f"{package}.")
    tables = [getattr(import_module(module.name), "RULES", None) for module in found]
    return [table for table in tables if table is not None]


@pytest.mark.parametrize(
    ("package", "others"),
    [
        ("shrinkc.compiler.capture.rules", [refused.RULES]),
        ("shrinkc.compiler.load.onnx.rules", []),
    ],
)
def test_an_operator_has_one_rule(package: str, others: list[dict[str, Any]]) -> None:
    tables = rule_tables(package) + others
    assert len(tables) > 5
    counts = Counter(name for table in tables for name in table)
    assert [name for name, count in counts.items() if count > 1] == []

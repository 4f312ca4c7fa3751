"""Counts."""

from __future__ import annotations

import pytest

from shrinkc.compiler.support.text import counted


@pytest.mark.parametrize(
    ("count", "expected"),
    [(0, "0 changes"), (1, "1 change"), (2, "2 changes"), (1234, "1,234 changes")],
)
def test_counts(count: int, expected: str) -> None:
    assert counted(count, "change") == expected


def test_a_plural_of_its_own() -> None:
    assert counted(2, "bias", "biases") == "2 biases"

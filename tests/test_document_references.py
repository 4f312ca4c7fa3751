"""Files and imports that docs/ names exist."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# Decisions name files of earlier days and of compiler/'s folders.
PAGES = [page for page in sorted((ROOT / "docs").glob("*.md")) if page.name != "decisions.md"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_a_page_names_exists(page: Path) -> None:
    text = page.read_text("utf-8")
    named = re.findall(r"`([\w./-]+/[\w.-]+\.(?:py|json))`", text)
    linked = re.findall(r"\]\(([\w./-]+\.md)", text)
    assert [name for name in named if not _is_here(name)] == []
    assert [name for name in linked if not (page.parent / name).exists()] == []


def _is_here(name: str) -> bool:
    """From the root, or inside latency_tables, whose page names its own folders short."""
    return (ROOT / name).exists() or (ROOT / "latency_tables" / name).exists()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_import_that_a_page_shows_works(page: Path) -> None:
    for module, names in re.findall(
        r"^from (shrinkc[\w.]*) import ([\w, ]+)$", page.read_text("utf-8"), flags=re.MULTILINE
    ):
        found = importlib.import_module(module)
        for name in names.split(","):
            assert hasattr(found, name.strip()), f"{module} has no {name}"

"""Tables in the documents say what their result files say (`python -m benchmarks.document`)."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from benchmarks.document import PAGES
from benchmarks.documents.cells import the_one
from benchmarks.documents.page import FUNCTIONS, marked, rewritten, unmarked_prose
from benchmarks.shared import results
from benchmarks.shared.common import ROOT

MEASUREMENTS = ROOT / "docs" / "measurements.md"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_tables_say_what_their_files_say(page: Path) -> None:
    text = page.read_text("utf-8")
    assert rewritten(text, ROOT) == text, "run python -m benchmarks.document"


def test_every_table_of_the_measurements_has_a_file() -> None:
    text = MEASUREMENTS.read_text("utf-8")
    assert "|" not in unmarked_prose(text)
    assert len(list(marked(text))) >= 14


def test_every_function_makes_a_table_somewhere() -> None:
    used = {one.function for page in PAGES for one in marked(page.read_text("utf-8"))}
    assert used == FUNCTIONS.keys()


def test_a_number_that_was_changed_in_a_table_is_seen() -> None:
    text = MEASUREMENTS.read_text("utf-8")
    for one in marked(text):
        *_, last = re.finditer(r"\d(?=[^\d]*\|\n$)", one.body)
        changed = one.body[: last.start()] + str((int(last[0]) + 1) % 10) + one.body[last.end() :]
        page = text.replace(one.body, changed)
        assert page != text
        assert rewritten(page, ROOT) == text


def test_a_number_that_was_changed_in_a_file_is_seen(tmp_path: Path) -> None:
    shutil.copytree(results.RESULTS, tmp_path / "benchmarks" / "results")
    text = MEASUREMENTS.read_text("utf-8")
    assert rewritten(text, tmp_path) == text
    path = tmp_path / "benchmarks" / "results" / "peers.json"
    content = json.loads(path.read_text())
    the_one(content["rows"], tool="shrinkc", runtime="TFLite", settings="exact int8")["top1"] = 0.88
    path.write_text(json.dumps(content))
    assert "| shrinkc, exact | TFLite | int8 | 2.18× | 88.00% |" in rewritten(text, tmp_path)

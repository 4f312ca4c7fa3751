"""Tables in the documents say what their result files say (`python -m benchmarks.document`)."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.document import PAGES
from benchmarks.documents.cells import the_one
from benchmarks.documents.page import FUNCTIONS, marked, rewritten, unmarked_prose
from benchmarks.documents.peers import peers as peers_table
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


def test_later_contenders_and_intervals_stand_in_the_table_of_peers() -> None:
    found = results.read(results.result_path("peers"))
    told = {"runtime": "TFLite", "precision": "int8", "speedup": 2.5, "top1": 0.85, "drop": 0.0325}
    interval = {"interval": [0.0101, 0.0549]}
    halp = "1.1× asked in fp32, Taylor scores by the network's own answers, not trained"
    onnx = "min/max, weights per channel, of shrinkc's exact file"
    later = [
        {**told, **interval, "tool": "HALP", "settings": halp},
        {**told, **interval, "tool": "uniform scaling", "settings": "192 pixels, exact int8"},
        {**told, **interval, "tool": "onnxruntime 1.32.0 static int8", "settings": onnx},
        {**told, "tool": "MDP", "settings": halp, "failure": "out of reach"},
    ]
    header, rows = peers_table(replace(found, rows=[*found.rows, *later]))
    assert header[-1] == "drop (95%)"
    lines = {row[0]: row[1:] for row in rows}
    cells = ("TFLite", "int8", "2.50×", "85.00%", "3.25 (1.0 to 5.5)")
    assert lines["HALP, reimplemented, 1.1× asked in fp32, not trained"] == cells
    assert lines["shrinkc, exact at 192 pixels"] == cells
    assert lines["onnxruntime 1.32.0 static int8, per channel, of shrinkc's exact file"] == cells
    assert not any(name.startswith("MDP") for name in lines)
    assert {len(row) for row in rows} == {len(header)}

"""Commands in the documents name modules and flags that exist."""

from __future__ import annotations

import importlib
import re
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from benchmarks.shared.common import ROOT

DOCUMENTS = (
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "benchmarks/README.md")),
    ROOT / "examples" / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "benchmarks").glob("*.py")),
    *sorted((ROOT / "benchmarks" / "shared").glob("*.py")),
)
# Not run by hand: coverage.py and its like start them for one architecture each.
WITHOUT_PARSER = ("coverage_one", "deployed_one", "prune_coverage_one")
BENCHMARKS = sorted(
    f"benchmarks.{path.stem}"
    for path in (ROOT / "benchmarks").glob("*.py")
    if path.stem not in (*WITHOUT_PARSER, "peers_plot", "methods_plot")
)
_COMMAND = re.compile(r"(?:python|PYTHON) -m ((?:benchmarks|examples|shrinkc)[\w.]*)([^`\n#]*)")
_FACTORY = re.compile(r"--arch\"?,? \"?((?:benchmarks|examples|tests)[\w.]*):(\w+)")


def commands() -> list[tuple[str, str, str]]:
    """Document, module, and what stands behind it."""
    return [
        (str(path.relative_to(ROOT)), found[1], found[2])
        for path in DOCUMENTS
        for found in _COMMAND.finditer(path.read_text("utf-8"))
    ]


def help_of(
    module: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> str:
    monkeypatch.setattr(sys, "argv", [module, "--help"])
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as stopped:
        importlib.import_module(module).main()
    assert stopped.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("module", BENCHMARKS)
def test_every_benchmark_says_what_it_takes(
    module: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = help_of(module, monkeypatch, capsys)
    for document, named, arguments in commands():
        if named == module:
            for flag in re.findall(r"(?<![\w-])--?[a-z][\w-]*", arguments):
                assert re.search(rf"(?<![\w-]){flag}(?![\w-])", text), f"{document}: {flag}"


@pytest.mark.parametrize("module", sorted({module for _, module, _ in commands()}))
def test_every_command_names_a_module(module: str) -> None:
    assert find_spec(module) is not None


def test_the_benchmarks_readme_names_every_benchmark() -> None:
    named = {module for document, module, _ in commands() if document == "benchmarks/README.md"}
    assert set(BENCHMARKS) <= named


@pytest.mark.parametrize(
    ("path", "module", "factory"),
    [
        (path, found[1], found[2])
        for path in (*DOCUMENTS, *sorted((ROOT / "examples").glob("*.py")))
        for found in _FACTORY.finditer(path.read_text("utf-8"))
    ],
    ids=str,
)
def test_every_factory_is_there(path: Path, module: str, factory: str) -> None:
    assert callable(getattr(importlib.import_module(module), factory))

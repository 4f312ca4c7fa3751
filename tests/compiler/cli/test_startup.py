"""What a start costs: no PyTorch where nothing is computed."""

from __future__ import annotations

import subprocess
import sys

import pytest

REPORT = "import sys; print([m for m in ('torch', 'scipy', 'onnx', 'numpy') if m in sys.modules])"
RUN = "from shrinkc.compiler.cli.main import main; main({}); "


def imported_by(code: str) -> str:
    """What the last line says, in an interpreter of its own."""
    done = subprocess.run(
        [sys.executable, "-c", code + REPORT], capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()[-1]


def test_importing_shrinkc_imports_nothing_heavy() -> None:
    assert imported_by("import shrinkc; shrinkc.__version__; ") == "[]"


@pytest.mark.parametrize("words", ["['--help']", "['prune', '--help']", "['--version']"])
def test_help_imports_nothing_heavy(words: str) -> None:
    assert imported_by(RUN.format(words)) == "[]"


@pytest.mark.parametrize("words", ["['compil', 'x.pt']", "['estimate', 'x.pt', '--targe', 'rpi4']"])
def test_wrong_words_import_nothing_heavy(words: str) -> None:
    assert imported_by(RUN.format(words)) == "[]"


def test_the_list_of_tables_needs_no_pytorch_and_reads_no_operators() -> None:
    """The stated errors are those of validation.csv; 275,000 operators stay packed."""
    watched = (
        "import gzip\n"
        "def read(*_, **__): raise AssertionError\n"
        "gzip.open = gzip.decompress = gzip.GzipFile = read\n"
    )
    assert imported_by(watched + RUN.format("['tables', '--json']")) == "['numpy']"

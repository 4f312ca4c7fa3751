"""What a reader may not do is found; `make fuzz` runs the readers themselves."""

import json
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

sys.path.append(str(Path(__file__).parent))

import mutate

RUN = Path(__file__).with_name("run.py")


def fuzzed(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    command = (sys.executable, str(RUN), *map(str, arguments))
    return subprocess.run(command, capture_output=True, text=True, check=False)


PLANTED = {
    "traceback": "traceback: KeyError",
    "message": "message: ",
    "memory": "traceback: MemoryError",
    "memory_told": "memory: ",
    "code": "foreign code or write: exec",
    "process": "foreign code or write: os.system",
    "outside": "foreign code or write: os.utime",
    "here": "write: what native code wrote",
    "crash": "crash: exit code",
    "hang": "hang: no end",
}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fuzz")
    options = ("--seed", "1", "--seconds", "0.2", "--hang", "2", "--keep", folder / "kept")
    done = fuzzed(*options, "--json", folder / "counts.json", *PLANTED)
    assert done.returncode == 1, done.stdout + done.stderr
    return folder


@pytest.mark.parametrize("planted", PLANTED)
def test_what_is_planted_is_found_and_found_again(planted: str, found: Path) -> None:
    counts = json.loads((found / "counts.json").read_text())["readers"][planted]
    (finding,) = counts["findings"]
    assert finding.startswith(PLANTED[planted])
    if planted != "hang":  # that takes its time
        assert counts["outcomes"].get("read", 0) or planted == "crash"
        kept = next((found / "kept").glob(f"{planted}-1-*"))
        assert fuzzed("--replay", kept).returncode == 1


def test_what_was_kept_is_all_that_is_read_again(tmp_path: Path) -> None:
    """Not the note beside it, which a reader of whatever lies in a folder may take for its file."""
    (tmp_path / "x").write_bytes(b"sound")
    (tmp_path / ".finding").write_text(json.dumps({"reader": "alone"}))
    assert json.loads(fuzzed("--replay", tmp_path).stdout) == {"outcome": "read", "found": None}


def test_an_input_is_the_same_wherever_it_is_made(found: Path, tmp_path: Path) -> None:
    options = ("--seed", "1", "--seconds", "0.2", "--keep", tmp_path, "traceback")
    fuzzed(*options)
    again, before = (
        {path.name for path in folder.glob("traceback-*")} for folder in (tmp_path, found / "kept")
    )
    assert again == before


def test_what_is_put_into_a_tree_is_a_copy() -> None:
    """A list of the values to choose from could get into itself, and its places had no end."""
    before = repr(mutate.VALUES)
    for seed in range(5000):
        mutate.tree(Random(seed), {"a": [1], "b": {"c": 2}})
    assert repr(mutate.VALUES) == before

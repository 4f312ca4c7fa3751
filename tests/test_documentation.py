"""Every code block of README, docs and docstrings is run, in order, as a reader would run it.

Blocks of one file share a folder with a tiny network and tiny images, and the names of `PRELUDE`.
Command lines with placeholders (`MODEL`, `[--labels]`, `…`), those amid a sentence and what
`ONLY_READ` names are read by the program's own parser instead; so is everything else's syntax.
Paths and modules that the documents name have to be there.
"""

import re
import shlex
import shutil
from functools import cache
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import pytest
import torch
import typer
from code_blocks import Block, docstring_blocks, markdown_blocks
from noise_images import noise_images
from torch import nn
from typer.main import get_command

from shrinkc.compiler.cli.main import app, main

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")))
CODE = ("shrinkc", "compiler", "passes", "latency_tables", "benchmarks", "examples")
SOURCES = tuple(path for top in CODE for path in sorted((ROOT / top).rglob("*.py")))
FOLDERS = (*CODE, "docs", "tests")

# First lines of blocks that CI cannot run, and why. They are compiled, or parsed, all the same.
ONLY_READ = {
    ("docs/depth.md", "from pathlib import Path"): "trains for minutes",
    (
        "docs/depth.md",
        "shrinkc shrink model.pt --target rpi4 --images calibration/ --train train/ --epochs 30 \\",
    ): "trains for minutes",
    (
        "docs/depth.md",
        "shrinkc shrink model.pt --target rpi4 --images images/ --method practise --steps 200"
        " --speedup 1.3",
    ): "needs a network with residual blocks",
    (
        "docs/width.md",
        "shrinkc prune model.pt --target rpi4 --precision int8 --images calibration/ --criterion he"
        " --speedup 3.5 \\",
    ): "distils for a minute",
}
# What a placeholder stands for where a command is only parsed.
PLACEHOLDERS = {
    **{
        "T": "rpi4",
        "C": "he",
        "M": "two-stage-dp",
        "R": "0.5",
        "E": "0.5",
        "DEVICE": "host",
        "BOARDS": "boards.toml",
    },
    **dict.fromkeys(("S", "B", "P", "N", "K", "MS", "DB"), "2"),
}


class Tiny(nn.Sequential):
    """Four classes; any size of image."""

    def __init__(self) -> None:
        super().__init__(
            *(nn.Conv2d(3, 48, 3, 2, 1, bias=False), nn.BatchNorm2d(48), nn.ReLU()),
            *(nn.Conv2d(48, 48, 3, 1, 1), nn.ReLU(), nn.Conv2d(48, 48, 1), nn.ReLU()),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(48, 4)),
        )


PRELUDE = """
from pathlib import Path
import torch
import shrinkc
from shrinkc.compiler.capture import capture
x = torch.randn(1, 3, 32, 32)
graph = capture(model, (x,))
original = capture(model, (x,))
"""


@cache
def blocks() -> dict[str, list[Block]]:
    """By file, in the order in which they stand there; files without any left out."""
    found: dict[str, list[Block]] = {}
    for path in DOCUMENTS:
        found[str(path.relative_to(ROOT))] = markdown_blocks(ROOT, path)
    for path in SOURCES:
        found[str(path.relative_to(ROOT))] = docstring_blocks(ROOT, path)
    return {file: some for file, some in found.items() if some}


def only_read(block: Block) -> bool:
    return (block.file, block.first_line) in ONLY_READ


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """model.pt and four folders of images, one of them packed as well."""
    torch.manual_seed(0)
    torch.save(nn.Sequential(*Tiny().eval()), tmp_path / "model.pt")
    for name in ("images", "calibration", "train", "test"):
        noise_images(tmp_path / name)
    for name in ("train", "test"):
        shutil.make_archive(str(tmp_path / name), "gztar", tmp_path, name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def words(command: str) -> list[str]:
    """As a shell splits them, comments left out, optional parts taken."""
    plain = re.sub(r"(?<!\S)[\[(]|[\])](?!\w)|…", " ", command)
    given = shlex.split(plain, comments=True)
    return [PLACEHOLDERS.get(word, word) for word in given]


def has_placeholders(command: str) -> bool:
    return bool(re.search(r"…|\[|(?<![\w/.-])[A-Z][A-Z0-9]*\b", shlex.join(shlex.split(command))))


def at_small_size(given: list[str]) -> list[str]:
    """Images of 64×64 where nothing else is asked for: the network takes any size."""
    sized = "--input" in given or "model.pt" not in given or given[0] == "apply"
    return given if sized else [*given, "--input", "1,3,64,64"]


def parse(command: str) -> None:
    """Refuse a command line that its program would refuse, without running it."""
    program, *given = words(command)
    if program == "shrinkc":
        parse_shrinkc(given)
    elif program == "python":
        parse_python(given)
    elif program == "make":
        makefile = (ROOT / "Makefile").read_text("utf-8")
        assert all(re.search(rf"^{target}:", makefile, re.M) for target in given), command
    else:
        assert program in ("torchrun", "pip"), f"nobody knows how to check {command}"


def parse_shrinkc(given: list[str]) -> None:
    group: Any = get_command(app)
    context = group.make_context("shrinkc", [])
    if given[0].startswith("-"):
        group.make_context("shrinkc", [*given, "tables"])
        return
    if given[0] not in group.commands:  # a model: compile is the command that needs no name
        given = ["compile", *given]
    command = group.commands[given[0]]
    command.make_context(given[0], given[1:], parent=context)


def parse_python(given: list[str]) -> None:
    """The module or file is there, and every option stands in a file that it shares code with."""
    if given[0] == "-m":
        name = given[1].removeprefix("shrinkc.") if "latency_tables" in given[1] else given[1]
        file, options = ROOT / (name.replace(".", "/") + ".py"), given[2:]
    else:
        file, options = ROOT / given[0], given[1:]
    assert file.is_file(), file
    near = (file, *file.parent.glob("*.py"), *(ROOT / "benchmarks/shared").glob("*.py"))
    for option in (word for word in options if word.startswith("--")):
        assert any(f'"{option}"' in path.read_text("utf-8") for path in near), option


@pytest.mark.parametrize("file", blocks())
def test_commands_are_parsed_and_programs_compile(file: str) -> None:
    for block in blocks()[file]:
        try:
            if block.kind == "python":
                compile(block.text, block.place, "exec")
            for command in block.commands() if block.kind != "python" else ():
                parse(command)
        except (SystemExit, typer.Exit):
            continue  # --help, --version
        except Exception as error:
            if block.kind == "inline" and type(error).__name__ == "MissingParameter":
                continue  # a sentence leaves out what is not its subject
            raise AssertionError(f"{block.place}: {block.first_line}\n{error}") from error


def runs(block: Block) -> bool:
    """Benchmarks and examples are only read: they want data sets, devices and hours."""
    if block.file.startswith(("benchmarks/", "examples/")):
        return False
    commands = block.commands() if block.kind == "shell" else ()
    return block.kind == "python" or any(command.startswith("shrinkc ") for command in commands)


@pytest.mark.parametrize("file", [f for f, some in blocks().items() if any(map(runs, some))])
def test_blocks_run(file: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {"__name__": "__main__", "model": nn.Sequential(*Tiny().eval())}
    exec(PRELUDE, names)
    for block in blocks()[file]:
        if only_read(block):
            continue
        if block.kind == "python":
            lines = "\n" * (block.line - 1) + block.text
            exec(compile(lines, ROOT / file, "exec"), names)
        for command in block.commands() if block.kind == "shell" else ():
            if command.startswith("shrinkc ") and not has_placeholders(command):
                code = main(at_small_size(shlex.split(command, comments=True)[1:]))
                assert code == 0, f"{block.place}: {command}\n{capsys.readouterr().err}"


def test_what_is_only_read_is_there() -> None:
    there = {(block.file, block.first_line) for some in blocks().values() for block in some}
    assert set(ONLY_READ) <= there


@cache
def files() -> frozenset[str]:
    tops = [path for path in ROOT.iterdir() if not path.name.startswith(".")]
    below = [f for top in tops if top.name in FOLDERS for f in top.rglob("*.*")]
    return frozenset("/" + str(path.relative_to(ROOT)) for path in (*tops, *below))


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_files_and_names_that_documents_name_are_there(path: Path) -> None:
    text = path.read_text("utf-8")
    named = set(re.findall(r"`([\w./-]+\.(?:py|md))`", text))
    assert {name for name in named if not any(f.endswith("/" + name) for f in files())} == set()
    for name in set(re.findall(r"`(shrinkc(?:\.\w+)+)`", text)):
        resolve_name(name)  # raises where nothing is called so

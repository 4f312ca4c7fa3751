"""What a reader would copy: code in Markdown files and in docstrings, and where it stands."""

import ast
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PROGRAMS = ("shrinkc", "python", "make", "torchrun", "pip")
FENCES = {"python": "python", "py": "python", "console": "shell", "sh": "shell", "bash": "shell"}
OUTPUT = ("", "text", "json", "toml", "csv")  # fences that hold code only behind a `$`
_FENCE = re.compile(r"(\s*)```(\w*)\s*$")
_INLINE = re.compile(r"`((?:shrinkc|python -m) [^`]+)`")


@dataclass(frozen=True)
class Block:
    """`file` relative to the repository; `line` is where `text` begins, counted from 1."""

    file: str
    line: int
    kind: str  # python, shell, or inline: a command amid a sentence
    text: str

    @property
    def first_line(self) -> str:
        return self.text.split("\n", 1)[0].strip()

    @property
    def place(self) -> str:
        return f"{self.file}:{self.line}"

    def commands(self) -> list[str]:
        """Command lines, continued ones joined, without prompts and what they print."""
        text = self.text.replace("\\\\\n", "\n").replace("\\\n", " ")
        lines = [line.strip() for line in text.split("\n")]
        prompted = [line[2:] for line in lines if line.startswith("$ ")]
        return prompted or [line for line in lines if line and not line.startswith("#")]


def markdown_blocks(root: Path, path: Path) -> list[Block]:
    """Fenced blocks, indented ones and commands in sentences. Unknown fences are refused."""
    file = str(path.relative_to(root))
    found: list[Block] = []
    lines = path.read_text("utf-8").split("\n")
    number = 0
    while number < len(lines):
        fence = _FENCE.match(lines[number])
        if fence:
            end = next(n for n in range(number + 1, len(lines)) if lines[n].strip() == "```")
            body = inspect.cleandoc("\n" + "\n".join(lines[number + 1 : end]))
            kind = FENCES.get(fence[2])
            assert kind or fence[2] in OUTPUT, f"{file}:{number + 1}: what is {fence[2]}?"
            if kind or any(line.startswith("$ ") for line in body.split("\n")):
                found.append(Block(file, number + 2, kind or "shell", body))
            number = end + 1
            continue
        found += [Block(file, number + 1, "inline", m[1]) for m in _INLINE.finditer(lines[number])]
        number += 1
    return sorted((*found, *_indented(file, 1, lines)), key=lambda block: block.line)


def docstring_blocks(root: Path, path: Path) -> list[Block]:
    """Indented examples and doctests in the docstrings of a file's public names."""
    file = str(path.relative_to(root))
    found: list[Block] = []
    for node, text in _docstrings(ast.parse(path.read_text("utf-8"))):
        lines = inspect.cleandoc(text).split("\n")
        found += _indented(file, node.lineno, lines)
        found += _doctests(file, node.lineno, lines)
    return found


def _docstrings(module: ast.Module) -> Iterator[tuple[ast.Expr, str]]:
    for node in ast.walk(module):
        if not isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
            continue
        if isinstance(node, ast.Module) or not node.name.startswith("_"):
            text = ast.get_docstring(node, clean=False)
            first = node.body[0] if node.body else None
            if text is not None and isinstance(first, ast.Expr):
                yield first, text


def _indented(file: str, start: int, lines: list[str]) -> Iterator[Block]:
    """Paragraphs four spaces in that begin like a command or a program; others are formulas."""
    number = 0
    while number < len(lines):
        begins = lines[number].startswith("    ") and (number == 0 or not lines[number - 1].strip())
        if not begins:
            number += 1
            continue
        end = number
        while end < len(lines) and (lines[end].startswith("    ") or not lines[end].strip()):
            end += 1
        text = inspect.cleandoc("\n" + "\n".join(lines[number:end]))
        first = text.split("\n", 1)[0].split()
        if first[0] in (*PROGRAMS, "$"):
            yield Block(file, start + number, "shell", text)
        elif first[0] in ("import", "from", "with") or "shrinkc." in text:
            yield Block(file, start + number, "python", text)
        number = end


def _doctests(file: str, start: int, lines: list[str]) -> Iterator[Block]:
    marked = [
        (n, line.strip()) for n, line in enumerate(lines) if re.match(r"\s*(>>>|\.\.\.)", line)
    ]
    if marked:
        text = "\n".join(line[4:] for _, line in marked)
        yield Block(file, start + marked[0][0], "python", text)

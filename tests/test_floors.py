"""The house: imports only go down its floors, folders and functions stay small.

A module imports from floors below its own or from its own folder, whether at its top or within a
function.
"""

import ast
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("compiler", "passes", "latency_tables")
FLOORS = (  # from the ground up
    ("errors", "version"),
    ("passes", "latency_tables", "support", "tasks"),
    ("reference",),
    ("devices", "pipeline", "capture", "export", "images", "model_file"),
    ("load", "cost", "quantise"),
    ("formats",),
    ("options",),
    ("verify", "profile"),
    ("measure", "train"),
    ("recover",),
    ("depth", "width"),
    ("report", "plan"),
    ("api",),
    ("cli",),
)
FLOOR = {name: number for number, names in enumerate(FLOORS) for name in names}
MOST_FILES = 13  # in a folder, its __init__ included
MOST_LINES = 80  # of a function, its docstring included
MOST_PLACES = 8  # parameters that can be passed by place, self left out


@cache
def modules() -> dict[str, Path]:
    """Every module that ships, by the name it has there."""
    paths = [path for top in PACKAGES for path in (ROOT / top).rglob("*.py")]
    named = {".".join(("shrinkc", *p.relative_to(ROOT).with_suffix("").parts)): p for p in paths}
    return {name.removesuffix(".__init__"): path for name, path in named.items()}


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


@cache
def imports(module: str) -> set[str]:
    """The modules of shrinkc that one imports."""
    path = modules()[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    found = set[str]()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join([*(above if node.level else []), *filter(None, [node.module])])
            submodules = {f"{base}.{alias.name}" for alias in node.names} & modules().keys()
            found |= submodules or {base}
    return {name for name in found if name.partition(".")[0] == "shrinkc"}


def floor(module: str) -> tuple[str, int | None]:
    """What a module's room is called, and its floor; None for the public face above all."""
    parts = module.split(".")[1:]
    name = parts[1] if parts[:1] == ["compiler"] and len(parts) > 1 else "".join(parts[:1])
    return name, FLOOR.get(name)


def going_up() -> Iterator[str]:
    for module in modules():
        room, height = floor(module)
        for other in imports(module):
            other_room, other_height = floor(other)
            roof = other_height is None and other != "shrinkc.compiler"
            if other_room != room and (roof or (other_height or 0) >= (height or 0) > 0):
                yield f"{module} -> {other}"


def circles() -> Iterator[str]:
    """A circle in each folder that has any, named by the folder."""
    folders = {module.rpartition(".")[0] for module in modules()}
    for folder in folders:
        inside = {m for m in modules() if m.rpartition(".")[0] == folder}
        try:
            TopologicalSorter({m: imports(m) & inside - {m} for m in inside}).prepare()
        except CycleError as error:
            yield f"{folder}: " + ", ".join(sorted(m.rpartition(".")[2] for m in {*error.args[1]}))


def crowded() -> Iterator[str]:
    for folder in {path.parent for path in modules().values()}:
        if len(list(folder.glob("*.py"))) > MOST_FILES:
            yield str(folder.relative_to(ROOT))


def large_functions() -> Iterator[str]:
    for module, path in modules().items():
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.FunctionDef):
                places = [*node.args.posonlyargs, *node.args.args]
                by_place = len(places) - (places[:1] != [] and places[0].arg in ("self", "cls"))
                lines = (node.end_lineno or 0) - node.lineno + 1
                if lines > MOST_LINES or by_place > MOST_PLACES:
                    yield f"{module}.{node.name}"


RULES = {
    "floors": going_up,
    "circles": circles,
    "folders": crowded,
    "functions": large_functions,
}


@pytest.mark.parametrize("rule", RULES)
def test_the_house(rule: str) -> None:
    assert not set(RULES[rule]())


def test_every_folder_has_a_floor() -> None:
    rooms = {floor(m)[0] for m in modules()} - {"compiler"}
    assert rooms == FLOOR.keys() - {"errors", "version"}

"""The tree of errors: kinds, exit codes, messages that name parameters."""

from __future__ import annotations

import ast
import pickle
from pathlib import Path

import shrinkc.errors
from shrinkc.errors import EXIT_CODES, InputError, LoadError, ShrinkcError, UnreachableGoalError

ROOT = Path(__file__).resolve().parent.parent


def tree(root: type[ShrinkcError]) -> list[type[ShrinkcError]]:
    return [root, *(found for child in root.__subclasses__() for found in tree(child))]


def test_the_docstring_draws_every_class_with_its_kind() -> None:
    drawn = shrinkc.errors.__doc__ or ""
    for error in tree(ShrinkcError)[1:]:
        if error.__module__ == "shrinkc.errors":
            (line,) = (line for line in drawn.splitlines() if f"─ {error.__name__} " in line)
            said = line.split(error.__name__)[1].strip()
            assert said.startswith((f"{error.kind}:", "…")), line
    for kind, code in EXIT_CODES.items():
        assert any(line.split()[:2] == [kind, str(code)] for line in drawn.splitlines())


def test_exit_codes_tell_the_kinds_apart() -> None:
    assert len(set(EXIT_CODES.values())) == len(EXIT_CODES)
    assert InputError("x").exit_code == 2
    assert UnreachableGoalError("x").exit_code != 2


def test_a_hint_follows_the_message() -> None:
    error = LoadError("model.pt: empty", "save it again")
    assert (error.message, error.hint) == ("model.pt: empty", "save it again")
    assert str(error) == "model.pt: empty; save it again"
    assert LoadError("model.pt: empty").hint is None


def test_errors_come_back_from_other_processes() -> None:
    error = pickle.loads(pickle.dumps(LoadError("model.pt: empty", "save it again")))
    assert (str(error), error.hint) == ("model.pt: empty; save it again", "save it again")


def test_library_errors_name_parameters_not_flags() -> None:
    wrong: list[str] = []
    for top in ("compiler", "passes", "latency_tables", "shrinkc"):
        for path in (ROOT / top).rglob("*.py"):
            if (ROOT / "compiler" / "cli") not in path.parents:
                tree = ast.parse(path.read_text("utf-8"))
                wrong += [f"{path.relative_to(ROOT)}:{line}" for line in flags_in_errors(tree)]
    assert not wrong


def flags_in_errors(tree: ast.Module) -> list[int]:
    """Lines of strings with "--" and a letter inside calls of what is named …Error."""
    return [
        part.lineno
        for call in ast.walk(tree)
        if isinstance(call, ast.Call) and ast.unparse(call.func).endswith("Error")
        for part in ast.walk(call)
        if isinstance(part, ast.Constant) and isinstance(part.value, str)
        if any(word.lstrip("(").startswith("--") and word[2:3] for word in part.value.split())
    ]

"""Help: panels, choices, one meaning for a flag wherever it stands."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

import pytest
import typer

from shrinkc.compiler.cli.main import app, main
from shrinkc.compiler.cli.options import PANELS
from shrinkc.compiler.depth.methods import METHODS
from shrinkc.compiler.support.choices import CriterionName, DepthMethod, Normalise, SearchName
from shrinkc.compiler.width.methods import NAMES
from shrinkc.compiler.width.search.methods import SEARCHES
from shrinkc.passes.criteria import base

# profile names the table it makes, measures fp16 too; methods are of depth, or of width
SAME_NAME = {"--target", "--precision", "--method"}
# asked for where nothing can be done without; a calibration is a minute, a profile five
OWN_DEFAULT = {"--target", "--on", "--budget-minutes", "--method"}
SEVERAL = {"--target", "--on"}  # profile takes several


def commands() -> Iterator[tuple[str, Any]]:
    root: Any = typer.main.get_command(app)
    for name, command in root.commands.items():
        yield name, command
        yield from getattr(command, "commands", {}).items()


def options() -> Iterator[tuple[str, str, Any]]:
    """(command, flag, parameter)"""
    for name, command in commands():
        for param in command.get_params(typer.Context(command)):
            if param.opts[0].startswith("-") and "--help" not in param.opts:
                yield name, max(param.opts, key=len), param


def test_every_option_has_a_panel_and_a_sentence() -> None:
    for command, flag, param in options():
        assert param.rich_help_panel in PANELS, (command, flag)
        assert param.help[0].isupper() or param.help.split()[0].rstrip(":,;").isascii()
        assert param.help.endswith((".", ")")), (command, flag)
        assert not param.help.startswith(("Of ", "Per ", "As ")), (command, flag)


def test_the_same_flag_is_the_same_everywhere() -> None:
    seen: dict[str, tuple[str, Any]] = {}
    for command, flag, param in options():
        first, known = seen.setdefault(flag, (command, param))
        where = f"{flag} of {command} and {first}"
        if flag not in SAME_NAME:
            assert (param.name, param.help) == (known.name, known.help), where
            assert param.rich_help_panel == known.rich_help_panel, where
        if flag not in OWN_DEFAULT:
            assert (param.default, param.required) == (known.default, known.required), where
        if flag not in SEVERAL | SAME_NAME:
            assert param.bare_type() == known.bare_type(), where


def test_every_command_can_be_quiet_logged_and_read_by_programs() -> None:
    for name, command in commands():
        flags = {flag for other, flag, _ in options() if other == name}
        assert flags >= {"--json", "--quiet", "--log"}, command.name


@pytest.mark.parametrize("columns", ["80", "120"])
def test_a_panel_fits_on_a_screen(
    columns: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    for name in ("prune", "shrink", "compile", "profile"):
        assert main([name, "--help"]) == 0
        shown = capsys.readouterr().out
        for panel in shown.split("╭─")[1:]:
            assert panel.count("\n") <= 48, panel
        assert "…" not in shown


def test_choices_are_those_of_the_library() -> None:
    assert get_args(CriterionName) == NAMES
    assert get_args(Normalise) == get_args(base.Normalise)
    assert get_args(SearchName) == tuple(method.name for method in SEARCHES)
    assert get_args(DepthMethod) == tuple(method.name for method in METHODS)


def test_help_names_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "3 unreadable" in shown
    assert "130 interrupted" in shown

"""`shrinkc cache`: what runs keep for later ones, and its removal."""

from __future__ import annotations

from typing import Any

import typer
from rich.markup import escape
from rich.table import Table

from shrinkc.compiler.cli.app import Command, Group, app
from shrinkc.compiler.cli.output import as_json, print_json, wide_console

cache = typer.Typer(cls=Group, help="Show what is kept for later runs, where, and how much of it.")
app.add_typer(cache, name="cache")


@cache.callback(invoke_without_command=True)
def cache_show(context: typer.Context) -> None:
    """Show the cache's folder, its limit, and what is in it."""
    if context.invoked_subcommand is None:
        _show(_described())


@cache.command("clear", cls=Command)
def cache_clear() -> None:
    """Remove all that is in the cache. Later runs measure again."""
    from shrinkc.compiler.support.disk.cache import clear

    before = _described()
    clear()
    if as_json():
        print_json({"folder": before["folder"], "removed_bytes": before["bytes"]})
    else:
        wide_console().print(f"removed {_size(before['bytes'])}")


def _described() -> dict[str, Any]:
    from shrinkc.compiler.support.disk.cache import LIMIT_BYTES, PARTS, cache_folder, sizes

    folder, found = cache_folder(), sizes()
    return {
        "folder": None if folder is None else str(folder),
        "limit_bytes": LIMIT_BYTES,
        "bytes": sum(map(sum, found.values())),
        "parts": [
            {"name": name, "holds": holds, "files": len(found[name]), "bytes": sum(found[name])}
            for name, holds in PARTS.items()
        ],
    }


def _show(described: dict[str, Any]) -> None:
    if as_json():
        print_json(described)
        return
    console = wide_console()
    if described["folder"] is None:
        console.print("nothing is kept: its folder cannot be written, or that was asked for")
        return
    limit = f"{_size(described['bytes'])} of at most {_size(described['limit_bytes'])}"
    console.print(escape(f"{described['folder']}: {limit}"), soft_wrap=True)
    shown = Table()
    for header in ("part", "holds", "files", "size"):
        shown.add_column(header)
    for part in described["parts"]:
        shown.add_row(part["name"], part["holds"], f"{part['files']:,}", _size(part["bytes"]))
    console.print(shown)


def _size(count: int) -> str:
    return f"{count / 2**20:,.1f} MiB" if count >= 2**20 else f"{count / 2**10:,.1f} KiB"

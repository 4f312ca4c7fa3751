"""`shrinkc inspect`: channel groups, and why other channels stay; as JSON and for people."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from shrinkc.compiler.support.text import counted
from shrinkc.passes.analysis.channels.channel_groups import Groups

SHOWN = 40  # groups of a table; --json lists all


def describe_channels(groups: Groups) -> dict[str, Any]:
    """JSON: every group with the layers that make it and the nodes that read it, what stays."""
    return {
        "channel_groups": [
            {
                "name": group.name,
                "channels": group.size,
                "cells": int(group.cells.max()) + 1,
                "made_by": [value.node for value in group.made],
                "read_by": list(dict.fromkeys(value.node for value in group.read)),
            }
            for group in groups.groups
        ],
        "protected_channels": [
            {"layer": p.layer, "channels": p.channels, "node": p.node, "reason": p.reason}
            for p in groups.protected
        ],
    }


def print_channels(description: dict[str, Any], console: Console) -> None:
    """`describe_channels`, for people."""
    groups = description["channel_groups"]
    table = Table(title=f"channel groups: {len(groups)}", title_justify="left")
    for header in ("group", "channels", "made by", "read by"):
        table.add_column(header)
    for group in groups[:SHOWN]:
        table.add_row(
            *(escape(group["name"]), _channels(group)),
            *(escape(_some(group["made_by"])), escape(_some(group["read_by"]))),
        )
    console.print(table)
    if len(groups) > SHOWN:
        console.print(f"  … and {len(groups) - SHOWN} more; --json lists all")
    for (node, reason), (layers, channels) in _by_reason(description).items():
        console.print(
            f"{counted(channels, 'channel')} of {escape(_some(layers))} "
            f"{'stays' if channels == 1 else 'stay'}: {escape(reason)} ({escape(node)})"
        )


def _channels(group: dict[str, Any]) -> str:
    cells = group["cells"]
    return f"{group['channels']}" if cells == 1 else f"{group['channels']} in {cells} cells"


def _by_reason(description: dict[str, Any]) -> dict[tuple[str, str], tuple[list[str], int]]:
    found: dict[tuple[str, str], tuple[list[str], int]] = {}
    for entry in description["protected_channels"]:
        key = entry["node"], entry["reason"]
        layers, count = found.get(key, ([], 0))
        found[key] = [*layers, entry["layer"]], count + entry["channels"]
    return found


def _some(names: list[str], most: int = 3) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more

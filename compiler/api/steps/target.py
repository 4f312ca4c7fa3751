"""A target's name becomes the table that prices operators."""

from __future__ import annotations

from pathlib import Path

from platformdirs import user_cache_dir

from shrinkc.compiler.cost.predict import CostTable
from shrinkc.compiler.profile.host_table import HostTable
from shrinkc.compiler.support.checks import check_kind
from shrinkc.compiler.support.choices import HOST, is_host
from shrinkc.latency_tables.store import load_table


def cost_table(target: str, threads: int = 1) -> CostTable:
    """The table that prices operators. Raises TableError that lists the known targets."""
    check_kind("target", target, str, "the name of a latency table, or the path of its folder")
    if is_host(target):
        return HostTable(threads, Path(user_cache_dir("shrinkc", appauthor=False), HOST))
    return load_table(target, also=(HOST,))

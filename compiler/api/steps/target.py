"""A target's name becomes the table that prices operators."""

from __future__ import annotations

import os

from shrinkc.compiler.cost.predict import CostTable
from shrinkc.compiler.options import Options
from shrinkc.compiler.profile.host_table import HostTable
from shrinkc.compiler.support.checks import check_kind
from shrinkc.compiler.support.choices import HOST, Precision, is_host
from shrinkc.compiler.support.disk.cache import kept
from shrinkc.latency_tables.store import load_table

Target = str | os.PathLike[str]


def target_name(target: Target) -> str:
    """A name, or a folder's path, as text. Raises InputError for anything else."""
    wanted = "the name of a latency table, or the path of its folder"
    check_kind("target", target, (str, os.PathLike), wanted)
    return os.fspath(target)


def cost_table(target: Target, threads: int = 1) -> CostTable:
    """The table that prices operators. Raises TableError that lists the known targets."""
    target = target_name(target)
    if is_host(target):
        return HostTable(threads, kept(HOST))
    return load_table(target, also=(HOST,))


def options_of(
    target: Target, precision: Precision, opset: int, threads: int, runs: int
) -> Options:
    """Of functions that change a network. Raises InputError."""
    return Options(target_name(target), precision, opset=opset, threads=threads, runs=runs)

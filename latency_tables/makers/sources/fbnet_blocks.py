"""Inverted-residual blocks at CIFAR scale, timed on phones and boards by HW-NAS-Bench.

HW-NAS-Bench (Li 2021, the FBNet space) publishes latencies of networks that are sums of blocks. A
row of the table of blocks has its place in the network (`h_in`, `cin`, `cout`, `stride`), its shape
(`expansion`, `kernel`, `groups_1x1`) and `rel_to_skip_ms`: its time less that of what stands in
its place when it is skipped, which is nothing, or a 1×1 convolution where the shape changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from shrinkc.errors import TableError
from shrinkc.latency_tables.makers.fit import Sample
from shrinkc.latency_tables.makers.script import read_csv
from shrinkc.latency_tables.makers.sources.networks import OpList
from shrinkc.latency_tables.makers.sources.sequence import OpSequence


def read_blocks(path: Path, device: str) -> list[Sample]:
    """The device's blocks in float. Raises TableError: unreadable, or nothing of this device.

    Blocks with grouped 1×1 convolutions are left out: how they were built is not stated.
    """
    rows = [row for row in read_csv(path, "blocks") if row.get("device") == device]
    try:
        blocks = [_sample(row) for row in rows if row["op"] != "CONST" and row["groups_1x1"] == "1"]
    except (KeyError, ValueError) as error:
        raise TableError(f"{path}: not a list of blocks: {error!r}") from error
    if not blocks:
        raise TableError(f"{path}: no block of {device}")
    return sorted(blocks, key=lambda sample: sample.network)


def _sample(row: Mapping[str, str]) -> Sample:
    place = "-".join(row[name] for name in ("h_in", "cin", "cout"))
    ops, less = _block(row), _skip(row)
    measured_ms = float(row["rel_to_skip_ms"])
    return Sample(f"block-{place}-{row['op']}", place, "fp32", ops, measured_ms, less, 0.0)


def _block(row: Mapping[str, str]) -> OpList:
    """Expand, depthwise, project, and the residual sum where the shapes allow."""
    net = OpSequence("fp32", int(row["h_in"]), int(row["cin"]))
    net.conv(net.channels * int(row["expansion"]), activation="relu")
    net.depthwise(int(row["kernel"]), int(row["stride"]), "relu")
    net.conv(int(row["cout"]))
    if _keeps_shape(row):
        net.elementwise("add")
    return tuple(net.ops)


def _skip(row: Mapping[str, str]) -> OpList:
    if _keeps_shape(row):
        return ()
    net = OpSequence("fp32", int(row["h_in"]), int(row["cin"]))
    net.conv(int(row["cout"]), 1, int(row["stride"]), "relu")
    return tuple(net.ops)


def _keeps_shape(row: Mapping[str, str]) -> bool:
    return row["stride"] == "1" and row["cin"] == row["cout"]

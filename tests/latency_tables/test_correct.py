"""Corrections by whole networks: what they recover, what they state, their file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from shrinkc.errors import TableError
from shrinkc.latency_tables.correct import (
    ALL,
    Correction,
    Corrections,
    Run,
    corrections_text,
    fit,
    predict,
    read_corrections,
    validate,
)
from shrinkc.latency_tables.key import OpKey
from shrinkc.latency_tables.makers.sources.networks import (
    OpList,
    mobilenet_v1,
    mobilenet_v2,
    resnet50,
)

NETWORKS: dict[str, OpList] = {
    **{f"v1-{w}-{s}": mobilenet_v1(w, s, "fp32") for w in (0.5, 1.0) for s in (128, 224)},
    **{f"v2-{w}-{s}": mobilenet_v2(w, s, "fp32") for w in (0.5, 1.0, 1.4) for s in (160, 224)},
    "resnet50": resnet50(224, "fp32"),
}


def shipped_us(key: OpKey) -> float:
    return 5.0 + key.macs / 5e3


def board_us(key: OpKey) -> float:
    """The user's board: slower in depthwise convolutions, and at every operator."""
    slower = 2.5 if key.op == "depthwise_conv2d" else 1.3
    return slower * shipped_us(key) + 4.0


def run(name: str, noise: float = 0.0) -> Run:
    ops = NETWORKS[name]
    measured = 50.0 + sum(board_us(key) for key in ops)
    return Run(name, [(key, shipped_us(key)) for key in ops], 50.0, measured * (1 + noise))


def test_scales_by_class_are_recovered() -> None:
    runs = [run(name) for name in NETWORKS]
    found = fit(runs)
    assert 1.7 < found.by_class["depthwise_conv2d"].scale < 2.6
    assert found.by_class["pointwise_conv"].scale == pytest.approx(1.3, rel=0.05)
    for one in runs:
        assert predict(one, found) == pytest.approx(one.measured_us, rel=0.03)


def test_the_new_error_is_that_of_networks_left_out() -> None:
    generator = np.random.default_rng(0)
    runs = [run(name, float(generator.normal(0, 0.01))) for name in NETWORKS]
    rows = validate(runs, "fp32")
    assert [row.network for row in rows] == list(NETWORKS)
    assert all(row.held_out == "network" for row in rows)
    errors = [abs(row.relative_error) for row in rows if row.network != "resnet50"]
    assert 0.001 < np.mean(errors) < 0.05


def test_one_network_scales_everything_alike() -> None:
    found = fit([run("v2-1.0-224")])
    scales = [c.scale for c in found.by_class.values()]
    assert max(scales) / min(scales) < 2
    assert found.apply(OpKey("never_seen", 8, 8), 100.0) == found.by_class[ALL].scale * 100.0


def test_no_network_is_an_error() -> None:
    with pytest.raises(TableError, match="at least one measured network"):
        fit([])


def test_the_file_reads_back_and_refuses_damage(tmp_path: Path) -> None:
    given = {"fp32": Corrections({"dense_conv": Correction(1.5, 2.0), ALL: Correction(1.25, 0.0)})}
    path = tmp_path / "corrections.csv"
    path.write_text(corrections_text(given))
    assert read_corrections(path) == given
    for old, new, message in (
        ("1.5", "-1.5", "line 2: scale is -1.5"),
        ("all", "dense_conv", "is already in line 2"),
        ("all", "other", "no row 'all'"),
        ("offset_us", "offset_ms", "unknown column 'offset_ms'"),
    ):
        path.write_text(corrections_text(given).replace(old, new, 1))
        with pytest.raises(TableError, match=message):
            read_corrections(path)

"""`bench`, `compare`, `profile`, `calibrate`, `load`, `save`, `inspect`: arguments that do not
fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from untouched import small

import shrinkc
from shrinkc import ShrinkcError

MODEL, X = small(8), torch.zeros(1, 3, 16, 16)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: shrinkc.bench(), "`files` are 0; give one or two"),
        (lambda: shrinkc.bench(["a.onnx"]), "`files` is a list"),  # pyright: ignore
        (lambda: shrinkc.bench("a.onnx", runs=0), "`runs` 0"),
        (lambda: shrinkc.bench("a.onnx", threads=0), "`threads` 0"),
        (lambda: shrinkc.bench("a.onnx", timeout_s=-1), "`timeout_s` -1"),
        (lambda: shrinkc.bench("a.onnx", timeout_s="a"), "`timeout_s` 'a'"),  # pyright: ignore
        (lambda: shrinkc.bench("a.onnx", on=3), "`on` is a int"),  # pyright: ignore
        (lambda: shrinkc.bench("a.onnx", on="hots"), "no device 'hots'"),
        (lambda: shrinkc.compare("a", "b", runs=-1), "`runs` -1"),
        (lambda: shrinkc.compare("a", "b", threads=0), "`threads` 0"),
        (lambda: shrinkc.compare(MODEL, "b"), "`first` is a Sequential"),  # pyright: ignore
        (lambda: shrinkc.profile(target="a", on="host", widths=0), "`widths` 0"),
        (lambda: shrinkc.profile(target="a", on="host", threads=0), "`threads` 0"),
        (lambda: shrinkc.profile(target="a", on="host", budget_minutes=-1), "`budget_minutes` -1"),
        (lambda: shrinkc.profile(target="a", on=3), "`on` is a int"),  # pyright: ignore
        (lambda: shrinkc.profile(target=None, on="host"), "no `target`"),  # pyright: ignore
        (lambda: shrinkc.calibrate("rpi4", on="host", threads=-1), "`threads` -1"),
        (lambda: shrinkc.inspect(MODEL, X, precision="int4"), "`precision` int4"),  # pyright: ignore
        (lambda: shrinkc.estimate(MODEL, X, target=None), "`target` is a N"),  # pyright: ignore
        (lambda: shrinkc.estimate(MODEL, X, target="rpi4", threads=0), "`threads` 0"),
        (lambda: shrinkc.load(MODEL), "`path` is a Sequential"),  # pyright: ignore
        (lambda: shrinkc.save(MODEL, None, X), "`path` is a NoneType"),  # pyright: ignore
        (lambda: shrinkc.save(MODEL, "/proc/none/net.safetensors", X), "cannot be made there"),
        (lambda: shrinkc.ImageFolder(3), "`path` is a int"),  # pyright: ignore
        (lambda: shrinkc.ImageFolder("a", mean="abc"), "`mean` is a str"),  # pyright: ignore
        (lambda: shrinkc.ImageFolder("a", limit=0), "`limit` 0"),
    ],
)
def test_one_line_that_names_the_parameter(call: Any, message: str) -> None:
    with pytest.raises(ShrinkcError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_a_network_goes_into_a_file_and_back(tmp_path: Path) -> None:
    path = shrinkc.save(MODEL, str(tmp_path / "net.safetensors"), X)
    loaded = shrinkc.load(path)
    assert not loaded.training
    graph = shrinkc.capture(MODEL, X)
    assert MODEL.training
    assert not any(part.training for part in graph.modules())
    assert torch.equal(loaded(X)[0], graph(X)[0])

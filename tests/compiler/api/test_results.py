"""What the functions return: one line each, copied and pickled like any module."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from untouched import small

import shrinkc
from shrinkc import Goal

X = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
IMAGES = torch.randn(12, 3, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    model, out = small(), tmp_path_factory.mktemp("out")
    compiled = shrinkc.compile(model, X, target="rpi4", runs=0)
    compiled.save(out)
    inspected = shrinkc.inspect(model, X, target="rpi4")
    return {
        "compiled": compiled,
        "module": compiled.module,
        "report": compiled.report,
        "int8": shrinkc.compile(model, X, target="rpi4", runs=0, precision="int8", images=IMAGES),
        "pruned": shrinkc.prune(model, X, goal=Goal.macs(0.5)),
        "with files": shrinkc.prune(model, X, goal=Goal.macs(0.5), target="rpi4", runs=0),
        "estimate": shrinkc.estimate(model, X, target="rpi4"),
        "inspected": inspected,
        "groups": inspected.groups,
        "sensitivity": shrinkc.sensitivity(model, X, images=IMAGES[:4]),
        "bench": shrinkc.bench(out / "model.onnx", str(out / "model.tflite"), runs=1),
        "compared": shrinkc.compare(out, str(out), runs=0),
        "table": shrinkc.load_table("rpi4"),
        "goal": Goal.speedup(2),
        "folder": shrinkc.ImageFolder("images"),
        "file": shrinkc.ModelFile("net.pt"),
        "recipe": shrinkc.Recipe(),
    }


def test_every_result_shows_itself_in_one_line(results: dict[str, Any]) -> None:
    for name, result in results.items():
        assert "\n" not in repr(result), name
        assert len(repr(result)) < 250, name


def same(copied: Any, result: Any) -> None:
    assert torch.equal(copied(X), result(X))
    assert repr(copied) == repr(result)


@pytest.mark.parametrize("name", ["compiled", "int8", "pruned", "with files"])
def test_a_result_is_copied_and_pickled(results: dict[str, Any], name: str, tmp_path: Path) -> None:
    result = results[name]
    same(copy.deepcopy(result), result)
    torch.save(result, tmp_path / "result.pt")
    again = torch.load(tmp_path / "result.pt", weights_only=False)
    same(again, result)
    if name == "with files":
        assert again.files == result.files
        assert torch.equal(again.compiled(X), result.compiled(X))


def test_the_names_are_shown() -> None:
    assert set(shrinkc.__all__) <= set(dir(shrinkc))
    assert all(getattr(shrinkc, name) is not None for name in shrinkc.__all__)
    assert "rpi4" in shrinkc.tables()

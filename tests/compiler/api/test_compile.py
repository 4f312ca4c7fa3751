"""`shrinkc.compile`: what it gives, what it leaves alone, and what it refuses in one line."""

from __future__ import annotations

import copy
import threading
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, fx, nn
from untouched import small, untouched

import shrinkc
from shrinkc import ShrinkcError
from shrinkc.compiler.api.steps.results import Compiled
from shrinkc.compiler.formats.onnx import ONNX
from shrinkc.passes.base import PassResult

X = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
IMAGES = torch.randn(12, 3, 16, 16, generator=torch.Generator().manual_seed(1))
LABELS = torch.arange(12) % 5


def compiled(model: Any, inputs: Any = X, **options: Any) -> Compiled:
    return shrinkc.compile(model, inputs, **{"target": "rpi4", "runs": 0, **options})


def evaluated(model: nn.Module) -> nn.Module:
    return copy.deepcopy(model).float().eval()


class Around(nn.Module):
    """`change` before and `answer` behind the small network."""

    def __init__(self, change: Any = None, answer: Any = None) -> None:
        super().__init__()
        self.body, self.change, self.answer = small(8), change, answer

    def forward(self, x: Tensor) -> Any:
        y = self.body(x if self.change is None else self.change(x))
        return y if self.answer is None else self.answer(y)


@pytest.mark.parametrize("count", [1, 3])
def test_the_file_computes_what_the_module_computes(count: int) -> None:
    model = small().train()
    with untouched(model):
        found = compiled(model)
    torch.testing.assert_close(found(IMAGES[:count]), evaluated(model)(IMAGES[:count]))
    torch.testing.assert_close(found.module(IMAGES[:count]), evaluated(model)(IMAGES[:count]))
    assert not any(part.training for part in found.module.modules())
    names = ["model.onnx", "model.tflite", "model.safetensors", "report.html", "report.json"]
    assert list(found.files) == [*names, "use_model.py"]
    assert all(found.files.values())


def test_all_files_are_saved(tmp_path: Path) -> None:
    found = compiled(small())
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("kept")
    for out in (str(tmp_path / "out"), tmp_path / "out"):
        assert found.save(out) == tmp_path / "out"
    written = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert written == {**found.files, "mine.txt": b"kept"}


@pytest.mark.parametrize("out", ["/proc/none/out", "", None, 3])
def test_a_folder_that_cannot_be_written(out: Any) -> None:
    with pytest.raises(ShrinkcError) as caught:
        compiled(small(8)).save(out)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ((), "read N×3×16×16|reads N×3×16×16"),
        ((X, X), "reads N×3×16×16"),
        ((X[0],), "reads N×3×16×16"),
        ((X[:0],), "N of 1 or more"),
        ((X[..., :8],), "reads N×3×16×16"),
        ((X.numpy(),), "`inputs` is a ndarray"),
        (((X,),), "`inputs` is a tuple"),
        ((X.to(torch.uint8),), "`inputs` holds uint8"),
        ((X.to("meta"),), "`inputs` holds no numbers"),
    ],
)
def test_what_the_file_does_not_read(inputs: Any, message: str) -> None:
    with pytest.raises(ShrinkcError, match=message):
        compiled(small(8))(*inputs)


def test_two_inputs_have_one_batch() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(1, 4, 3)

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return self.first(x).relu() + self.second(y)

    model, other = Two(), X[:, :1]
    found = compiled(model, (X, other))
    torch.testing.assert_close(found(X, other), model(X, other))
    with pytest.raises(ShrinkcError, match="`inputs` do not fit"):
        found(IMAGES[:3], other)
    with pytest.raises(ShrinkcError, match="the network has 2 inputs; give tuples of 2 tensors"):
        compiled(model, (X, other), images=[IMAGES])
    with pytest.raises(ShrinkcError, match="the network reads n×3×16×16 and n×1×16×16"):
        compiled(model, (X, other), images=IMAGES)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_a_model_of_another_precision(dtype: torch.dtype) -> None:
    model = small(8).to(dtype)
    with untouched(model):
        found = compiled(model, X.to(dtype))
    torch.testing.assert_close(found(X.to(dtype)), evaluated(model)(X))


def test_hooks_frozen_weights_and_gradients() -> None:
    model = small(8)
    model[0].register_forward_hook(lambda module, inputs, output: output * 3)
    model[4].requires_grad_(False)
    model(IMAGES).sum().backward()
    with untouched(model):
        found = compiled(model, X.clone().requires_grad_())
    torch.testing.assert_close(found(X), evaluated(model)(X))


def test_what_is_around_a_network_is_taken_off() -> None:
    for around in (nn.DataParallel(small(8)), torch.compile(small(8), backend="eager")):
        found = compiled(around)
        assert found.report.model == "Sequential"
        assert "model.tflite" in found.files
        torch.testing.assert_close(found(X), evaluated(small(8))(X))


def test_a_network_that_changes_what_it_reads() -> None:
    """Without a copy the doubled input is compared with itself, and the doubling is lost."""

    def doubled(x: Tensor) -> Tensor:
        x.mul_(2)
        return x

    model, given = Around(doubled), X.clone()
    found = compiled(model, given)
    assert torch.equal(given, X)
    torch.testing.assert_close(found(X), evaluated(model)(X.clone()))


def test_a_result_of_int8() -> None:
    found = compiled(small(8), precision="int8", images=(IMAGES, LABELS))
    assert (found.report.images, found.report.calibration_images) == (6, 6)
    assert found(IMAGES).shape == (12, 5)
    assert repr(found).startswith("Compiled(Sequential for rpi4 in int8")


def with_nan() -> nn.Module:
    model = small(8)
    with torch.no_grad():
        model[0].weight[0] = torch.nan
    return model


def with_lock() -> nn.Module:
    model = small(8)
    model.lock = threading.Lock()  # pyright: ignore
    return model


@pytest.mark.parametrize(
    ("model", "inputs", "message"),
    [
        (nn.Sequential(nn.LazyConv2d(4, 3)), X, "`model` has lazy layers"),
        (with_nan(), X, "`model` has weights that are NaN"),
        (with_lock(), X, "`model` cannot be copied: TypeError"),
        (Around(answer=lambda y: None), X, "returns no tensor but a NoneType; give a `model`"),
        (Around(answer=lambda y: {}), X, "returns no tensor but a dict"),
        (Around(answer=lambda y: y.mean()), X, "returns a single number"),
        (small(8), X.where(X < 1, torch.nan), "`inputs` holds NaN"),
        (small(8), X.to("meta"), "`inputs` holds a sparse tensor, or one on device meta"),
        (small(8), (1, 3, 1 << 20, 1 << 20), "`inputs` .* more than 268,435,456 numbers"),
    ],
)
def test_models_and_inputs_that_cannot_be_compiled(model: Any, inputs: Any, message: str) -> None:
    with pytest.raises(ShrinkcError, match=message) as caught:
        compiled(model, inputs)
    assert "\n" not in str(caught.value)


def test_autocast_would_compare_other_numbers() -> None:
    with torch.autocast("cpu"), pytest.raises(ShrinkcError, match="autocast"):
        compiled(small(8))


class Lossy:
    name: ClassVar[str] = "lossy"
    exact: ClassVar[bool] = False

    def __call__(self, graph_module: fx.GraphModule) -> PassResult:
        return PassResult(graph_module)


class Nothing(Lossy):
    exact: ClassVar[bool] = True

    def __call__(self, graph_module: fx.GraphModule) -> PassResult:
        return None  # pyright: ignore


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": None}, "`target` is a NoneType"),
        ({"target": "rpi-4"}, "did you mean rpi4"),
        ({"precision": "int4"}, "`precision` int4: choose fp32, int8"),
        ({"precision": "int8"}, "`precision` int8 needs images"),
        ({"merge": "ever"}, "`merge` ever"),
        ({"int8_tuning": "x"}, "`int8_tuning` x"),
        ({"keep_fp32": "conv"}, "`keep_fp32` is a str; give a list"),
        ({"min_snr_db": "30", "precision": "int8", "images": IMAGES}, "`min_snr_db` 30"),
        ({"threads": 0}, "`threads` 0"),
        ({"runs": -1}, "`runs` -1"),
        ({"runs": 2.5}, "`runs` 2.5"),
        ({"opset": 7}, "`opset` 7"),
        ({"formats": ()}, "`formats`: give one or more"),
        ({"formats": "onnx"}, "`formats` is a str"),
        ({"formats": ("onnx",)}, "`formats` holds a str"),
        ({"formats": (ONNX, ONNX)}, "`formats`: give one or more, each with a name of its own"),
        ({"passes": ("fold",)}, "`passes` holds a str"),
        ({"passes": (Lossy,)}, "`passes` holds a type"),
        ({"passes": (Lossy(),)}, "`passes`: 'lossy' is lossy"),
        ({"passes": (Nothing(),)}, "'lossy' of `passes` returns no PassResult: NoneType"),
        ({"task": "classification"}, "`task` is a str"),
        ({"name": 3}, "`name` is a int"),
        ({"progress": "yes"}, "`progress` is a str"),
        ({"images": ""}, "`images` is empty"),
        ({"calibration": "none", "precision": "int8"}, "check `calibration`"),
        ({"images": (IMAGES, LABELS + 5)}, "`images` has the label 9; the network tells 5"),
    ],
)
def test_options_that_do_not_fit_name_the_parameter(options: Any, message: str) -> None:
    model = small(8)
    with untouched(model), pytest.raises(ShrinkcError, match=message) as caught:
        compiled(model, **options)
    assert "\n" not in str(caught.value)


def test_a_number_beside_tensors_is_in_the_files() -> None:
    model = Around(answer=lambda y: {"out": y, "loss": y.mean()})
    found, want = compiled(model)(X), evaluated(model)(X)
    torch.testing.assert_close(found["loss"], want["loss"])


def test_an_output_without_a_batch_is_compared_whole() -> None:
    anchors = torch.randn(7, 4)
    made = compiled(Around(answer=lambda y: (y, anchors)))
    assert torch.equal(made(X)[1], anchors)
    with pytest.raises(ShrinkcError, match="runs at batch 1 only"):
        made(torch.cat((X, X)))


def test_a_stop_passes_through() -> None:
    def stop(x: Tensor) -> Tensor:
        raise KeyboardInterrupt

    model = Around(stop)
    with untouched(model), pytest.raises(KeyboardInterrupt):
        compiled(model)


def test_what_no_file_holds_and_a_fixed_batch_are_noted() -> None:
    def one_or_two(x: Tensor) -> Tensor:
        if len(x) > 2:
            raise ValueError("at most two images")
        return x

    (note,) = compiled(Around(one_or_two)).report.notes
    assert note.startswith("the files take batches of 1 only: the model does not run")
    (note,) = compiled(Around(answer=lambda y: {"boxes": y, "name": "net"})).report.notes
    assert "'name'" in note
    assert note.endswith("which no file holds")

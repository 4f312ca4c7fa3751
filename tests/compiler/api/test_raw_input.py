"""Files that read raw RGB equal the model on normalised images, at every pixel of the border."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from noise_images import noise_images
from PIL import Image
from torch import Tensor, nn

import shrinkc
from shrinkc.compiler.cli.main import main
from shrinkc.compiler.images.preprocessing import Normalisation, preprocessing_for, read_image
from shrinkc.compiler.pipeline.run import run_exact_passes
from shrinkc.compiler.verify import raw_input
from shrinkc.errors import InputError, VerificationError
from shrinkc.passes.fold import fold_normalisation
from shrinkc.passes.fold.fold_normalisation import FoldNormalisation

SIZE = 16


class Same(nn.Module):
    """Pads as TensorFlow does, on one side more."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x)


class Twice(nn.Module):
    """Two convolutions read the image, one as it is."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 5, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.a(x) + self.b(x)


NETWORKS = {
    "no padding": lambda: nn.Sequential(nn.Conv2d(3, 5, 3, bias=False), nn.ReLU()),
    "padding": lambda: nn.Sequential(nn.Conv2d(3, 5, 3, padding=(2, 1), stride=2)),
    "padding on one side": Same,
    "depthwise": lambda: nn.Sequential(nn.Conv2d(3, 6, 3, padding=1, groups=3)),
    "a shortcut": Residual,
    "two readers": Twice,
    "a pooling": lambda: nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(3, 4, 1)),
}
WAYS: dict[str, dict[str, Any]] = {
    "ImageNet's": {},
    "halves": {"mean": (0.5,) * 3, "std": (0.5, 0.25, 0.125)},
    "BGR of 0 to 255": {"mean": (104.0, 117.0, 123.0), "scale": 255, "bgr": True},
    "to 1": {"mean": (0.0,), "std": (1.0,)},
}
FOLDED = {  # where no layer is needed in front
    *(("no padding", way) for way in WAYS),
    *(
        (name, way)
        for name in ("padding", "padding on one side", "two readers", "a shortcut")
        for way in ("halves", "to 1")
    ),
}  # what is merged is folded as one convolution: a shortcut


def images(folder: Path) -> Path:
    return noise_images(folder / "images")


def compiled(model: nn.Module, folder: Path, way: dict[str, Any], **changed: Any) -> Any:
    found = shrinkc.ImageFolder(images(folder), labelled=False, **way)
    asked = {"target": "rpi4", "runs": 0, "images": found, "fold_normalisation": True, **changed}
    return shrinkc.compile(model.eval(), (1, 3, SIZE, SIZE), **asked)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", NETWORKS)
def test_files_of_raw_images_equal_the_model(name: str, way: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = NETWORKS[name]().eval()
    found = compiled(model, tmp_path, WAYS[way])
    chosen = preprocessing_for((1, 3, SIZE, SIZE), **WAYS[way])
    for file in sorted((tmp_path / "images").rglob("*.png"))[:4]:
        with torch.no_grad():
            want = model(read_image(file.read_bytes(), file.name, chosen)[None]).numpy()
        raw = np.asarray(Image.open(file)).astype(np.float32).transpose(2, 0, 1)[None]
        for artefact in (found.artefact, *_others(found)):
            (got,) = artefact.run((torch.tensor(raw),))
            assert np.abs(got - want).max() <= 2e-5 * np.abs(want).max()
    names = {node.name for node in found.module.graph_module.graph.nodes}
    assert ("normalise" not in names) == ((name, way) in FOLDED)
    (said,) = [note for note in found.report.notes if "raw RGB" in note]
    assert ("the layer 'normalise' in front" in said) == ("normalise" in names)
    assert found.report.preprocessing["mean"] == [0.0]
    assert found.report.preprocessing["scale"] == 255
    assert found.report.preprocessing["bgr"] is False
    assert found.report.max_relative_error < 5e-5


def _others(found: Any) -> list[Any]:
    """The ONNX file, loaded."""
    from shrinkc.compiler.formats.onnx import ONNX
    from shrinkc.compiler.verify.files import artefact

    return [artefact(ONNX, found.files["model.onnx"], found.artefact.program)]


def test_padding_has_the_raw_value_of_zero(tmp_path: Path) -> None:
    found = compiled(NETWORKS["padding"](), tmp_path, WAYS["halves"])
    nodes = found.module.graph_module.graph.nodes
    (pad,) = [node for node in nodes if node.target is F.pad]
    assert pad.args[3] == pytest.approx(127.5)
    assert "which is padded with 127.5" in " ".join(found.report.notes)
    assert [
        c.detail for s in found.report.steps for c in s.changes if s.name == "fold-normalisation"
    ]


def test_int8_reads_bytes_as_they_are(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 3)).eval()
    found = compiled(model, tmp_path, {}, precision="int8", io="uint8")
    for one in found.report.artefacts:
        (port,) = one.inputs
        assert (port.dtype, port.scale, port.zero_point) == ("uint8", pytest.approx(1), 0)
        assert min(signal.snr_db for signal in one.signal) > 25
    file = next((tmp_path / "images").rglob("*.png"))
    pixels = np.asarray(Image.open(file))[None]
    chosen = preprocessing_for((1, 3, SIZE, SIZE))
    with torch.no_grad():
        want = model(read_image(file.read_bytes(), file.name, chosen)[None]).numpy()
    for form, data in (("model.tflite", pixels), ("model.onnx", pixels.transpose(0, 3, 1, 2))):
        one = next(x for x in found.report.artefacts if x.file == form)
        runner = _runner(found.files[form], form)
        (got,) = runner.run([np.ascontiguousarray(data)])
        got = one.outputs[0].floats(got)
        got = got.transpose(0, 3, 1, 2) if form == "model.tflite" else got
        assert ((got - want) ** 2).mean() < 3e-3 * (want**2).mean()


def _runner(data: bytes, file: str) -> Any:
    from shrinkc.compiler.formats.registry import FORMATS

    return next(one for one in FORMATS if one.file == file).open_to_judge(data, False)


# --- planted bugs ---------------------------------------------------------------------------------


def test_mean_and_std_swapped_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def swapped(graph: Any, normalisation: Normalisation) -> Any:
        given = normalisation.given
        return made(graph, Normalisation(replace(given, mean=given.std, std=given.mean)))

    made = raw_input._with_layer  # pyright: ignore[reportPrivateUsage]
    monkeypatch.setattr(raw_input, "_with_layer", swapped)
    with pytest.raises(VerificationError, match="differs from the model"):
        compiled(NETWORKS["no padding"](), tmp_path, {})


def test_zeros_around_a_raw_image_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fold_normalisation, "_pad", lambda *_: None)
    with pytest.raises(VerificationError, match="fold-normalisation"):
        compiled(NETWORKS["padding"](), tmp_path, WAYS["halves"])


def test_channels_left_in_order_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = raw_input._with_layer  # pyright: ignore[reportPrivateUsage]
    monkeypatch.setattr(
        raw_input,
        "_with_layer",
        lambda graph, n: made(graph, Normalisation(replace(n.given, bgr=False))),
    )
    with pytest.raises(VerificationError, match="differs from the model"):
        compiled(NETWORKS["no padding"](), tmp_path, WAYS["BGR of 0 to 255"])


# --- the pass -------------------------------------------------------------------------------------


def test_weights_that_are_used_twice_stay(tmp_path: Path) -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(self.conv(x))

    found = compiled(Shared(), tmp_path, {"mean": (0.5,), "std": (0.5,)})
    assert "the weights of 'conv' are used again" in " ".join(found.report.notes)


def test_a_layer_that_is_not_there_is_said() -> None:
    graph = shrinkc.capture(NETWORKS["no padding"]().eval(), torch.randn(1, 3, 8, 8))
    _, (step,) = run_exact_passes(graph, (FoldNormalisation("normalise"),))
    assert [(skip.node, skip.reason) for skip in step.skipped] == [
        ("normalise", "there is no such node")
    ]


# --- refusals -------------------------------------------------------------------------------------


def test_it_must_be_known_how_images_are_normalised() -> None:
    with pytest.raises(InputError, match="`fold_normalisation`: how images are normalised"):
        shrinkc.compile(
            NETWORKS["padding"]().eval(),
            (1, 3, SIZE, SIZE),
            target="rpi4",
            images=torch.randn(4, 3, SIZE, SIZE),
            fold_normalisation=True,
            runs=0,
        )


def test_the_command_line_takes_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, net = images(tmp_path), tmp_path / "net.pt"
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(784, 4))
    torch.save(model, net)
    common = [str(net), "--target", "rpi4", "--input", "1,3,16,16", "--runs", "0"]
    asked = [*common, "--fold-normalisation", "-o", str(tmp_path / "out")]
    assert main([*asked, "--images", str(folder), "--mean", "0.5", "--std", "0.5"]) == 0
    report = json.loads((tmp_path / "out/report.json").read_text("utf-8"))
    assert report["preprocessing"]["scale"] == 255
    assert onnx.load(tmp_path / "out/model.onnx").graph.node[0].op_type == "Conv"
    assert main(asked) == 2
    assert main([*asked, "--images", str(folder), "--speedup", "1.1"]) == 2
    errors = capsys.readouterr().err
    assert "--fold-normalisation: how images are normalised is not known; give --images" in errors
    assert "--fold-normalisation is for compiling without a goal" in errors

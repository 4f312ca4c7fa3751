"""int8 files that read and return integers: the same numbers as with floats, by their own grids."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from ai_edge_litert.interpreter import Interpreter
from noise_images import noise_images
from torch import Tensor, nn

import shrinkc
from shrinkc.compiler.cli.main import main
from shrinkc.compiler.formats.base import Format
from shrinkc.compiler.formats.boundary import Boundary, Port
from shrinkc.compiler.formats.onnx import ONNX, OnnxFormat
from shrinkc.compiler.formats.registry import FORMATS
from shrinkc.compiler.formats.tflite import TFLITE, TfliteFormat
from shrinkc.compiler.quantise.rounding import Grid
from shrinkc.compiler.support.choices import Io
from shrinkc.errors import InputError, VerificationError

IMAGES = torch.randn(64, 3, 16, 16, generator=torch.Generator().manual_seed(0))


class Heads(nn.Module):
    """A map, scores from it, probabilities, classes, and an output that is returned twice."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU())
        self.maps, self.head = nn.Conv2d(8, 4, 1), nn.Linear(4, 5)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        maps = self.maps(self.stem(image))
        scores = self.head(maps.mean((2, 3)))
        found = {"maps": maps, "scores": scores, "again": scores, "classes": maps.argmax(1)}
        return {**found, "shares": scores.softmax(1)}


def compiled(io: Io, keep_fp32: tuple[str, ...] = (), **changed: Any) -> Any:
    return shrinkc.compile(
        *(Heads().eval(), IMAGES[:1]),
        target="rpi4",
        images=IMAGES,
        precision="int8",
        io=io,
        keep_fp32=keep_fp32,
        int8_tuning="none",
        runs=0,
        **changed,
    )


KEPT = {"nothing": (), "the first layer": ("stem_0",), "the last": ("scores", "maps")}


@pytest.mark.parametrize("io", ["int8", "uint8"])
@pytest.mark.parametrize("kept", KEPT)
def test_integers_stand_for_what_the_file_with_floats_says(kept: str, io: Io) -> None:
    floats, integers = (compiled(one, KEPT[kept]) for one in ("float32", io))
    for one, before in zip(integers.report.artefacts, floats.report.artefacts, strict=True):
        ports = (*one.inputs, *one.outputs)
        assert {port.dtype for port in ports if port.name != "classes"} == {io}
        assert [port.name for port in ports] == [
            port.name for port in (*before.inputs, *before.outputs)
        ]
        assert all(port.scale is None for port in ports if port.name == "classes")
    for form in FORMATS:
        here, there = (
            next(x for x in made.report.artefacts if x.name == form.name)
            for made in (integers, floats)
        )
        boundary = form.boundary(integers.files[form.file])
        assert boundary == Boundary(here.inputs, here.outputs)
        runners = [form.open_to_judge(made.files[form.file], False) for made in (integers, floats)]
        for image in IMAGES[:8]:
            x = image[None].numpy()
            x = x.transpose(0, 2, 3, 1) if form is TFLITE else x
            got = runners[0].run(boundary.stored([x]))
            wanted = runners[1].run([np.ascontiguousarray(x)])
            for y, port, want in zip(got, boundary.outputs, wanted, strict=True):
                assert y.dtype == np.dtype(port.dtype)
                if port.scale is None:
                    assert (y == want).mean() > 0.98  # ties
                    continue
                difference = port.floats(y) - np.clip(want, *limits(port))
                if kept == "the first layer":  # reads levels now, no floats
                    assert (difference**2).mean() < 3e-3 * (want**2).mean()
                else:  # an output that was in fp32 is rounded now
                    assert np.abs(difference).max() <= port.scale * 1.001
        assert there.signal[0].snr_db - here.signal[0].snr_db < 3


def limits(port: Port) -> list[float]:
    """What it can stand for."""
    kind: Any = np.iinfo(port.dtype)
    return port.floats(np.array([kind.min, kind.max])).tolist()


@pytest.mark.parametrize("io", ["int8", "uint8"])
def test_only_what_must_be_converted_is(io: Io) -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3)).eval()
    found = shrinkc.compile(
        *(model, IMAGES[:1]), target="rpi4", images=IMAGES, precision="int8", io=io, runs=0
    )
    kinds: Any = Interpreter(model_content=found.files["model.tflite"])._get_ops_details()
    operators = [op["op_name"] for op in kinds if op["op_name"] != "DELEGATE"]
    between = ["QUANTIZE"] if io == "uint8" else []
    assert operators == [*between, "CONV_2D", "CONV_2D", *between]
    nodes = onnx.load_model_from_string(found.files["model.onnx"]).graph.node
    conversions = [node.op_type for node in nodes if node.op_type == "QuantizeLinear"]
    assert len(conversions) == (2 if io == "int8" else 4)


def test_uint8_is_int8_moved_by_128() -> None:
    signed, unsigned = (compiled(io) for io in ("int8", "uint8"))
    for form in FORMATS:
        here, there = (form.boundary(made.files[form.file]) for made in (signed, unsigned))
        runners = [form.open_to_judge(made.files[form.file], False) for made in (signed, unsigned)]
        shape = [n if isinstance(n, int) else 1 for n in here.inputs[0].shape]
        x = np.random.default_rng(0).integers(-128, 128, shape).astype(np.int8)
        for a, b, port in zip(
            runners[0].run([x]),
            runners[1].run([(x.astype(np.int16) + 128).astype(np.uint8)]),
            here.outputs,
            strict=True,
        ):
            shift = 0 if port.scale is None else 128
            np.testing.assert_array_equal(a.astype(np.int64) + shift, b.astype(np.int64))
        for one, other in zip(here.outputs, there.outputs, strict=True):
            assert (one.scale, one.zero_point) == (
                (None, None)
                if other.scale is None
                else (pytest.approx(other.scale), (other.zero_point or 0) - 128)
            )


def test_the_report_and_the_runtimes_say_the_same(tmp_path: Path) -> None:
    made = compiled("uint8")
    made.save(tmp_path)
    report = json.loads((tmp_path / "report.json").read_text("utf-8"))
    told = {one["name"]: one for one in report["artefacts"]}
    interpreter: Any = Interpreter(model_path=str(tmp_path / "model.tflite"))
    for said, detail in zip(
        (*told["tflite"]["inputs"], *told["tflite"]["outputs"]),
        (*interpreter.get_input_details(), *interpreter.get_output_details()),
        strict=True,
    ):
        scale, zero = detail["quantization"]
        assert (said["name"], said["dtype"]) == (detail["name"], detail["dtype"].__name__)
        assert (said["scale"] or 0, said["zero_point"] or 0) == (scale, zero)
        assert said["shape"] == detail["shape"].tolist()
    session: Any = ort.InferenceSession(made.files["model.onnx"])
    assert [x.type for x in session.get_inputs()] == ["tensor(uint8)"]
    assert told["onnx"]["inputs"][0]["shape"] == ["batch", 3, 16, 16]


def test_the_result_is_called_with_floats() -> None:
    x = IMAGES[:3]
    got, want = compiled("uint8")(x), Heads().eval()(x)
    assert got["scores"].dtype == torch.float32
    torch.testing.assert_close(got["scores"], want["scores"], atol=0.05, rtol=0)


# --- planted bugs ---------------------------------------------------------------------------------


def off(grid: Grid) -> Grid:
    return replace(grid, zero=grid.zero + 24)


class WrongInput(TfliteFormat):
    """Says a zero point that is not the file's."""

    def boundary(self, data: bytes) -> Boundary:
        found = super().boundary(data)
        return replace(found, inputs=tuple(map(self.moved, found.inputs)))

    @staticmethod
    def moved(port: Port) -> Port:
        zero = port.zero_point
        return port if zero is None else replace(port, zero_point=zero + 48)


class WrongOutput(OnnxFormat):
    """Writes a zero point that is not the network's."""

    def with_io(self, data: bytes, io: Io, grids: Mapping[str, Grid]) -> bytes:
        return super().with_io(data, io, {name: Grid(3 * g.scale, 90) for name, g in grids.items()})


@pytest.mark.parametrize(
    ("form", "keep_fp32"), [(WrongInput(), ()), (WrongOutput(), ("maps", "scores"))]
)
def test_a_wrong_zero_point_is_found(form: Format, keep_fp32: tuple[str, ...]) -> None:
    with pytest.raises(VerificationError, match=r"with `io` int8 keeps .* dB of output"):
        compiled("int8", keep_fp32, formats=(form,))


# --- refusals -------------------------------------------------------------------------------------


def test_fp32_files_have_floats() -> None:
    with pytest.raises(InputError, match="`io` int8 is for int8 files; give `precision` int8 too"):
        shrinkc.compile(Heads(), IMAGES[:1], target="rpi4", io="int8", runs=0)
    with pytest.raises(InputError, match="`io` int4: choose float32, int8, uint8"):
        shrinkc.compile(Heads(), IMAGES[:1], target="rpi4", io="int4", runs=0)  # pyright: ignore


def test_a_format_without_it_says_so() -> None:
    class Floats(TfliteFormat):
        with_io = Format.with_io

    with pytest.raises(InputError, match=r"`io` uint8: model\.tflite reads and returns floats"):
        compiled("uint8", formats=(Floats(),))


def test_the_command_line_takes_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    images = noise_images(tmp_path / "images")
    torch.save(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(784, 4)), "net.pt")
    common = ["net.pt", "--target", "rpi4", "--input", "1,3,16,16", "--images", str(images)]
    asked = [*common, "--runs", "0", "--io", "uint8", "-o", "out"]
    assert main([*asked, "--precision", "int8"]) == 0
    assert ONNX.boundary(Path("out/model.onnx").read_bytes()).inputs[0].dtype == "uint8"
    assert main([*asked, "--speedup", "1.1"]) == 2
    assert main(asked) == 2
    errors = capsys.readouterr().err
    assert "--io is for compiling without a goal" in errors
    assert "--io uint8 is for int8 files; give --precision int8 too" in errors

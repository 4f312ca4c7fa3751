"""int8 files of networks that were garbage in int8, or that no quantiser takes: every output of
both reaches the decibels that are said here, and what stays fp32 for it is named."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from int8_networks import deployed, images
from torch import Tensor, fx, nn

from shrinkc.compiler.api.compile import compile as compiled
from shrinkc.compiler.export.lower import lower
from shrinkc.compiler.formats.base import Batches, Written
from shrinkc.compiler.formats.metadata.description import Description
from shrinkc.compiler.formats.onnx import ONNX
from shrinkc.compiler.formats.registry import FORMATS
from shrinkc.compiler.formats.tflite import TFLITE, TfliteFormat
from shrinkc.compiler.quantise.apart import GIVEN, parts_of, side_by_side
from shrinkc.compiler.quantise.options import Int8
from shrinkc.compiler.quantise.prepare import prepare
from shrinkc.compiler.quantise.simulate import Quantisation
from shrinkc.compiler.support.progress import Silent
from shrinkc.compiler.verify.contributions import contributions
from shrinkc.compiler.verify.files import Artefact
from shrinkc.compiler.verify.int8_files import Making, int8_files
from shrinkc.compiler.verify.signal import OutputSignal, Signal
from shrinkc.errors import ExportError, VerificationError

pytest.importorskip("ai_edge_quantizer")
SEEN, OTHERS = images(96), images(16, seed=1)


class Around(nn.Module):
    """A convolution, something, and what else it needs."""

    def __init__(self, middle: Callable[[Around, Tensor], Any], **more: Any) -> None:
        super().__init__()
        self.conv, self.last = nn.Conv2d(3, 16, 3, 1, 1), nn.Conv2d(16, 8, 1)
        self.middle = middle
        for name, one in more.items():
            if isinstance(one, Tensor):
                self.register_buffer(name, one)
            else:
                setattr(self, name, one)

    def forward(self, x: Tensor) -> Any:
        return self.middle(self, x)


def boxes(m: Any, x: Tensor) -> Tensor:
    y = m.last(F.relu(m.conv(x))).flatten(2)
    return torch.cat((y[:, :4].sigmoid() * 640, y[:, 4:].sigmoid()), 1)


def boxes_last(m: Any, x: Tensor) -> Tensor:
    return boxes(m, x).transpose(1, 2)


def attention(m: Any, x: Tensor) -> Tensor:
    y = F.avg_pool2d(m.conv(x), 5).flatten(2).transpose(1, 2)
    q, k, v = m.qkv(y).chunk(3, -1)
    scores = (q @ k.transpose(1, 2) * 4).masked_fill(m.mask, float("-inf"))
    return m.fc(scores.softmax(-1) @ v)


def softmax_by_hand(m: Any, x: Tensor) -> Tensor:
    y = torch.exp(m.last(F.relu(m.conv(x))) * 5)
    return m.out(y / y.sum(1, keepdim=True))


def gem(m: Any, x: Tensor) -> Tensor:
    return F.avg_pool2d(F.relu(m.conv(x)).clamp(min=1e-6).pow(4.5), 20).pow(1 / 4.5)


def log_softmax(m: Any, x: Tensor) -> Tensor:
    return F.log_softmax(m.last(m.conv(x)) * 5, 1)


def bicubic(m: Any, x: Tensor) -> Tensor:
    up = F.interpolate(x, scale_factor=2, mode="bicubic")
    return m.shuffle(m.twelve(F.relu(m.conv(x)))) + up


CASES: dict[str, tuple[Callable[..., Any], dict[str, Callable[[], Any]], float, set[str]]] = {
    "uneven pooling": (
        lambda m, x: m.last(F.adaptive_avg_pool2d(F.relu(m.conv(x)), (7, 6))),
        {},
        30,
        set(),
    ),
    "bicubic": (
        bicubic,
        {"shuffle": lambda: nn.PixelShuffle(2), "twelve": lambda: nn.Conv2d(16, 12, 1)},
        30,
        set(),
    ),
    "a constant factor in front": (
        lambda m, x: m.factor @ m.conv(x).flatten(2),
        {"factor": lambda: torch.randn(16, 16)},
        22,
        set(),
    ),
    "inner value returned too": (
        lambda m, x: (m.last(y := F.relu(m.conv(x))), y),
        {},
        30,
        set(),
    ),
    "log softmax of a map": (log_softmax, {}, 30, set()),
    "mish": (lambda m, x: m.last(F.mish(m.conv(x))), {}, 30, {"mish"}),
    "boxes and scores": (boxes, {}, 30, {"cat"}),
    "boxes and scores, last": (boxes_last, {}, 30, {"cat"}),
    "one layer for both": (
        lambda m, x: m.last(F.relu(m.conv(x))) * m.scale,
        {"scale": lambda: torch.tensor([640.0] * 4 + [1.0] * 4).view(1, 8, 1, 1)},
        30,
        {"last"},
    ),
    "masked attention": (
        attention,
        {
            "qkv": lambda: nn.Linear(16, 48),
            "fc": lambda: nn.Linear(16, 5, bias=False),
            "mask": lambda: torch.ones(16, 16).triu(1).bool(),
        },
        22,
        {"add", "softmax"},
    ),
    "softmax by hand": (
        softmax_by_hand,
        {"out": lambda: nn.Conv2d(8, 4, 1)},
        30,
        {"truediv"},
    ),
    "powers": (gem, {}, 30, {"avg_pool2d"}),
    "grouped transposed convolution": (
        lambda m, x: m.up(F.relu(m.conv(x))),
        {"up": lambda: nn.ConvTranspose2d(16, 12, 4, 2, 1, groups=4)},
        30,
        {"up"},
    ),
    "layer norm of a map": (
        lambda m, x: m.last(m.norm(m.conv(x))),
        {"norm": lambda: nn.LayerNorm((16, 20, 20))},
        14,
        set(),
    ),
    "normalize": (lambda m, x: F.normalize(m.last(m.conv(x)).mean((2, 3))), {}, 25, set()),
}


def network(name: str) -> fx.GraphModule:
    torch.manual_seed(0)
    middle, more, _, _ = CASES[name]
    return deployed(Around(middle, **{key: make() for key, make in more.items()}))


def signals(
    graph: fx.GraphModule, files: dict[str, Written], batches: Batches
) -> dict[str, tuple[OutputSignal, ...]]:
    program = lower(graph)
    found: dict[str, tuple[OutputSignal, ...]] = {}
    for form in FORMATS:
        data = files[form.name].data
        file, signal = (
            Artefact(form, data, program, form.open_to_judge(data, False)),
            Signal(program),
        )
        for inputs in batches:
            with torch.no_grad():
                signal.add(file.run(inputs), [y.numpy() for y in graph(*inputs)])
        found[form.name] = signal.outputs()
    return found


def making(batches: Batches = SEEN, formats: Any = FORMATS) -> Making:
    return Making(formats, batches, Int8(), Silent())


@pytest.mark.parametrize("name", list(CASES))
def test_both_files_are_good_on_other_images(name: str) -> None:
    graph = network(name)
    _, _, least_db, kept = CASES[name]
    prepared, files = int8_files(prepare(graph, SEEN, Int8()), making())
    for outputs in signals(graph, files, OTHERS).values():
        for output in outputs:
            assert output.broken == 0
            assert output.snr_db > least_db, str(output)
            assert (output.channel_snr_db or 0) > least_db / 2, str(output)
    assert kept <= prepared.quantisation.keep_fp32
    said = "".join(note for note in prepared.notes if "fp32" in note)
    assert all(name in said for name in kept)


def test_what_is_good_stays_as_it_is() -> None:
    """Not a byte of it changes."""
    torch.manual_seed(0)
    graph = deployed(Around(lambda m, x: m.last(F.relu(m.conv(x)))))
    prepared = prepare(graph, SEEN, Int8())
    after, files = int8_files(prepared, making())
    assert after is prepared
    for form in FORMATS:
        assert files[form.name].data == form.write_int8(prepared.quantisation, SEEN[:8]).data


def test_a_class_that_is_hardly_there_keeps_nothing_in_fp32() -> None:
    def rare(m: Any, x: Tensor) -> Tensor:
        y = m.last(F.relu(m.conv(x)))
        return (y - m.shift).softmax(1)

    torch.manual_seed(0)
    shift = torch.zeros(1, 8, 1, 1)
    shift[:, 3] = 12
    graph = deployed(Around(rare, shift=shift))
    prepared, _ = int8_files(prepare(graph, SEEN, Int8()), making())
    assert not prepared.quantisation.keep_fp32


# --- every operator alone --------------------------------------------------------------------


def test_operators_apart() -> None:
    program = lower(network("masked attention"))
    parts = parts_of(program)
    assert {id(op) for part in parts for op in part.ops} == {id(op) for op in program.ops}
    assert all({op.name for op in part.ops} == {part.name} for part in parts)
    beside = side_by_side(parts)
    assert {v.name for v in beside.inputs} == {f"{v.name}{GIVEN}" for p in parts for v in p.reads}
    made = {op.output.name for op in beside.ops}
    assert {v.name for v in beside.outputs} <= made


def test_the_operator_at_fault_has_the_noise() -> None:
    graph = network("boxes and scores")
    prepared = prepare(graph, SEEN, Int8())
    found = contributions(TFLITE, prepared, SEEN[:4], False)
    lost = {
        name
        for name, (_, signal) in found.items()
        if signal is not None and (signal.outputs()[0].channel_snr_db or 0) < 10
    }
    assert lost == {"cat"}


def test_layers_that_are_all_noisy_stay_int8() -> None:
    """Channels of very different sizes, in every layer: tuning helps, fp32 would be all of it."""
    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.Conv2d(3, 16, 3, 1, 1)]
    for _ in range(5):
        layers += [nn.ReLU(), nn.Conv2d(16, 16, 3, 1, 1)]
    with torch.no_grad():
        scale = torch.logspace(-2.5, 0, 16)
        for layer in layers:
            if isinstance(layer, nn.Conv2d):
                layer.weight *= scale[:, None, None, None]
                layer.bias = None
        for layer in layers[2:]:
            if isinstance(layer, nn.Conv2d):
                layer.weight /= scale[None, :, None, None] * 0.6
        layers[-1].weight /= scale[:, None, None, None]  # pyright: ignore
    graph = deployed(nn.Sequential(*layers))
    prepared, files = int8_files(prepare(graph, SEEN, Int8()), making())
    assert not prepared.quantisation.keep_fp32
    for outputs in signals(graph, files, OTHERS).values():
        assert outputs[0].snr_db < 20
    tuned, _ = int8_files(prepare(graph, SEEN, Int8("both")), making())
    assert not tuned.quantisation.keep_fp32


# --- planted bugs ------------------------------------------------------------------------------


class Planted(TfliteFormat):
    """A quantiser that makes something else of operators of some names."""

    def __init__(self, wrong: Callable[[Quantisation], None]) -> None:
        self.wrong = wrong

    def write_int8(self, quantisation: Quantisation, batches: Batches, opset: int = 17) -> Written:
        self.wrong(quantisation)
        return super().write_int8(quantisation, batches, opset)


def refusing(names: set[str], quantisation: Quantisation) -> None:
    present = {op.name for op in quantisation.program.ops} - quantisation.keep_fp32
    if present & names:
        raise RuntimeError(f"no {min(present & names)}\nin int8")


def test_what_a_quantiser_refuses_stays_fp32_by_name() -> None:
    graph = network("masked attention")
    prepared = prepare(graph, SEEN, Int8())
    form = Planted(partial(refusing, {"conv", "matmul_1"}))
    after, files = int8_files(prepared, making(formats=(form, ONNX)))
    assert {"conv", "matmul_1"} <= after.quantisation.keep_fp32
    (note,) = [n for n in after.notes if "cannot be int8" in n]
    assert "'conv', 'matmul_1' (model.tflite: no conv in int8)" in note
    assert set(files) == {"tflite", "onnx"}


def test_a_quantiser_that_refuses_everything() -> None:
    def always(_: Quantisation) -> None:
        raise RuntimeError("not today")

    graph = network("mish")
    with pytest.raises(ExportError, match=r"^model.tflite in int8: not today$"):
        int8_files(prepare(graph, SEEN, Int8()), making(formats=(Planted(always),)))


class Tampered(TfliteFormat):
    """int8 files whose outputs are changed on the way out."""

    def __init__(self, change: Callable[[Any], Any]) -> None:
        self.change, self.made = change, set[bytes]()

    def write_int8(self, quantisation: Quantisation, batches: Batches, opset: int = 17) -> Written:
        written = super().write_int8(quantisation, batches, opset)
        self.made.add(written.data)
        return written

    def described(self, data: bytes, description: Description) -> bytes:
        described = super().described(data, description)
        if data in self.made:
            self.made.add(described)
        return described

    def run(self, runner: Any, program: Any, inputs: Any) -> Any:
        outputs = super().run(runner, program, inputs)
        in_int8 = runner.__reduce__()[1][0] in self.made
        return [self.change(y) for y in outputs] if in_int8 else outputs


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, 2, 1),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, 2, 1),
        nn.ReLU(),
        nn.Conv2d(64, 8, 1),
    ).eval()


def compile_tampered(change: Callable[[Any], Any]) -> Any:
    x = torch.cat([x for (x,) in images(64)])
    form = Tampered(change)
    return compiled(
        model(), x[:1], target="rpi4", images=x, precision="int8", formats=(form,), runs=0
    ).report


def test_a_good_file_is_reported() -> None:
    report = compile_tampered(lambda y: y)
    (output,) = report.artefacts[0].signal
    assert output.snr_db > 30
    assert not any("low signal" in note for note in report.notes)
    (written,) = report.to_json()["artefacts"][0]["signal"]
    assert written["snr_db"] == output.snr_db
    assert "Signal to noise (dB) of outputs" in report.pages()["report.html"].decode()


def test_an_output_that_is_scaled_wrong_is_noted() -> None:
    report = compile_tampered(lambda y: y * 0.8)
    (output,) = report.artefacts[0].signal
    assert 13 < output.snr_db < 15
    assert any("model.tflite: low signal to noise (dB) of output" in n for n in report.notes)


def test_a_channel_that_is_lost_is_noted() -> None:
    def lost(y: Any) -> Any:
        changed = y.copy()
        changed[:, 5] = changed[:, 5].mean()
        return changed

    report = compile_tampered(lost)
    (output,) = report.artefacts[0].signal
    assert output.channel == 5
    assert any("low signal to noise" in note for note in report.notes)


def test_nan_is_an_error() -> None:
    with pytest.raises(VerificationError, match=r"model.tflite: output '.*' is NaN or infinite in"):
        compile_tampered(lambda y: y * float("nan"))

"""What the int8 files hold: layers asked for in fp32, and only those."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import pytest
import torch
from int8_networks import Batches, deployed, images, skewed
from torch import Tensor, fx, nn

import shrinkc
from shrinkc.compiler.export import ops
from shrinkc.compiler.export.lower import lower
from shrinkc.compiler.export.onnx import write_onnx
from shrinkc.compiler.export.tflite.write import write_tflite
from shrinkc.compiler.formats.base import tensors_of
from shrinkc.compiler.formats.onnx import ONNX, OnnxRunner, quantize_onnx
from shrinkc.compiler.formats.tflite import TFLITE, quantize_tflite
from shrinkc.compiler.measure.speedup import host_file
from shrinkc.compiler.quantise.options import Int8
from shrinkc.compiler.quantise.prepare import Prepared, prepare, with_levels
from shrinkc.compiler.quantise.rounding import LEVELS_OF_7_BITS, grid_of
from shrinkc.compiler.quantise.simulate import simulate
from shrinkc.compiler.support.difference import relative_error
from shrinkc.compiler.support.progress import Silent
from shrinkc.compiler.verify.files import Artefact, artefact
from shrinkc.errors import ExportError, InputError

pytest.importorskip("ai_edge_quantizer")
SEEN = images(12)


def tflite_int8(made: Prepared) -> dict[str, bool]:
    """Output tensor → computed from int8 weights, of every operator with weights."""
    from ai_edge_litert import schema_py_generated as schema

    q = made.quantisation
    data = quantize_tflite(write_tflite(q.program), q.program, SEEN[:2], q.ranges, q.keep_fp32)
    model = schema.ModelT.InitFromPackedBuf(data, 0)
    (graph,) = model.subgraphs
    weighted = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "ADD")
    codes = {getattr(schema.BuiltinOperator, name) for name in weighted}
    found: dict[str, bool] = {}
    for op in graph.operators:
        if model.operatorCodes[op.opcodeIndex].builtinCode not in codes:
            continue
        kinds = {graph.tensors[i].type for i in (*op.inputs[:2], *op.outputs)}
        assert len(kinds) == 1, "int8 and fp32 in one operator"
        name = graph.tensors[op.outputs[0]].name.decode()
        found[name.removesuffix("_quantized")] = kinds == {schema.TensorType.INT8}
    return found


def onnx_int8(made: Prepared) -> dict[str, bool]:
    """The same of the ONNX file: every input comes from a DequantizeLinear."""
    q = made.quantisation
    written = write_onnx(q.program).SerializeToString()
    keep = tensors_of(q.program, q.keep_fp32)
    proto = onnx.load_model_from_string(quantize_onnx(written, SEEN[:2], q.ranges, False, keep))
    makers = {name: node for node in proto.graph.node for name in node.output}
    found: dict[str, bool] = {}
    for node in proto.graph.node:
        if node.op_type in ("Conv", "Gemm", "MatMul", "Add") and "/" in node.name:
            kinds = {makers[i].op_type if i in makers else "float" for i in node.input[:2]}
            found[node.name.partition("/")[0]] = kinds == {"DequantizeLinear"}
    return found


def expected(made: Prepared) -> dict[str, bool]:
    kinds = (ops.Conv, ops.Linear, ops.Binary)
    return {
        op.output.name: op.name not in made.quantisation.keep_fp32
        for op in made.quantisation.program.ops
        if isinstance(op, kinds)
    }


class Prefixes(nn.Module):
    """Names that are the beginning of others, padding of its own, a residual add."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.act = nn.Conv2d(3, 8, 3, 2), nn.ReLU6()
        self.conv_1, self.conv_10 = nn.Conv2d(8, 8, 3, 1, 1, groups=8), nn.Conv2d(8, 8, 1)
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.conv(nn.functional.pad(x, (0, 1, 0, 1))))
        x = x + self.conv_10(self.conv_1(x))
        return self.fc(x.mean((2, 3)))


@pytest.fixture
def graph() -> fx.GraphModule:
    torch.manual_seed(0)
    return deployed(Prefixes())


@pytest.mark.parametrize(
    "kept", [(), ("conv",), ("conv_1",), ("fc",), ("conv_10", "add"), ("conv", "conv_10"), ("act",)]
)
def test_layers_stay_fp32_in_both_files(graph: fx.GraphModule, kept: tuple[str, ...]) -> None:
    made = prepare(graph, SEEN, Int8("none", keep_fp32=kept))
    assert sum(not v for v in expected(made).values()) == len(kept)
    assert tflite_int8(made) == expected(made)
    assert onnx_int8(made) == expected(made)
    names = {"conv" if name == "act" else name for name in kept}
    assert {n.layer for n in made.noise if n.precision == "fp32"} == names - {"add"}


def test_noisy_layers_stay_fp32(graph: fx.GraphModule) -> None:
    everything = prepare(graph, SEEN, Int8())
    assert [n.layer for n in everything.noise] == ["conv", "conv_1", "conv_10", "fc"]
    assert {n.precision for n in everything.noise} == {"int8"}
    levels = sorted(n.snr_db for n in everything.noise)
    made = prepare(graph, SEEN, Int8(min_snr_db=(levels[0] + levels[1]) / 2))
    (noisiest,) = [n for n in made.noise if n.precision == "fp32"]
    assert noisiest.snr_db == levels[0]
    assert tflite_int8(made) == onnx_int8(made) == expected(made)
    assert any(f"fp32 in the int8 files: {noisiest.layer}" == note for note in made.notes)


def test_a_noisy_layer_is_noted_and_what_helps(graph: fx.GraphModule) -> None:
    """The same function, with one input of a layer a thousand times smaller than the others: its
    weights take all the levels."""
    with torch.no_grad():
        graph.conv_1.weight[3] *= 1e-3
        graph.conv_1.bias[3] *= 1e-3
        graph.conv_10.weight[:, 3] *= 1e3
    note = prepare(graph, SEEN, Int8()).notes[0]
    assert "try --int8-tuning both, --keep-fp32 conv" in note
    assert all("alone has" not in note for note in prepare(graph, SEEN, Int8("both")).notes)


def test_everything_may_stay_fp32(graph: fx.GraphModule) -> None:
    made = prepare(graph, SEEN, Int8("none", keep_fp32=tuple(n.name for n in lower(graph).ops)))
    assert not any(tflite_int8(made).values())
    assert not any(onnx_int8(made).values())


def test_divisions_by_what_is_computed_stay_fp32() -> None:
    """A divisor that rounds to 0 would end a run in TFLite, also of images that come later."""

    class Quotient(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 8, 3), nn.Conv2d(3, 8, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.a(x) / (self.b(x).sigmoid() + 0.01) / 3

    torch.manual_seed(0)
    made = prepare(deployed(Quotient()), SEEN, Int8())
    divisions = {
        op.name for op in made.quantisation.program.ops if getattr(op, "kind", "") == "div"
    }
    assert len(divisions & made.quantisation.keep_fp32) == 1  # by 3 is a product


def test_a_layer_that_is_not_there(graph: fx.GraphModule) -> None:
    with pytest.raises(
        InputError,
        match=r"`keep_fp32` con_1: no such .* near it: conv_1",
    ):
        prepare(graph, SEEN, Int8(keep_fp32=("con_1",)))
    with pytest.raises(InputError, match="near it: conv, conv_1"):
        prepare(graph, SEEN, Int8(keep_fp32=("@@",)))


def test_the_network_itself_is_untouched(graph: fx.GraphModule) -> None:
    before = {k: v.clone() for k, v in graph.state_dict().items()}
    made = prepare(graph, SEEN, Int8("both"))
    assert all(torch.equal(v, before[k]) for k, v in graph.state_dict().items())
    assert made.steps[0].name == "equalise-channels"
    assert made.steps[0].max_error < 1e-9


def test_files_for_timing_are_not_tuned_unless_asked() -> None:
    graph = skewed()
    plain, tuned = (host_file(graph, "int8", SEEN, tuning) for tuning in ("none", "bias"))
    assert host_file(graph, "int8", SEEN) == plain
    assert len(plain) == len(tuned)
    assert plain != tuned


# --- calibration images ------------------------------------------------------------------------


def notes(graph: fx.GraphModule, batches: Batches) -> Sequence[str]:
    return prepare(graph, batches, Int8("none", noise=False)).notes


@pytest.mark.parametrize(("count", "said"), [(1, "1 image"), (31, "31 images"), (32, None)])
def test_few_calibration_images_are_noted(
    graph: fx.GraphModule, count: int, said: str | None
) -> None:
    found = [note for note in notes(graph, images(count)) if "calibrated on" in note]
    wanted = [] if said is None else [f"int8 was calibrated on {said}; give 32 or more"]
    assert found == wanted


def test_images_of_one_colour_are_noted(graph: fx.GraphModule) -> None:
    plain = [(torch.full((1, 3, 20, 20), float(i)),) for i in range(4)]
    (note, *_) = notes(graph, plain)
    assert note.startswith("4 of 4 calibration images have one colour each")
    (note, *_) = notes(graph, [*plain, *SEEN])
    assert note.startswith("4 of 16 ")


def test_images_of_one_class_are_noted(graph: fx.GraphModule) -> None:
    with torch.no_grad():
        graph.fc.bias.copy_(torch.tensor([0.0, 0.0, 1e3, 0.0, 0.0]))
    (note, *_) = notes(graph, SEEN)
    assert note.startswith("the network sees class 2 in 12 of 12 calibration images")
    with torch.no_grad():
        graph.fc.bias.zero_()
        graph.fc.weight.mul_(100)
    assert notes(graph, images(32)) == ()


def test_outputs_agree_with_pytorch(graph: fx.GraphModule) -> None:
    file = artefact(TFLITE, host_file(graph, "int8", SEEN, "both"), lower(graph))
    with torch.no_grad():
        want = torch.cat([graph(*inputs)[0] for inputs in SEEN]).numpy()
    got = np.concatenate([file.run(inputs)[0] for inputs in SEEN])
    assert relative_error(got, want) < 0.05


def test_weights_of_seven_bits_get_biases_of_their_own(graph: fx.GraphModule) -> None:
    how = Int8()
    eight = prepare(graph, SEEN, how)
    seven = with_levels(eight, LEVELS_OF_7_BITS, SEEN, how, Silent())
    assert seven.quantisation.keep_fp32 == eight.quantisation.keep_fp32
    assert torch.equal(seven.graph_module.conv.weight, eight.graph_module.conv.weight)
    assert not torch.equal(seven.graph_module.fc.bias, eight.graph_module.fc.bias)
    q = seven.quantisation
    written = write_onnx(q.program).SerializeToString()
    data = quantize_onnx(written, SEEN[:2], q.ranges, True)
    file = Artefact(ONNX, data, q.program, OnnxRunner(data, optimise=False))
    int8 = simulate(seven.graph_module, q)
    step = grid_of(*q.ranges[q.program.outputs[0].name]).scale
    with torch.no_grad():
        for inputs in SEEN:
            apart = torch.from_numpy(file.run(inputs)[0]) - int8(*inputs)[0]
            assert float(apart.abs().max()) / step < 2.1


class Masked(nn.Module):
    """Attention behind a mask of infinity."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.query, self.head = how, nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        scores, count = self.query(x) @ x.transpose(1, 2), x.shape[1]
        if self.how == "added":
            scores = scores + torch.triu(torch.full((count, count), -torch.inf), 1)
        elif self.how == "filled":
            seen = torch.ones(count, count, dtype=torch.bool).tril()
            scores = scores.masked_fill(~seen, -torch.inf)
        else:
            scores = torch.where(x[:, None, :, 0] > 1, torch.tensor(-torch.inf), scores)
        return self.head(torch.softmax(scores, -1) @ x)


@pytest.mark.parametrize("how", ["added", "filled", "by the input"])
def test_infinity_stays_in_fp32(how: str) -> None:
    """TFLite ends the process at an int8 file that holds it."""
    torch.manual_seed(0)
    x = torch.randn(24, 6, 8)
    found = shrinkc.compile(
        Masked(how).eval(), x[:1], target="rpi4", precision="int8", images=x, runs=0
    )
    for file in found.report.artefacts:
        assert file.signal[0].snr_db > 20


class Twice(nn.Module):
    """One map that is returned twice, flattened, and read beside that."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        y = self.conv(x)
        return y.flatten(2), y.reshape(len(y), 5, -1), y.flatten(2).amax(-1)


def test_outputs_that_are_one_tensor_are_copies() -> None:
    """One of them was copied from the other, in floats into a tensor of int8: beyond its end."""
    torch.manual_seed(0)
    x = torch.randn(24, 3, 16, 16)
    network = Twice().eval()
    found = shrinkc.compile(network, x[:1], target="rpi4", precision="int8", images=x, runs=0)
    with torch.no_grad():
        want = network(x[:1])
    for file in found.report.artefacts:
        assert all(one.snr_db > 30 for one in file.signal)
    for form in (ONNX, TFLITE):
        got = artefact(form, found.files[form.file], found.artefact.program).run((x[:1],))
        assert all(relative_error(a, b.numpy()) < 0.05 for a, b in zip(got, want, strict=True))
        assert (got[0] == got[1]).all()


def test_an_operator_with_two_types_is_not_run() -> None:
    """What ai-edge-quantizer makes of outputs that operators read, where they are not copied."""
    torch.manual_seed(0)
    made = prepare(deployed(Twice()), images(12), Int8())
    q = made.quantisation
    plain = write_tflite(q.program)
    with pytest.raises(ExportError, match=r"the RESHAPE of '.*' has types FLOAT32 and INT8"):
        TFLITE.quantise(plain, q, SEEN[:2])

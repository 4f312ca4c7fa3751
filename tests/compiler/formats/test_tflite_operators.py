"""A .tflite read back as latency keys: those of the program that it was written from."""

import random
import struct
from typing import Any

import pytest
import torch
from ai_edge_litert import schema_py_generated
from tflite_programs import Net
from torch import nn

import shrinkc
from shrinkc.compiler.capture import capture
from shrinkc.compiler.cli.main import main
from shrinkc.compiler.cost.keys import keyed
from shrinkc.compiler.export import ops
from shrinkc.compiler.export.lower import lower
from shrinkc.compiler.formats.tflite import TFLITE
from shrinkc.compiler.formats.tflite_boundary import TfliteFile
from shrinkc.compiler.formats.tflite_operators import read_operators
from shrinkc.errors import InputError, LoadError

schema: Any = schema_py_generated


class Small(nn.Module):
    """Padding of every kind, depthwise, pooling, resizing, a join, a sum and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.depthwise = nn.Conv2d(8, 8, 5, padding=2, groups=8)
        self.grouped = nn.Conv2d(8, 16, 3, groups=2, dilation=2)
        self.up = nn.ConvTranspose2d(16, 4, 2, stride=2)
        self.fc = nn.Linear(4, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x).relu()
        x = x + nn.functional.hardswish(self.depthwise(x))
        x = torch.cat((x[:, :4], nn.functional.max_pool2d(x, 3, 1, 1)[:, 4:]), 1)
        x = nn.functional.relu6(self.grouped(x))
        x = nn.functional.interpolate(self.up(x), scale_factor=2, mode="nearest")
        return self.fc(x.mean((2, 3)).sigmoid()).softmax(1)


@pytest.fixture(scope="module")
def program() -> ops.Program:
    torch.manual_seed(0)
    return lower(capture(Small().eval(), (torch.randn(1, 3, 32, 32),)))


def test_keys_are_those_of_the_program(program: ops.Program) -> None:
    found = read_operators(TFLITE.encode(program))
    want = [key for _, key in keyed(program, "fp32")]
    assert sorted(map(str, (key for _, key in found.keys))) == sorted(map(str, want))
    assert {key.op for key in want} >= {"conv2d", "depthwise_conv2d", "conv_transpose2d", "linear"}
    assert (found.unknown, found.batch, found.precision) == ({}, 1, "fp32")


def test_operators_with_integer_weights_alone_are_told(
    program: ops.Program, tmp_path: Any, capsys: Any
) -> None:
    file = TfliteFile(TFLITE.encode(program))
    for op in file.graph.operators:
        if file.model.operatorCodes[op.opcodeIndex].builtinCode == schema.BuiltinOperator.CONV_2D:
            file.graph.tensors[op.inputs[1]].type = schema.TensorType.INT8
    (tmp_path / "weights.tflite").write_bytes(file.bytes())
    assert main(["estimate", str(tmp_path / "weights.tflite"), "--target", "rpi4"]) == 0
    said = "note: 2 operators with int8 weights and float inputs, priced in fp32"
    assert said in capsys.readouterr().out


def test_an_estimate_of_the_file(program: ops.Program, tmp_path: Any) -> None:
    torch.manual_seed(0)
    want = shrinkc.estimate(Small().eval(), (1, 3, 32, 32), target="rpi4", merge="none")
    path = tmp_path / "model.bin"  # told by its content
    path.write_bytes(TFLITE.encode(program))
    found = shrinkc.estimate(path, target="rpi4")
    assert found.total_ms == pytest.approx(want.total_ms)
    assert found.macs == want.macs
    for options, match in (
        ({"inputs": (1, 3, 8, 8)}, "`inputs` has no effect"),
        ({"merge": "all"}, "`merge` has no effect"),
        ({"precision": "int8"}, "`precision` has no effect"),
    ):
        with pytest.raises(InputError, match=match):
            shrinkc.estimate(path, target="rpi4", **options)


def test_an_int8_file(tmp_path: Any) -> None:
    pytest.importorskip("ai_edge_quantizer")
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3)).eval()
    made = shrinkc.compile(
        net, (1, 3, 8, 8), target="rpi4", precision="int8", images=torch.randn(8, 3, 8, 8), runs=0
    )
    found = read_operators(made.files["model.tflite"])
    assert found.precision == "int8"
    assert [key.precision for _, key in found.keys if key.macs] == ["int8", "int8"]
    path = tmp_path / "model.tflite"
    path.write_bytes(made.files["model.tflite"])
    assert shrinkc.estimate(path, target="rpi4").precision == "int8"


def changed(data: bytes, change: Any) -> bytes:
    """With the official schema's own objects."""
    import flatbuffers

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(data, 0))
    change(model)
    builder = flatbuffers.Builder(len(data) * 2)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def test_operators_that_no_table_knows(tmp_path: Any) -> None:
    net = Net((1, 4, 6, 6))
    x = net.conv(net.x, 4)
    x = net.add(ops.Unary, x.shape, x, "relu")
    net.add(ops.Unary, x.shape, x, "exp")
    data = TFLITE.encode(program_of(net))

    def custom(model: Any) -> None:
        kinds = schema.BuiltinOperator
        for code in model.operatorCodes:
            if code.builtinCode == kinds.EXP:
                code.builtinCode = code.deprecatedBuiltinCode = kinds.CUSTOM
                code.customCode = b"FlexErf"

    def more(model: Any) -> None:
        custom(model)
        model.subgraphs.append(model.subgraphs[0])

    assert read_operators(changed(data, custom)).unknown == {"CUSTOM FlexErf": 1}
    several = read_operators(changed(data, more)).unknown
    assert several["CUSTOM FlexErf"] == 1
    assert [count for name, count in several.items() if "1 more subgraphs" in name] == [3]
    path = tmp_path / "a.tflite"
    path.write_bytes(changed(data, custom))
    assert shrinkc.estimate(path, target="rpi4").unpriced == {"CUSTOM FlexErf": 1}


def program_of(net: Net) -> ops.Program:
    return ops.Program(net.inputs, tuple(net.ops), (net.ops[-1].output,))


def test_a_batch_of_several_is_refused(tmp_path: Any) -> None:
    net = Net((4, 3, 6, 6))
    net.conv(net.x, 4)
    (tmp_path / "a.tflite").write_bytes(TFLITE.encode(program_of(net)))
    with pytest.raises(InputError, match=r"a\.tflite: its batch is 4; tables tell"):
        shrinkc.estimate(tmp_path / "a.tflite", target="rpi4")


def test_damage_is_one_line(program: ops.Program) -> None:
    """Cut anywhere, and with changed bytes: the same operators, others, or one line."""
    data = TFLITE.encode(program)
    messages: list[str] = []
    generator = random.Random(0)
    for end in range(8, len(data), max(1, len(data) // 200)):
        messages += failure(data[:end])
    for _ in range(500):
        broken = bytearray(data)
        for _ in range(3):
            broken[generator.randrange(len(broken))] = generator.randrange(256)
        messages += failure(bytes(broken))
    start = struct.unpack("<I", data[:4])[0]
    messages += failure(data[:start] + b"\xff" * 64 + data[start + 64 :])
    assert len(messages) > 50
    assert not any(len(message.splitlines()) > 1 for message in messages)


def failure(data: bytes) -> list[str]:
    try:
        read_operators(data)
    except LoadError as error:
        return [str(error)]
    return []

"""The file itself: signature, names, constants, alignment, versions; what XNNPACK takes of it."""

import time

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from tflite_programs import Net, check

from shrinkc.compiler.export import ops
from shrinkc.compiler.export.tflite import builder as tflite_builder
from shrinkc.compiler.export.tflite.write import boundary_order, write_tflite
from shrinkc.errors import ExportError, UnsupportedOperatorError


def model_of(data: bytes) -> schema.Model:
    assert data[4:8] == b"TFL3"
    return schema.Model.GetRootAs(data)


def tensor_names(data: bytes) -> list[str]:
    graph = model_of(data).Subgraphs(0)
    return [graph.Tensors(i).Name().decode() for i in range(graph.TensorsLength())]


def mobile_net() -> Net:
    """A stem, inverted residuals with strides 1 and 2, a squeeze-excite gate and a head."""
    net = Net((1, 3, 32, 32))
    x = net.conv(net.x, 8, stride=(2, 2), pads=(1, 1, 1, 1), activation="relu6")
    for stride in (1, 2, 1):
        wide = net.conv(x, 24, (1, 1), activation="relu6")
        deep = net.conv(
            *(wide, 24), groups=24, stride=(stride,) * 2, pads=(1, 1, 1, 1), activation="relu6"
        )
        squeezed = net.reduce(deep, "mean", (2, 3))
        gate = net.unary(net.conv(squeezed, 24, (1, 1)), "hard_sigmoid")
        narrow = net.conv(net.binary(deep, gate, "mul"), 8, (1, 1))
        x = net.binary(x, narrow) if stride == 1 else narrow
    pooled = net.reduce(net.unary(x, "hard_swish"), "mean", (2, 3))
    net.linear(net.reshape(pooled, 1, 8), 10)
    return net


def test_inverted_residuals_have_no_operator_too_many() -> None:
    net = Net((1, 8, 8, 8))
    wide = net.conv(net.x, 24, (1, 1), activation="relu6")
    deep = net.conv(wide, 24, groups=24, pads=(1, 1, 1, 1), activation="relu6")
    net.binary(net.x, net.conv(deep, 8, (1, 1)))
    assert check(net.program()) == {"CONV_2D": 2, "DEPTHWISE_CONV_2D": 1, "ADD": 1}


def test_xnnpack_takes_a_mobile_net_whole() -> None:
    program = mobile_net().program()
    check(program, tolerance=1e-4)
    interpreter = Interpreter(model_content=write_tflite(program))
    interpreter.allocate_tensors()
    (delegate,) = (d for d in interpreter._get_ops_details() if d["op_name"] == "DELEGATE")
    assert interpreter.get_input_details()[0]["index"] in delegate["inputs"]
    assert interpreter.get_output_details()[0]["index"] in delegate["outputs"]


def test_signature_and_names() -> None:
    net = Net((2, 3, 4, 5), (2, 7))
    relu = net.unary(net.x, "relu")
    net.transpose(relu, 0, 3, 1, 2)
    tanh = net.unary(net.inputs[1], "tanh")
    program = net.program(net.ops[1].output, tanh)
    interpreter = Interpreter(model_content=write_tflite(program))
    assert interpreter.get_signature_list() == {
        "serving_default": {
            "inputs": ["input0", "input1"],
            "outputs": ["transpose1", "unary2"],
        }
    }
    x, y = net.array(2, 4, 5, 3), net.array(2, 7)
    result = interpreter.get_signature_runner("serving_default")(input0=x, input1=y)
    np.testing.assert_allclose(result["unary2"], np.tanh(y), rtol=1e-5)
    want = np.maximum(x, 0).transpose(0, 3, 1, 2).transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(result["transpose1"], want.transpose(0, 2, 3, 1))


def test_outputs_that_are_inputs_or_come_twice() -> None:
    net = Net((2, 3), (2, 3))
    relu = net.unary(net.x, "relu")
    program = net.program(relu, net.x, relu)
    check(program)
    signature = Interpreter(model_content=write_tflite(program)).get_signature_list()
    names = signature["serving_default"]
    tensors = tensor_names(write_tflite(program))
    assert tensors[:3] == ["input0", "input1", relu.name]
    assert names["inputs"] == ["input0", "input1"]
    assert names["outputs"] == ["input0", relu.name, f"{relu.name}_2"]


def test_boundary_order() -> None:
    assert boundary_order(ops.Value("image", (1, 3, 4, 5))) == (0, 2, 3, 1)
    assert boundary_order(ops.Value("tokens", (1, 3, 4))) == (0, 1, 2)
    assert boundary_order(ops.Value("video", (1, 3, 4, 5, 6))) == (0, 1, 2, 3, 4)


def test_tensors_are_named_after_the_graph() -> None:
    net = mobile_net()
    names = tensor_names(write_tflite(net.program()))
    assert len(set(names)) == len(names)
    for op in net.ops:
        viewed = isinstance(op, ops.Reshape)
        assert viewed or op.output.name in names
    for name in names:
        scope = name.split("/")[0]
        assert scope in {"input0"} | {op.name for op in net.ops}


def test_an_output_takes_the_name_from_its_stored_form() -> None:
    net = Net((2, 4, 4, 6))
    linear = net.linear(net.x, 3)
    names = tensor_names(write_tflite(net.program()))
    assert linear.name in names
    assert f"{linear.name}/stored" in names


def test_constants_are_written_once_and_biases_never_shared() -> None:
    net = Net((1, 4, 8, 8))
    weight, bias = net.array(4, 4, 3, 3), np.zeros(4, np.float32)
    x = net.x
    for _ in range(3):
        x = net.add(ops.Conv, x.shape, x, weight, bias, (1, 1), (1, 1, 1, 1))
    table = net.const(4, 8, 8)
    net.binary(net.binary(x, table), table, "mul")
    data = write_tflite(net.program())
    check(net.program())
    names = tensor_names(data)
    assert sum("weight" in name for name in names) == 1
    assert sum("bias" in name for name in names) == 3
    assert sum(name.startswith(table.name) for name in names) == 1
    assert len(data) < weight.nbytes + table.array.nbytes + 4000


def test_buffers_are_aligned() -> None:
    data = write_tflite(mobile_net().program())
    model = model_of(data)
    sizes = 0
    for index in range(model.BuffersLength()):
        buffer = model.Buffers(index)
        if not buffer.DataIsNone():
            content = buffer.DataAsNumpy()
            address = content.__array_interface__["data"][0]
            start = address - np.frombuffer(data, np.uint8).__array_interface__["data"][0]
            assert start % 16 == 0
            sizes += content.nbytes
    assert sizes > 4000


def test_old_readers_find_the_operator_codes() -> None:
    net = Net((1, 4))
    net.unary(net.unary(net.x, "gelu"), "relu")
    model = model_of(write_tflite(net.program()))
    codes = [model.OperatorCodes(i) for i in range(model.OperatorCodesLength())]
    assert [(c.BuiltinCode(), c.DeprecatedBuiltinCode(), c.Version()) for c in codes] == [
        (schema.BuiltinOperator.GELU, 127, 1),
        (schema.BuiltinOperator.RELU, schema.BuiltinOperator.RELU, 1),
    ]


def test_writing_is_deterministic() -> None:
    assert write_tflite(mobile_net().program()) == write_tflite(mobile_net().program())


def test_files_beyond_two_gigabytes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tflite_builder, "_SIZE_LIMIT", 10_000)
    net = Net((1, 100))
    net.linear(net.x, 100)
    with pytest.raises(ExportError, match="2 GB"):
        write_tflite(net.program())


def test_cost_grows_linearly() -> None:
    def seconds(depth: int) -> float:
        net = Net((1, 4, 8, 8))
        x = net.x
        for _ in range(depth):
            x = net.binary(x, net.conv(x, 4, pads=(1, 1, 1, 1)))
        program = net.program()
        started = time.process_time()
        write_tflite(program)
        return time.process_time() - started

    seconds(10)
    assert min(seconds(800) for _ in range(2)) < 30 * min(seconds(80) for _ in range(3))


def test_an_operator_without_translation_is_named() -> None:
    net = Net((1, 4))
    output = net.add(ops.Op, (1, 4))
    with pytest.raises(UnsupportedOperatorError, match=rf"node '{output.name}' \(Op\)"):
        write_tflite(net.program())

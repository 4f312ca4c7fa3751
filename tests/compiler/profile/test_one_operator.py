"""One-operator programs: they have the key they were made of, and both runtimes run them."""

import numpy as np
import pytest

from shrinkc.compiler.cost.keys import keyed, op_key
from shrinkc.compiler.formats.onnx import OnnxRunner
from shrinkc.compiler.formats.runner import random_inputs
from shrinkc.compiler.formats.tflite import TfliteRunner
from shrinkc.compiler.profile.one_operator import NARROW, one_operator, tiny, with_neighbours
from shrinkc.compiler.profile.op_files import NoFileError, op_file, tiny_file
from shrinkc.latency_tables.key import OpKey

MAPS = {"in_size": (8, 8), "out_size": (8, 8)}
KEYS = [
    OpKey("conv2d", 8, 16, (3, 3), **MAPS, activation="relu6"),
    OpKey("conv2d", 3, 16, (3, 3), (2, 2), in_size=(9, 9), out_size=(5, 5), activation="relu"),
    OpKey("conv2d", 8, 16, (1, 1), groups=2, **MAPS),
    OpKey("conv2d", 8, 8, (3, 3), dilation=(2, 2), **MAPS),
    OpKey("depthwise_conv2d", 8, 8, (5, 5), (2, 2), (1, 1), 8, (9, 9), (5, 5)),
    OpKey("conv_transpose2d", 4, 2, (3, 3), (2, 2), in_size=(4, 4), out_size=(8, 8)),
    OpKey("linear", 12, 5, activation="relu"),
    OpKey("linear", 12, 5, in_size=(7, 1), out_size=(7, 1)),
    OpKey("matmul", 12, 5, in_size=(7, 1), out_size=(7, 1)),
    *(OpKey(op, 8, 8, **MAPS) for op in ("add", "sub", "mul", "div", "maximum", "minimum", "pow")),
    *(OpKey(op, 8, 8, **MAPS) for op in ("relu", "relu6", "hard_swish", "hard_sigmoid", "sigmoid")),
    *(OpKey(op, 8, 8, **MAPS) for op in ("silu", "gelu", "leaky_relu", "elu", "clip", "prelu")),
    OpKey("max_pool", 8, 8, (3, 3), (2, 2), in_size=(8, 8), out_size=(4, 4)),
    OpKey("avg_pool", 8, 8, (2, 2), (2, 2), in_size=(8, 8), out_size=(4, 4)),
    *(OpKey(op, 8, 8, in_size=(8, 8)) for op in ("mean", "sum", "max", "min", "prod")),
    *(OpKey(op, 8, 8, **MAPS) for op in ("greater", "equal", "where", "cast", "floor", "sin")),
    OpKey("gather", 8, 8, in_size=(8, 8), out_size=(8, 5)),
    *(OpKey(op, 8, 1, **MAPS) for op in ("argmax", "topk")),
    *(OpKey(op, 8, 8, **MAPS) for op in ("atan", "atan2", "cumsum")),
    OpKey("concat", 9, 9, **MAPS),
    OpKey("slice", 8, 4, **MAPS),
    OpKey("pad", 8, 8, in_size=(8, 8), out_size=(11, 10)),
    OpKey("transpose", 8, 8, in_size=(8, 4), out_size=(4, 8)),
    OpKey("resize", 8, 8, in_size=(8, 8), out_size=(16, 16)),
    OpKey("depth_to_space", 8, 2, in_size=(4, 4), out_size=(8, 8)),
    OpKey("softmax", 10, 10),
    OpKey("layer_norm", 8, 8, in_size=(5, 1), out_size=(5, 1)),
]


@pytest.mark.parametrize("key", KEYS, ids=lambda key: key.op)
def test_the_key_comes_back(key: OpKey) -> None:
    ((_, found),) = keyed(one_operator(key), key.precision)
    assert found == key


@pytest.mark.parametrize("key", KEYS, ids=lambda key: key.op)
def test_both_runtimes_compute_the_same(key: OpKey) -> None:
    onnx, tflite = (
        OnnxRunner(op_file(key, "tensorrt").model),
        TfliteRunner(op_file(key, "tflite").model),
    )
    inputs = [np.abs(x) for x in random_inputs(onnx)]
    last = [x.transpose(0, 2, 3, 1) if x.ndim == 4 else x for x in inputs]
    (a,), (b,) = onnx.run(inputs), tflite.run(last)
    b = b.transpose(0, 3, 1, 2) if b.ndim == 4 else b
    np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("op", ["hard_swish", "add", "mul"])
def test_neighbours_are_all_that_differs(op: str) -> None:
    key = OpKey(op, 16, 16, **MAPS)
    context = with_neighbours(key)
    assert context is not None
    whole, rest = context
    assert [op_key(o, "fp32") for o in whole.ops if o.name == "op"] == [key]
    assert [o.name for o in rest.ops] == [o.name for o in whole.ops if o.name != "op"]
    assert whole.ops[-1].output.shape[1] == rest.ops[-1].output.shape[1] == NARROW
    file = op_file(key, "onnxruntime")
    assert file.base is not None
    for data in (file.model, file.base):
        runner = OnnxRunner(data)
        assert runner.run(random_inputs(runner))[0].shape == (1, NARROW, 8, 8)


@pytest.mark.parametrize(
    "key",
    [OpKey("conv2d", 8, 8, **MAPS), OpKey("sigmoid", 8, 8), OpKey("mean", 8, 8, in_size=(8, 8))],
)
def test_what_needs_no_neighbours_stands_alone(key: OpKey) -> None:
    assert with_neighbours(key) is None
    assert op_file(key, "onnxruntime").base is None


def test_int8_files_are_int8_from_end_to_end() -> None:
    pytest.importorskip("ai_edge_quantizer")
    from ai_edge_litert.interpreter import Interpreter

    for op in ("conv2d", "add", "hard_swish"):
        data = op_file(OpKey(op, 8, 8, **MAPS, precision="int8"), "tflite").model
        interpreter = Interpreter(model_content=data)
        ends = (*interpreter.get_input_details(), *interpreter.get_output_details())
        assert {detail["dtype"] for detail in ends} == {np.int8}
    quantised = OnnxRunner(
        op_file(OpKey("conv2d", 8, 8, **MAPS, precision="int8"), "onnxruntime").model
    )
    assert quantised.run(random_inputs(quantised))[0].shape == (1, 8, 8, 8)


@pytest.mark.parametrize("op", ["expand", "nonsense", "slice"])
def test_kinds_without_a_file_are_told(op: str) -> None:
    for runtime in ("tflite", "onnxruntime"):
        with pytest.raises(NoFileError, match=op):
            op_file(OpKey(op, 8, 8), runtime)


def test_the_tiny_network_does_next_to_nothing() -> None:
    assert sum(key.macs for _, key in keyed(tiny(), "fp32")) == 0
    assert len(tiny_file("fp32", "tflite")) < 3000
    assert OnnxRunner(tiny_file("fp32", "onnxruntime")).input_shapes == ((1, NARROW, 1, 1),)

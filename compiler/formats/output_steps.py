"""The quantisation steps of an int8 file's outputs, as `Format.output_steps` gives them."""

from __future__ import annotations

from typing import Any

import onnx


def tflite_output_steps(data: bytes) -> tuple[float | None, ...] | None:
    from ai_edge_litert import schema_py_generated as schema

    file: Any = schema
    model = file.ModelT.InitFromObj(file.Model.GetRootAs(data, 0))
    (graph, *_) = model.subgraphs
    integer = (file.TensorType.INT8, file.TensorType.UINT8)
    makers = {int(op.outputs[0]): op for op in graph.operators if len(op.outputs)}
    codes = [max(c.builtinCode, c.deprecatedBuiltinCode) for c in model.operatorCodes]
    steps: list[float | None] = []
    for index in graph.outputs:
        if graph.tensors[index].type in integer:
            steps.append(1.0)
            continue
        maker = makers.get(int(index))
        if maker is None or codes[maker.opcodeIndex] != file.BuiltinOperator.DEQUANTIZE:
            steps.append(None)
            continue
        steps.append(float(graph.tensors[maker.inputs[0]].quantization.scale[0]))
    # weights alone may be int8: then the arithmetic is float
    computed = {int(i) for op in graph.operators for i in op.outputs}
    quantised = any(graph.tensors[i].type in integer for i in computed)
    return tuple(steps) if quantised else None


def onnx_output_steps(data: bytes) -> tuple[float | None, ...] | None:
    graph = onnx.load_model_from_string(data).graph
    if not any(node.op_type == "QuantizeLinear" for node in graph.node):
        return None
    makers = {node.output[0]: node for node in graph.node}
    known = {i.name: onnx.numpy_helper.to_array(i) for i in graph.initializer}
    steps: list[float | None] = []
    for output in graph.output:
        maker = makers.get(output.name)
        if maker is not None and maker.op_type == "QuantizeLinear":
            steps.append(1.0)
            continue
        scaled = maker is not None and maker.op_type == "DequantizeLinear"
        scale = known.get(maker.input[1]) if maker is not None and scaled else None
        steps.append(float(scale.reshape(-1)[0]) if scale is not None else None)
    return tuple(steps)

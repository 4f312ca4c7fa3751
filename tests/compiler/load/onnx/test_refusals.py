"""What is wrong with an ONNX file is one line that says what to do; nothing is read outside of its
folder, and nothing is made as large as a file only claims."""

import contextlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx_files import model_of, one_node, written
from torch import nn

import shrinkc
from shrinkc.compiler.load.onnx import translate as translating
from shrinkc.compiler.load.onnx.file import read_onnx
from shrinkc.errors import CaptureError, InputError, LoadError, ShrinkcError

IMAGE = ("N", 3, 8, 8)


def conv_net(**changes: Any) -> onnx.ModelProto:
    weight = np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float32)
    nodes = [("Conv", ["x", "w"], ["c"], {}), ("Relu", ["c"], ["y"], {})]
    return model_of(nodes, {"x": changes.pop("shape", IMAGE)}, ["y"], {"w": weight}, **changes)


def refusal(model: onnx.ModelProto | Path, folder: Path, inputs: Any = None) -> ShrinkcError:
    """What `estimate` says."""
    path = model if isinstance(model, Path) else written(model, folder)
    with pytest.raises(ShrinkcError) as caught:
        shrinkc.estimate(path, inputs, target="rpi4")
    assert len(str(caught.value).splitlines()) == 1
    return caught.value


def branching(condition: str) -> onnx.ModelProto:
    branches = {
        f"{name}_branch": helper.make_graph(
            [helper.make_node(kind, ["x"], [f"{name}_y"])],
            name,
            [],
            [onnx.ValueInfoProto(name=f"{name}_y")],
        )
        for name, kind in (("then", "Relu"), ("else", "Sigmoid"))
    }
    nodes = [
        ("ReduceSum", ["x"], ["s"], {"keepdims": 0}),
        ("Greater", ["s", "zero"], ["t"], {}),
        ("If", [condition], ["y"], branches),
    ]
    weights = {"zero": np.array(0, np.float32), "known": np.array(False)}
    return model_of(nodes, {"x": IMAGE}, ["y"], weights)


OPERATORS: dict[str, tuple[onnx.ModelProto, str]] = {
    "unknown": (
        model_of(
            [("Det", ["x"], ["a"], {}), ("Det", ["x"], ["b"], {}), ("Add", ["a", "b"], ["y"], {})],
            {"x": (1, 3, 3)},
            ["y"],
        ),
        r"operators that cannot be translated: 2 × Det \('Det_0'\)",
    ),
    "boxes": (
        model_of(
            [("NonMaxSuppression", ["x", "z"], ["y"], {})], {"x": (1, 9, 4), "z": (1, 2, 9)}, ["y"]
        ),
        r"NonMaxSuppression .*how many boxes are left depends on the data; cut it off",
    ),
    "found": (one_node("NonZero", (1, 5)), r"node 'NonZero_0' \(NonZero\): .*cut it off"),
    "maker": (
        model_of(
            [("Magic", ["x"], ["y"], {"domain": "acme"})], {"x": IMAGE}, ["y"], domains=["acme"]
        ),
        r"operators of other makers: 1 × acme\.Magic; export without them",
    ),
    "quantised": (
        model_of(
            [
                ("QuantizeLinear", ["x", "s"], ["q"], {}),
                ("DequantizeLinear", ["q", "s"], ["y"], {}),
            ],
            {"x": IMAGE},
            ["y"],
            {"s": np.array(0.1, np.float32)},
        ),
        r"a quantised file \(2 nodes such as QuantizeLinear\); give the fp32 file",
    ),
    "sequence": (
        model_of(
            [("SplitToSequence", ["x"], ["s"], {}), ("SequenceAt", ["s", "i"], ["y"], {})],
            {"x": IMAGE},
            ["y"],
            {"i": np.array(0)},
        ),
        "lists of tensors; export the network without them",
    ),
    "random": (one_node("RandomNormalLike", IMAGE), "random numbers; give them as an input"),
    "branch": (branching("t"), r"node 'If_2' \(If\): its flow depends on the data"),
    "half": (conv_net(element=TensorProto.FLOAT16), "holds float16; give the float32 file"),
    "whole": (conv_net(element=TensorProto.INT64), "'x' holds int64; networks read float32 here"),
    "old": (conv_net(opset=6), "opset 6; shrinkc reads 7 to"),
    "crop": (
        one_node(
            "Resize",
            (1, 3, 8, 8),
            [np.zeros(8, np.float32), None, np.array([1, 3, 4, 4])],
            coordinate_transformation_mode="tf_crop_and_resize",
        ),
        r"node 'Resize_0' \(Resize\): resizing by tf_crop_and_resize",
    ),
    "endless": (
        one_node("Resize", (1, 3, 8, 8), [None, np.array([1, 1, 1e9, 1], np.float32)]),
        r"node 'Resize_0' \(Resize\): resizing 8 pixels to 8,000,000,000",
    ),
    "a large batch": (conv_net(shape=(10**6, 3, 8, 8)), "has a batch of 1,000,000, the most is"),
    "a large input": (conv_net(shape=("N", 3, 1 << 14, 1 << 14)), "which is no network's"),
    "indices": (
        one_node("MaxPool", IMAGE, outputs=2, kernel_shape=[2, 2]),
        r"node 'MaxPool_0' \(MaxPool\): it returns indices",
    ),
    "huge": (
        model_of(
            [("ConstantOfShape", ["s"], ["c"], {}), ("Add", ["x", "c"], ["y"], {})],
            {"x": IMAGE},
            ["y"],
            {"s": np.array([1 << 20, 1 << 20])},
        ),
        r"node 'ConstantOfShape_0' .*a constant of shape \(1048576, 1048576\)",
    ),
    "huge sum": (
        model_of(
            [("Add", ["a", "b"], ["c"], {}), ("Add", ["x", "c"], ["y"], {})],
            {"x": IMAGE},
            ["y"],
            {"a": np.zeros((1 << 16, 1), np.float32), "b": np.zeros((1, 1 << 16), np.float32)},
        ),
        r"node 'Add_0' \(Add\): computes a constant of more than",
    ),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_what_cannot_be_translated_is_named(name: str, tmp_path: Path) -> None:
    model, message = OPERATORS[name]
    error = refusal(model, tmp_path)
    assert re.search(message, str(error)), error
    assert isinstance(error, CaptureError | InputError)


def test_an_attribute_of_a_function_that_is_none(tmp_path: Path) -> None:
    model = conv_net()
    model.graph.node[0].attribute.add(name="group", type=onnx.AttributeProto.INT, ref_attr_name="g")
    assert "attribute 'group' of no function" in str(refusal(model, tmp_path))


def test_a_layer_may_have_any_name(tmp_path: Path) -> None:
    """Names become attributes in Python source."""
    model = conv_net()
    model.graph.node[0].name = "net/import/lambda"
    assert shrinkc.estimate(written(model, tmp_path), target="rpi4").total_ms > 0


def test_a_branch_that_is_known_is_taken(tmp_path: Path) -> None:
    network = shrinkc.load(written(branching("known"), tmp_path))
    x = torch.randn(2, *IMAGE[1:])
    assert torch.allclose(network(x), torch.sigmoid(x), atol=1e-6)


SHAPES: dict[str, tuple[Any, Any, str]] = {
    "open": (("N", 3, "height", 8), None, r"leaves dimension 2 of 'x' \(height\) open"),
    "vector": ((5,), None, r"the file's input 'x' has no batch"),
    "other": ((1, 3, 8, 8), (1, 3, 9, 8), r"`inputs` 1,3,9,8: the file's 'x' is 1,3,8,8"),
    "batch": ((1, 3, 8, 8), (2, 3, 8, 8), r"`inputs` 2,3,8,8: the file's 'x' is 1,3,8,8"),
    "two": (IMAGE, [(1, 3, 8, 8), (1, 3)], r"`inputs` holds 2 shapes; the file reads 1 input: x"),
}


@pytest.mark.parametrize("name", SHAPES)
def test_shapes_that_are_open_or_do_not_fit(name: str, tmp_path: Path) -> None:
    shape, given, message = SHAPES[name]
    error = refusal(conv_net(shape=shape), tmp_path, given)
    assert re.search(message, str(error)), error
    assert isinstance(error, InputError)


def test_open_sizes_can_be_given(tmp_path: Path) -> None:
    path = written(conv_net(shape=("N", 3, "h", "w")), tmp_path)
    assert shrinkc.inspect(path, (1, 3, 10, 12)).graph.meta["input_shapes"] == {"x": (1, 3, 10, 12)}


def test_no_shape_at_all(tmp_path: Path) -> None:
    model = conv_net()
    model.graph.input[0].type.tensor_type.ClearField("shape")
    assert "the file gives 'x' no shape" in str(refusal(model, tmp_path))
    assert shrinkc.inspect(tmp_path / "net.onnx", (1, 3, 8, 8)).graph.meta["dynamic_batch"]


def damaged(content: bytes, folder: Path) -> str:
    path = folder / "damaged.onnx"
    path.write_bytes(content)
    error = refusal(path, folder)
    assert isinstance(error, LoadError)
    assert str(error).startswith(f"{path}: ")
    return str(error)


def test_damaged_files(tmp_path: Path) -> None:
    whole = conv_net().SerializeToString()
    for length in (3, 10, 40, len(whole) // 2, len(whole) - 1):
        assert "damaged" in damaged(whole[:length], tmp_path)
    noise = np.random.default_rng(0)
    for _ in range(40):
        changed = bytearray(whole)
        for at in noise.integers(0, len(whole), 8):
            changed[at] = noise.integers(0, 256)
        path = tmp_path / "changed.onnx"
        path.write_bytes(changed)
        with contextlib.suppress(ShrinkcError):  # anything else is a failure
            shrinkc.load(path)
    assert "a text file" in damaged(b"give me weights", tmp_path)
    assert "Git LFS pointer" in damaged(b"version https://git-lfs.github.com/spec/v1\n", tmp_path)
    assert "a web page" in damaged(b"<!DOCTYPE html><html>Not found</html>", tmp_path)


def test_a_tensor_that_claims_more_than_it_holds(tmp_path: Path) -> None:
    model = conv_net()
    model.graph.initializer[0].dims[0] = 1 << 40
    assert "numbers declared" in damaged(model.SerializeToString(), tmp_path)
    model.graph.initializer[0].dims[0] = -4
    assert "tensor 'w'" in damaged(model.SerializeToString(), tmp_path)


def test_what_is_read_before_it_is_made(tmp_path: Path) -> None:
    model = conv_net()
    model.graph.node[0].input[1] = "nowhere"
    assert "nothing makes 'nowhere'" in damaged(model.SerializeToString(), tmp_path)


def test_weights_that_are_not_finite(tmp_path: Path) -> None:
    model = conv_net()
    weight = numpy_helper.to_array(model.graph.initializer[0]).copy()
    weight[0, 0, 0, 0] = np.nan
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(weight, "w"))
    assert "are NaN or infinite" in damaged(model.SerializeToString(), tmp_path)


# --- weights beside the file ---------------------------------------------------------------------


def beside(folder: Path, change: Callable[[TensorProto], None] | None = None) -> Path:
    """A file whose weights lie in another one."""
    folder.mkdir(exist_ok=True)
    model, path = conv_net(), folder / "net.onnx"
    onnx.save(model, path, save_as_external_data=True, location="net.data", size_threshold=0)
    model = onnx.load(path, load_external_data=False)
    if change is not None:
        change(model.graph.initializer[0])
    path.write_bytes(model.SerializeToString())
    return path


def at(location: str) -> Callable[[TensorProto], None]:
    def change(tensor: TensorProto) -> None:
        next(e for e in tensor.external_data if e.key == "location").value = location

    return change


def test_weights_beside_the_file(tmp_path: Path) -> None:
    network = shrinkc.load(beside(tmp_path))
    inside = shrinkc.load(written(conv_net(), tmp_path / ".."))
    x = torch.randn(1, 3, 8, 8)
    assert torch.equal(network(x), inside(x))


def test_weights_outside_the_folder(tmp_path: Path) -> None:
    beside(tmp_path)
    secret = tmp_path / "net.data"
    for location in ("../net.data", str(secret), "a/../../net.data", "/etc/hostname"):
        path = beside(tmp_path / "in", at(location))
        assert "outside its folder" in str(refusal(path, tmp_path))
    path = beside(tmp_path / "in", at("link.data"))
    (path.parent / "link.data").symlink_to(secret)
    assert "are a link" in str(refusal(path, tmp_path))
    (path.parent / "folder").symlink_to(tmp_path)
    path = beside(tmp_path / "in", at("folder/net.data"))
    assert "are a link" in str(refusal(path, tmp_path))
    path = beside(tmp_path / "in", at("missing.data"))
    assert "are missing; put them beside it" in str(refusal(path, tmp_path))


def test_files_that_are_too_large(tmp_path: Path) -> None:
    path = beside(tmp_path)
    with pytest.raises(LoadError, match="GiB with its weights, the limit is"):
        read_onnx(path, max_bytes=path.stat().st_size + 10)
    with (tmp_path / "net.data").open("r+b") as file:
        file.truncate(3 << 30)  # sparse: nothing is written
    assert "3.0 GiB with its weights, the limit is 2.0 GiB" in str(refusal(path, tmp_path))
    with path.open("r+b") as file:
        file.truncate(3 << 30)
    assert "3.0 GiB with its weights, the limit is 2.0 GiB" in str(refusal(path, tmp_path))


# --- the original is what counts -----------------------------------------------------------------


def test_a_wrong_translation_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weight = np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float32)
    nodes = [("Conv", ["x", "w"], ["c"], {}), ("LeakyRelu", ["c"], ["y"], {"alpha": 0.1})]
    path = written(model_of(nodes, {"x": IMAGE}, ["y"], {"w": weight}), tmp_path)
    assert shrinkc.compile(path, target="rpi4", runs=0).report.max_relative_error < 1e-5

    def wrong(c: Any) -> Any:
        return c.call(nn.functional.leaky_relu, c.x(), 0.102)

    monkeypatch.setitem(translating.RULES, "LeakyRelu", wrong)
    with pytest.raises(ShrinkcError, match="differs by"):
        shrinkc.compile(path, target="rpi4", runs=0)
    with pytest.raises(CaptureError, match="does not compute what ONNX Runtime does"):
        shrinkc.load(path)
    with pytest.raises(CaptureError, match="differs by"):
        shrinkc.prune(path, goal=shrinkc.Goal.macs(0.5))


def test_arch_is_refused(tmp_path: Path) -> None:
    path = written(conv_net(), tmp_path)
    with pytest.raises(LoadError, match="holds its network; leave out `arch`"):
        shrinkc.load(path, arch="a:b")
    with pytest.raises(LoadError, match="holds its network; leave out `arch`"):
        shrinkc.estimate(shrinkc.ModelFile(path, arch="a:b"), target="rpi4")


@pytest.mark.parametrize("gone", ["then_branch", "else_branch"])
def test_an_if_without_a_branch_is_damaged(gone: str, tmp_path: Path) -> None:
    model = branching("known")
    (node,) = [one for one in model.graph.node if one.op_type == "If"]
    kept = [one for one in node.attribute if one.name != gone]
    del node.attribute[:]
    node.attribute.extend(kept)
    path = tmp_path / "m.onnx"
    onnx.save(model, path)
    said = "cannot load the file" if gone == "then_branch" else "damaged: an If without its else"
    with pytest.raises(LoadError, match=said):  # the other is not taken: ONNX Runtime misses it
        shrinkc.capture(path)


def test_an_if_by_several_numbers_is_refused(tmp_path: Path) -> None:
    model = branching("known")
    weights = [one for one in model.graph.initializer if one.name != "known"]
    weights.append(onnx.numpy_helper.from_array(np.zeros(0, bool), "known"))
    del model.graph.initializer[:]
    model.graph.initializer.extend(weights)
    path = tmp_path / "m.onnx"
    onnx.save(model, path)
    with pytest.raises(CaptureError, match="'If_2'"):
        shrinkc.capture(path)

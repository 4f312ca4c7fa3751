"""Files in our own format that somebody else made: no code, no gigabytes, one line each."""

import builtins
import json
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, fx, nn

from shrinkc.compiler.capture import capture
from shrinkc.compiler.load.load import load_model
from shrinkc.compiler.model_file import decode
from shrinkc.compiler.model_file import file as model_file
from shrinkc.compiler.model_file.file import (
    load_model_file,
    model_bytes,
    read_metadata,
    read_tensors,
)
from shrinkc.errors import LoadError

Json = Any


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Tensor]]:
    """The JSON and the tensors of a small network."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten())
    path = tmp_path_factory.mktemp("sound") / "model.safetensors"
    path.write_bytes(model_bytes(capture(model.eval(), (torch.randn(1, 3, 8, 8),)), {"a": 1}))
    return read_metadata(path)["shrinkc"], safetensors.torch.load_file(path)


def write(path: Path, entry: Json, tensors: dict[str, Tensor]) -> Path:
    text = entry if isinstance(entry, str) else json.dumps(entry)
    path.write_bytes(safetensors.torch.save(tensors, {"shrinkc": text}))
    return path


def first(entry: Json, op: str) -> Json:
    return next(node for node in entry["nodes"] if node["op"] == op)


def rename(entry: Json, old: str, new: str) -> None:
    text = json.dumps(entry).replace(json.dumps(old), json.dumps(new))
    entry.clear()
    entry.update(json.loads(text))


def doubled(entry: Json, times: int) -> None:
    """The output concatenated with itself so often."""
    *nodes, output = entry["nodes"]
    name = output["args"][0][0]["node"]
    for index in range(times):
        args = [[{"node": name}, {"node": name}], 1]
        name = f"twice_{index}"
        nodes.append({"op": "call_function", "name": name, "target": "cat", "args": args})
    entry["nodes"] = [*nodes, {**output, "args": [[{"node": name}]]}]


def second_input(entry: Json, **fields: str) -> None:
    given = first(entry, "placeholder")
    entry["nodes"].insert(1, {**given, **fields})
    entry["inputs"][fields["name"]] = entry["inputs"][given["name"]]


INJECTION = 'x"); __import__("os").system("touch ran"); ("'
CHANGES: dict[str, tuple[Callable[[Json], object], str]] = {
    "unknown field": (lambda e: e.update(code="print(1)"), "code: Extra inputs are not permitted"),
    "missing field": (lambda e: e.pop("nodes"), "nodes: Field required"),
    "newer": (lambda e: e.update(version=2, more={}), "format 2, this shrinkc reads up to 1; upd"),
    "no version": (lambda e: e.pop("version"), "version: Field required"),
    "version as text": (
        lambda e: e.update(version="1"),
        "version: Input should be a valid integer",
    ),
    "version 0": (lambda e: e.update(version=0), "version: Input should be 1"),
    "code as node name": (lambda e: rename(e, "_0", INJECTION), "should match pattern"),
    "code as input name": (lambda e: rename(e, "input_1", INJECTION), "should match pattern"),
    "newline in a name": (lambda e: rename(e, "_0", "_0\nimport os"), "should match pattern"),
    "newline after a name": (lambda e: rename(e, "_0", "_0\n"), "should match pattern"),
    "unicode name": (lambda e: rename(e, "_0", "ｅval"), "should match pattern"),
    "keyword as name": (lambda e: rename(e, "_0", "import"), "'import' is no name"),
    "builtin as name": (lambda e: rename(e, "_0", "eval"), "'eval' is taken, or reserved"),
    "name used twice": (lambda e: rename(e, "_1", "_0"), "'_0' is taken"),
    "code as module path": (lambda e: rename(e, "0", INJECTION), "should match pattern"),
    "dunder path": (lambda e: rename(e, "0", "__class__"), "'__class__' is no name"),
    "path to a method": (lambda e: rename(e, "0", "forward"), "'forward' is taken"),
    "path into torch": (lambda e: rename(e, "1", "0.weight"), "lies inside something"),
    "code as input target": (
        lambda e: first(e, "placeholder").update(target="a.b"),
        "'a.b' is no input name",
    ),
    "attribute traversal": (
        lambda e: first(e, "call_module").update(
            op="get_attr", target="0.weight.__class__", args=[]
        ),
        "is no name",
    ),
    "method as attribute": (
        lambda e: first(e, "call_module").update(op="get_attr", target="0.forward", args=[]),
        "attribute '0.forward' is not a tensor",
    ),
    "method call": (
        lambda e: first(e, "call_module").update(op="call_method", target="numpy"),
        "op: Input should be 'placeholder'",
    ),
    "any function": (
        lambda e: first(e, "call_function").update(target="os.system"),
        "no function os.system",
    ),
    "any module": (
        lambda e: e["modules"]["2"].update(kind="Bilinear"),
        "is of unknown kind Bilinear",
    ),
    "unknown node": (
        lambda e: first(e, "call_module").update(args=[{"node": "later"}]),
        "no node 'later' before its use",
    ),
    "a module that is not there": (
        lambda e: first(e, "call_module").update(target="nowhere"),
        "damaged",
    ),
    "code as argument": (
        lambda e: first(e, "call_function")["args"].append("__import__('os')"),
        "damaged",
    ),
    "huge number": (
        lambda e: first(e, "call_function")["args"].append(10**30),
        "damaged",
    ),
    "extra argument of a module": (
        lambda e: e["modules"]["0"]["fields"].update(device="cuda"),
        "Conv2d '0' needs the fields in_channels",
    ),
    "missing argument of a module": (
        lambda e: e["modules"]["0"]["fields"].pop("groups"),
        "Conv2d '0' needs the fields in_channels",
    ),
    "wrong groups": (lambda e: e["modules"]["0"]["fields"].update(groups=2), "Conv2d '0': "),
    "wrong type": (
        lambda e: e["modules"]["0"]["fields"].update(in_channels="3"),
        "Conv2d '0' cannot have the in_channels '3'",
    ),
    "a number for truth": (
        lambda e: e["modules"]["0"]["fields"].update(bias=1),
        "Conv2d '0' cannot have the bias 1",
    ),
    "no stride": (
        lambda e: e["modules"]["0"]["fields"].update(stride=[1, 0]),
        r"Conv2d '0' cannot have the stride \(1, 0\)",
    ),
    "no arguments": (lambda e: first(e, "call_function").update(args=[]), "reshape takes 2"),
    "a word as shape": (
        lambda e: first(e, "call_function")["args"].__setitem__(1, "abc"),
        "reshape cannot take that as argument 2",
    ),
    "another shape": (
        lambda e: first(e, "call_function")["args"].__setitem__(1, [1, 7]),
        r"node '\w+' cannot run: .*shape",
    ),
    "a huge shape": (
        lambda e: first(e, "call_function").update(
            target="pad", args=[{"node": "_2"}, [2**30, 2**30], "constant", 0.0]
        ),
        r"cannot run: a value of 1×4×6×2147483654, the limit is 268,435,456 numbers",
    ),
    "doubled again and again": (lambda e: doubled(e, 60), "the limit is 268,435,456 numbers"),
    "many dimensions": (
        lambda e: first(e, "call_function")["args"].__setitem__(1, [1] * 65),
        "reshape cannot take that as argument 2",
    ),
    "another input": (
        lambda e: e.update(inputs={"input_1": [1, 5, 8, 8]}),
        "node '_0' cannot run: its channels do not fit its input",
    ),
    "an input of one dimension": (
        lambda e: e.update(inputs={"input_1": [3]}),
        "node '_0' cannot run: its channels do not fit its input",
    ),
    "too small an input": (
        lambda e: e.update(inputs={"input_1": [1, 3, 2, 8]}),
        "node '_0' cannot run: its windows do not fit its input",
    ),
    "an input named as fx names its module": (
        lambda e: first(e, "placeholder").update(target="torch"),
        "'torch' cannot name an input",
    ),
    "an input named as fx writes infinity": (
        lambda e: first(e, "placeholder").update(target="inf"),
        "'inf' cannot name an input",
    ),
    "an input named as fx reads modules": (
        lambda e: first(e, "placeholder").update(target="getattr"),
        "'getattr' cannot name an input",
    ),
    "inputs of one name": (
        lambda e: second_input(e, name="second"),
        "two inputs have the same name",
    ),
    "an input that reads": (
        lambda e: first(e, "placeholder").update(args=[1]),
        "placeholder takes 0 arguments",
    ),
    "gigabytes": (
        lambda e: e["modules"]["0"]["fields"].update(in_channels=2**24, out_channels=2**24),
        r"Conv2d '0' needs a weight of \(16777216, 16777216, 3, 3\), not \(4, 3, 3, 3\)",
    ),
    "more than gigabytes": (
        lambda e: e["modules"]["0"]["fields"].update(in_channels=2**40),
        "damaged",
    ),
    "no such tensor": (
        lambda e: e["modules"]["0"]["tensors"].update(weight="1.gone"),
        "no tensor '1.gone'",
    ),
    "a tensor too few": (lambda e: e["modules"]["0"]["tensors"].pop("bias"), "needs the tensors"),
    "parameter as buffer": (
        lambda e: e["modules"]["1"]["tensors"].update(running_mean="0.bias"),
        "'0.bias' is a parameter and a buffer",
    ),
    "integers to train": (
        lambda e: e["modules"]["0"]["tensors"].update(bias="1.num_batches_tracked"),
        "cannot be trainable",
    ),
    "layout": (lambda e: e["layouts"].update({"0.weight": [0, 0, 1, 2]}), "layout"),
    "alias of nothing": (
        lambda e: e["modules"].update({"9": {"same_as": "8"}}),
        "no module '8'",
    ),
    "wrong inputs": (lambda e: e.update(inputs={"y": [1, 2]}), "does not name the graph's inputs"),
    "huge input": (
        lambda e: e.update(inputs={"input_1": [1, 2**20, 2**20]}),
        r"input 'input_1' of shape \(1, 1048576, 1048576\)",
    ),
    "empty input": (lambda e: e.update(inputs={"input_1": [1, 0, 8]}), "input 'input_1' of shape"),
    "an output of nothing": (
        lambda e: first(e, "output").update(args=[]),
        "output takes 1 arguments",
    ),
    "no output": (lambda e: e["nodes"].pop(), "0 output nodes"),
    "a batch that is fixed": (
        lambda e: e["nodes"][-2]["args"].__setitem__(1, [1, 144]),
        "cannot run at twice the batch",
    ),
    "two outputs": (lambda e: e["nodes"].append(dict(e["nodes"][-1], name="out2")), "damaged"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_changed_graphs(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    sound: tuple[str, dict[str, Tensor]],
    name: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    change, message = CHANGES[name]
    entry, tensors = json.loads(sound[0]), sound[1]
    change(entry)
    assert json.dumps(entry) != json.dumps(json.loads(sound[0]))
    path = write(tmp_path / "model.safetensors", entry, tensors)
    with pytest.raises(LoadError, match=message) as caught:
        load_model(path)
    assert len(str(caught.value).splitlines()) == 1
    assert str(caught.value).startswith(f"{path}: ")
    assert [p.name for p in tmp_path.iterdir()] == ["model.safetensors"]
    monkeypatch.setattr(decode, "_LONG", 0)  # nor is anything left to be found in its code
    with pytest.raises(LoadError, match=message):
        load_model(path)


@pytest.mark.parametrize("long", [False, True])
def test_no_name_changes_what_the_code_means(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, long: bool
) -> None:
    """An input may have any name that is not refused: torch.fx writes it into Python."""
    monkeypatch.setattr(decode, "_LONG", 0 if long else 20_000)
    others = ("inf", "nan", "device", "NoneType", "torch", "fx_pytree", "pytree", "math", "self")
    read = 0
    for name in (*dir(builtins), *others, "forward", "operator", "match", "_", "y", "z", "input"):
        path = write(tmp_path / "m.safetensors", all_forms(name), {"1.w": torch.full((1, 4), 0.5)})
        try:
            graph_module = load_model(path)
        except LoadError:
            continue
        assert isinstance(graph_module, fx.GraphModule)
        x = torch.randn(2, 4)
        computed: tuple[Tensor, ...] = fx.Interpreter(graph_module).run(x)
        assert all(map(torch.equal, graph_module(x), computed)), name
        read += 1
    assert read > 100


def all_forms(name: str) -> Json:
    """One of everything that torch.fx writes in a way of its own."""
    x, y, z = ({"node": one} for one in "xyz")
    nodes = (
        ("placeholder", "x", name),
        ("call_module", "r", "0.0", x),
        ("get_attr", "y", "1.w"),
        ("call_function", "s", "add", {"node": "r"}, y),
        ("call_function", "z", "clamp", {"node": "s"}, {"float": "-inf"}, {"float": "inf"}),
        ("call_function", "q", "sqrt", z),
        ("call_function", "c", "cat", {"list": [{"node": "q"}, z]}, 1),
        ("call_function", "k", "slice", {"node": "c"}, 1, 0, 8, 2),
        ("call_function", "e", "batch_expand", y, x),
        ("output", "output", "output", [{"node": "k"}, {"node": "e"}]),
    )
    return {
        **{"version": 1, "inputs": {"x": [1, 4]}, "frozen": [], "layouts": {}, "meta": {}},
        "nodes": [dict(zip(("op", "name", "target"), n, strict=False), args=n[3:]) for n in nodes],
        "modules": {"0.0": {"kind": "ReLU", "fields": {}, "tensors": {}}},
        **{"attributes": {"1.w": {"tensor": "1.w", "kind": "buffer"}}, "extra": {}},
    }


def test_the_unchanged_graph_loads(tmp_path: Path, sound: tuple[str, dict[str, Tensor]]) -> None:
    path = write(tmp_path / "model.safetensors", *sound)
    assert isinstance(load_model(path), fx.GraphModule)
    write(path, sound[0], {**sound[1], "more": torch.zeros(1)})
    with pytest.raises(LoadError, match="nothing uses tensor 'more'"):
        load_model(path)


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[]", "1", "nope", '{"version": 1' + " " * 99, "[" * 100_000, '{"version":1}'],
)
def test_json_that_is_none(tmp_path: Path, text: str) -> None:
    with pytest.raises(LoadError, match=r"damaged \(.*\); copy or save it again"):
        load_model_file(write(tmp_path / "model.safetensors", text, {}))


def test_nesting_in_arguments(tmp_path: Path, sound: tuple[str, dict[str, Tensor]]) -> None:
    text = sound[0].replace('"extra":{"a":1}', '"extra":{"a":' + "[" * 5000 + "]" * 5000 + "}")
    assert text != sound[0]
    with pytest.raises(LoadError, match="damaged"):
        load_model_file(write(tmp_path / "model.safetensors", text, sound[1]))


def test_a_header_is_measured_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", 1 << 40) + b"{}")
    with pytest.raises(LoadError, match=r"damaged \(a header of 1,099,511,627,776 bytes\)"):
        load_model_file(path)
    path.write_bytes(struct.pack("<Q", 100) + b"{" + b" " * 98 + b"}")
    monkeypatch.setattr(model_file, "MAX_HEADER", 99)
    monkeypatch.setattr(json, "loads", lambda _: pytest.fail("parsed"))
    with pytest.raises(LoadError, match="a header of 100 bytes"):
        load_model_file(path)


def test_crowds_of_lists_in_a_header_are_told_before_they_are_parsed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    crowded = {"a": entry | {"data_offsets": [[{"list": []}] * 1000, 4]}, "b [[{": entry}
    path = tmp_path / "m.safetensors"
    monkeypatch.setattr(model_file, "_LONG", 100)
    header = json.dumps(crowded).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    with pytest.raises(LoadError, match="'a' is no tensor"):
        read_tensors(path)
    monkeypatch.setattr(model_file, "_TENSORS", 2000)
    with pytest.raises(LoadError, match="a header of over 2,000 lists and objects"):
        read_tensors(path)
    monkeypatch.setattr(model_file, "_TENSORS", 8)
    safetensors.torch.save_file({"a [[[[[[[[[[": torch.ones(1), "b": torch.ones(2)}, path)
    assert set(read_tensors(path)) == {"a [[[[[[[[[[", "b"}  # a string's brackets are none


def test_another_safetensors(tmp_path: Path) -> None:
    safetensors.torch.save_file({"a": torch.zeros(1)}, tmp_path / "m.safetensors")
    with pytest.raises(LoadError, match="not written by shrinkc; give `arch` to load weights"):
        load_model_file(tmp_path / "m.safetensors")
    with pytest.raises(LoadError, match=r"no\.safetensors: cannot be read .* check the path"):
        load_model_file(tmp_path / "no.safetensors")


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_random_damage(tmp_path: Path, sound: tuple[str, dict[str, Tensor]], data: Any) -> None:
    """One value anywhere in the JSON replaced by another: loads, or is one line."""
    entry = json.loads(sound[0])
    place: Any = entry
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = data.draw(st.sampled_from(keys))
        inner = place[key]
        if not isinstance(inner, dict | list) or not inner or data.draw(st.booleans()):
            break
        place = inner
    leaf = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9)
    place[key] = data.draw(leaf | st.lists(leaf, max_size=3) | st.just({"node": "_0"}))
    path = write(tmp_path / "model.safetensors", entry, sound[1])
    try:
        load_model_file(path)
    except LoadError as error:
        message = str(error)
    else:
        message = "loaded"
    assert len(message.splitlines()) == 1


def test_many_nodes_load_fast(tmp_path: Path) -> None:
    """A tenth of the most that a file may have, in a tenth of ten seconds of a fast processor; slow
    ones take 2.2 s, and what is quadratic far longer."""
    count = 20_000
    nodes = [{"op": "placeholder", "name": "x", "target": "x", "args": []}]
    for index in range(1, count - 1):
        before = {"node": nodes[-1]["name"]}
        call = {"op": "call_function", "target": "add", "args": [before, 1.5]}
        if index % 2:
            call = {"op": "call_module", "target": f"m.{index}", "args": [before]}
        nodes.append({**call, "name": f"n{index}"})
    nodes.append({"op": "output", "name": "output", "target": "output", "args": [[before]]})
    entry = {
        **{"version": 1, "inputs": {"x": [1, 4]}, "nodes": nodes, "attributes": {}, "frozen": []},
        "modules": {
            f"m.{index}": {"kind": "ReLU", "fields": {}, "tensors": {}}
            for index in range(1, count - 1, 2)
        },
        **{"layouts": {}, "meta": {}, "extra": {}},
    }
    path = write(tmp_path / "m.safetensors", entry, {})
    started = time.process_time()
    graph_module, _ = load_model_file(path)
    assert time.process_time() - started < 4
    assert len(graph_module.graph.nodes) == count


def test_fields_of_very_many_objects_are_refused_at_once(
    tmp_path: Path, sound: tuple[str, dict[str, Tensor]]
) -> None:
    entry, tensors = json.loads(sound[0]), sound[1]
    first_module = next(m for m in entry["modules"].values() if "fields" in m)
    first_module["fields"]["padding"] = [{"list": [1]}] * 100_000
    path = write(tmp_path / "model.safetensors", entry, tensors)
    started = time.process_time()
    with pytest.raises(LoadError, match="lists and objects"):
        load_model(path)
    assert time.process_time() - started < 1

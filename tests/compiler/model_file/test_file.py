"""shrinkc's own file: what is saved comes back bit for bit."""

import operator
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, fx, nn

from shrinkc.compiler.model_file import decode
from shrinkc.compiler.model_file.file import (
    is_model_file,
    load_model_file,
    model_bytes,
    read_metadata,
    save_model,
)
from shrinkc.errors import IllegalGraphError, InputError
from shrinkc.passes import ir
from shrinkc.passes.base import copy_graph
from shrinkc.passes.recurrent import Recurrent


class Everything(nn.Module):
    """Shared and aliased modules, tied weights, buffers of both kinds, constants, all arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 7, 3, 2, 1, bias=False), nn.BatchNorm2d(7))
        self.twice = nn.Conv2d(7, 7, (3, 1), padding=(1, 0), groups=7)
        self.alias = nn.ModuleList([self.twice])
        self.prelu = nn.PReLU(7)
        self.up = nn.Upsample(scale_factor=2.0, mode="bilinear", align_corners=False)
        self.pool = nn.MaxPool2d(3, 2, 1, ceil_mode=True)
        self.tied = nn.Conv2d(7, 7, (3, 1), padding=(1, 0), groups=7)
        self.tied.weight = self.twice.weight
        self.head = nn.Linear(7, 5)
        self.scale = nn.Parameter(torch.rand(1, 7, 1, 1), requires_grad=False)
        self.register_buffer("shift", torch.rand(1, 7, 1, 1))
        self.register_buffer("transient", torch.rand(1, 7, 1, 1))
        self.prelu.weight.requires_grad_(False)


def everything_graph() -> fx.GraphModule:
    torch.manual_seed(1)
    root = Everything()
    graph = fx.Graph()
    call, module = graph.call_function, graph.call_module
    x = graph.placeholder("x")
    a = module("stem.1", (module("stem.0", (x,)),))
    b = module("twice", (a,))
    c = module("alias.0", (b,))
    d = call(operator.mul, (module("prelu", (c,)), graph.get_attr("scale")))
    e = call(operator.add, (d, graph.get_attr("shift")))
    f = call(operator.sub, (e, graph.get_attr("transient")))
    g = call(F.pad, (f, (1, 1, 0, 2), "constant", -2.5))
    h = module("pool", (g,))
    i = call(ir.clamp, (module("tied", (h,)), float("-inf"), None))
    j = call(torch.cat, ([i, i], 1))
    k = call(ir.slice_dim, (j, 1, 0, 14, 2))
    m = module("head", (call(ir.mean, (module("up", (k,)), (2, 3), False)),))
    scaled = call(operator.truediv, (m, 3))
    scaled = call(operator.pow, (scaled, 2.5e-17))
    read = graph.get_attr("stem.0.weight")
    graph.output((scaled, a, call(torch.abs, (read,))))
    graph_module = fx.GraphModule(root, graph).eval()
    transient = graph_module.transient
    del graph_module.transient  # fx makes every buffer persistent
    graph_module.register_buffer("transient", transient, persistent=False)
    graph_module.meta["input_shapes"] = {"x": (1, 3, 16, 12)}
    graph_module.meta["dynamic_batch"], graph_module.meta["captured_by"] = True, "hand"
    for name, buffer in graph_module.named_buffers():
        if "running" in name:
            buffer.uniform_(0.5, 1.5)
    ir.check_legal(graph_module)
    return graph_module


def round_trip(graph_module: fx.GraphModule, folder: Path, extra: Any = None) -> fx.GraphModule:
    path = folder / "model.safetensors"
    save_model(graph_module, path, extra or {})
    loaded, found = load_model_file(path)
    assert found == (extra or {})
    ir.check_legal(loaded)
    return loaded


def tensors(graph_module: fx.GraphModule) -> dict[str, Tensor]:
    parameters = graph_module.named_parameters(remove_duplicate=False)
    return {**dict(parameters), **dict(graph_module.named_buffers(remove_duplicate=False))}


def require_same(loaded: fx.GraphModule, saved: fx.GraphModule) -> None:
    want, got = tensors(saved), tensors(loaded)
    assert list(got) == list(want)
    for name, tensor in want.items():
        assert got[name].dtype == tensor.dtype, name
        assert got[name].requires_grad == tensor.requires_grad, name
        assert isinstance(got[name], nn.Parameter) == isinstance(tensor, nn.Parameter), name
        assert got[name].shape == tensor.shape
        assert got[name].stride() == tensor.stride(), name
        assert bits(got[name]) == bits(tensor), name
    groups = [{n for n in ts if ts[n] is t} for ts in (want, got) for t in ts.values()]
    assert groups[: len(want)] == groups[len(want) :]
    assert str(loaded.graph) == str(saved.graph)
    assert [(n.name, n.op, n.target) for n in loaded.graph.nodes] == [
        (n.name, n.op, n.target) for n in saved.graph.nodes
    ]
    assert list(loaded.state_dict()) == list(saved.state_dict())
    assert loaded.meta == saved.meta


def bits(tensor: Tensor) -> bytes:
    """NaN equals NaN, 0.0 does not equal −0.0."""
    return bytes(tensor.detach().reshape(-1).contiguous().view(torch.uint8).numpy())


def same_outputs(a: fx.GraphModule, b: fx.GraphModule, *inputs: Tensor) -> bool:
    return all(bits(x) == bits(y) for x, y in zip(a(*inputs), b(*inputs), strict=True))


def test_everything_comes_back(tmp_path: Path) -> None:
    saved = everything_graph()
    extra = {
        "preprocessing": {"mean": [0.485, 1e-300], "size": [224, 224]},
        "note": "größe",
        "n": None,
    }
    loaded = round_trip(saved, tmp_path, extra)
    require_same(loaded, saved)
    assert loaded.get_submodule("alias.0") is loaded.get_submodule("twice")
    assert loaded.get_parameter("tied.weight") is loaded.get_parameter("twice.weight")
    assert "transient" not in loaded.state_dict()
    assert not any(module.training for module in loaded.modules())
    assert same_outputs(loaded, saved, torch.randn(1, 3, 16, 12))
    assert same_outputs(loaded, saved, torch.randn(3, 3, 16, 12))


def test_a_long_graph_is_compiled_when_it_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it, a copy, or what comes out of a pickle is called first, or asked for its code."""
    saved = everything_graph()
    at_once, x = round_trip(saved, tmp_path), torch.randn(3, 3, 16, 12)
    monkeypatch.setattr(decode, "_LONG", 0)
    compiled: list[fx.GraphModule] = []
    recompile = fx.GraphModule.recompile

    def counted(self: fx.GraphModule) -> Any:
        compiled.append(self)
        return recompile(self)

    loaded = round_trip(saved, tmp_path)
    require_same(loaded, saved)
    assert same_outputs(copy_graph(loaded), saved, x)
    assert same_outputs(pickle.loads(pickle.dumps(loaded)), saved, x)
    assert round_trip(saved, tmp_path).code == at_once.code
    again = round_trip(saved, tmp_path)
    monkeypatch.setattr(fx.GraphModule, "recompile", counted)
    for _ in range(2):
        assert same_outputs(again, saved, x)
    assert compiled == [again]
    changed = copy_graph(again)
    next(n for n in changed.graph.nodes if n.target is operator.mul).target = operator.sub
    changed.recompile()
    assert changed.code != again.code
    assert again.code == at_once.code


def test_the_bytes_are_determined_by_the_graph(tmp_path: Path) -> None:
    first = model_bytes(everything_graph(), {"b": 1, "a": 2})
    for _ in range(5):
        assert model_bytes(everything_graph(), {"b": 1, "a": 2}) == first
    (tmp_path / "m.safetensors").write_bytes(first)
    again, extra = load_model_file(tmp_path / "m.safetensors")
    assert model_bytes(again, extra) == first


MODULES: list[nn.Module] = [
    nn.Conv2d(4, 6, (3, 1), (2, 1), (1, 0), (1, 2), 2),
    nn.ConvTranspose2d(4, 6, 3, 2, 1, 1, 2, False),
    nn.Linear(4, 9, bias=False),
    Recurrent("lstm", 5, 4, proj_size=3, reverse=True, with_cell=True),
    Recurrent("gru", 5, 4, has_bias=False),
    nn.BatchNorm1d(4, 1e-3, None),
    nn.BatchNorm2d(4, affine=False),
    nn.BatchNorm2d(4, track_running_stats=False),
    nn.LayerNorm((5, 4), 1e-6, bias=False),
    nn.LayerNorm(4, elementwise_affine=False),
    nn.GroupNorm(2, 4),
    nn.LeakyReLU(0.3),
    nn.PReLU(1),
    nn.ELU(0.7),
    nn.Hardtanh(float("-inf"), 3.0),
    nn.GELU("tanh"),
    nn.Softplus(2, 10),
    nn.Softmax(1),
    nn.LogSoftmax(1),
    nn.Dropout(0.25),
    nn.MaxPool2d((2, 3), None, 1, 2, ceil_mode=True),
    nn.AvgPool2d(3, 2, 1, True, False, 5),
    nn.AdaptiveAvgPool2d((None, 3)),
    nn.AdaptiveMaxPool2d(2),
    nn.Upsample((5, 7)),
    nn.Upsample(scale_factor=(2, 1.5), mode="bilinear", align_corners=True),
    nn.PixelShuffle(2),
    nn.PixelUnshuffle(2),
]


SHAPES: dict[type[nn.Module], tuple[int, ...]] = {  # that they read, where it is no (2, 4, 8, 8)
    **dict.fromkeys((Recurrent, nn.BatchNorm1d), (2, 4, 5)),
    nn.Linear: (2, 4),
    nn.LayerNorm: (2, 4, 5, 4),
}


def chain(*modules: nn.Module) -> fx.GraphModule:
    graph = fx.Graph()
    node = graph.placeholder("x")
    for index in range(len(modules)):
        node = graph.call_module(str(index), (node,))
    graph.output((node,))
    graph_module = fx.GraphModule(nn.Sequential(*modules), graph).eval()
    graph_module.meta["input_shapes"] = {"x": (1, 3, 6, 6)}
    return graph_module


def one_module(module: nn.Module, shape: tuple[int, ...] = (2, 4, 8, 8)) -> fx.GraphModule:
    graph = fx.Graph()
    graph.output((graph.call_module("block1-0.m", (graph.placeholder("input_1"),)),))
    root = nn.Module()
    root.add_module("block1-0", nn.Module())
    root.get_submodule("block1-0").add_module("m", module)
    graph_module = fx.GraphModule(root, graph).eval()
    graph_module.meta["input_shapes"] = {"input_1": shape}
    return graph_module


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_every_kind_of_module(tmp_path: Path, module: nn.Module) -> None:
    saved = one_module(module, SHAPES.get(type(module), (2, 4, 8, 8)))
    loaded = round_trip(saved, tmp_path)
    require_same(loaded, saved)
    again = loaded.get_submodule("block1-0.m")
    assert repr(again) == repr(module)
    fields = ir.MODULES[type(module)]
    want, got = ([getattr(m, f) for f in fields if f != "bias"] for m in (module, again))
    assert got == want
    assert list(map(type, got)) == list(map(type, want))


def test_every_kind_of_module_is_covered() -> None:
    plain = {kind for kind, fields in ir.MODULES.items() if not fields}
    assert {type(module) for module in MODULES} | plain == set(ir.MODULES)
    for kind in plain:
        require_same(one_module(kind()), one_module(kind()))


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float16, torch.bfloat16, torch.float32], ids=str
)
def test_data_types_and_odd_values(tmp_path: Path, dtype: torch.dtype) -> None:
    saved = one_module(nn.Conv2d(4, 4, 1).to(dtype))
    weight = saved.get_parameter("block1-0.m.weight").data
    weight.view(-1)[:5] = torch.tensor(
        [0.0, -0.0, float("nan"), float("-inf"), torch.finfo(dtype).tiny / 2], dtype=dtype
    )
    require_same(round_trip(saved, tmp_path), saved)


def test_memory_layout(tmp_path: Path) -> None:
    """Channels-last weights make torch choose other kernels."""
    torch.manual_seed(0)
    saved = one_module(nn.Conv2d(16, 32, 3), (1, 16, 33, 33))
    saved.to(memory_format=torch.channels_last)
    loaded = round_trip(saved, tmp_path)
    require_same(loaded, saved)
    assert same_outputs(loaded, saved, torch.randn(1, 16, 33, 33))
    part = nn.Linear(4, 3)
    part.weight = nn.Parameter(torch.randn(9, 8)[::3, ::2])  # a view of a larger matrix
    loaded = round_trip(one_module(part, (2, 4)), tmp_path)
    assert torch.equal(loaded.get_parameter("block1-0.m.weight"), part.weight)


@settings(max_examples=25, deadline=None)
@given(
    widths=st.lists(st.integers(1, 19), min_size=2, max_size=6),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    seed=st.integers(0, 2**32),
)
def test_pruned_networks(
    widths: list[int], kernel: tuple[int, int], seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Widths that no constructor of a model library would choose."""
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for before, after in zip([3, *widths[:-1]], widths, strict=True):
        layers += [
            nn.Conv2d(before, after, kernel, padding=1),
            nn.BatchNorm2d(after),
            nn.PReLU(after),
        ]
    x = torch.randn(2, 3, 6, 6)
    saved = chain(*layers)
    loaded = round_trip(saved, tmp_path_factory.mktemp("pruned"))
    require_same(loaded, saved)
    assert same_outputs(loaded, saved, x)


def test_a_loaded_graph_trains_like_the_saved_one(tmp_path: Path) -> None:
    saved = everything_graph()
    loaded = round_trip(saved, tmp_path)
    x = torch.randn(2, 3, 16, 12)
    for graph_module in (saved, loaded):
        graph_module.train()
        graph_module(x)[0].sum().backward()
    for (name, a), b in zip(saved.named_parameters(), loaded.parameters(), strict=True):
        assert (a.grad is None) == (b.grad is None), name
        assert a.grad is None or torch.equal(a.grad, b.grad)


def test_the_file_may_be_replaced_while_the_graph_is_in_use(tmp_path: Path) -> None:
    saved = one_module(nn.Conv2d(4, 6, 3))
    loaded = round_trip(saved, tmp_path)
    with (tmp_path / "model.safetensors").open("r+b") as file:
        file.truncate(0)
    require_same(loaded, saved)


def unsaveable() -> dict[str, tuple[Callable[[], fx.GraphModule], str]]:
    def wrong_shape() -> fx.GraphModule:
        graph_module = one_module(nn.Conv2d(4, 6, 3))
        conv: Any = graph_module.get_submodule("block1-0.m")
        conv.weight = nn.Parameter(torch.zeros(5, 4, 3, 3))
        return graph_module

    def extra_buffer() -> fx.GraphModule:
        graph_module = one_module(nn.ReLU())
        graph_module.get_submodule("block1-0.m").register_buffer("x", torch.zeros(1))
        return graph_module

    def complex_weight() -> fx.GraphModule:
        graph_module = one_module(nn.Conv2d(4, 6, 3))
        conv: Any = graph_module.get_submodule("block1-0.m")
        conv.weight = nn.Parameter(torch.zeros(6, 4, 3, 3, dtype=torch.complex128))
        return graph_module

    def not_canonical() -> fx.GraphModule:
        return one_module(nn.LSTM(4, 4))

    return {
        "wrong shape": (wrong_shape, r"cannot be saved: Conv2d 'block1-0\.m' needs a weight of"),
        "extra buffer": (
            extra_buffer,
            r"cannot be saved: ReLU 'block1-0\.m' needs the tensors none",
        ),
        "data type": (complex_weight, r"m\.weight' of torch\.complex128 and .* not floats of one"),
        "not canonical": (not_canonical, "module class LSTM is not in the closed set"),
    }


@pytest.mark.parametrize("name", unsaveable())
def test_what_could_not_be_loaded_is_not_saved(tmp_path: Path, name: str) -> None:
    make, message = unsaveable()[name]
    with pytest.raises(IllegalGraphError, match=message):
        save_model(make(), tmp_path / "model.safetensors", {})
    assert not list(tmp_path.iterdir())


def test_extra_must_be_json(tmp_path: Path) -> None:
    for extra in ({"a": float("nan")}, {"a": {1, 2}}, {"a": torch.zeros(1)}):
        with pytest.raises(IllegalGraphError, match="cannot be saved"):
            save_model(one_module(nn.ReLU()), tmp_path / "model.safetensors", extra)


def test_recognising_the_file(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_model(one_module(nn.ReLU()), path, {})
    assert is_model_file(path)
    assert list(read_metadata(path)) == ["shrinkc"]
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="not a folder"):
        save_model(one_module(nn.ReLU()), tmp_path / "file" / "model.safetensors", {})

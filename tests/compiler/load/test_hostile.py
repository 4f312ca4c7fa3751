"""Files that try to run something: every attack would leave a file, none may; one line each."""

import builtins
import collections
import functools
import importlib
import io
import os
import pickletools
import struct
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from shrinkc.compiler.load import allowlist
from shrinkc.compiler.load.load import load_model
from shrinkc.compiler.load.safe_pickle import load_inert
from shrinkc.errors import LoadError, UnsafeFileError

# Stands for an installed model library: classes as such libraries have them, each of which gives
# itself away if any of its code runs while a file is loaded.
LIBRARY = """
import dataclasses, enum, os, pathlib
from typing import NamedTuple
from torch import fx, nn

def mark(path):
    pathlib.Path(path).write_text("ran")

class Net(nn.Module):
    def __init__(self, path=None):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        if path:
            mark(path)
    def forward(self, x):
        return self.helper(self.conv(x))
    def helper(self, x):
        return x

class Made(nn.Module):
    def __new__(cls, path=None):
        if path:
            mark(path)
        return super().__new__(cls)

class Restored(nn.Module):
    def __setstate__(self, state):
        mark(state["path"])

class Graph(fx.GraphModule):
    pass

class Activation(enum.Enum):
    RELU = "relu"
    SILU = "silu"
    @classmethod
    def _missing_(cls, value):
        mark(value)

class Stage(NamedTuple):
    channels: int
    depth: int

@dataclasses.dataclass
class Settings:
    width: int = 1
    path: str = ""
    def __post_init__(self):
        if self.path:
            mark(self.path)

class Plain:
    pass
"""
NOT_A_MODEL = "import pathlib\npathlib.Path(__file__ + '.ran').write_text('ran')\n"


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An installed `pytorchcv` with the classes above; yields its module of models."""
    site = tmp_path / "site"
    package = site / "pytorchcv"
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "models" / "__init__.py").touch()
    (package / "models" / "nets.py").write_text(LIBRARY)
    (package / "tools.py").write_text(NOT_A_MODEL)
    (site / "pytorchcv-0.1.dist-info").mkdir()
    (site / "pytorchcv-0.1.dist-info" / "METADATA").write_text("Name: pytorchcv\nVersion: 0.1\n")
    monkeypatch.syspath_prepend(site)
    yield importlib.import_module("pytorchcv.models.nets")
    for name in [name for name in sys.modules if name.partition(".")[0] == "pytorchcv"]:
        del sys.modules[name]


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    allowlist._is_installed.cache_clear()
    yield
    allowlist._is_installed.cache_clear()


class Call:
    """Pickles as a call of `function` with `args`, then of `__setstate__` with `state`."""

    def __init__(self, function: Any, *args: Any, state: Any = None) -> None:
        self.parts = (function, args) if state is None else (function, args, state)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.parts


def refused(path: Path, marker: Path, match: str, kind: type = LoadError) -> None:
    with pytest.raises(kind, match=match) as caught:
        load_model(path)
    assert len(str(caught.value).splitlines()) == 1
    assert not marker.exists()


FORMATS = pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])


def dump(value: Any, path: Path, legacy: bool = False) -> Path:
    torch.save(value, path, _use_new_zipfile_serialization=not legacy)
    return path


def attacks(marker: Path) -> dict[str, Any]:
    command, source = f"touch {marker}", f"open({str(marker)!r}, 'w')"
    write = f"__import__('pathlib').Path({str(marker)!r}).touch()"
    return {
        "system": Call(os.system, command),
        "eval": Call(builtins.eval, source),
        "exec": Call(builtins.exec, source),
        "open": Call(builtins.open, str(marker), "w"),
        "getattr": Call(builtins.getattr, Call(importlib.import_module, "os"), "system"),
        "import": Call(builtins.__import__, "os"),
        "path": Call(Path.touch, marker),
        "partial": Call(functools.partial(os.system, command)),
        "load": Call(torch.load, str(marker)),
        "hub": Call(torch.hub.load, "x/y", "z"),
        "script": Call(torch.jit.CompilationUnit, write),
        "graph": Call(torch.fx.graph_module.reduce_graph_module, {}, write),
        "module": Call(importlib.import_module, "antigravity"),
        "class": Call(type, "Net", (nn.Module,), {}),
        "counter": Call(collections.defaultdict, list),
    }


@FORMATS
@pytest.mark.parametrize("name", sorted(attacks(Path("x"))))
@pytest.mark.parametrize("place", ["alone", "in a state dict", "in a module"])
def test_calls_of_anything_are_refused(tmp_path: Path, name: str, place: str, legacy: bool) -> None:
    marker = tmp_path / "ran"
    attack = attacks(marker)[name]
    model = nn.Sequential(nn.Conv2d(3, 4, 1))
    model.attack = attack
    weights = {"weight": torch.zeros(1), "attack": attack}
    value = {"alone": attack, "in a state dict": weights, "in a module": model}[place]
    path = dump(value, tmp_path / "model.pt", legacy)
    refused(path, marker, "`trust`", UnsafeFileError)


def test_the_attack_works_where_it_is_not_prevented(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    path = dump(Call(os.system, f"touch {marker}"), tmp_path / "model.pt")
    with pytest.raises(LoadError, match="holds a int, neither a model nor a state dict"):
        load_model(path, trust=True)
    assert marker.exists()


def test_the_library_loads(tmp_path: Path, library: Any) -> None:
    model = library.Net()
    model.activation, model.stage = library.Activation.SILU, library.Stage(8, 2)
    model.settings, model.same = library.Settings(3), [library.Activation.SILU]
    model.norm = functools.partial(nn.BatchNorm2d, eps=1e-3)
    model.act, model.kind = nn.functional.relu, nn.ReLU6
    loaded: Any = load_model(dump(model, tmp_path / "model.pt"))
    assert type(loaded) is library.Net
    assert loaded.activation is library.Activation.SILU
    assert loaded.stage == library.Stage(8, 2)
    assert type(loaded.stage) is library.Stage
    assert loaded.settings == library.Settings(3)
    assert loaded.norm(4).eps == 1e-3
    assert loaded.act is nn.functional.relu
    assert loaded.kind is nn.ReLU6
    x = torch.randn(1, 3, 2, 2)
    assert torch.equal(loaded(x), model.eval()(x))


def test_no_constructor_of_an_allowed_class_runs(tmp_path: Path, library: Any) -> None:
    marker = tmp_path / "ran"
    mark = str(marker)
    made_by_pickle = "is not made the way pickle makes it"
    for value, match in (
        (Call(library.Net, mark), made_by_pickle),
        (Call(library.Made, mark), made_by_pickle),
        (Call(library.Settings, 1, mark), made_by_pickle),
        (Call(library.Activation, mark), made_by_pickle),
        (Call(library.Stage, 1, 2), made_by_pickle),
        (Call(nn.Linear, 10**6, 10**6), made_by_pickle),
        (Call(library.Restored, state={"path": mark}), "has unpickling code of its own"),
        (Call(library.mark, mark), "which is neither a module nor|does not have"),
        (Call(library.Plain), "which is neither a module nor a configuration"),
        (Call(library.Graph), "runs Python source from the file"),
        (Call(library.os.system, mark), "no class of torch"),
    ):
        refused(dump(value, tmp_path / "model.pt"), marker, match)
        refused(dump({"model": value}, tmp_path / "model.pt"), marker, match)


def test_a_new_object_is_not_made_by_its_class(tmp_path: Path, library: Any) -> None:
    """NEWOBJ with arguments would call `__new__(cls, path)`."""
    marker = tmp_path / "ran"
    argument = str(marker).encode()
    text = b"X" + struct.pack("<I", len(argument)) + argument
    data = b"\x80\x02cpytorchcv.models.nets\nMade\n" + text + b"\x85\x81."
    refused(archive(tmp_path / "model.pt", data), marker, "is not made the way pickle makes it")


def archive(path: Path, data: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for name, content in (("data.pkl", data), ("byteorder", b"little"), ("version", b"3\n")):
            file.writestr(f"a/{name}", content)
    return path


def test_only_model_code_is_imported(tmp_path: Path, library: Any) -> None:
    """Naming a module of an installed library does not import it unless models live there."""
    marker = tmp_path / "site" / "pytorchcv" / "tools.py.ran"
    for name in ("pytorchcv.tools\nNet", "pytorchcv\nNet", "pytorchcv.models.nets.os\nsystem"):
        data = b"\x80\x02c" + name.encode() + b"\n)\x81."
        refused(archive(tmp_path / "model.pt", data), marker, "which is no class of|cannot provide")
    assert "pytorchcv.tools" not in sys.modules


def test_a_folder_that_poses_as_the_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A downloaded folder with `model.pt` and a `pytorchcv/` beside it."""
    package = tmp_path / "pytorchcv"
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").write_text(NOT_A_MODEL)
    (package / "models" / "__init__.py").touch()
    (package / "models" / "nets.py").write_text(LIBRARY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("")
    data = b"\x80\x02cpytorchcv.models.nets\nNet\n)\x81."
    refused(archive(tmp_path / "model.pt", data), package / "__init__.py.ran", "is not installed")


def with_attribute(name: str, value: Any) -> nn.Module:
    model = nn.Sequential(nn.Conv2d(3, 4, 1))
    vars(model[0])[name] = value
    return model


HOSTILE_STATE: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "a method": (
        lambda: with_attribute("forward", nn.functional.relu),
        r"an attribute that hides Conv2d\.forward in '0'",
    ),
    "a method by a module": (
        lambda: with_attribute("_conv_forward", nn.ReLU()),
        r"an attribute that hides Conv2d\._conv_forward in '0'",
    ),
    "an inherited method": (
        lambda: with_attribute("named_parameters", nn.ReLU),
        r"an attribute that hides Conv2d\.named_parameters in '0'",
    ),
    "a dunder": (lambda: with_attribute("__class__", 1), "an attribute named '__class__' in '0'"),
    "hooks": (
        lambda: with_attribute("_forward_pre_hooks", {0: nn.functional.relu}),
        r"hooks \(_forward_pre_hooks\) in '0'",
    ),
    "code in an attribute": (
        lambda: with_attribute('a"); import os; ("', torch.zeros(1)),
        "an attribute named 'a\"",
    ),
    "code in a child's name": (
        lambda: with_child('a"); import os; ("', nn.ReLU()),
        "a child named 'a\"",
    ),
    "code in a parameter's name": (
        lambda: with_child('a"); import os; ("', nn.Parameter(torch.zeros(1))),
        "a child named 'a\"",
    ),
    "a child that is none": (lambda: with_child("a", 3), "a in 'the|a in the model itself is no"),
    "a class that is no layer": (
        lambda: with_attribute("maker", collections.OrderedDict),
        "a OrderedDict in '0.maker'",
    ),
    "a function that is no activation": (
        lambda: with_attribute("maker", torch._utils._rebuild_tensor_v2),
        r"a value of type function in '0\.maker'",
    ),
    "a partial of a partial": (
        lambda: with_attribute("f", PartialLike(functools.partial(nn.ReLU))),
        "a damaged functools.partial",
    ),
    "extras of checkpoints": (lambda: with_attribute("x", Path("a")), r"a pathlib\.PosixPath in"),
}


class PartialLike:
    """Pickles as functools.partial whose state names another function than its argument."""

    def __init__(self, function: Any) -> None:
        self.function = function

    def __reduce__(self) -> tuple[Any, ...]:
        return functools.partial, (nn.ReLU,), ([1], (), {}, {})


def with_child(name: str, child: Any) -> nn.Module:
    model = nn.Sequential(nn.Conv2d(3, 4, 1))
    group = "_parameters" if isinstance(child, nn.Parameter) else "_modules"
    vars(model)[group][name] = child
    return model


@pytest.mark.parametrize("name", HOSTILE_STATE)
def test_state_that_would_run_later(tmp_path: Path, name: str) -> None:
    make, match = HOSTILE_STATE[name]
    path = dump(make(), tmp_path / "model.pt")
    refused(path, tmp_path / "ran", match, UnsafeFileError)


def test_no_attention_from_a_hub(
    tmp_path: Path, library: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """transformers would download, and run, what a configuration names as attention."""
    monkeypatch.setattr(allowlist, "_CONFIGURATIONS", {"pytorchcv.models.nets.Plain"}, raising=True)
    for chosen, accepted in (
        ("sdpa", True),
        ("eager", True),
        (None, True),
        ({"vision": "sdpa"}, True),
        ("someone/their-kernel", False),
        ("flash_attention_2", False),
        ({"vision": "someone/their-kernel"}, False),
        (["someone/their-kernel"], False),
    ):
        model, model.config = library.Net(), None
        model.config = library.Plain()
        model.config._attn_implementation_internal = chosen
        path = dump(model, tmp_path / "model.pt")
        if accepted:
            loaded: Any = load_model(path)
            assert loaded.config._attn_implementation_internal == chosen
        else:
            refused(path, tmp_path / "ran", "_attn_implementation_internal = ", UnsafeFileError)


def test_tensors_lose_the_attributes_a_file_gives_them(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1))
    for name in ("detach", "numel", "untyped_storage"):
        setattr(model[0].weight, name, nn.functional.relu)
    model.register_buffer("scale", torch.ones(2))
    model.scale.detach = nn.ReLU
    loaded = load_model(dump(model, tmp_path / "model.pt"))
    assert vars(loaded[0].weight) == {}
    assert loaded.scale.detach().sum() == 2
    with pytest.raises(LoadError, match="a state dict, weights without a network"):
        load_model(dump({"a": model.scale}, tmp_path / "model.pt"))


def test_lists_and_modules_that_hold_themselves(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1))
    model.everything = [model, {"again": model}]
    loaded: Any = load_model(dump(model, tmp_path / "model.pt"))
    assert loaded.everything[0] is loaded
    assert loaded.everything[1]["again"] is loaded


@pytest.mark.parametrize(
    "data",
    [b"\x80\x02" + b"]" * 10_000 + b"a" * 9_999 + b".", b"\x80\x02N" + b"\x85" * 10_000 + b"."],
    ids=["lists", "tuples"],
)
def test_nesting_without_end(tmp_path: Path, data: bytes) -> None:
    refused(archive(tmp_path / "model.pt", data), tmp_path / "ran", "asks for values within values")


@pytest.mark.parametrize("wrong", [{"_flat_weights_names": ["training"]}, {"_all_weights": []}])
def test_a_weight_that_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: dict[str, Any]
) -> None:
    """torch collects them by names that the file gives."""

    def state(model: nn.LSTM) -> dict[str, Any]:
        known = vars(model) | wrong
        return {k: v for k, v in known.items() if not k.startswith("_flat_weight_refs")}

    with monkeypatch.context() as patch:
        patch.setattr(nn.LSTM, "__getstate__", state)
        path = dump(nn.Sequential(nn.LSTM(3, 4)), tmp_path / "model.pt")
    refused(path, tmp_path / "ran", "of another version of its library")


def test_random_damage_is_always_one_line(tmp_path: Path) -> None:
    """Flipped bytes in the pickle lead to the same model, or to a LoadError; never elsewhere."""
    stream = io.BytesIO()
    torch.save(nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU()), stream)
    with zipfile.ZipFile(stream) as file:
        contents = {name: file.read(name) for name in file.namelist()}
    name = next(name for name in contents if name.endswith("data.pkl"))
    generator = torch.Generator().manual_seed(0)
    path = tmp_path / "model.pt"
    messages: list[str] = []
    for _ in range(300):
        data = bytearray(contents[name])
        for _ in range(int(torch.randint(1, 4, (), generator=generator))):
            where = int(torch.randint(len(data), (), generator=generator))
            data[where] = int(torch.randint(256, (), generator=generator))
        with zipfile.ZipFile(path, "w") as file:
            for entry, content in contents.items():
                file.writestr(entry, bytes(data) if entry == name else content)
        try:
            load_model(path)
        except LoadError as error:
            messages.append(str(error))
    assert len(messages) > 100
    assert not any(len(message.splitlines()) > 1 for message in messages)


@pytest.mark.parametrize(
    ("last", "message"),
    [
        (b"\x80\x02X\xff\xff\xff\x7f", "truncated or damaged"),
        (b"\x80\x02cos\nsystem\n.", r"os\.system"),
        (b"\x80\x02})" + b"q\x00h\x00\x86" * 40 + b"K\x01s.", "values within values"),
        (b"\x80\x02" + b"c_codecs\nencode\n" + b"X\x01\0\0\0aX\x09\0\0\0hex_codec\x86R.", "encode"),
    ],
    ids=["gigabytes", "a name", "a key of itself", "a bomb"],
)
def test_every_pickle_of_an_old_file_is_looked_at(
    tmp_path: Path, last: bytes, message: str
) -> None:
    """Behind the object lie the keys of its storages, which torch unpickles too."""
    path = dump({"a": torch.ones(2)}, tmp_path / "model.pt", legacy=True)
    stream = io.BytesIO(path.read_bytes())
    for _ in range(4):
        for _ in pickletools.genops(stream):
            pass
    path.write_bytes(stream.getvalue()[: stream.tell()] + last)
    with pytest.raises(LoadError, match=message):
        load_model(path)


@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")
@pytest.mark.parametrize("old", [False, True])
def test_a_tensor_larger_than_its_numbers(tmp_path: Path, old: bool) -> None:
    """torch would take memory for what is missing."""

    class Claims:
        def __reduce__(self) -> tuple[object, ...]:
            rebuild: object = torch._utils._rebuild_tensor_v2  # pyright: ignore
            storage = torch.zeros(4).untyped_storage()
            typed = torch.storage.TypedStorage(wrap_storage=storage, dtype=torch.float32)
            return rebuild, (typed, 0, (1 << 30, 8), (8, 1), False, collections.OrderedDict())

    path = tmp_path / "model.pt"
    torch.save({"weight": Claims()}, path, _use_new_zipfile_serialization=not old)
    with pytest.raises(LoadError, match="is larger than what is stored of it"):
        load_inert(path, "legacy" if old else "zip")

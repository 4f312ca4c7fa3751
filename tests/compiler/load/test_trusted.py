"""--trust: what it opens, and that nothing opens without it."""

import importlib
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn
from torch.optim.swa_utils import AveragedModel

from shrinkc.compiler.api.steps.network import ModelFile, subject_of
from shrinkc.compiler.capture import capture
from shrinkc.compiler.load.load import load_model, read_model
from shrinkc.errors import CaptureError, InputError, LoadError, UnsafeFileError


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.bn = nn.BatchNorm2d(4)
        self.up = nn.ConvTranspose2d(4, 6, 3, 2, 1, output_padding=1, groups=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.up(self.bn(self.conv(x)).relu())


class Sum(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x.relu() + y


X = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def net() -> Net:
    torch.manual_seed(0)
    model = Net()
    model(torch.randn(4, 3, 8, 8))
    return model.eval()


def captured(path: Path, *inputs: Tensor) -> fx.GraphModule:
    model = load_model(path, trust=True)
    assert not isinstance(model, fx.GraphModule)  # that would pass for a canonical one
    assert not model.training
    return capture(model.eval(), inputs)


def same(graph_module: fx.GraphModule, model: nn.Module, *inputs: Tensor) -> bool:
    return torch.allclose(graph_module(*inputs)[0], model(*inputs), rtol=0, atol=1e-6)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("method", ["trace", "script"])
def test_torchscript(tmp_path: Path, net: Net, method: str) -> None:
    path = tmp_path / "model.pt"
    jit: Any = torch.jit
    jit.save(jit.trace(net, X) if method == "trace" else jit.script(net), str(path))
    with pytest.raises(
        UnsafeFileError, match=r"a TorchScript archive, which runs the code in it; .* `trust`$"
    ):
        load_model(path)
    graph_module = captured(path, X)
    assert same(graph_module, net, X)
    assert same(graph_module, net, torch.randn(5, 3, 8, 8))
    net.conv.weight.data[0] = float("nan")
    jit.save(jit.trace(net, X, check_trace=False), str(path))
    with pytest.raises(LoadError, match=r"27 of 108 values of '.*conv\.weight' are NaN"):
        load_model(path, trust=True)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_torchscript_that_cannot_be_translated(tmp_path: Path) -> None:
    class Loop(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            while bool(x.sum() < 10):
                x = x + 1
            return x

    path = tmp_path / "model.pt"
    jit: Any = torch.jit
    jit.save(jit.script(Loop()), str(path))
    with pytest.raises(
        CaptureError, match=r"the TorchScript code cannot be captured .* save the nn\.Module or a"
    ):
        captured(path, X)


def test_an_exported_program(tmp_path: Path, net: Net) -> None:
    path = tmp_path / "model.pt2"
    torch.export.save(torch.export.export(net, (X,)), path)
    with pytest.raises(UnsafeFileError, match=r"a torch\.export archive \(\.pt2\), .* `trust`$"):
        load_model(path)
    assert same(captured(path, X), net, X)


def test_an_exported_program_of_two_inputs(tmp_path: Path) -> None:
    path = tmp_path / "model.pt2"
    torch.export.save(torch.export.export(Sum(), (X, X + 1)), path)
    assert same(captured(path, X, -X), Sum(), X, -X)


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_any_pickle(tmp_path: Path, net: Net, legacy: bool) -> None:
    path = tmp_path / "model.pt"
    torch.save(net.train(), path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(UnsafeFileError, match="`trust`"):
        load_model(path)
    loaded = load_model(path, trust=True)
    assert type(loaded) is Net
    assert not loaded.training
    assert torch.equal(loaded(X), net.eval()(X))


def test_a_traced_graph(tmp_path: Path, net: Net) -> None:
    path = tmp_path / "model.pt"
    torch.save(fx.symbolic_trace(net), path)
    with pytest.raises(UnsafeFileError, match=r"it names torch\.fx\."):
        load_model(path)
    assert same(captured(path, X), net, X)


def test_a_class_from_the_current_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pickled elsewhere, loaded by a program that never imported it."""
    data = b"\x80\x02cnets_of_the_user\nmake\n)R."
    (tmp_path / "nets_of_the_user.py").write_text("from torch import nn\nmake = nn.ReLU\n")
    files = {"a/data.pkl": data, "a/byteorder": b"little", "a/version": b"3\n"}
    with zipfile.ZipFile(tmp_path / "model.pt", "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    monkeypatch.chdir(tmp_path.parent)
    with pytest.raises(LoadError, match=r"ModuleNotFoundError: .* run in the folder that holds"):
        load_model(tmp_path / "model.pt", trust=True)
    monkeypatch.chdir(tmp_path)
    assert isinstance(load_model(tmp_path / "model.pt", trust=True), nn.ReLU)


def test_trust_does_not_mend_files(tmp_path: Path, net: Net) -> None:
    path = tmp_path / "model.pt2"
    torch.export.save(torch.export.export(net, (X,)), path)
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(LoadError, match="truncated or damaged"):
        load_model(path, trust=True)


DETECTOR = """
from torch import nn

class DetectionModel(nn.Module):
    def __init__(self):
        super().__init__()
        self.model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    def forward(self, x):
        return self.model(x)
"""


@pytest.fixture
def ultralytics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A package of that name in the current directory."""
    folder = tmp_path / "ultralytics" / "nn"
    folder.mkdir(parents=True)
    for package in (folder.parent, folder):
        (package / "__init__.py").touch()
    (folder / "tasks.py").write_text(DETECTOR)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("ultralytics.nn.tasks")
    for name in [name for name in sys.modules if name.partition(".")[0] == "ultralytics"]:
        del sys.modules[name]


@pytest.mark.parametrize("average", [True, False])
def test_a_detector_in_its_checkpoint(tmp_path: Path, ultralytics: Any, average: bool) -> None:
    model, ema = ultralytics.DetectionModel().half(), ultralytics.DetectionModel().half().train()
    checkpoint = {
        "epoch": -1,
        "model": model,
        "ema": ema if average else None,
        "train_args": {"imgsz": 640},
        "date": "2026-01-01",
    }
    path = tmp_path / "yolo.pt"
    torch.save(checkpoint, path)
    keys = "'model' and 'ema'" if average else "'model'"
    with pytest.raises(
        UnsafeFileError,
        match=rf"it names ultralytics\.nn\.tasks\.DetectionModel \(under {keys}\), which .*`trust`",
    ):
        load_model(path)
    loaded = read_model(path, trust=True)
    want = ema if average else model
    weight = loaded.model.get_parameter("model.0.weight")
    assert torch.equal(weight, want.model[0].weight.float())
    assert not loaded.model.training
    said = "the averaged weights under 'ema' are taken, not those under 'model'"
    assert loaded.notes == (*[said] * average, "weights in float16 become float32")
    capture(loaded.model, (X,))


def test_a_class_of_the_script_that_saved_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pickled by `python train.py`, where the class is one of __main__."""
    (tmp_path / "train_own.py").write_text(DETECTOR + "make = nn.ReLU\n")
    monkeypatch.chdir(tmp_path)
    code = DETECTOR + "import torch\ntorch.manual_seed(0)\n"
    code += "torch.save(DetectionModel(), 'whole.pt')\n"
    code += "torch.save({'state_dict': DetectionModel(), 'epoch': 3}, 'inside.pt')\n"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)
    whole = tmp_path / "whole.pt"
    with pytest.raises(
        UnsafeFileError,
        match=r"names __main__\.DetectionModel, .* or take the risk with `trust` and `arch` "
        r"train:DetectionModel, where train\.py is the script that has it$",
    ):
        load_model(whole)
    with pytest.raises(LoadError, match=r"for a class of __main__ give `arch` train:Class"):
        load_model(whole, trust=True)
    for name in ("whole.pt", "inside.pt"):
        model: Any = load_model(tmp_path / name, arch="train_own:DetectionModel", trust=True)
        assert type(model).__module__ == "train_own"
        assert model(X).shape == (1, 4, 6, 6)
    with pytest.raises(LoadError, match=r"AttributeError: .* no attribute 'DetectionModel'"):
        load_model(whole, arch="zipfile:ZipFile", trust=True)
    torch.save(nn.ReLU(), tmp_path / "relu.pt")
    with pytest.raises(LoadError, match="holds its network; leave out `arch`"):
        load_model(tmp_path / "relu.pt", arch="train_own:make", trust=True)
    monkeypatch.delitem(sys.modules, "train_own")


def test_a_network_averaged_by_torch(tmp_path: Path, net: Net) -> None:
    averaged: Any = AveragedModel(net)
    torch.save({"model": averaged}, tmp_path / "model.pt")
    assert type(load_model(tmp_path / "model.pt", trust=True)) is Net


@pytest.mark.parametrize("free", [False, True])
def test_an_exported_program_tells_its_inputs(tmp_path: Path, net: Net, free: bool) -> None:
    path, two = tmp_path / "model.pt2", torch.randn(2, 3, 8, 8)
    dims: Any = ({0: torch.export.Dim("batch", min=1, max=64)},) if free else None
    torch.export.save(torch.export.export(net, (two,), dynamic_shapes=dims), path)
    file = ModelFile(path, trust=True)
    subject = subject_of(file)
    assert subject.input_shapes == ((1 if free else 2, 3, 8, 8),)
    assert same(subject.graph, net, two)
    for shape in ((5, 3, 8, 8), (2, 3, 9, 8), (2, 3, 8)):
        if free and shape[1:] == (3, 8, 8):
            assert subject_of(file, shape).input_shapes == (shape,)
        else:
            with pytest.raises(InputError, match=r"was exported for `inputs` \d,3,8,8; export it"):
                subject_of(file, shape)


def test_an_exported_program_whose_batch_is_more_than_one(tmp_path: Path, net: Net) -> None:
    path = tmp_path / "model.pt2"
    dims: Any = ({0: torch.export.Dim("batch", min=2, max=64)},)
    torch.export.save(
        torch.export.export(net, (torch.randn(4, 3, 8, 8),), dynamic_shapes=dims), path
    )
    assert subject_of(ModelFile(path, trust=True)).input_shapes == ((4, 3, 8, 8),)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_a_script_does_not_tell_its_inputs(tmp_path: Path, net: Net) -> None:
    path = tmp_path / "model.pt"
    jit: Any = torch.jit
    jit.save(jit.script(net), str(path))
    file = ModelFile(path, trust=True)
    with pytest.raises(
        InputError, match=r"does not tell the shape of its input; give `inputs` N,C"
    ):
        subject_of(file)
    assert same(subject_of(file, (1, 3, 8, 8)).graph, net, X)

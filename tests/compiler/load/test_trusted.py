"""--trust: what it opens, and that nothing opens without it."""

import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

from shrinkc.compiler.capture import capture
from shrinkc.compiler.load.load import load_model
from shrinkc.errors import CaptureError, LoadError, UnsafeFileError


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

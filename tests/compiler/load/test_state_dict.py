"""State dicts put into the network that --arch makes."""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from shrinkc.compiler.load.load import load_model
from shrinkc.errors import InputError, LoadError

ZOO = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, width=4):
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3)
        self.bn = nn.BatchNorm2d(width)
        self.tied = self.conv
    def forward(self, x):
        return self.bn(self.tied(x))

class Wrapped(nn.Module):
    def __init__(self):
        super().__init__()
        self.module = Net()

def fails():
    raise ValueError("no\\nluck")

def needs(width):
    return Net(width)

def number():
    return 3

CONSTANT = 4
"""


@pytest.fixture
def zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module in the current directory, under a name no other test has imported."""
    name = f"zoo_{tmp_path.name}".replace("-", "_")
    (tmp_path / f"{name}.py").write_text(ZOO)
    monkeypatch.chdir(tmp_path)
    return name


def weights() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return {
        "conv.weight": torch.randn(4, 3, 3, 3),
        "conv.bias": torch.randn(4),
        "bn.weight": torch.randn(4),
        "bn.bias": torch.randn(4),
        "bn.running_mean": torch.randn(4),
        "bn.running_var": torch.rand(4),
        "bn.num_batches_tracked": torch.tensor(7),
    }


def prefixed(prefix: str) -> dict[str, Tensor]:
    return {prefix + key: value for key, value in weights().items()}


def check(model: nn.Module) -> None:
    state: dict[str, Tensor] = model.state_dict()
    assert not model.training
    for key, value in weights().items():
        assert torch.equal(state[key], value), key
    assert torch.equal(state["tied.weight"], weights()["conv.weight"])


NAMESPACE = argparse.Namespace(lr=0.1, data=Path("/data"))
CHECKPOINTS: dict[str, Any] = {
    "plain": weights(),
    "state_dict": {"state_dict": weights(), "epoch": 90, "best": np.float64(0.9)},
    "model": {"model": weights(), "args": NAMESPACE, "optimizer": {"state": {0: torch.ones(3)}}},
    "model_state_dict": {"model_state_dict": weights(), "mean": np.zeros(3)},
    "model_ema": {"model_ema": prefixed("module.") | {"n_averaged": torch.tensor(3)}},
    "data parallel": prefixed("module."),
    "compiled": prefixed("_orig_mod."),
    "compiled data parallel": prefixed("module._orig_mod."),
    "parameters": {k: nn.Parameter(v) if v.ndim else v for k, v in weights().items()},
    "tied": weights()
    | {"tied.weight": weights()["conv.weight"], "tied.bias": weights()["conv.bias"]},
}


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("name", CHECKPOINTS)
def test_checkpoints(tmp_path: Path, zoo: str, name: str, legacy: bool) -> None:
    path = tmp_path / "model.th"
    torch.save(CHECKPOINTS[name], path, _use_new_zipfile_serialization=not legacy)
    check(load_model(path, arch=f"{zoo}:Net"))


def test_safetensors(tmp_path: Path, zoo: str) -> None:
    path = tmp_path / "model.safetensors"
    safetensors.torch.save_file(weights(), path, {"format": "pt"})
    check(load_model(path, arch=f"{zoo}:Net"))
    with pytest.raises(LoadError, match="a state dict, weights without a network"):
        load_model(path)


def test_a_child_that_is_named_module_keeps_its_prefix(tmp_path: Path, zoo: str) -> None:
    torch.save(prefixed("module."), tmp_path / "model.pt")
    model: Any = load_model(tmp_path / "model.pt", arch=f"{zoo}:Wrapped")
    check(model.module)


def test_half_precision_and_old_checkpoints(tmp_path: Path, zoo: str) -> None:
    half = {k: v.half() for k, v in weights().items() if "num_batches" not in k}
    torch.save(half, tmp_path / "model.pt")
    model: Any = load_model(tmp_path / "model.pt", arch=f"{zoo}:Net")
    assert model.conv.weight.dtype == torch.float32
    assert torch.equal(model.conv.weight, half["conv.weight"].float())


def test_without_arch(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save(weights(), path)
    with pytest.raises(LoadError) as caught:
        load_model(path)
    assert str(caught.value) == (
        f"{path}: a state dict, weights without a network (conv.weight, conv.bias, bn.weight, "
        "bn.bias, …); name the network with `arch` package.module:factory"
    )


def test_keys_that_do_not_fit(tmp_path: Path, zoo: str) -> None:
    path = tmp_path / "model.pt"
    other = weights()
    del other["conv.bias"], other["bn.weight"]
    other |= {f"head.{i}": torch.zeros(1) for i in range(5)}
    other["bn.bias"] = torch.zeros(8)
    torch.save(other, path)
    with pytest.raises(LoadError) as caught:
        load_model(path, arch=f"{zoo}:Net")
    assert str(caught.value) == (
        f"{path} does not fit {zoo}:Net: keys 3 missing (conv.bias, bn.weight, tied.bias); "
        "5 unexpected (head.0, head.1, head.2, …); 1 of another shape (bn.bias: (8,) in the "
        "file, (4,) in the model); check `arch`"
    )


def test_nan_weights(tmp_path: Path, zoo: str) -> None:
    bad = weights()
    bad["bn.bias"][0] = float("nan")
    torch.save(bad, tmp_path / "model.pt")
    with pytest.raises(LoadError, match=r"1 of 4 values of 'bn\.bias' are NaN"):
        load_model(tmp_path / "model.pt", arch=f"{zoo}:Net")


def test_arch_for_a_whole_model(tmp_path: Path, zoo: str) -> None:
    torch.save(nn.ReLU(), tmp_path / "model.pt")
    with pytest.raises(LoadError, match="holds a whole model; leave out `arch`"):
        load_model(tmp_path / "model.pt", arch=f"{zoo}:Net")


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("Net", "give package.module:factory, such as"),
        ("a b:Net", "give package.module:factory, such as"),
        ("{zoo}:Net.x", "give package.module:factory, such as"),
        ("no_such_module_here:Net", "cannot import no_such_module_here (ModuleNotFoundError"),
        ("{zoo}:Missing", "has no Missing; check the name"),
        ("{zoo}:fails", "calling fails() failed (ValueError: no luck); it must work without"),
        ("{zoo}:needs", "calling needs() failed (TypeError"),
        ("{zoo}:CONSTANT", "calling CONSTANT() failed (TypeError"),
        ("{zoo}:number", "returned a int, not an nn.Module"),
    ],
)
def test_factories_that_do_not_work(tmp_path: Path, zoo: str, factory: str, message: str) -> None:
    torch.save(weights(), tmp_path / "model.pt")
    with pytest.raises(InputError) as caught:
        load_model(tmp_path / "model.pt", arch=factory.replace("{zoo}", zoo))
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1

"""State dicts put into the network that --arch makes."""

import argparse
import sys
from collections import defaultdict
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from shrinkc.compiler.api.steps.network import ModelFile, subject_of
from shrinkc.compiler.load.load import load_model, read_model
from shrinkc.compiler.load.weights.architecture import Architecture
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

def normed_old():
    net = Net()
    torch.nn.utils.weight_norm(net.conv)
    return net

def normed_new():
    net = Net()
    torch.nn.utils.parametrizations.weight_norm(net.conv)
    return net

class Heads(nn.Module):
    def __init__(self, num_classes=1000, in_chans=3, deep=False):
        super().__init__()
        self.conv = nn.Conv2d(in_chans, 4, 3)
        self.fc = nn.Linear(4, num_classes)
        self.deep = nn.Linear(4, 4) if deep else None

def imagenet():
    return Heads()

def size(classes, bias=True):
    net = Heads()
    net.fc = nn.Linear(4, classes, bias)
    return net

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


def of_step(step: int) -> dict[str, Tensor]:
    """Weights of before the end: what must not be taken."""
    return {key: value + step for key, value in weights().items()}


def without_buffers() -> dict[str, Tensor]:
    return {k: v for k, v in weights().items() if "running" not in k and "num" not in k}


CHECKPOINTS: dict[str, Any] = {
    "plain": weights(),
    "state_dict": {"state_dict": weights(), "epoch": 90, "best": np.float64(0.9)},
    "model": {"model": weights(), "args": NAMESPACE, "optimizer": {"state": {0: torch.ones(3)}}},
    "model_state_dict": {"model_state_dict": weights(), "mean": np.zeros(3)},
    "model_ema": {"model_ema": prefixed("module.") | {"n_averaged": torch.tensor(3)}},
    "data parallel": prefixed("module."),
    "net": {"net": weights(), "acc": 93.1, "epoch": 3},
    "network": {"network": weights(), "scheduler": {"last_epoch": 3, "_last_lr": [0.1]}},
    "params": {"params": weights()},
    "generator": {"generator": weights(), "discriminator": {"a": torch.ones(3)}},
    "weights in a state dict in a model": {"model": {"state_dict": prefixed("module.")}},
    "params_ema": {"params": of_step(1), "params_ema": weights()},
    "ema": {"model": of_step(1), "ema": {"module": weights(), "updates": 9}},
    "ema_state_dict": {"state_dict": of_step(1), "ema_state_dict": weights()},
    "shadow": {"model": weights(), "shadow": without_buffers()},
    "ema that is a number": {"model": weights(), "ema": 0.999},
    "averages in order": {
        "model": {k: v + (k in without_buffers()) for k, v in weights().items()},
        "ema": {"decay": 0.9, "shadow_params": list(without_buffers().values())},
    },
    "swa": prefixed("module.") | {"n_averaged": torch.tensor(3)},
    "lightning": {
        "state_dict": prefixed("model.") | {"loss.weight": torch.ones(2)},
        "pytorch-lightning_version": "2.4.0",
        "callbacks": {"ModelCheckpoint{'monitor': None}": {"best_model_score": torch.ones(1)}},
    },
    "student": prefixed("student.net.") | {f"teacher.net.{k}": v for k, v in of_step(1).items()},
    "thop": weights()
    | {f"{m}total_{x}": torch.ones(1) for m in ("", "bn.") for x in ("ops", "params")},
    "a compiled part": {k.replace("conv.", "conv._orig_mod."): v for k, v in weights().items()},
    "extra state": weights() | {"_extra_state": {"version": 2}},
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


@pytest.mark.parametrize(
    ("checkpoint", "note"),
    [
        (CHECKPOINTS["params_ema"], "under 'params_ema' are taken, not those under 'params'"),
        (CHECKPOINTS["ema"], "under 'ema.module' are taken, not those under 'model'"),
        (CHECKPOINTS["averages in order"], "named by the order of the parameters"),
        (CHECKPOINTS["lightning"], "1 tensor outside 'model.' left out (loss.weight)"),
        (CHECKPOINTS["student"], "6 tensors outside 'student.net.' left out (teacher.net.conv.w"),
        ({k: v.double() for k, v in weights().items()}, "weights in float64 become float32"),
        ({k: v.bfloat16() for k, v in weights().items()}, "weights in bfloat16 become float32"),
        (CHECKPOINTS["state_dict"], None),
    ],
)
def test_what_was_chosen_is_said(
    tmp_path: Path, zoo: str, checkpoint: Any, note: str | None
) -> None:
    torch.save(checkpoint, tmp_path / "model.pt")
    notes = read_model(tmp_path / "model.pt", arch=f"{zoo}:Net").notes
    assert note in notes[-1] if note else not notes


def test_notes_reach_the_report(tmp_path: Path, zoo: str) -> None:
    torch.save({k: v.half() for k, v in weights().items()}, tmp_path / "model.pt")
    file = ModelFile(tmp_path / "model.pt", f"{zoo}:Net")
    subject = subject_of(file, (1, 3, 8, 8))
    assert "weights in float16 become float32" in subject.graph.meta["notes"]


def test_settings_that_lightning_saves(tmp_path: Path, zoo: str) -> None:
    """A dictionary of a class that is not installed here."""
    settings = type("AttributeDict", (dict,), {"__module__": "pytorch_lightning.utilities.parsing"})
    made = settings({"lr": 0.1})
    checkpoint = {"state_dict": prefixed("model."), "hyper_parameters": made}
    with importable(settings):
        torch.save(checkpoint, tmp_path / "model.ckpt")
    check(load_model(tmp_path / "model.ckpt", arch=f"{zoo}:Net"))


def test_settings_of_hydra(tmp_path: Path, zoo: str) -> None:
    """As OmegaConf pickles them, whether or not it is installed here."""
    names = {"DictConfig": "dictconfig", "ListConfig": "listconfig", "AnyNode": "nodes"}
    names |= {"ContainerMetadata": "base", "Metadata": "base"}
    kinds = {name: type(name, (), {"__module__": f"omegaconf.{m}"}) for name, m in names.items()}

    def made(kind: str, **state: Any) -> Any:
        one = kinds[kind]()
        vars(one).update(state)
        return one

    about = {"ref_type": Any, "object_type": dict, "element_type": int, "key_type": Any}
    whole = made("ContainerMetadata", **about, resolver_cache=defaultdict(dict))
    node = made(
        "AnyNode", _metadata=made("Metadata", ref_type=Any, key="lr"), _val=0.1, _parent=None
    )
    listed = made("ListConfig", _metadata=whole, _content=[node], _parent=None)
    settings = made("DictConfig", _metadata=whole, _content={"lr": node, "l": listed}, _parent=None)
    vars(node)["_parent"] = settings
    checkpoint = {"state_dict": prefixed("model."), "hyper_parameters": settings}
    with ExitStack() as stack:
        for kind in kinds.values():
            stack.enter_context(importable(kind))
        torch.save(checkpoint, tmp_path / "model.ckpt")
    check(load_model(tmp_path / "model.ckpt", arch=f"{zoo}:Net"))


@contextmanager
def importable(cls: type) -> Generator[None]:
    """While it is pickled."""
    names = cls.__module__.split(".")
    with pytest.MonkeyPatch.context() as patch:
        for count in range(1, len(names) + 1):
            path = ".".join(names[:count])
            patch.setitem(sys.modules, path, sys.modules.get(path, ModuleType(names[count - 1])))
        vars(sys.modules[cls.__module__])[cls.__name__] = cls
        yield


@pytest.mark.parametrize("change", ["one less", "another shape", "another order"])
def test_averages_that_have_no_names_and_do_not_fit(tmp_path: Path, zoo: str, change: str) -> None:
    averaged, named = list(without_buffers().values()), weights()
    if change == "one less":
        averaged.pop()
    elif change == "another shape":
        averaged[1] = torch.zeros(5)
    else:
        named = dict(reversed(named.items()))
    torch.save({"model": named, "ema": {"shadow_params": averaged}}, tmp_path / "model.pt")
    with pytest.raises(
        LoadError, match=r"a list of \d without names, which does not fit the 4 par"
    ):
        load_model(tmp_path / "model.pt", arch=f"{zoo}:Net")


def test_two_networks_in_one_state_dict(tmp_path: Path, zoo: str) -> None:
    torch.save(prefixed("query.") | prefixed("key."), tmp_path / "model.pt")
    with pytest.raises(
        LoadError, match=r"model\.pt: it holds several networks .* \(under key\., que"
    ):
        load_model(tmp_path / "model.pt", arch=f"{zoo}:Net")


def test_pruned_weights(tmp_path: Path, zoo: str) -> None:
    net: Any = load_model(saved(tmp_path, weights()), arch=f"{zoo}:Net")
    cast(Any, prune).l1_unstructured(net.conv, "weight", 0.5)
    path = saved(tmp_path, {f"module.{k}": v for k, v in net.state_dict().items()})
    loaded = read_model(path, arch=f"{zoo}:Net")
    assert torch.equal(loaded.model.get_parameter("conv.weight"), net.conv.weight)
    assert loaded.notes[0].endswith("pruned weights computed from two tensors each")


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
@pytest.mark.parametrize("dim", [0, 1, None])
@pytest.mark.parametrize("new", [False, True])
def test_normalised_weights(tmp_path: Path, zoo: str, dim: int | None, new: bool) -> None:
    utils: Any = torch.nn.utils
    net: Any = load_model(saved(tmp_path, weights()), arch=f"{zoo}:Net")
    normalised = utils.parametrizations.weight_norm if new else utils.weight_norm
    normalised(net.conv, dim=dim)
    with torch.no_grad():
        for name, parameter in net.conv.named_parameters():
            if name.endswith(("weight_g", "original0")):
                parameter.mul_(1.5)
    x = torch.randn(1, 3, 5, 5)
    path = saved(tmp_path, net.state_dict())
    for arch in ("Net", "normed_old", "normed_new") if dim == 0 else ("Net",):
        assert torch.allclose(load_model(path, arch=f"{zoo}:{arch}")(x), net(x), atol=1e-6)


def saved(folder: Path, value: Any) -> Path:
    torch.save(value, folder / "weights.pt")
    return folder / "weights.pt"


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
    with pytest.raises(LoadError, match="holds its network; leave out `arch`"):
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
        ("{zoo}:Net(width=x)", "its arguments are no plain values; give"),
        ("{zoo}:Net(**{})", "its arguments are no plain values; give"),
        ("{zoo}:Net(width=4", "give package.module:factory, such as"),
        ("{zoo}:Net(width=4)(3)", "its arguments are no plain values; give"),
        ("{zoo}:Net(3, wide=4)", "calling Net(3, wide=4) failed (TypeError"),
        ("{zoo}:number", "returned a int, not an nn.Module"),
    ],
)
def test_factories_that_do_not_work(tmp_path: Path, zoo: str, factory: str, message: str) -> None:
    torch.save(weights(), tmp_path / "model.pt")
    with pytest.raises(InputError) as caught:
        load_model(tmp_path / "model.pt", arch=factory.replace("{zoo}", zoo))
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def heads(zoo: str, **options: Any) -> dict[str, Tensor]:
    return Architecture(zoo, "Heads", options=options).build().state_dict()


def test_arguments_of_the_factory(tmp_path: Path, zoo: str) -> None:
    torch.save(prefixed(""), tmp_path / "model.pt")
    for call in ("(4)", "(width=4)", "( width = 4 )"):
        check(load_model(tmp_path / "model.pt", arch=f"{zoo}:Net{call}"))


@pytest.mark.parametrize(
    "options", [{"num_classes": 10}, {"in_chans": 1}, {"num_classes": 10, "in_chans": 1}]
)
def test_a_head_of_other_classes_is_told_with_what_to_give(
    tmp_path: Path, zoo: str, options: dict[str, int]
) -> None:
    path = saved(tmp_path, heads(zoo, deep=True, **options))
    with pytest.raises(LoadError) as caught:
        load_model(path, arch=f"{zoo}:Heads(deep=True)")
    asked = ", ".join(f"{k}={v}" for k, v in options.items())
    assert str(caught.value).endswith(f"; give `arch` '{zoo}:Heads(deep=True, {asked})'")
    assert load_model(path, arch=f"{zoo}:Heads(deep=True, {asked})")


@pytest.mark.parametrize("bias", [True, False])
def test_a_head_that_no_argument_changes(tmp_path: Path, zoo: str, bias: bool) -> None:
    """What the message says to paste works."""
    path = saved(tmp_path, Architecture(zoo, "size", (10, bias)).build().state_dict())
    with pytest.raises(LoadError) as caught:
        load_model(path, arch=f"{zoo}:{'imagenet' if bias else 'size(1000, bias=False)'}")
    message = str(caught.value)
    assert "put this line into a file net.py here and give `arch` net:net: def net():" in message
    assert len(message.splitlines()) == 1
    own = f"net_{zoo}"
    (tmp_path / f"{own}.py").write_text(message[message.index("def net") :])
    assert load_model(path, arch=f"{own}:net").get_parameter("fc.weight").shape == (10, 4)


def test_no_advice_that_does_not_work(tmp_path: Path, zoo: str) -> None:
    other = heads(zoo)
    other["conv.weight"], other["fc.bias"] = torch.zeros(4, 3, 5, 5), torch.zeros(7)
    with pytest.raises(LoadError, match=r"; check `arch`$"):
        load_model(saved(tmp_path, other), arch=f"{zoo}:Heads")

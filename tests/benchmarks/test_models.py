"""The benchmarks' models: a result is worth no more than the networks behind it."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.coverage_one import WrongResultError, largest_error
from benchmarks.shared import mobilenet_v2
from benchmarks.shared.models import MAX_PARAMETERS, architectures, randomise
from benchmarks.shared.networks import NETWORKS


def test_at_least_a_hundred_architectures_each_once():
    keys = [one.key for one in architectures()]
    assert len(keys) >= 100
    assert len(set(keys)) == len(keys)
    assert all(0 < one.parameters <= MAX_PARAMETERS for one in architectures())


def test_randomise_leaves_no_constant_parameter_and_plausible_statistics():
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 1)
    )
    nn.init.zeros_(model[1].weight)
    torch.manual_seed(0)
    x = torch.randn(4, 3, 12, 12)
    randomise(model, x)
    assert all(p.min() < p.max() for p in model.parameters())
    assert not model.training
    assert not any(module.training for module in model.modules())
    assert model[1].momentum == 0.1
    convolved = model[0](x)
    deviation = convolved.std(dim=(0, 2, 3))
    assert torch.all((model[1].running_mean - convolved.mean(dim=(0, 2, 3))).abs() < deviation)
    ratio = model[1].running_var / deviation**2
    assert torch.all((ratio > 0.5) & (ratio < 1.5))
    assert not torch.allclose(ratio, torch.ones(8), atol=1e-3)


def test_largest_error_is_relative_to_the_range():
    want = torch.tensor([[0.0, 100.0]])
    assert largest_error([want + 1], [want]) == pytest.approx(0.01)
    assert largest_error([torch.tensor([[0.0, float("nan")]])], [want]) == float("inf")


@pytest.mark.parametrize("got", [[], [torch.zeros(2, 1)]])
def test_largest_error_refuses_other_outputs(got: list[torch.Tensor]):
    with pytest.raises(WrongResultError):
        largest_error(got, [torch.zeros(1, 2)])


def test_largest_error_refuses_an_overflowing_model():
    with pytest.raises(WrongResultError, match="not finite"):
        largest_error([torch.zeros(1)], [torch.full((1,), float("inf"))])


def test_mobilenet_reads_every_weight_of_the_file(tmp_path: Path):
    state = mobilenet_v2.mobilenet_v2().state_dict()
    stored: dict[str, np.ndarray] = {}
    for name, tensor in state.items():
        parts = name.split(".")
        if parts[0] != "fc":
            del parts[-2]  # the position in the Sequential
        stored[".".join(parts)] = torch.randn_like(tensor).numpy()
    path = tmp_path / mobilenet_v2.WEIGHTS
    path.parent.mkdir(parents=True)
    np.savez(path, **stored)
    model = mobilenet_v2.pretrained(tmp_path)
    loaded = sorted(float(tensor.sum()) for tensor in model.state_dict().values())
    assert loaded == sorted(float(torch.from_numpy(array).sum()) for array in stored.values())
    assert not model.training

    del stored["head.bias"]
    np.savez(path, **stored)
    with pytest.raises(ValueError, match=r"head\.0\.bias"):
        mobilenet_v2.pretrained(tmp_path)


def test_mobilenet_pads_like_tensorflow():
    stem = mobilenet_v2.mobilenet_v2().stem
    x = torch.randn(1, 3, 6, 6)
    padded = nn.functional.pad(x, (0, 1, 0, 1))
    want = nn.functional.conv2d(padded, stem[1].weight, stem[1].bias, stride=2).clamp(0, 6)
    assert torch.equal(stem(x), want)
    assert mobilenet_v2.class_of("0207_n02099601") == 208


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_run(name: str):
    network = NETWORKS[name]
    with torch.no_grad():
        logits = network.factory().eval()(torch.zeros(network.input_shape))
    assert logits.shape == (1, 1001 if name.startswith("mobilenet_v2") else 1000)

"""The cuda device as far as it goes without a GPU: operators on the CPU, a clear refusal."""

import gc
from typing import Any
from unittest.mock import MagicMock
from weakref import ref

import numpy as np
import pytest
import torch

from shrinkc.compiler.devices.cuda import runner as cuda_runner
from shrinkc.compiler.devices.cuda.device import Cuda
from shrinkc.compiler.devices.cuda.ops import torch_operator
from shrinkc.compiler.devices.cuda.runner import copied, load
from shrinkc.compiler.devices.jobs import Measured, Method, Model, Setup, key_from_json
from shrinkc.compiler.devices.link import last_words
from shrinkc.errors import DeviceError
from shrinkc.latency_tables.key import OpKey

gpu = torch.cuda.is_available()
MAPS = {"in_size": (8, 8), "out_size": (8, 8)}
KEYS = [
    OpKey("conv2d", 4, 6, (3, 3), **MAPS, activation="relu"),
    OpKey("conv2d", 4, 6, (3, 3), (2, 2), in_size=(8, 8), out_size=(4, 4), activation="relu6"),
    OpKey("conv2d", 4, 8, (1, 1), groups=2, **MAPS),
    OpKey("conv2d", 4, 6, (3, 3), dilation=(2, 2), **MAPS),
    OpKey("depthwise_conv2d", 4, 4, (5, 5), (2, 2), (1, 1), 4, (9, 9), (5, 5)),
    OpKey("conv_transpose2d", 4, 2, (3, 3), (2, 2), in_size=(4, 4), out_size=(8, 8)),
    OpKey("conv_transpose2d", 4, 2, (2, 2), (2, 2), in_size=(4, 4), out_size=(8, 8)),
    *(OpKey(op, 4, 4, **MAPS) for op in ("add", "sub", "mul", "div", "maximum", "minimum")),
    *(OpKey(op, 4, 4, **MAPS) for op in ("relu", "hard_swish", "silu", "gelu_tanh", "clip")),
    OpKey("max_pool", 4, 4, (3, 3), (2, 2), in_size=(8, 8), out_size=(4, 4)),
    OpKey("avg_pool", 4, 4, (2, 2), (2, 2), in_size=(8, 8), out_size=(4, 4)),
    *(OpKey(op, 4, 4, in_size=(8, 8)) for op in ("mean", "sum", "max")),
    OpKey("concat", 5, 5, **MAPS),
    OpKey("resize", 4, 4, in_size=(8, 8), out_size=(16, 16)),
    OpKey("depth_to_space", 8, 2, in_size=(4, 4), out_size=(8, 8)),
    OpKey("softmax", 10, 10),
]


@pytest.mark.parametrize("key", KEYS, ids=lambda key: key.op)
def test_operators_have_the_keys_output(key: OpKey) -> None:
    result = torch_operator(key, "cpu")()
    assert tuple(result.shape) == (1, key.out_channels, *key.out_size)
    assert torch.isfinite(result).all()


@pytest.mark.parametrize("op", ["linear", "matmul", "layer_norm"])
def test_operators_on_rows(op: str) -> None:
    key = OpKey(op, 6, 6, in_size=(3, 1), out_size=(3, 1))
    assert tuple(torch_operator(key, "cpu")().shape) == (3, 6)


def test_fused_activations_limit_the_result() -> None:
    key = OpKey("linear", 64, 64, activation="relu6")
    result = torch_operator(key, "cpu")()
    assert 0 <= float(result.min()) <= float(result.max()) <= 6


def test_16_bit_images_lie_channels_last() -> None:
    result = torch_operator(OpKey("relu", 4, 4, **MAPS, precision="fp16"), "cpu")()
    assert result.dtype == torch.float16
    assert result.is_contiguous(memory_format=torch.channels_last)


def test_copies_have_weights_of_their_own() -> None:
    torch.manual_seed(0)
    run = copied(OpKey("linear", 8, 8), 3, "cpu")
    assert tuple(run().shape) == (1, 8)
    torch.manual_seed(0)
    single = torch_operator(OpKey("linear", 8, 8), "cpu")()
    assert not torch.equal(run(), single)


def test_a_graph_keeps_what_it_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_runner, "torch_on_gpu", MagicMock)
    weights = torch.zeros(3)
    seen = ref(weights)

    def work(weights: torch.Tensor = weights) -> torch.Tensor:
        return weights + 1

    graph = cuda_runner.Graph(work, 1.0)
    del weights, work
    gc.collect()
    assert seen() is not None
    del graph
    gc.collect()
    assert seen() is None


def test_the_error_is_named_not_the_advice_behind_it() -> None:
    said = "Traceback …\n  File …\ntorch.AcceleratorError: CUDA error: illegal\nCompile with X.\n\n"
    assert last_words(said) == "torch.AcceleratorError: CUDA error: illegal"
    assert last_words("starting\nout of luck\n") == "out of luck"
    assert last_words("") == ""


def test_kinds_without_an_operator_are_told() -> None:
    with pytest.raises(NotImplementedError, match="slice"):
        torch_operator(OpKey("slice", 4, 4), "cpu")
    job: dict[str, Any] = {"runtime": "pytorch"}
    with pytest.raises(ValueError, match="`runtime` tensorrt"):
        load(job, {"key": None, "runtime": "pytorch"}, b"a file")


def test_keys_survive_json() -> None:
    from dataclasses import asdict
    from json import dumps, loads

    assert key_from_json(loads(dumps(asdict(KEYS[1])))) == KEYS[1]


@pytest.mark.skipif(gpu, reason="there is a GPU here")
def test_without_a_gpu() -> None:
    with pytest.raises(DeviceError, match="sees no GPU"), Cuda().open(Setup("pytorch")):
        pass


@pytest.mark.skipif(not gpu, reason="no GPU here")
def test_on_a_gpu() -> None:
    models = [Model(key.op, b"", key) for key in (KEYS[0], KEYS[4])]
    with Cuda().open(Setup("pytorch")) as session:
        assert session.environment["device"] == torch.cuda.get_device_name()
        answers = list(session.measure(models, Method(rounds=(3, 3))))
    for answer in answers:
        assert isinstance(answer, Measured)
        assert 0 < float(np.median(answer.times_us)) < 1e4

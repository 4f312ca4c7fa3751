"""Every activation of torch.nn: both files compute it at every scale, or it is refused by name."""

from __future__ import annotations

import inspect

import pytest
import torch
from both_files import check, errors
from torch import nn

from shrinkc.compiler.capture import capture
from shrinkc.compiler.capture.convert import RULES, function_name
from shrinkc.compiler.capture.module_rules import MODULE_RULES
from shrinkc.compiler.export.lower import lower

REFUSED: dict[str, str] = {}  # class → a word of the reason
NEEDED = {"Threshold": ({"threshold": 0.1, "value": -0.3},)}  # arguments without a default
MORE = {
    "CELU": ({"alpha": 0.4},),
    "ELU": ({"alpha": 0.3},),
    "GELU": ({"approximate": "tanh"},),
    "GLU": ({"dim": 1},),
    "Hardshrink": ({"lambd": 0.1},),
    "Hardtanh": ({"min_val": -0.2, "max_val": 3}, {"min_val": 0, "max_val": 6}),
    "LeakyReLU": ({"negative_slope": -0.5},),
    "LogSoftmax": ({"dim": 1}, {"dim": -1}),
    "RReLU": ({"lower": 0.2, "upper": 0.2},),
    "Softmax": ({"dim": 1}, {"dim": 2}),
    "Softmin": ({"dim": 1},),
    "Softplus": ({"beta": 2}, {"threshold": 3}, {"beta": 0.5, "threshold": 1}, {"beta": 30}),
    "Softshrink": ({"lambd": 0.02},),
    "Threshold": ({"threshold": -0.2, "value": 7.0}, {"threshold": 0.0, "value": 0.0}),
}
_MODULES = nn.modules.activation.__all__
WITHOUT_PARAMETERS = [n for n in _MODULES if n not in ("MultiheadAttention", "PReLU")]
CALLS = [
    (name, arguments)
    for name in WITHOUT_PARAMETERS
    for arguments in (*NEEDED.get(name, ({},)), *MORE.get(name, ()))
]


def test_none_is_forgotten() -> None:
    """An activation that PyTorch gets is tested from then on: it is listed there."""
    assert {name for name, _ in CALLS} == set(WITHOUT_PARAMETERS)
    assert len(WITHOUT_PARAMETERS) >= 27
    assert set(MORE) | set(NEEDED) | set(REFUSED) <= set(WITHOUT_PARAMETERS)


@pytest.mark.filterwarnings("ignore:Implicit dimension choice")
@pytest.mark.parametrize(("name", "arguments"), CALLS, ids=str)
def test_activation(name: str, arguments: dict[str, float]) -> None:
    torch.manual_seed(0)
    activation = getattr(nn, name)(**arguments)
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), activation)
    if name in REFUSED:
        with pytest.raises(Exception, match=REFUSED[name]):
            list(errors(model, [(1, 3, 6, 8)]))
        return
    check(model, (1, 3, 6, 8))


def test_every_module_rule_names_a_function_that_has_a_rule() -> None:
    """`nn.CELU` was listed, and `F.celu` had none."""
    for kind, rule in MODULE_RULES.items():
        assert function_name(rule(_instance(kind))[0]) in RULES, kind


def _instance(kind: type[nn.Module]) -> nn.Module:
    """With ones for whatever must be given."""
    one = {"unflattened_size": (1,)}
    given = inspect.signature(kind).parameters.values()
    needed = [p for p in given if p.default is p.empty and p.kind == p.POSITIONAL_OR_KEYWORD]
    return kind(*(one.get(p.name, 1) for p in needed))


@pytest.mark.parametrize(
    ("layers", "kinds"),
    [
        ((nn.Conv2d(2, 2, 1), nn.ReLU(), nn.ReLU()), ["Conv relu"]),
        ((nn.Conv2d(2, 2, 1), nn.ReLU6(), nn.ReLU()), ["Conv relu6"]),
        ((nn.Conv2d(2, 2, 1), nn.ReLU(), nn.ReLU6()), ["Conv relu", "Unary relu6"]),
        ((nn.MaxPool2d(2), nn.ReLU(), nn.ReLU(), nn.ReLU()), ["MaxPool", "Unary relu"]),
    ],
)
def test_a_limit_behind_one_as_narrow_is_not_computed(
    layers: tuple[nn.Module, ...], kinds: list[str]
) -> None:
    """Such as behind a block that a plan left out."""
    program = lower(capture(nn.Sequential(*layers).eval(), (torch.randn(1, 2, 4, 4),)))
    found = [
        f"{type(op).__name__} {getattr(op, 'activation', getattr(op, 'kind', ''))}"
        for op in program.ops
    ]
    assert [one.strip() for one in found] == kinds

"""Functions that no runtime has as one operator, through both files, beside the user's module."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from both_files import SCALES, Behind, check
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from shrinkc.compiler.capture import capture
from shrinkc.compiler.capture.rules.composed.einsum import spelled_out

Function = Callable[[Tensor], object]


def numbers(*shape: int) -> Tensor:
    return torch.sin(torch.arange(math.prod(shape)) * 1.7 + 0.3).reshape(shape)


FUNCTIONS: dict[str, Function] = {
    "sinh": lambda x: torch.sinh(x.clamp(-5, 5)),
    "cosh": lambda x: torch.cosh(x.clamp(-5, 5)),
    "asinh": torch.asinh,
    "acosh": lambda x: torch.acosh(x.abs() + 1.01),
    "atanh": lambda x: torch.atanh(0.9 * x.tanh()),
    "asin": lambda x: torch.asin(x.clamp(-1, 1)),
    "acos": lambda x: torch.acos(x.clamp(-1, 1)),
    "atan": torch.atan,
    "angle": lambda x: torch.atan2(x, x.flip(3) + 0.1),
    "angle to a constant": lambda x: torch.atan2(x, torch.linspace(-1, 1, 8).view(8, 1, 1)),
    "angle on the axes": lambda x: torch.atan2(F.relu(x), F.relu(x.flip(3)) - F.relu(x.flip(2))),
    "erfc": torch.erfc,
    "logit": lambda x: torch.logit(x.sigmoid(), 1e-3),
    "logaddexp": lambda x: torch.logaddexp(x, x.flip(3)),
    "sinc": lambda x: torch.sinc(x.clamp(-3, 3)),
    "numbers for nan": lambda x: torch.nan_to_num(torch.sqrt(x), 7.0),
    "copied sign": lambda x: torch.copysign(x, x.flip(3) + 0.01),
    "heaviside": lambda x: torch.heaviside(x, torch.tensor(0.5)),
    "addcdiv": lambda x: torch.addcdiv(x, x, x.abs() + 1, value=0.3),
    "degrees": torch.rad2deg,
    "finite": lambda x: torch.isfinite(torch.log(x)),
    "infinite": lambda x: torch.isinf(x),
    "buckets": lambda x: torch.bucketize(x, torch.tensor([-1.0, 0.0, 1.0])),
    "buckets, right": lambda x: torch.bucketize(x, torch.tensor([-1.0, 1.0]), right=True),
    # --- reductions
    "norm of order 3": lambda x: x.norm(p=3, dim=1),
    "smallest norm": lambda x: torch.linalg.vector_norm(x, -math.inf, 1),
    "Frobenius' norm": lambda x: torch.linalg.norm(x, dim=(2, 3)),
    "matrix norm": lambda x: torch.linalg.matrix_norm(x),
    "deviation beside mean": lambda x: torch.std_mean(x, dim=(2, 3)),
    "both extremes": lambda x: torch.aminmax(x, dim=1),
    "pairwise distance": lambda x: F.pairwise_distance(x, x.flip(3) + 1),
    "distances": lambda x: torch.cdist(x.flatten(2)[:, :4].mT, x.flatten(2)[:, 4:].mT + 1),
    "distances of order 1": lambda x: torch.cdist(x.flatten(2).mT, x.flatten(2).mT + 1, p=1),
    "median": lambda x: x.flatten(2).median(2).values,
    "third smallest": lambda x: x.kthvalue(3, 1, keepdim=True)[0],
    "truths counted": lambda x: torch.count_nonzero(x > 0, dim=(2, 3)),
    # --- along a dimension
    "running sums": lambda x: x.cumsum(1),
    "running sums of rows": lambda x: torch.cumsum(x, dim=3),
    "running products": lambda x: (1 + 0.1 * x.tanh()).cumprod(3),
    "running maxima": lambda x: x.cummax(2)[0],
    "differences": lambda x: torch.diff(x, dim=2),
    "second differences": lambda x: torch.diff(x, n=2),
    "rolled as a row": lambda x: x.mean(0).roll(5)[None],
    "turned": lambda x: torch.rot90(x, 1, (2, 3)),
    "turned back": lambda x: x.rot90(3, (2, 3)),
    "upside down": lambda x: torch.rot90(x, 2, (2, 3)),
    "circular": lambda x: F.pad(x, (1, 2, 2, 1), mode="circular"),
    "split over the width": lambda x: torch.cat(torch.dsplit(x, 3)[::-1], 2),
    "broadcast, then added": lambda x: torch.broadcast_tensors(x, x[:, :1])[1] + 1,
    "wider, then added": lambda x: x.mean(1, keepdim=True).expand_as(x) + 1,
    # --- products
    "outer": lambda x: torch.outer(x[0, :, 0, 0], x[0, 0, 0])[None],
    "inner": lambda x: torch.inner(x, numbers(3, 10)),
    "tensordot": lambda x: torch.tensordot(x, numbers(8, 3), dims=([1], [0])),
    "tensordot of two": lambda x: torch.tensordot(x, numbers(9, 10, 3), 2),
    "addmm": lambda x: torch.addmm(torch.ones(3), x.flatten(1)[:, :5], numbers(5, 3), beta=0.5),
    "baddbmm": lambda x: torch.baddbmm(torch.ones(1, 9, 9), x.mean(1), x.mean(1).mT, beta=2),
    "kron": lambda x: torch.kron(x[0, 0], torch.ones(2, 2))[None],
    "cross": lambda x: torch.cross(x[:, :3], x[:, 3:6], dim=1),
    "triangle": lambda x: x.triu(1) + x.tril(-2),
    "diagonal": lambda x: torch.diagonal(x, 1, 2, 3),
    "diagonal matrices": lambda x: torch.diag_embed(x.mean(3)),
    "layer of one row": lambda x: F.linear(x, numbers(10)),
    "bilinear": lambda x: F.bilinear(x.mean((2, 3)), x.amax((2, 3)), numbers(3, 8, 8)),
    "causal attention": lambda x: F.scaled_dot_product_attention(
        *(3 * (x.flatten(2).mT,)), is_causal=True
    ),
}
EQUATIONS = {
    "bchw,bkhw->bck": (4, 4),
    "nchw,nc->n": (8, 0),
    "nchw->nwc": (8,),
    "nchw,nchw->nchw": (8, 8),
    "nchw,ndhw->nhwcd": (4, 4),
    "...hw,...hk->...wk": (8, 8),
    "nchw,ndhw": (4, 4),
}


@pytest.mark.parametrize("by_export", [False, True], ids=["traced", "exported"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_function(name: str, by_export: bool) -> None:
    torch.manual_seed(0)
    scales = SCALES[:3] if "median" in name or "smallest" in name else SCALES
    check(Behind(FUNCTIONS[name], by_export), (1, 3, 9, 10), scales=scales, limit=4e-5)


@pytest.mark.parametrize("equation", EQUATIONS)
def test_einsum(equation: str) -> None:
    def apply(x: Tensor) -> Tensor:
        parts = [x[:, :n] if n else x.mean((2, 3)) for n in EQUATIONS[equation]]
        return torch.einsum(equation, *parts)

    torch.manual_seed(0)
    check(Behind(apply), (1, 3, 9, 10), limit=4e-5)


@st.composite
def equations(draw: st.DrawFn) -> tuple[str, list[str]]:
    letters = "abcd"
    parts = [
        "".join(draw(st.lists(st.sampled_from(letters), max_size=3)))
        for _ in range(draw(st.integers(1, 3)))
    ]
    parts[0] = "n" + parts[0]
    used = sorted({*"".join(parts)} - {"n"})
    kept = draw(st.permutations(draw(st.lists(st.sampled_from(used), unique=True)))) if used else []
    return f"{','.join(parts)}->{''.join(('n', *kept))}", parts


@settings(max_examples=60, deadline=None)
@given(equations())
def test_any_einsum_is_pytorchs(drawn: tuple[str, list[str]]) -> None:
    equation, parts = drawn
    sizes = {"n": 1, "a": 2, "b": 3, "c": 4, "d": 2}

    class Sums(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for i, part in enumerate(parts[1:]):
                self.register_buffer(f"b{i}", numbers(*(sizes[k] for k in part)).double())

        def forward(self, x: Tensor) -> Tensor:
            return torch.einsum(
                equation, x, *(getattr(self, f"b{i}") for i in range(len(parts) - 1))
            )

    x = numbers(*(sizes[k] for k in parts[0]))
    model = Sums().float()
    graph = capture(model, (x,)).double()
    wide = torch.cat((x, x * 0.3)).double()
    torch.testing.assert_close(graph(wide)[0], model.double()(wide), rtol=1e-9, atol=1e-9)


def test_equations_are_spelled_out() -> None:
    assert spelled_out("...ij,jk", (3, 2)) == (["Aij", "jk"], "Aik")
    assert spelled_out("a...,b...->...", (3, 2)) == (["aAB", "bB"], "AB")
    assert spelled_out("ii", (2,)) == (["ii"], "")

"""In-place writes: whoever reads what was written into, under any name and any view, sees it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

import shrinkc.compiler.capture as capturing
from shrinkc.compiler.capture import capture
from shrinkc.compiler.capture.writes import Place, Writes
from shrinkc.errors import CaptureError

X = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(5))


class Body(nn.Module):
    """A convolution, any function of the input and of it, a convolution."""

    def __init__(self, function: Callable[[nn.Module, Tensor, Callable[..., Tensor]], Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 4, 1)
        self.act = nn.Hardtanh(-8.0, 8.0, inplace=True)
        self.relu = nn.ReLU(inplace=True)
        self.register_buffer("mean", torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1))
        self.register_buffer("scratch", torch.zeros(1, 8, 4, 4))
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(self, x)


def statement(*names: str) -> Callable[..., Any]:
    """y = conv(x); every statement in turn; conv(y)"""

    def run(m: Any, x: Tensor) -> Any:
        y = m.a(x)
        space = {"m": m, "x": x, "y": y, "torch": torch, "F": F}
        for name in names:
            exec(name, space)
        return m.b(space["y"])

    return run


ON_INPUT = (
    "x.div_(2)",
    "x.clamp_(0, 1)",
    "x.sub_(m.mean).div_(0.25)",
    "x -= m.mean",
    "x *= 2; x += 1",
    "x[:, 0].sub_(0.5)",
    "x[:, 1:].mul_(3)",
    "x[:, 0] = x[:, 1]",
    "F.relu_(x)",
    "m.relu(x)",
    "m.relu(x[:, :2])",
    "torch.mul(x, 2, out=x)",
    "x.data.clamp_(max=6)",
    "x.view(-1).neg_()",
    "x.fill_(0.5)",
    "x.copy_(torch.roll(x, 1, 2) * 2)",
    "v = x.permute(0, 2, 3, 1); v += m.mean.view(3)",
)
ON_A_MAP = (
    "y.clamp_(max=6)",
    "y.clamp_(-6, 6).mul_(2)",
    "y.sigmoid_()",
    "y.exp_().clamp_(max=100)",
    "F.relu6(y, inplace=True)",
    "F.hardtanh_(y, -4, 4)",
    "m.act(y)",
    "m.act(y[:, :4])",
    "m.act(y); m.relu(y)",
    "y[:, 2:4].clamp_(max=4.135)",
    "y[:, :, 1:3, ::2].clamp_(max=1)",
    "y[..., 0].zero_()",
    "y[:, 3].fill_(2)",
    "y[:, 1:3] = y[:, 3:5].clamp(max=6)",
    "y[:, 0] += 1",
    "y[:, ::2] *= y[:, 1::2]",
    "d = y[:, 4:]; d.clamp_(max=4.135); y = torch.cat((y[:, :4], d.exp()), 1)",
    "a, b = y.chunk(2, 1); y.clamp_(-6, 6); y = torch.cat((a, b), 1)",
    "a, b = y.chunk(2, 1); a.clamp_(max=2); y = y + torch.cat((b, a), 1)",
    "a, b = y.split(4, 1); a.add_(b); y = torch.cat((a, b), 1)",
    "z = y.clone(); y.relu_(); y = y + z",
    "z = y.flatten(2); y.relu_(); y = z.view(y.shape)",
    "z = y; y += 1; y = y * z",
    "z = y.detach(); z.clamp_(max=3)",
    "z = y.contiguous(); z.clamp_(max=3)",
    "z = y.permute(0, 1, 3, 2); z.mul_(torch.arange(4.)); y = y + z",
    "z = y * 2; torch.add(y, 1, out=z); y = z",
    "z = torch.zeros_like(y); z.add_(y); z.clamp_(max=5); y = z",
    "z = torch.zeros(y.shape[0], 8, 4, 4); z[:, 2:6] = y[:, :4]; y = z",
    "z = torch.empty_like(y); z.copy_(y); y.zero_(); y = y + z",
    "z = torch.ones(4); w = y * z; z.mul_(3); y = w + y * z",
    "m.scratch.copy_(y.mean(0, keepdim=True)); y = y + m.scratch * 2",
    "first, last = y[:, 0:1], y[:, 7:8]; first.clamp_(max=2); y = y + first * last",
    "y.mul_(y.mean((2, 3), keepdim=True)); y.addcmul_(y, y, value=0.1)",
    "y.squeeze(0).clamp_(max=2)",
    "y.unsqueeze(1)[:, :, :3].clamp_(max=1)",
    "y.select(1, 2).clamp_(max=1); y.narrow(1, 4, 2).clamp_(min=-1)",
    "for part in y.unbind(1)[:2]: part.clamp_(max=0.5)",
    "y.transpose_(2, 3).clamp_(max=2)",
    "[y[:, i].clamp_(max=float(i)) for i in range(3)]",
    "d = y[:, 4:]; d -= 0.25",
    "d = y[:, 4:]; d *= y[:, :4]; d /= 3; d **= 2",
    "d = y.data; d += 1",
    "y.data *= 2",
    "n = y.shape[1]; n //= 2; n += 0; y = y[:, :n].repeat(1, 2, 1, 1)",
)


@pytest.mark.parametrize("text", ON_A_MAP)
def test_writes_into_a_map(text: str) -> None:
    equal(Body(statement(text)).eval())


@pytest.mark.parametrize("text", ON_INPUT)
def test_writes_into_the_input(text: str) -> None:
    def run(m: Any, x: Tensor) -> Any:
        exec(text, {"m": m, "x": x, "torch": torch, "F": F})
        return m.b(F.relu(m.a(x)))

    equal(Body(run).eval())


def test_an_input_that_is_written_into_and_returned() -> None:
    equal(Body(lambda m, x: (x.mul_(2), x, m.b(m.a(x)))).eval())


def equal(model: nn.Module) -> None:
    """Captured right at small, usual and large numbers and at a batch of 3; the model and its
    example are left alone."""
    before = {k: v.clone() for k, v in model.state_dict().items()}
    x = X.clone()
    graph = capture(model, (x,))
    assert torch.equal(x, X)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    for scale in (0.05, 1.0, 20.0):
        for batch in (1, 3) if graph.meta["dynamic_batch"] else (1,):
            sample = scale * torch.randn(batch, 3, 8, 8)
            with torch.no_grad():
                got, want = graph(sample), model(sample.clone())
            for a, b in zip(got, want if isinstance(want, tuple) else (want,), strict=True):
                torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4 * float(b.abs().max()))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("y[:, 0].renorm_(2, 0, 1.)", "renorm.*no rule"),
        ("y.erfinv_()", r"'erfinv_' \(erfinv_\): no runtime computes it"),
    ],
)
def test_what_no_operator_says_is_refused_by_its_name(text: str, reason: str) -> None:
    with pytest.raises(CaptureError, match=reason):
        capture(Body(statement(text)).eval(), (X,))


LIMIT = "y.clamp_(max=6)"  # which N(0, 1) never reaches


def test_a_write_that_is_lost_is_found_by_its_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted fault: fx's own removal of dead code, which takes `y.clamp_()` for unused."""
    assert capture(Body(statement(LIMIT)).eval(), (X,)).meta["captured_by"] == "symbolic_trace"

    def remove(graph_module: fx.GraphModule, seen: object) -> None:
        graph_module.graph.eliminate_dead_code()

    monkeypatch.setattr(capturing, "remove_unused", remove)
    assert capture(Body(statement(LIMIT)).eval(), (X,)).meta["captured_by"] == "torch.export"
    monkeypatch.setattr(capturing, "export", lambda *_: iter(()))
    with pytest.raises(CaptureError, match=r"the graph differs by .* normal × 20 \(symbolic_trace"):
        capture(Body(statement(LIMIT)).eval(), (X,))


def test_names_that_are_forgotten_are_found_by_their_numbers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The planted fault: only the node that writes reads what it wrote."""
    monkeypatch.setattr(Writes, "names", lambda *_: ())
    monkeypatch.setattr(capturing, "export", lambda *_: iter(()))
    with pytest.raises(CaptureError, match="the graph differs by"):
        capture(Body(statement("z = y; y += 1; y = y * z")).eval(), (X,))


def test_a_view_that_is_overlooked_is_found_by_its_numbers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The planted fault: views that a write reaches count as apart from it."""
    monkeypatch.setattr(Place, "overlaps", lambda *_: False)
    monkeypatch.setattr(capturing, "export", lambda *_: iter(()))
    text = "a, b = y.chunk(2, 1); y.clamp_(-6, 6); y = torch.cat((a, b), 1)"
    with pytest.raises(CaptureError, match=r"the graph differs by .* on normal × 20"):
        capture(Body(statement(text)).eval(), (X,))


def test_a_statement_that_writes_far_beyond_the_probes_is_kept() -> None:
    """`part -= …` changes the base; here by nothing up to 500, where no probe comes."""
    model = Body(statement("d = y[:, 4:]; d -= F.relu(d - 500)")).eval()
    graph, x = capture(model, (X,)), 3000 * X
    with torch.no_grad():
        assert float(model.a(x)[:, 4:].max()) > 600
        torch.testing.assert_close(graph(x)[0], model(x.clone()), rtol=1e-4, atol=1e-2)


def test_data_that_is_assigned_is_refused() -> None:
    with pytest.raises(CaptureError, match="capture"):
        capture(Body(statement("y.data = y.data.clamp(max=500)")).eval(), (X,))


def test_parts_that_share_nothing_are_told_apart() -> None:
    """The symbolic trace is kept, which trains like the module."""
    text = "a, b = y.split(4, 1); a.clamp_(max=2); y = torch.cat((b, a), 1)"
    assert capture(Body(statement(text)).eval(), (X,)).meta["captured_by"] == "symbolic_trace"
    whole, left = (
        Place(1, 0, (2, 8), (8, 1), torch.float32),
        Place(1, 0, (2, 4), (8, 1), torch.float32),
    )
    right = Place(1, 4, (2, 4), (8, 1), torch.float32)
    assert whole.overlaps(left)
    assert left.overlaps(whole)
    assert not left.overlaps(right)
    assert not left.overlaps(Place(2, 0, (2, 4), (8, 1), torch.float32))

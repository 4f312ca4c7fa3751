"""Short-time Fourier transforms: the kernels in float64, and what models make of the result."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from shrinkc.compiler.capture import capture
from shrinkc.compiler.capture.rules.sequence.spectrum import kernels
from shrinkc.errors import CaptureError

SAMPLES, SIZE, HOP = 400, 64, 24


@settings(max_examples=30, deadline=None)
@given(size=st.integers(8, 400), hop=st.integers(3, 60), normalised=st.booleans())
def test_the_kernels_are_the_transform(size: int, hop: int, normalised: bool) -> None:
    torch.manual_seed(0)
    window, x = torch.rand(size, dtype=torch.float64), torch.randn(2, 900, dtype=torch.float64)
    want = torch.stft(
        *(x, size, hop, size, window),
        center=False,
        normalized=normalised,
        return_complex=True,
    )
    weight = kernels(window, size // 2 + 1, normalised=normalised)
    got = F.conv1d(x[:, None], weight[:, None], stride=hop)
    both = torch.cat((want.real, want.imag), 1)
    assert (got - both).abs().max() < 1e-9 * both.abs().max()


class Spectrum(nn.Module):
    def __init__(self, read: Any, **form: Any) -> None:
        super().__init__()
        self.read, self.form = read, form
        self.register_buffer("window", torch.hann_window(form.get("win_length", SIZE)))

    def forward(self, x: Tensor) -> Any:
        return self.read(torch.stft(x, SIZE, HOP, window=self.window, **self.form))


FORMS: dict[str, dict[str, Any]] = {
    "reflected": {},
    "zeros around it": {"pad_mode": "constant"},
    "no padding": {"center": False},
    "a short window": {"win_length": 40},
    "normalised": {"normalized": True},
    "two sides": {"onesided": False},
}
READS = {
    "power": lambda x: x.abs().pow(2),
    "magnitude": torch.abs,
    "parts": lambda x: torch.stack((x.real, x.imag), 1),
    "as real": torch.view_as_real,
    "a part of it": lambda x: x[:, 1:9].transpose(1, 2).abs(),
}


def require_close(model: nn.Module, x: Tensor) -> None:
    graph = capture(model.eval(), (x,))
    (got,), want = graph(x), model(x)
    assert (got - want).abs().max() < 1e-5 * want.abs().max()
    assert graph.meta["captured_by"] == "symbolic_trace"


@pytest.mark.parametrize("form", FORMS)
def test_forms(form: str) -> None:
    require_close(Spectrum(READS["power"], return_complex=True, **FORMS[form]), signal())


@pytest.mark.parametrize("read", READS)
def test_what_is_read(read: str) -> None:
    require_close(Spectrum(READS[read], return_complex=True), signal())


def signal() -> Tensor:
    return torch.randn(2, SAMPLES, generator=torch.Generator().manual_seed(0))


def test_one_signal_without_a_batch() -> None:
    class One(Spectrum):
        def forward(self, x: Tensor) -> Any:
            return super().forward(x.squeeze(0))[None]

    model = One(READS["magnitude"], return_complex=True).eval()
    x = signal()[:1]
    (got,) = capture(model, (x,))(x)
    assert torch.allclose(got, model(x), atol=1e-4)


class Through(nn.Module):
    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function
        self.register_buffer("filter", torch.rand(33) + 0.5)

    def forward(self, x: Tensor) -> Any:
        return self.function(self, x)


FOURIER = {
    "autocorrelation": lambda s, x: torch.fft.irfft(torch.fft.rfft(x) * torch.fft.rfft(x).conj()),
    "scaled": lambda s, x: torch.fft.irfft(torch.fft.rfft(x) * s.filter / 2, n=64),
    "an odd length": lambda s, x: torch.fft.irfft(torch.fft.rfft(x[..., :63]), n=63),
    "another dimension": lambda s, x: torch.fft.rfft(x, dim=1, norm="ortho").abs(),
    "there and back, forward": lambda s, x: torch.fft.irfft(
        torch.fft.rfft(x, norm="forward") - 0.5 * torch.fft.rfft(x.flip(1), norm="forward"),
        norm="forward",
    ),
    "a sum": lambda s, x: (torch.fft.rfft(x) + -torch.fft.rfft(x * x)).imag,
}


@pytest.mark.parametrize("name", FOURIER)
def test_transforms_of_real_numbers(name: str) -> None:
    x = torch.randn(2, 5, 64, generator=torch.Generator().manual_seed(0))
    require_close(Through(FOURIER[name]), x)


def test_another_number_of_frequencies_is_refused() -> None:
    model = Through(lambda s, x: torch.fft.irfft(torch.fft.rfft(x), n=32)).eval()
    with pytest.raises(CaptureError, match="32 numbers of 33 frequencies, which have 64"):
        capture(model, (torch.randn(2, 5, 64),))


def test_what_else_is_complex_is_refused_by_name() -> None:
    model = Spectrum(lambda x: (x @ x.conj().mT).real, return_complex=True)
    with pytest.raises(CaptureError, match=r"\(matmul\): computes with complex numbers; take abs"):
        capture(model.eval(), (signal(),))

"""Fitting: planted prices come back, floors and priors hold, held out means not seen."""

from dataclasses import replace

import numpy as np
import pytest

from shrinkc.latency_tables.kernels.features import Caches, Tiles
from shrinkc.latency_tables.kernels.registry import RUY
from shrinkc.latency_tables.makers.fit import Donor, Expectation, Fit, Sample, solve
from shrinkc.latency_tables.makers.sources.mlperf import sample
from shrinkc.latency_tables.makers.sources.networks import OpList
from shrinkc.latency_tables.store import load_table

TILES, CACHES = Tiles(8, 8, 1, 4), Caches(32 * 1024, 512 * 1024)
PLANTED = {
    **{"gemm": 55.0, "deep_gemm": 20.0, "outputs": 0.3, "depthwise": 180.0},
    **{"grouped": 700.0, "grouped_taps": 900.0, "activations": 0.35, "uncached": 0.3},
    **{"weights": 0.8, "vector_weights": 0.3, "patch_rows": 40.0, "pooling": 0.5},
    **{"elementwise": 0.6, "functions": 8.0, "operator": 3.0, "network": 200.0},
}
FIT = Fit(
    RUY, TILES, CACHES, {name: Expectation(0.0, 0.7 * value) for name, value in PLANTED.items()}
)
PRICES = np.array([PLANTED[name] for name in RUY.features])


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    """The float networks of the ruy table, timed by a machine with the planted prices."""
    rows = load_table("rpi4/tflite-ruy").validation
    names = {v.network for v in rows if v.precision == "fp32"}
    return [timed(sample(name, 1.0)) for name in sorted(names)]


def timed(network: Sample, factor: float = 1.0) -> Sample:
    us = us_of(network.ops) - us_of(network.less) + network.network_share * PLANTED["network"]
    return replace(network, measured_ms=factor * us / 1e3)


def us_of(ops: OpList) -> float:
    return float(sum(np.array(RUY.amounts(key, TILES, CACHES)) @ PRICES[:-1] for key in ops))


def test_planted_prices_come_back_when_the_networks_tell_them_apart() -> None:
    random = np.random.default_rng(0)
    features = random.uniform(0, 1, (400, len(PRICES))) / PRICES * 1e4
    measured = features @ PRICES
    found = solve(features, measured, np.zeros(len(PRICES)), 0.7 * PRICES)
    np.testing.assert_allclose(found, PRICES, rtol=0.01)


def test_planted_networks_are_predicted_unseen(samples: list[Sample]) -> None:
    rows = FIT.validate(samples)
    for held_out, limit in (("none", 0.005), ("network", 0.01), ("family", 0.15)):
        errors = [abs(v.relative_error) for v in rows if v.held_out == held_out]
        assert len(errors) == len(samples)
        assert np.mean(errors) < limit


def test_the_model_predicts_as_its_validation_says(samples: list[Sample]) -> None:
    model = FIT.model(samples)
    stated = {v.network: v.predicted_ms for v in FIT.validate(samples) if v.held_out == "none"}
    for network in samples:
        us = model.network_us() + sum(model.operator_us(key) for key in network.ops)
        assert us / 1e3 == pytest.approx(stated[network.network], rel=1e-9)


def test_differences_are_fitted_as_differences(samples: list[Sample]) -> None:
    """What the second half of each network adds to its first, without the network's own cost."""
    halves = [
        replace(s, ops=s.ops, less=s.ops[: len(s.ops) // 2], network_share=0.0) for s in samples
    ]
    rows = FIT.validate([timed(half) for half in halves])
    assert max(abs(v.relative_error) for v in rows if v.held_out == "none") < 0.01


def test_held_out_networks_and_families_are_not_seen(samples: list[Sample]) -> None:
    """Slowing a family down changes what is predicted of others, not of itself."""
    family = samples[0].family
    slowed = [timed(s, 5.0) if s.family == family else s for s in samples]
    before, after = FIT.validate(samples), FIT.validate(slowed)
    pairs = list(zip(before, after, strict=True))
    own = {s.network for s in samples if s.family == family}
    for was, now in pairs:
        if was.held_out == "family" and was.network in own:
            assert now.predicted_ms == pytest.approx(was.predicted_ms, rel=1e-6)
    fitted = [(w, n) for w, n in pairs if w.held_out == "none" and w.network in own]
    assert all(now.predicted_ms > 1.05 * was.predicted_ms for was, now in fitted)


def test_small_networks_count_like_large_ones() -> None:
    """One network in ten is 1,000 times larger and 20% off: the others decide."""
    features = np.array([[1.0]] * 9 + [[1000.0]])
    measured = np.array([1.0] * 9 + [1200.0])
    price = float(solve(features, measured, np.zeros(1), np.ones(1))[0])
    assert price == pytest.approx(1.0, abs=0.03)


def test_a_price_never_beats_the_hardware(samples: list[Sample]) -> None:
    fast = replace(FIT, expected={**FIT.expected, "gemm": Expectation(80.0, 90.0)})
    model = fast.model(samples)
    assert model.coefficients["gemm"].value == pytest.approx(80.0)
    assert min(c.value - c.floor for c in model.coefficients.values()) >= -1e-9


def test_what_no_network_has_keeps_its_prior(samples: list[Sample]) -> None:
    grouped = FIT.model(samples).coefficients["grouped"]
    assert grouped.value == pytest.approx(grouped.prior)


def test_coverage_counts_networks_and_bounds_extents(samples: list[Sample]) -> None:
    coverage = FIT.model(samples).coverage
    assert coverage["pointwise_conv"].networks == len(samples)
    assert coverage["dense_conv"].networks == 1
    assert (coverage["dense_conv"].low, coverage["dense_conv"].high) == (
        (64, 64, 49, 3),
        (512, 512, 3136, 3),
    )
    assert "grouped_conv" not in coverage


def test_what_samples_cannot_tell_apart_follows_another_device(samples: list[Sample]) -> None:
    """One half as fast, and three networks here, by a fit that expects every price to be 10."""
    blind = replace(FIT, expected={name: Expectation(0.0, 10.0) for name in PLANTED})
    donor = Donor(FIT, tuple(replace(s, measured_ms=2 * s.measured_ms) for s in samples[3:]))
    own = [samples[0], samples[len(samples) // 2], samples[-1]]
    unseen = [sample for sample in samples if sample not in own]

    def wrong(fit: Fit) -> float:
        model = fit.model(own)
        return float(np.mean([abs(model.total_ms(s.ops) / s.measured_ms - 1) for s in unseen]))

    assert wrong(replace(blind, donors=(donor,))) < 0.05 < wrong(blind)


def test_a_donor_has_not_seen_what_is_held_out(samples: list[Sample]) -> None:
    """A network that the donor alone knows to be slow is not known to be slow when held out."""
    own = samples[:6]
    slow = replace(samples[0], network="another name", measured_ms=10 * samples[0].measured_ms)
    with_slow, without = (
        replace(FIT, donors=(Donor(FIT, tuple(known)),))
        for known in ([slow, *samples[1:]], samples[1:])
    )

    def first(fit: Fit) -> float:
        (found,) = (
            v.predicted_ms
            for v in fit.validate(own)
            if (v.network, v.held_out) == (own[0].network, "network")
        )
        return found

    assert first(with_slow) == pytest.approx(first(without))

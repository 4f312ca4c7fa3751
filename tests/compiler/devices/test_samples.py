"""Outliers, drift and what is taken off, on numbers that can be checked by hand."""

from random import Random
from statistics import median

import pytest

from shrinkc.compiler.devices.samples import (
    DISTURBED,
    LEAST_ROUNDS,
    LEAST_US,
    Sample,
    iqr,
    noisy,
    settle,
    settle_all,
    usual_us,
    without_outliers,
)
from shrinkc.latency_tables.measured import Measurement


def test_outliers_are_far_above_the_third_quartile() -> None:
    times = [10.0, 11.0, 12.0, 13.0, 14.0, 10.5, 11.5, 12.5]
    assert without_outliers([*times, 100.0]) == times
    assert without_outliers([*times, 19.0]) == [*times, 19.0]  # within 3 IQR
    assert without_outliers([1.0, *times]) == [1.0, *times]  # nothing runs too fast
    assert without_outliers([1.0, 50.0]) == [1.0, 50.0]  # too few to tell


def test_median_range_and_number() -> None:
    times = (10.0, 11.0, 12.0, 13.0, 11.0, 12.0, 11.0)
    assert settle([Sample((*times, 500.0))], None) == Measurement(11.0, iqr(times), 7)


def test_what_is_not_the_operators_own_is_taken_off() -> None:
    assert settle([Sample((12.0, 13.0, 14.0), base_us=3.0)], None).median_us == 10.0
    assert settle([Sample((2.0, 3.0, 4.0), base_us=3.5)], None).median_us == LEAST_US


def test_passes_are_pooled() -> None:
    found = settle([Sample((10.0,) * 5), Sample((12.0,) * 5)], None)
    assert (found.median_us, found.runs) == (11.0, 10)


def test_a_slow_clock_is_corrected_by_the_reference() -> None:
    """Half of the rounds run at two thirds of the speed; the reference shows it."""
    slow = Sample((150.0,) * 8, 0.0, (30.0,) * 8)
    fast = Sample((100.0,) * 8, 0.0, (20.0,) * 8)
    found = settle([slow, fast], 20.0)
    assert found.median_us == pytest.approx(100.0)
    assert found.iqr_us == pytest.approx(0.0)
    assert settle([slow, fast], None).iqr_us == pytest.approx(50.0)


def test_one_disturbed_reference_changes_nothing() -> None:
    reference = (20.0, 20.0, 20.0, 90.0, 20.0, 20.0)
    found = settle([Sample((100.0,) * 6, 0.0, reference)], 20.0)
    assert (found.median_us, found.iqr_us) == (100.0, 0.0)


def test_noise_is_relative_and_above_the_clocks() -> None:
    assert noisy(Measurement(100.0, 11.0, 9))
    assert not noisy(Measurement(100.0, 9.0, 9))
    assert not noisy(Measurement(2.0, 0.9, 9))
    assert not noisy(Measurement(2.0, None, 9))


def test_rounds_of_a_disturbed_machine_do_not_count() -> None:
    """A neighbour slows the reference by 30% and this operator by 80%."""
    quiet, disturbed = (10.0, 10.1) * 5, (18.0,) * 6
    reference = (100.0,) * 10 + (130.0,) * 6
    found = settle([Sample((*quiet, *disturbed), reference_us=reference)], 100.0)
    assert found.median_us < 10.2
    assert found.runs is not None
    assert 8 <= found.runs <= 10


def test_where_every_round_is_disturbed_the_least_are_kept() -> None:
    found = settle([Sample((18.0,) * 6, reference_us=(130.0,) * 6)], 100.0)
    assert found.runs == LEAST_ROUNDS


def test_the_usual_speed_is_that_of_the_quiet_machine() -> None:
    assert usual_us([100.0] * 40 + [150.0] * 60) == 100.0
    assert usual_us([]) is None
    assert usual_us([7.0]) == 7.0


def test_a_reference_that_took_no_time_tells_nothing() -> None:
    times = (10.0, 11.0, 12.0, 11.0, 10.0)
    for reference in ((0.0,) * 5, (20.0, 0.0, 0.0, 0.0, 0.0)):
        for usual in (0.0, 20.0):
            found = settle([Sample(times, 0.0, reference)], usual)
            assert (found.median_us, found.runs) == (11.0, 5)


def plainly_settled(samples: list[Sample], reference_us: float | None) -> Measurement:
    """What `settle_all` says of one operator, as its words have it."""
    timed: list[tuple[float, float]] = []
    for one in samples:
        smooth = [
            median(one.reference_us[max(i - 2, 0) : i + 3]) for i in range(len(one.reference_us))
        ]
        speeds = [1.0] * len(one.times_us)
        if reference_us is not None and smooth:
            speeds = [speed / reference_us for speed in smooth]
        own = [max(time - one.base_us, 0.0) for time in one.times_us]
        timed += [(time / speed, speed) for time, speed in zip(own, speeds, strict=True)]
    quiet = [time for time, speed in timed if speed <= DISTURBED]
    if len(quiet) < LEAST_ROUNDS:
        quiet = [time for time, _ in sorted(timed, key=lambda pair: pair[1])[:LEAST_ROUNDS]]
    kept = without_outliers(quiet)
    return Measurement(max(median(kept), LEAST_US), iqr(kept), len(kept))


@pytest.mark.parametrize("reference_us", [None, 10.0, 20.0])
def test_all_at_once_are_settled_as_each_alone(reference_us: float | None) -> None:
    dice, samples = Random(0), dict[int, list[Sample]]()
    for key in range(400):
        samples[key] = []
        for _ in range(dice.randint(1, 4)):
            rounds = dice.randint(1, 22)
            times = tuple(dice.lognormvariate(3, 0.5) for _ in range(rounds))
            speeds = tuple(dice.choice([20, 30]) * dice.uniform(0.9, 1.2) for _ in range(rounds))
            with_reference = speeds if dice.random() < 0.7 else ()
            samples[key].append(Sample(times, dice.choice([0.0, 30.0]), with_reference))
    found = settle_all(samples, reference_us)
    assert list(found) == list(samples)
    for key, passes in samples.items():
        plain = plainly_settled(passes, reference_us)
        assert found[key].median_us == pytest.approx(plain.median_us)
        assert found[key].iqr_us == pytest.approx(plain.iqr_us, abs=1e-9)
        assert found[key].runs == plain.runs

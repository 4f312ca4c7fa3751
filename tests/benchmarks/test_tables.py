"""The report on the latency tables: verdicts, and the sections that need no data."""

from pathlib import Path

import pytest

from benchmarks.tables import Measure, speed


@pytest.mark.parametrize(
    ("reached", "higher_is_better", "met"),
    [(4.5, False, True), (4.6, False, False), (4.5, True, True), (4.4, True, False)],
)
def test_a_bar_is_met_from_the_right_side(
    reached: float, higher_is_better: bool, met: bool
) -> None:
    measure = Measure("table", "mean error", reached, 4.5, higher_is_better)
    assert measure.met is met
    assert measure.row()[3:] == (
        "≥ 4.5%" if higher_is_better else "≤ 4.5%",
        "met" if met else "MISSED",
    )


def test_what_has_no_bar_is_only_stated() -> None:
    measure = Measure("table", "mean error", 17.66)
    assert measure.met
    assert measure.row() == ("table", "mean error", "17.7%", "", "")


def test_tables_are_fast_enough_to_plan_with() -> None:
    measures = speed(Path("no data"))
    assert {measure.name for measure in measures} == {"loading", "estimating MobileNetV2"}
    for measure in measures:  # the bar is for an idle machine; this one may be five times slower
        assert measure.bar is not None
        assert measure.reached < 5 * measure.bar

"""What a table's validation says of it."""

import pytest

from shrinkc.errors import TableError
from shrinkc.latency_tables.files import Validation
from shrinkc.latency_tables.makers.script import check
from shrinkc.latency_tables.meta import TableMeta
from shrinkc.latency_tables.table import LatencyTable
from shrinkc.latency_tables.tested.accuracy import Accuracy, accuracy, summary

META = TableMeta(
    *("measured", "board", "soc", "TFLite", "2.14", 1, "unknown"),
    *(("fp32",), 1, "2024-05-01", "measured for the test", "Apache-2.0"),
)


def table(*pairs: tuple[float, float], held_out: str = "network") -> LatencyTable:
    """Of networks with these (measured, predicted) milliseconds."""
    rows = (Validation(f"net{i}", "fp32", m, p, held_out) for i, (m, p) in enumerate(pairs))
    return LatencyTable("board", META, validation=tuple(rows))


def test_errors_shares_and_order() -> None:
    found = accuracy(table((10, 10.8), (20, 19), (40, 42), (30, 45)), "fp32")
    assert found == Accuracy(
        *("board", "fp32", "network", 4),
        mean_error_percent=pytest.approx((8 + 5 + 5 + 50) / 4),
        worst_percent=pytest.approx(50),
        within_10_percent=75,
        spearman=pytest.approx(0.8),  # 1 − 6·2 / (4·15): two neighbours changed places
    )


def test_equal_values_share_their_rank() -> None:
    found = accuracy(table((10, 10), (10, 20), (20, 30)), "fp32")
    assert found is not None
    assert found.spearman == pytest.approx(0.866, abs=0.001)


def test_too_few_rows_say_nothing() -> None:
    assert accuracy(table((10, 11)), "fp32") is None
    assert accuracy(table((10, 11), (20, 19)), "fp32", "family") is None
    assert summary(table((10, 11), (20, 19))) == (accuracy(table((10, 11), (20, 19)), "fp32"),)


@pytest.mark.parametrize("measured", [12.0, 0.0012, 1200.0])
def test_a_measurement_unlike_all_predictions_is_refused(measured: float) -> None:
    rows = table((1, 1.1), (measured, 1.2)).validation
    with pytest.raises(TableError, match=r"net1 \(fp32\): .* ms measured, .* say 1.2 ms: check"):
        check(rows)


def test_plausible_measurements_pass() -> None:
    check(table((1, 1.1), (1.2, 3.0), (3.0, 1.2)).validation)
    check(table((1, 100.0), held_out="none").validation)
    check(())

"""The page that puts several results side by side."""

from __future__ import annotations

from sample_reports import plain, rich

from shrinkc.compiler.report.html.comparison import comparison_page


def test_results_of_one_target_are_drawn_as_a_frontier() -> None:
    page = comparison_page({"2.06x-int8": rich(), "1.00x-fp32": plain()})
    assert 'href="2.06x-int8/report.html"' in page
    assert "frontier-chart" in page
    assert "written: " not in page
    assert "2.06×" in page


def test_results_of_several_targets_are_bars() -> None:
    other = plain() | {"target": "pixel4", "predicted_ms_before": None}
    page = comparison_page({"rpi4": rich(), "pixel4": other})
    assert "frontier-chart" not in page
    assert 'class="drawing speedups"' in page
    assert "pixel4: not predicted" in page


def test_names_stay_text() -> None:
    page = comparison_page({"a<b>": rich() | {"model": "<script>x</script>"}, "b": plain()})
    assert "<script>x" not in page
    assert "a&lt;b&gt;" in page
    assert 'href="a%3Cb%3E/report.html"' in page

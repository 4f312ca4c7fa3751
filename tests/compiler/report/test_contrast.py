"""Text can be read in both colour schemes: WCAG 2, contrast of 4.5 for text and 3 for edges."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest

STYLE = files("shrinkc.compiler.report.html").joinpath("style.css").read_text("utf-8")
LIGHT, DARK = (
    dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", part))
    for part in re.split(r"@media \(prefers-color-scheme: dark\)", STYLE)
)
KINDS = ("kept", "merged", "narrowed", "dropped", "changed", "new")
schemes = pytest.mark.parametrize("colours", [LIGHT, DARK], ids=["light", "dark"])


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    r, g, b = (x / 12.92 if x <= 0.03928 else ((x + 0.055) / 1.055) ** 2.4 for x in parts)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def contrast(a: str, b: str) -> float:
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


def test_the_formula() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)


def test_both_schemes_state_every_colour() -> None:
    assert set(LIGHT) == set(DARK)


@schemes
@pytest.mark.parametrize("ink", ["ink", "soft", "link", "alarm"])
@pytest.mark.parametrize("ground", ["page", "raised"])
def test_text(colours: dict[str, str], ink: str, ground: str) -> None:
    assert contrast(colours[ink], colours[ground]) >= 4.5


@schemes
@pytest.mark.parametrize("kind", KINDS)
def test_names_in_blocks_and_edges_of_blocks(colours: dict[str, str], kind: str) -> None:
    assert contrast(colours["ink"], colours[kind]) >= 4.5
    assert contrast(colours[f"{kind}-line"], colours["page"]) >= 3


@schemes
@pytest.mark.parametrize("part", ["focus", "total", "precision", "cost-line"])
def test_what_is_not_text(colours: dict[str, str], part: str) -> None:
    assert contrast(colours[part], colours["page"]) >= 3

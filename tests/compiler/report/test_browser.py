"""The page in headless Chromium: it draws, filters and can be used by keyboard, without errors."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sample_reports import plain, rich, uncaptured

from shrinkc.compiler.report.html import html_report

sync_api = pytest.importorskip("playwright.sync_api")
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM = next((found for found in map(shutil.which, NAMES) if found), None)
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
SAMPLES = {"plain": plain, "rich": rich, "uncaptured": uncaptured}
every = pytest.mark.parametrize("name", SAMPLES)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield chromium
        chromium.close()


class Viewer:
    """Opens reports, and remembers what the browser complained of or asked the network for."""

    def __init__(self, browser: Any, folder: Path) -> None:
        self._browser, self._folder = browser, folder
        self.complaints: list[str] = []
        self.requests: list[str] = []

    def open(self, name: str, width: int = 1280, **options: Any) -> Any:
        file = self._folder / f"{name}.html"
        file.write_text(html_report(SAMPLES[name]()), "utf-8")
        size = {"width": width, "height": 800}
        page = self._browser.new_page(viewport=size, **options)
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self.requests.append(request.url))
        page.goto(file.as_uri())
        return page


@pytest.fixture
def viewer(browser: Any, tmp_path: Path) -> Iterator[Viewer]:
    opened = Viewer(browser, tmp_path)
    yield opened
    assert opened.complaints == []
    assert all(url.startswith("file://") for url in opened.requests)


@every
def test_it_draws(viewer: Viewer, name: str) -> None:
    page = viewer.open(name)
    sizes = page.eval_on_selector_all(
        "svg.drawing", "all => all.map(x => [x.clientWidth, x.getBoundingClientRect().height])"
    )
    assert all(width > 100 and height > 10 for width, height in sizes)
    assert bool(sizes) == (name != "uncaptured")
    assert page.locator("h1").is_visible()


@every
@pytest.mark.parametrize("width", [320, 360, 768, 1280])
def test_nothing_overflows(viewer: Viewer, name: str, width: int) -> None:
    page = viewer.open(name, width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    outside = page.evaluate(
        """width => [...document.querySelectorAll("main *, header *")]
            .filter(x => !x.closest(".scroll, svg, .skip"))
            .filter(x => x.getBoundingClientRect().right > width + 1)
            .map(x => x.outerHTML.slice(0, 200))""",
        width,
    )
    assert outside == []


def test_blocks_are_as_high_as_their_milliseconds(viewer: Viewer) -> None:
    page = viewer.open("plain")
    heights = page.eval_on_selector_all(
        "g.block rect.bar", "all => all.map(x => x.getBoundingClientRect().height)"
    )
    a_before, a_after, b, c, d, *_ = heights
    assert a_before == pytest.approx(a_after, abs=0.1)
    assert a_before / d == pytest.approx(4.0 / 3.5, rel=0.02)
    assert c / b == pytest.approx(3.0 / 2.0, rel=0.03)


def test_filters(viewer: Viewer) -> None:
    page = viewer.open("rich")
    rows = page.locator("#layer-table tbody tr")
    everything = rows.count()
    visible = "all => all.filter(x => x.checkVisibility()).length"
    page.get_by_label("Containing").focus()
    page.keyboard.type("features_6_")
    assert page.locator("#layer-table tbody tr").evaluate_all(visible) == 5
    assert page.locator("#filter-count").inner_text() == f"5 of {everything} rows"
    page.keyboard.press("Tab")
    page.get_by_label("What happened").select_option("kept")
    assert rows.evaluate_all(visible) == 0
    page.get_by_label("Containing").fill("")
    page.get_by_label("What happened").select_option("dropped")
    assert rows.evaluate_all(visible) == 4
    page.get_by_label("What happened").select_option("")
    assert rows.evaluate_all(visible) == everything


def test_enter_in_the_filter_leaves_nothing(viewer: Viewer) -> None:
    page = viewer.open("rich")
    before = page.url
    page.get_by_label("Containing").press("Enter")
    assert page.url == before


def test_blocks_by_keyboard(viewer: Viewer) -> None:
    page = viewer.open("plain")
    page.get_by_role("link", name="the same as a table").focus()
    seen: list[str] = []
    for _ in range(6):
        page.keyboard.press("Tab")
        label = page.evaluate("document.activeElement.getAttribute('aria-label')")
        if label:
            seen.append(label)
            assert page.locator("#detail").inner_text() == label
            edge = "getComputedStyle(document.activeElement.querySelector('.bar')).strokeWidth"
            assert page.evaluate(edge) == "3px"
    assert seen[0].startswith("kept: a;")
    assert seen[1].startswith("merged: b, c → d")
    assert len(seen) >= 4


def test_what_is_told_of_a_block_does_not_cover_it(viewer: Viewer) -> None:
    page = viewer.open("rich", 360, reduced_motion="reduce")
    page.get_by_role("link", name="the same as a table").focus()
    places = """[document.activeElement.querySelector(".bar"), document.getElementById("detail")]
        .map(x => x.getBoundingClientRect().top)"""
    covered = blocks = 0
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.matches('.block')"):
            block, told = page.evaluate(places)
            blocks += 1
            covered += block >= told
    assert blocks > 50
    assert covered == 0


def test_skip_links(viewer: Viewer) -> None:
    page = viewer.open("plain")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the report"
    assert page.evaluate("document.activeElement.getBoundingClientRect().left") >= 0
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colour_schemes(viewer: Viewer, scheme: str) -> None:
    page = viewer.open("rich", color_scheme=scheme)
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    brightness = sum(int(x) for x in ground[4:-1].split(","))
    assert (brightness < 200) == (scheme == "dark")
    fills = page.eval_on_selector_all(
        "pattern rect", "all => all.map(x => getComputedStyle(x).fill)"
    )
    assert "rgb(0, 0, 0)" not in fills


def test_without_scripts_everything_is_there(viewer: Viewer) -> None:
    page = viewer.open("rich", java_script_enabled=False)
    assert page.locator("#filters").is_hidden()
    assert page.locator("#detail").is_hidden()
    assert page.locator("#layer-table tbody tr").first.is_visible()


def test_a_screen_reader_finds_its_way(viewer: Viewer) -> None:
    page = viewer.open("rich")
    for role, name in (
        ("main", None),
        ("navigation", "Sections"),
        ("region", "The network, block by block"),
        ("img", "top-1 over predicted milliseconds"),
        ("group", "The network before and after, block by block"),
        ("search", None),
        ("table", "The network as a plain converter writes it, and what was written"),
    ):
        assert page.get_by_role(role, name=name).first.is_visible(), (role, name)
    narrow = viewer.open("rich", 360)
    assert narrow.get_by_role("rowheader", name="Latency on rpi4").is_visible()
    assert narrow.get_by_role("columnheader", name="Before, fp32").is_visible()


def test_nobody_is_moved_who_does_not_like_it(viewer: Viewer) -> None:
    page = viewer.open("plain", reduced_motion="reduce")
    assert page.evaluate("getComputedStyle(document.documentElement).scrollBehavior") == "auto"

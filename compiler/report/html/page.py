"""The page. It needs no network and runs no script but its own few lines: a policy says so to the
browser, by the hashes of what is in it."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from hashlib import sha256
from importlib.resources import files

from shrinkc.compiler.report.html.markup import Html, tag
from shrinkc.compiler.report.html.reading import Json
from shrinkc.compiler.report.html.sections.decisions import choices_section, refused_section
from shrinkc.compiler.report.html.sections.evidence import reproduce_section, verified_section
from shrinkc.compiler.report.html.sections.figures import figures_section
from shrinkc.compiler.report.html.sections.frontier import frontier_section
from shrinkc.compiler.report.html.sections.layers import layers_section
from shrinkc.compiler.report.html.sections.network import network_section
from shrinkc.compiler.report.html.sections.use import use_section
from shrinkc.compiler.report.html.sections.verdict import highlights, verdict
from shrinkc.compiler.report.html.sections.waterfall import waterfall_section
from shrinkc.compiler.report.html.svg import textures

_CONTENTS = {
    "figures": "Figures",
    "milliseconds": "Milliseconds",
    "network": "Network",
    "frontier": "Frontier",
    "layers": "Layers",
    "choices": "Choices",
    "refused": "Refused",
    "verified": "Verified",
    "use": "Use it",
    "reproduce": "Do it again",
}


def html_report(report: Json) -> str:
    """The page as text, from the dictionary that report.json holds (schema 1)."""
    title = f"{report['model'].rstrip(',')} for {report['target']}"
    end = f"Written by shrinkc {report['shrinkc']}, from report.json beside it."
    return document(title, _header(report, title), _contents(), _sections(report), end)


def document(
    title: str, header: Html, contents: Html | None, main: Sequence[Html], end: str
) -> str:
    """A whole page, with style, script and the policy that allows nothing else."""
    style, script = (files(__package__ or "").joinpath(n).read_text("utf-8") for n in _FILES)
    head = tag(
        "head",
        None,
        tag("meta", {"charset": "utf-8"}),
        tag("meta", {"http-equiv": "Content-Security-Policy", "content": _policy(style, script)}),
        tag("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}),
        tag("meta", {"name": "color-scheme", "content": "light dark"}),
        tag("title", None, f"{title} · shrinkc"),
        tag("style", None, Html(style)),
    )
    body = tag(
        "body",
        None,
        tag("a", {"class": "skip", "href": "#main"}, "Skip to the report"),
        textures(),
        header,
        contents,
        tag("main", {"id": "main", "tabindex": -1}, *main),
        tag("footer", None, end),
        tag("script", None, Html(script)),
    )
    return f"<!doctype html>\n{tag('html', {'lang': 'en'}, head, body).text}\n"


_FILES = ("style.css", "script.js")


def _policy(style: str, script: str) -> str:
    hashes = [b64encode(sha256(x.encode()).digest()).decode() for x in (style, script)]
    return (
        f"default-src 'none'; style-src 'sha256-{hashes[0]}'; script-src 'sha256-{hashes[1]}'; "
        "base-uri 'none'; form-action 'none'"
    )


def _header(report: Json, title: str) -> Html:
    return tag(
        "header",
        None,
        tag("p", {"class": "kicker"}, "shrinkc compilation report"),
        tag("h1", None, title),
        tag("p", {"class": "verdict"}, verdict(report)),
        highlights(report),
    )


def _contents() -> Html:
    items = (
        tag("li", None, tag("a", {"href": f"#{name}"}, title)) for name, title in _CONTENTS.items()
    )
    return tag("nav", {"aria-label": "Sections"}, tag("ul", None, *items))


def _sections(report: Json) -> tuple[Html, ...]:
    return (
        figures_section(report),
        waterfall_section(report),
        network_section(report),
        frontier_section(report),
        layers_section(report),
        choices_section(report),
        refused_section(report),
        verified_section(report),
        use_section(report),
        reproduce_section(report),
    )

"""HTML as a type: a `str` is text and is escaped, only `Html` is markup.

Names of nodes, models and files come out of files of unknown origin; nothing here can take one for
a tag.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from shrinkc.compiler.support.text import visible

Attribute = str | int | float | bool | None
Attributes = Mapping[str, Attribute]
_VOID = frozenset({"meta", "input", "br", "col"})


@dataclass(frozen=True)
class Html:
    """Markup that is safe to write as it is."""

    text: str


Child = Html | str | None
NOTHING = Html("")


def tag(name: str, attributes: Attributes | None, *children: Child) -> Html:
    """An element. Attributes that are None or False are left out; True has no value."""
    written = "".join(_attribute(key, value) for key, value in (attributes or {}).items())
    if name in _VOID:
        return Html(f"<{name}{written}>")
    return Html(f"<{name}{written}>{join(children).text}</{name}>")


def join(children: Sequence[Child]) -> Html:
    """One after the other, without anything in between."""
    return Html("".join(_child(child) for child in children))


def code(text: str) -> Html:
    """A name out of a file: one that changes its direction of writing keeps that to itself."""
    return tag("code", None, text)


def number(value: float) -> str:
    """As an attribute: short, never 1e-7."""
    return f"{value:.2f}".rstrip("0").rstrip(".") or "0"


def _child(child: Child) -> str:
    if child is None:
        return ""
    return child.text if isinstance(child, Html) else escape(visible(child))


def _attribute(name: str, value: Attribute) -> str:
    if value is None or value is False:
        return ""
    if value is True:
        return f" {name}"
    text = number(value) if isinstance(value, float) else str(value)
    return f' {name}="{escape(visible(text))}"'

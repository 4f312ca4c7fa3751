"""What the drawings share. Horizontal places are shares of the width in percent and heights are
pixels, so that a drawing fits a phone without its text getting smaller."""

from __future__ import annotations

from collections.abc import Sequence

from shrinkc.compiler.report.html.markup import Attribute, Child, Html, tag

_TEXTURES = {
    "merged": ("M-1,9 L9,-1 M-1,1 L1,-1 M7,9 L9,7", 8),
    "narrowed": ("M2,0 V8 M6,0 V8", 8),
    "dropped": ("M0,0 L8,8 M8,0 L0,8", 8),
    "changed": ("M0,4 Q2,0 4,4 T8,4", 8),
    "new": ("M0,2 H8 M0,6 H8", 8),
    "cost": ("M-1,-1 L9,9 M-1,7 L1,9 M7,-1 L9,1", 8),
}


def textures() -> Html:
    """Fills that tell blocks apart without colour, once for the page."""
    patterns = (
        tag(
            "pattern",
            {"id": f"texture-{kind}", "width": side, "height": side, **_IN_USER_SPACE},
            tag("rect", {"width": side, "height": side, "class": f"fill-{kind}"}),
            tag("path", {"d": path, "class": f"line-{kind}"}),
        )
        for kind, (path, side) in _TEXTURES.items()
    )
    hidden: dict[str, Attribute] = {"class": "textures", "aria-hidden": "true", "focusable": False}
    return tag("svg", {**hidden, "width": 0, "height": 0}, tag("defs", None, *patterns))


_IN_USER_SPACE: dict[str, Attribute] = {"patternUnits": "userSpaceOnUse"}


def image(
    name: str, title: str, description: str, height: float, *parts: Child, role: str = "img"
) -> Html:
    """A drawing as wide as its place. `name` makes the ids of title and description."""
    labels: dict[str, Attribute] = {
        "aria-labelledby": f"{name}-title",
        "aria-describedby": f"{name}-about",
    }
    return tag(
        "svg",
        {"class": f"drawing {name}", "role": role, **labels, "width": "100%", "height": height},
        tag("title", {"id": f"{name}-title"}, title),
        tag("desc", {"id": f"{name}-about"}, description),
        *parts,
    )


def bar(x: float, y: float, width: float, height: float, kind: str) -> Html:
    """x and width in percent, the rest in pixels; `kind` is its class."""
    place: dict[str, Attribute] = {"x": f"{x:.3f}%", "y": y, "width": f"{max(width, 0):.3f}%"}
    return tag("rect", {**place, "height": height, "class": f"bar {kind}"})


def text(x: float, y: float, words: str, kind: str = "", shift: float = 0) -> Html:
    """x in percent, y and `shift` to the right in pixels; classes `end` and `middle` align."""
    place: dict[str, Attribute] = {"x": f"{x:.3f}%", "y": y, "dx": shift or None}
    return tag("text", {**place, "class": kind or None}, words)


Place = tuple[float, float | str]  # percent of the width; pixels, or written out


def line(start: Place, end: Place, kind: str) -> Html:
    (x1, y1), (x2, y2) = start, end
    ends: dict[str, Attribute] = {"x1": f"{x1:.3f}%", "y1": y1, "x2": f"{x2:.3f}%", "y2": y2}
    return tag("line", {**ends, "class": kind})


def stretched(
    x: float, width: float, height: float, path: Sequence[tuple[str, float, float]], kind: str
) -> Html:
    """A path over x 0–100 that follows the width of its place; x and width in percent."""
    written = " ".join(f"{letter}{a:.2f},{b:.2f}" for letter, a, b in path)
    box: dict[str, Attribute] = {"viewBox": f"0 0 100 {height:.2f}", "preserveAspectRatio": "none"}
    place: dict[str, Attribute] = {"x": f"{x:.3f}%", "width": f"{width:.3f}%", "height": height}
    return tag("svg", {**place, **box}, tag("path", {"d": f"{written} Z", "class": kind}))

"""How a written file is run: the program that lies beside it."""

from __future__ import annotations

from shrinkc.compiler.report.html.markup import Attribute, Html, code, tag
from shrinkc.compiler.report.html.reading import Json
from shrinkc.compiler.report.html.tables import missing, section
from shrinkc.compiler.report.use_model import use_model


def use_section(report: Json) -> Html:
    program = use_model(report)
    if program is None:
        return section("use", "Use it", missing("No program was written for these files."))
    scroll: dict[str, Attribute] = {"tabindex": 0, "role": "region", "aria-label": "Program"}
    told = tag("p", None, "The program beside the files, ", code("use_model.py"), ":")
    return section("use", "Use it", told, tag("pre", scroll, tag("code", None, program)))

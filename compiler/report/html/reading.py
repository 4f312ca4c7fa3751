"""Parts of report.json that may be missing: older reports, and compilations without them."""

from __future__ import annotations

from typing import Any, cast

from shrinkc.compiler.report.html import units
from shrinkc.compiler.support.choices import is_host
from shrinkc.compiler.tasks.wording import AGREEMENT, score_words

Json = dict[str, Any]


def part(report: Json, key: str) -> Json:
    """An object; empty where there is none."""
    found = report.get(key)
    return cast(Json, found) if isinstance(found, dict) else {}


def metric(report: Json) -> str:
    """What is counted on labelled images, in a sentence: "top-1"."""
    found = part(report, "task").get("metric")
    return found if isinstance(found, str) else "top-1"


def score(report: Json, value: float | None) -> str:
    """A score of that, as it is written."""
    style = part(report, "task").get("style", "percent")
    known = units.finite(value)
    return units.percent(known) if style == "percent" else score_words(known, style)


def likeness(report: Json) -> str:
    """What agreement is: "agreement with the original"."""
    return part(report, "task").get("likeness", AGREEMENT)


def metric_title(report: Json) -> str:
    """The same where it stands alone: "Top-1"."""
    name = metric(report)
    return name[:1].upper() + name[1:]


def place(report: Json) -> str:
    """The target in a sentence: "on …"."""
    return "this machine" if is_host(report["target"]) else report["target"]


def predicted(report: Json) -> tuple[float | None, float | None]:
    """Milliseconds on the target, of the fp32 original and now; None where no table has them."""
    return report.get("predicted_ms_before"), report.get("predicted_ms_after")


def main_file(report: Json) -> Json:
    """The file that the target runs. Reports that do not say which: the fastest here, else the
    first."""
    files: list[Json] = report["artefacts"]
    named = [file for file in files if file["name"] == report.get("target_format")]
    timed = [file for file in files if file.get("measured_ms")]
    fastest = sorted(timed, key=lambda file: file["measured_ms"])
    return (named or fastest or files)[0]


def listed(report: Json, key: str) -> list[Json]:
    """A list of objects; empty where there is none."""
    return report.get(key) or []


def resized(resolution: Json) -> str:
    """'images of 192×192 instead of 224×224'"""
    sizes = ("×".join(map(str, resolution[key])) for key in ("size", "size_before"))
    return f"images of {' instead of '.join(sizes)}"

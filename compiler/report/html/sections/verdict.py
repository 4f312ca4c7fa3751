"""The verdict in a sentence, and the figures that people ask for first."""

from __future__ import annotations

from shrinkc.compiler.report.html import units
from shrinkc.compiler.report.html.markup import Html, tag
from shrinkc.compiler.report.html.reading import (
    Json,
    likeness,
    listed,
    main_file,
    metric,
    metric_title,
    part,
    place,
    predicted,
    score,
)
from shrinkc.compiler.support.choices import is_host
from shrinkc.compiler.support.text import counted
from shrinkc.compiler.tasks.tally import ErrorEstimate, Estimate
from shrinkc.compiler.tasks.wording import AGREEMENT, drop_words, error_words

EVEN = 0.005  # ratios closer to 1 than this are called equal


def verdict(report: Json) -> str:
    """One sentence: how fast, how that is known, how accurate."""
    file = main_file(report)
    name = file["file"] + ("" if file["precision"] == "fp32" else f" ({file['precision']})")
    return f"{name} {_speed(report, file)}; {_accuracy(report, file)}."


def _speed(report: Json, file: Json) -> str:
    before, after = predicted(report)
    measured = _measured(file)
    if before and after:
        said = f"{_ratio(before / after)} the fp32 original on {place(report)} "
        said += f"(predicted {units.ms(after)} instead of {units.ms(before)})"
        return f"{said}, {measured}" if measured else f"{said}, not measured here"
    if measured:
        return f"has no prediction for {place(report)}; it is {measured}"
    return "was written, but its speed is neither predicted nor measured"


def _ratio(ratio: float) -> str:
    if abs(ratio - 1) < EVEN:
        return "is as fast as"
    return (
        f"is {units.times(ratio)} as fast as" if ratio > 1 else f"takes {1 / ratio:.2f}× as long as"
    )


def _measured(file: Json) -> str:
    before, after = file.get("measured_ms_before"), file.get("measured_ms")
    if not before or not after:
        return ""
    kinds = "" if file["precision"] == "fp32" else f", {file['precision']} against fp32"
    return f"{units.times(before / after)} as fast measured on this machine{kinds}"


def _accuracy(report: Json, file: Json) -> str:
    """Beside the user's model: what was found on images that the network was not fitted to, else
    what its plan promises."""
    changed = report.get("changed")
    if changed and report.get("judged") is None:
        promise: Json | None = part(report, "plan").get("promise")
        if promise is None:
            return f"how accurate the {changed} network is was not judged"
        images = counted(promise["images"], "image")
        return _found(report, {**promise, "top1": None}, f"{images} that it was not fitted to")
    if not report["images"]:
        said = f"it differs from the original by {units.error(file['max_relative_error'])}"
        of = "a channel's range" if report["precision"] == "fp32" else "the output's range"
        return f"{said} of {of} at most; its accuracy was not judged on images"
    return _found(report, file, counted(report["images"], "other image" if changed else "image"))


def _found(report: Json, file: Json, images: str) -> str:
    errors, drop = listed(file, "errors"), part(file, "drop")
    if file["agreement"] is None and not errors:
        return f"how its outputs differ on {images} was not judged"
    if file["agreement"] is None:
        said = f"beside your model its {error_words([_error(one) for one in errors])}, on {images}"
    elif likeness(report) == AGREEMENT:
        said = f"it agrees with your model on {units.percent(file['agreement'])} of {images}"
    else:
        name = likeness(report).replace("the original", "your model")
        said = f"its {name} is {units.percent(file['agreement'])} on {images}"
    said += _score(report, report["original_top1"], file["top1"])
    if not drop:
        return said
    how = "expected, without labels" if file["top1"] is None else "counted"
    found, style = Estimate(**drop), part(report, "task").get("style", "percent")
    return f"{said}; {drop_words(metric(report), found.value, found.ends, how, style)}"


def _error(found: Json) -> ErrorEstimate:
    mean = Estimate(found["value"], found["low"], found["high"])
    return ErrorEstimate(mean.value, mean.low, mean.high, Estimate(**found["worst"]))


def _score(report: Json, before: float | None, after: float | None) -> str:
    if before is None or after is None:
        return ""
    same = "as before" if before == after else f"instead of {score(report, before)}"
    return f", {metric(report)} {score(report, after)} {same}"


def highlights(report: Json) -> Html:
    """The figures that people ask for first, as far as they are known."""
    file = main_file(report)
    original = report["original_top1"]
    was, now = file.get("memory_bytes_before"), file.get("memory_bytes")
    found = (
        _latency(report, file),
        (metric_title(report), score(report, original), score(report, file["top1"]), file["file"]),
        ("Size", units.size(file.get("bytes_before")), units.size(file["bytes"]), file["file"]),
        ("Peak memory", units.size(was), units.size(now), "for the model, measured here"),
    )
    known = (_highlight(*x) for x in found if x[2] != units.DASH)
    return tag("dl", {"class": "highlights"}, *known)


def _latency(report: Json, file: Json) -> tuple[str, str, str, str]:
    """By the table; on this machine the clock knows better."""
    if is_host(report["target"]) and file["measured_ms"]:
        before, after = file["measured_ms_before"], file["measured_ms"]
        return "Latency", units.ms(before), units.ms(after), "measured here"
    before, after = predicted(report)
    return "Latency", units.ms(before), units.ms(after), f"predicted on {place(report)}"


def _highlight(name: str, before: str, after: str, how: str) -> Html:
    was = None if before == units.DASH else tag("span", {"class": "was"}, f"{before} → ")
    value = tag("dd", {"class": "value"}, was, after)
    return tag("div", None, tag("dt", None, name), value, tag("dd", {"class": "how"}, how))

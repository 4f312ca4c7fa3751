"""Figures before and after, and how each is known."""

from __future__ import annotations

from shrinkc.compiler.report.html import units
from shrinkc.compiler.report.html.markup import NOTHING, Child, Html, join, tag
from shrinkc.compiler.report.html.reading import (
    Json,
    likeness,
    listed,
    metric,
    metric_title,
    part,
    place,
    score,
)
from shrinkc.compiler.report.html.tables import missing, paragraph, row, section, table
from shrinkc.compiler.support.text import counted
from shrinkc.compiler.tasks.wording import (
    AGREEMENT,
    likeness_words,
    output_name,
    share,
    worst_column,
)

NOISY = 0.10  # an IQR above this share of the median deserves a warning


def figures_section(report: Json) -> Html:
    return section("figures", "Before and after", _figures(report), _images(report))


_NUMBERS = frozenset({1, 2})


def _figures(report: Json) -> Html:
    before, after = report["before"], report["after"]
    predicted = (
        units.ms(report.get("predicted_ms_before")),
        units.ms(report.get("predicted_ms_after")) + _more_or_less(report),
    )
    rows = [_row(f"Latency on {place(report)}", predicted, known_by(report))]
    rows += [_measured_row(report, file) for file in report["artefacts"]]
    if report["images"]:
        rows += _changed_rows(report)
        rows += [row for file in report["artefacts"] for row in _judged_rows(report, file)]
    rows += [_size_row(report, file) for file in report["artefacts"]]
    rows += [_memory_row(file) for file in report["artefacts"]]
    counted = (units.macs(before["macs"]), units.macs(after["macs"]))
    rows.append(_row("Multiply-accumulates", counted, "counted"))
    headers = ("", "Before, fp32", f"After, {report['precision']}", "How it is known")
    caption = "The network as a plain converter writes it, and what was written"
    return table(caption, headers, rows, _NUMBERS, kind="stacked")


def _more_or_less(report: Json) -> str:
    """' ± 3.1 ms', as far as nine of ten networks are off."""
    prediction: Json | None = report.get("prediction")
    if not prediction:
        return ""
    low, high = (units.finite(prediction.get(f"total_ms_{end}")) for end in ("low", "high"))
    total = units.finite(prediction["total_ms"])
    if low is None or high is None or total is None:
        return ""
    return f" ± {units.ms(max(high - total, total - low))}"


def _row(name: Child, sides: tuple[str, str], how: Child) -> Html:
    before, after = sides
    return row(name, before, after, how, numeric=_NUMBERS, stacked=True)


def known_by(report: Json) -> str:
    """'predicted: 11 layers fitted; mean error 12% on networks that the table was not made from'"""
    prediction, about = report.get("prediction"), report.get("table")
    if not prediction:
        return "not predicted"
    counts: dict[str, int] = {}
    for layer in prediction["layers"]:
        counts[layer["source"]] = counts.get(layer["source"], 0) + 1
    ordered = sorted(counts.items(), key=lambda x: -x[1])
    layers = "; ".join(f"{units.counted(n, 'layer')} {source}" for source, n in ordered)
    if not about:
        return f"sum of its layers: {layers}"
    error = about["error_percent"]
    wrong = (
        "it states no error"
        if error is None
        else (f"mean error {error:.1f}% on networks that it was not made from")
    )
    return f"predicted by a {about['kind']} table of {about['device']}: {layers}; {wrong}"


def _measured_row(report: Json, file: Json) -> Html:
    how: Child = join(("not measured: compile with ", tag("code", None, "--runs 30")))
    if file["measured_ms"]:
        iqr = file["measured_iqr_ms"] or 0.0
        cpu = report["host"].get("cpu", "this machine")
        noisy = ", noisy" if iqr > NOISY * file["measured_ms"] else ""
        how = (
            f"median on {cpu}, {units.counted(report['threads'], 'thread')}, {file['runtime']}; "
            f"IQR {units.ms(iqr)}{noisy}"
        )
    was, now = units.ms(file["measured_ms_before"]), units.ms(file["measured_ms"])
    return _row(f"Measured here, {file['file']}", (was, now), how)


def _changed_rows(report: Json) -> list[Html]:
    """The network in the files, in PyTorch, where it is another than the user's."""
    found, changed = report.get("in_torch"), report.get("changed")
    if not found or not changed:
        return []
    return _judged_rows(report, {"file": f"{changed}, in PyTorch", "top1": found["score"], **found})


def _judged_rows(report: Json, file: Json) -> list[Html]:
    """Beside the user's model."""
    how = f"on {counted(report['images'], 'image')}{_seen(report)}"
    alike = f"{how}; {likeness_words(likeness(report), file['agreement'] or 0, 'your model')}"
    scored = []
    if file["top1"] is not None:
        was, now = score(report, report["original_top1"]), score(report, file["top1"])
        name = f"{metric_title(report)}, {file['file']}"
        scored = [_row(name, (was, now), how if file["agreement"] is None else alike)]
        scored += _detail_rows(report, file, how)
    if file["agreement"] is None:
        errors, name = listed(file, "errors"), "Error over variance, "
        return scored + [
            _row(
                f"{name}{output_name(index, len(errors))}{file['file']}",
                ("0", share(error["value"])),
                f"{how}; {_between(error)}",
            )
            for index, error in enumerate(errors)
        ]
    if file["top1"] is None:
        title = "Agreement"
        if likeness(report) != AGREEMENT:
            title = likeness(report).replace("the original", "your model")
            title = title[:1].upper() + title[1:]
        agreement = units.percent(file["agreement"])
        return [_row(f"{title}, {file['file']}", (units.DASH, agreement), how)]
    return scored


def _detail_rows(report: Json, file: Json, how: str) -> list[Html]:
    """Other metrics, beside the user's model's."""
    before = part(part(report, "in_torch"), "original_details")
    return [
        _row(
            f"{name[:1].upper()}{name[1:]}, {file['file']}",
            (units.DASH if name not in before else f"{before[name]:.4g}", f"{value:.4g}"),
            how,
        )
        for name, value in part(file, "details").items()
    ]


def _between(error: Json) -> str:
    worst = worst_column(error["value"], error["worst"]["value"])
    named = f"; {worst} in the worst column" if worst else ""
    if error["low"] is None:
        return f"one image tells nothing of others{named}"
    ends = f"{share(error['low'])} to {share(error['high'])}"
    return f"{ends} on others, with 95% confidence{named}"


def _seen(report: Json) -> str:
    if not report.get("changed") or report.get("judged") is not None:
        return ""
    return " given to fit it to"


def _size_row(report: Json, file: Json) -> Html:
    before = file.get("bytes_before")
    if before is None and file is report["artefacts"][0]:
        before = report["before"]["bytes"]
    return _row(
        f"Size, {file['file']}", (units.size(before), units.size(file["bytes"])), "the file"
    )


def _memory_row(file: Json) -> Html:
    was, now = file.get("memory_bytes_before"), file.get("memory_bytes")
    how: Child = "what a fresh process needs for it at most, here"
    if now is None:
        how = join(("not measured: ", tag("code", None, f"shrinkc bench {file['file']}")))
    return _row(f"Peak memory, {file['file']}", (units.size(was), units.size(now)), how)


def _images(report: Json) -> Html:
    """What was or was not looked at."""
    if report.get("changed") and report.get("judged") is None:
        return missing(
            f"How accurate the {report['changed']} network is beside the original is not known. "
            "Give images that it has not seen: ",
            tag("code", None, "--evaluation DIR"),
            ".",
        )
    if not report["images"]:
        return missing(
            "No images were given, so accuracy was not judged; the files were compared with the "
            "network on random inputs. Give images, a folder for every class for "
            f"{metric(report)}: ",
            tag("code", None, "--images DIR"),
            ".",
        )
    calibration = report["calibration_images"]
    if not calibration:
        return NOTHING
    return paragraph(f"int8 was calibrated on {units.counted(calibration, 'other image')}.")

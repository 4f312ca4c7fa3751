"""How it was verified, and how to do it again."""

from __future__ import annotations

from shrinkc.compiler.report.html import units
from shrinkc.compiler.report.html.markup import Attribute, Html, code, tag
from shrinkc.compiler.report.html.reading import Json, listed
from shrinkc.compiler.report.html.tables import folded, missing, row, section, table

WORST = 8  # layers with the least signal to noise
_NUMBERS = frozenset({1, 2})
_DIFFERENCE = frozenset({1})


def verified_section(report: Json) -> Html:
    """Files against the network, passes against the step before, int8 layers against fp32."""
    files = [
        row(
            code(file["file"]),
            units.error(file["max_relative_error"]),
            file["precision"],
            file["runtime"],
            numeric=_DIFFERENCE,
        )
        for file in report["artefacts"]
    ]
    headers = ("File", "Largest difference", "Precision", "Run by")
    against = report.get("changed")
    what = f"the {against} network" if against else "the original network"
    of = "a channel's range" if report["precision"] == "fp32" else "the output's range"
    caption = f"Files against {what} in PyTorch; differences as shares of {of}"
    parts = [table(caption, headers, files, _DIFFERENCE), *_signal(report)]
    parts += [*_passes(report), *_noise(report)]
    return section("verified", "How it was verified", *parts)


def _signal(report: Json) -> list[Html]:
    """Of every output of int8 files."""
    rows = [
        row(
            code(file["file"]),
            code(one["output"]),
            _decibels(one["snr_db"]),
            _decibels(one["channel_snr_db"]),
            _place(one),
            numeric=frozenset({2, 3}),
        )
        for file in report["artefacts"]
        for one in file.get("signal", ())
    ]
    if not rows:
        return []
    headers = ("File", "Output", "Whole", "Noisiest channel", "Which")
    caption = "Signal to noise (dB) of outputs against fp32"
    return [table(caption, headers, rows, frozenset({2, 3}))]


def _decibels(value: float | None) -> str:
    return units.DASH if value is None else f"{value:.1f}"


def _place(one: Json) -> str:
    if one["channel"] is None:
        return units.DASH
    return f"{one['channel']} of dimension {one['dimension']}"


def _passes(report: Json) -> list[Html]:
    passes = listed(report, "passes")
    if not passes:
        return [missing("No pass ran on it, so none had to be verified.")]
    changes: list[Json] = listed(report, "changes")
    rows = [
        row(
            code(x["name"]),
            units.error(x["max_error_float64"]),
            f"{1e3 * x['seconds']:,.0f} ms",
            numeric=_NUMBERS,
        )
        for x in passes
    ]
    caption = "Every pass in float64 against the step before, limit 1e-9 of the range"
    return [
        table(caption, ("Pass", "Largest difference", "Took"), rows, _NUMBERS),
        *_rewrites(changes),
    ]


def _rewrites(changes: list[Json]) -> list[Html]:
    if not changes:
        return []
    rows = [row(code(x["node"]), x["detail"], ", ".join(x["replaces"]), x["pass"]) for x in changes]
    found = table("Every rewrite", ("Node", "What", "In place of", "By"), rows, kind="prose")
    return [folded(units.counted(len(rows), "rewrite"), found)]


def _noise(report: Json) -> list[Html]:
    if report["precision"] == "fp32" and not report.get("noise"):
        return []
    noisy = [x for x in listed(report, "noise") if units.finite(x["snr_db"]) is not None]
    worst = sorted(noisy, key=lambda x: x["snr_db"])[:WORST]
    if not worst:
        return [missing("Which layers suffer from int8 was not measured in this compilation.")]
    rows = [
        row(code(x["layer"]), f"{x['snr_db']:.1f} dB", x["precision"], numeric=frozenset({1}))
        for x in worst
    ]
    caption = "Layers with the least signal to noise against fp32"
    return [table(caption, ("Layer", "Signal to noise", "Precision"), rows, frozenset({1}))]


def reproduce_section(report: Json) -> Html:
    command = report.get("command")
    if command:
        scroll: dict[str, Attribute] = {"tabindex": 0, "role": "region", "aria-label": "Command"}
        how = tag("pre", scroll, tag("code", None, command))
    else:
        how = missing("This was compiled from Python, with ", code("shrinkc.compile"), ".")
    facts = tag("dl", None, *_facts(report))
    return section("reproduce", "Do it again", how, facts)


def _facts(report: Json) -> list[Html]:
    host: Json = report.get("host", {})
    shapes = "; ".join(
        f"{name}: {' × '.join(map(str, shape))}" for name, shape in report["input_shapes"].items()
    )
    machine = [str(host[key]) for key in ("cpu", "system") if host.get(key)]
    about = report.get("table")
    facts = {
        "shrinkc": str(report["shrinkc"]),
        "Target": report["target"],
        "Table": about and f"{about['device']}, {about['runtime']}; {about['source']}",
        "Input": shapes,
        "Preprocessing": _preprocessing(report.get("preprocessing")),
        "Captured by": report["captured_by"],
        "ONNX opset": str(report["opset"]),
        "This machine": ", ".join(machine),
        "Python": host.get("python"),
        "Threads": str(report["threads"]),
    }
    return [
        tag("div", None, tag("dt", None, name), tag("dd", None, str(value)))
        for name, value in facts.items()
        if value
    ]


def _preprocessing(found: Json | None) -> str:
    if not found:
        return ""
    size = " × ".join(map(str, found["size"]))
    return (
        f"shorter side {found['resize']}, middle {size}, mean {found['mean']}, std {found['std']}"
    )

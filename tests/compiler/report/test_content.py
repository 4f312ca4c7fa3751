"""What the page says: the verdict, figures, what is missing, and that names stay text."""

from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser
from itertools import pairwise
from typing import Any

import pytest
from sample_reports import plain, rich, uncaptured

from shrinkc.compiler.report.html import html_report, units
from shrinkc.compiler.report.html.reading import metric
from shrinkc.compiler.report.html.sections.verdict import verdict

Reports = pytest.mark.parametrize("report", [plain, rich, uncaptured])
Sample = Callable[[], dict[str, Any]]


class Page(HTMLParser):
    """Tags in order with their attributes, text, and whether every tag is closed in turn."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "input"):
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"script", "style"} & set(self._open):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.words).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def test_verdict_of_an_int8_file_says_so() -> None:
    assert verdict(rich()) == (
        "model.tflite (int8) is 2.06× as fast as the fp32 original on rpi4 (predicted 38.4 ms "
        "instead of 79.1 ms), 1.40× as fast measured on this machine, int8 against fp32; it "
        "agrees with your model on 88.5% of 400 other images, top-1 86.0% instead of 88.3%; top-1 "
        "falls by 2.30 points (counted; a fall of -0.40 to 5.00 with 95% confidence)."
    )


def test_verdict_of_outputs_that_are_no_classes() -> None:
    report = rich()
    for file in report["artefacts"]:
        file.update(agreement=None, top1=None, drop=None)
        small = {"value": 2e-5, "low": 1e-5, "high": 4e-5}
        file["errors"] += [small | {"worst": small}]
    assert verdict(report).endswith(
        "; beside your model its error over variance is output 1: 0.21 (0.17 to 0.26 with 95% "
        "confidence), 0.3 in its worst column; output 2: 2.0e-05 (1.0e-05 to 4.0e-05 with 95% "
        "confidence), on 400 other images."
    )
    page = Page(html_report(report)).text
    assert "Error over variance, output 2: model.tflite" in page
    assert "grees with" not in verdict(report)


def test_verdict_by_what_a_plan_promises() -> None:
    promise = {"images": 75, "agreement": 0.96, "original_top1": None, "changed_top1": None}
    drop = {"value": 0.01, "low": -0.02, "high": 0.04}
    report = rich() | {"judged": None}
    report["plan"]["promise"] = promise | {"metric": "top-1", "drop": drop, "errors": []}
    assert verdict(report).endswith(
        "; it agrees with your model on 96.0% of 75 images that it was not fitted to; top-1 falls "
        "by 1.00 points (expected, without labels; a fall of -2.00 to 4.00 with 95% confidence)."
    )


def test_verdict_without_images_and_measurements() -> None:
    assert verdict(plain()) == (
        "model.tflite is 1.17× as fast as the fp32 original on rpi4 (predicted 9.00 ms instead of "
        "10.5 ms), not measured here; it differs from the original by 5.0e-07 of a channel's "
        "range at most; its accuracy was not judged on images."
    )
    assert verdict(uncaptured()).startswith("model.onnx was written, but its speed is neither")


def test_a_report_that_does_not_say_what_the_target_runs_still_has_a_verdict() -> None:
    report = plain()
    del report["target_format"]
    assert verdict(report).startswith("model.onnx is 1.17× as fast")
    onnx, tflite = report["artefacts"]
    onnx["measured_ms"], tflite["measured_ms"] = 3.0, 2.0
    assert verdict(report).startswith("model.tflite is 1.17× as fast")
    html_report(report)


def test_a_metric_that_is_no_text() -> None:
    """In a report of any origin; `compare` reads it, too."""
    assert metric({"task": {"metric": None}}) == metric({"task": 5}) == metric({}) == "top-1"
    assert metric({"task": {"metric": "mIoU"}}) == "mIoU"


def test_verdict_on_images() -> None:
    report = plain() | {"images": 450, "original_top1": 0.9}
    for file in report["artefacts"]:
        file.update(top1=0.9, agreement=0.9998)
    said = verdict(report)
    assert "agrees with your model on 99.98% of 450 images, top-1 90.0% as before." in said
    for file in report["artefacts"]:
        file["drop"] = {"value": 0.004, "low": -0.001, "high": 0.009}
    fall = "top-1 falls by 0.40 points (counted; a fall of -0.10 to 0.90 with 95% confidence)."
    assert f"as before; {fall}" in verdict(report)


def test_verdict_on_something_slower_or_equal() -> None:
    assert "takes 1.20× as long as the fp32" in verdict(plain() | {"predicted_ms_after": 12.6})
    assert "is as fast as the fp32 original" in verdict(plain() | {"predicted_ms_after": 10.5})


def test_a_changed_network_that_was_not_judged() -> None:
    report = rich() | {"judged": None}
    assert "how accurate the shrunk network is was not judged" in verdict(report)
    assert "--evaluation DIR" in Page(html_report(report)).text


@Reports
def test_page_is_whole(report: Sample) -> None:
    page = Page(html_report(report()))
    assert page.all("html") == [{"lang": "en"}]
    assert len(page.all("main")) == len(page.all("h1")) == len(page.all("nav")) == 1
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert all(later - earlier <= 1 for earlier, later in pairwise(levels))
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = {attributes["href"] for attributes in page.all("a")}
    assert links <= {f"#{name}" for name in ids}
    named = [x for _, a in page.tags for x in (a.get("aria-labelledby") or "").split()]
    assert set(named) <= set(ids)


@Reports
def test_tables_are_labelled(report: Sample) -> None:
    page = Page(html_report(report()))
    assert len(page.all("caption")) == len(page.all("table")) > 0
    assert all(attributes["scope"] in ("row", "col") for attributes in page.all("th"))


@Reports
def test_nothing_is_fetched(report: Sample) -> None:
    page = Page(html_report(report()))
    for tag, attributes in page.tags:
        assert tag not in ("link", "img", "iframe", "object", "embed", "base", "form-action")
        assert "style" not in attributes
        assert not any(name.startswith("on") for name in attributes)
        assert attributes.get("src") is None
    (policy,) = [a["content"] for a in page.all("meta") if "http-equiv" in a]
    assert policy is not None
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy


def test_names_from_files_are_text() -> None:
    evil = "</title><script>alert(1)</script>\"'&"
    report = rich() | {"model": evil, "target": evil, "command": evil, "notes": [evil]}
    report["failures"] = [evil]
    report["host"]["cpu"] = evil
    report["input_shapes"] = {evil: [1]}
    for layer in (*report["prediction"]["layers"], *report["prediction_before"]["layers"]):
        layer["name"] = layer["op"] = layer["source"] = evil
    for skip in (*report["skipped"], *report["plan"]["refused"]):
        skip["node"] = skip["reason"] = evil
    for choice in report["plan"]["choices"]:
        choice["source"] = choice["sink"] = evil
    page = Page(html_report(report))
    assert len(page.all("script")) == 1
    assert page.text.count("<script>alert(1)</script>") > 10


def test_what_is_missing_says_how_to_get_it() -> None:
    text = Page(html_report(plain())).text
    assert "No images were given" in text
    assert "--images DIR" in text
    assert "compile with --runs 30" in text
    assert "shrinkc bench model.tflite" in text
    assert "shrinkc profile --target NAME --on DEVICE MODEL" in text
    assert "compiled from Python" in text
    assert "Not written: " not in text


def test_the_uncaptured_says_why() -> None:
    text = Page(html_report(uncaptured())).text
    assert "Not written: model.tflite: the network decides by its numbers" in text
    assert "could not be captured" in text


def test_int8_on_the_host_has_no_prediction() -> None:
    report = plain() | {"target": "host", "precision": "int8"}
    report |= {"prediction": None, "predicted_ms_after": None}
    text = Page(html_report(report)).text
    assert "shrinkc profile --target NAME --on host --precision int8 MODEL" in text


def test_this_machine_is_measured_rather_than_predicted() -> None:
    report = plain() | {"target": "host"}
    report["artefacts"][1].update(measured_ms=2.0, measured_ms_before=3.0, measured_iqr_ms=0.3)
    text = Page(html_report(report)).text
    assert "as fast as the fp32 original on this machine (predicted 9.00 ms" in text
    assert "Latency3.00 ms → 2.00 ms" in text.replace("Latency ", "Latency")
    assert "IQR 0.300 ms, noisy" in text


def test_layers_are_measured_in_part() -> None:
    """A node's two layers are measured together; what has no layer has a time besides."""
    report = plain() | {"target": "host"}
    layer = report["prediction"]["layers"][0]
    report["prediction"]["layers"] = [
        layer | {"name": name, "ms": ms} for name, ms in (("a", 1.0), ("a", 2.0), ("b", 0.5))
    ]
    report["measured_layers"] = [{"layer": "a", "ms": 4.0}, {"layer": "x to int8", "ms": 0.25}]
    text = Page(html_report(report)).text
    assert (
        "1 of 2 layers were measured on this machine, beside their neighbours in the written "
        "model.tflite, with 1 thread: 4.00 ms in all, of which 3.00 ms was predicted; layer by "
        "layer, predictions are off by 25% of the time. Those predicted slowest were measured "
        "first; the others were not reached in time, or have no operator of their own in the "
        "file. Operators that belong to no layer took 0.250 ms more."
    ) in text
    report["measured_layers"][0]["ms"] = 4.321
    assert Page(html_report(report)).text.count("4.32") == 2  # there, and in one row


def test_layers_that_take_nothing_say_nothing_of_predictions() -> None:
    report = plain()
    report["measured_layers"] = [
        {"layer": x["name"], "ms": 0.0} for x in report["prediction"]["layers"]
    ]
    assert "Layers were not measured one by one" in Page(html_report(report)).text


def test_measured_alone() -> None:
    report = plain() | {"predicted_ms_after": None}
    report["artefacts"][1].update(measured_ms=2.0, measured_ms_before=3.0)
    assert "no prediction for rpi4; it is 1.50× as fast measured on this machine;" in verdict(
        report
    )


def test_numbers_that_json_lacks() -> None:
    """A trained choice may have no loss, a silent layer infinite signal to noise."""
    report = rich()
    report["plan"]["choices"][0].update(loss=float("nan"), agreement=None)
    report["noise"][0]["snr_db"] = None
    report["frontier"][0].update(predicted_ms=None, top1=None)
    text = Page(html_report(report)).text
    assert "nan" not in text.lower().split()


def test_hundreds_of_layers() -> None:
    report = plain()
    for key in ("prediction", "prediction_before"):
        layer = report[key]["layers"][0]
        report[key]["layers"] = [layer | {"name": f"layer_{at}"} for at in range(600)]
    page = Page(html_report(report))
    heights = [float(a["height"] or 0) for a in page.all("rect") if a.get("class") == "bar kept"]
    assert sum(heights) > 0.7 * 2 * 1500


def test_an_older_report_still_shows() -> None:
    keys = (
        *("prediction_before", "predicted_ms_before_in_precision", "table", "command", "changed"),
        *("judged", "plan", "frontier", "noise", "measured_layers"),
    )
    report = {key: value for key, value in rich().items() if key not in keys}
    for file in report["artefacts"]:
        for key in ("bytes_before", "memory_bytes", "memory_bytes_before"):
            del file[key]
    assert "features_18" in Page(html_report(report)).text


def test_everything_that_was_given_is_there() -> None:
    text = Page(html_report(rich())).text
    for said in (
        "--evaluation other -o 'out folder'",
        "mean error 11.3% on networks that it was not made from",
        "33 layers fitted; 22 layers fitted, extrapolated",
        "a dense 3×3 convolution of 144 channels costs more than it saves",
        "55 of 55 layers were measured on rpi4, beside their neighbours in the written "
        "model.tflite, with 1 thread",
        "written: int8, 2.28×",
        "narrow features_15_expand, 960 → 512 channels",
        "19.1 dB",
        "int8 was calibrated on 300 other images",
        "model.onnx was judged in exact arithmetic",
        "median on AMD EPYC, 1 thread, ai-edge-litert 2.3.0",
        "48.00 MB",
    ):
        assert said in text, said


@pytest.mark.parametrize(
    ("value", "said"),
    [(62.0, "62.0 ms"), (0.929476, "0.929 ms"), (0.01234, "0.0123 ms"), (1234.5, "1,234 ms"),
     (0.0, "0.00 ms"), (None, "–"), (float("nan"), "–"), (float("inf"), "–")],
)  # fmt: skip
def test_milliseconds(value: float | None, said: str) -> None:
    assert units.ms(value) == said


@pytest.mark.parametrize(
    ("share", "said"),
    [(0.89, "89.0%"), (1.0, "100.0%"), (0.99996, "99.996%"), (0.8825, "88.3%"), (None, "–")],
)
def test_percent_never_rounds_up_to_all(share: float | None, said: str) -> None:
    assert units.percent(share) == said

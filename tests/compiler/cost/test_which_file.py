"""Which file to prefer on a Pi: said where something is known, and only there."""

from __future__ import annotations

from dataclasses import replace

from shrinkc.compiler.cost.predict import Prediction, predict_keys
from shrinkc.compiler.cost.which_file import which_file
from shrinkc.latency_tables.makers.sources.networks import OpList, mobilenet_v1, resnet50
from shrinkc.latency_tables.store import load_table


def on_pi(ops: OpList) -> Prediction:
    keys = ((key.op, key, 1) for key in ops)
    return predict_keys(keys, load_table("rpi4"), ops[0].precision)


def test_depthwise_networks_are_for_tflite() -> None:
    (note,) = which_file(on_pi(mobilenet_v1(1.0, 224, "fp32")))
    assert note.startswith("prefer the .tflite: depthwise convolutions take ")


def test_large_dense_networks_may_be_faster_in_onnx_runtime() -> None:
    (note,) = which_file(on_pi(resnet50(224, "fp32")))
    assert note.startswith("time the .onnx, too")
    assert "9.6 to 12 billion" in note


def test_of_anything_else_nothing_is_known() -> None:
    assert which_file(on_pi(mobilenet_v1(1.0, 224, "int8"))) == ()
    assert which_file(on_pi(resnet50(64, "fp32"))) == ()
    assert which_file(replace(on_pi(resnet50(224, "fp32")), target="rpi5/tflite-xnnpack")) == ()


def test_an_interval_is_wider_the_less_the_fit_has_seen() -> None:
    mobile, dense = on_pi(mobilenet_v1(1.0, 224, "fp32")), on_pi(resnet50(224, "fp32"))
    for found in (mobile, dense):
        assert found.total_ms_low is not None
        assert found.total_ms_high is not None
        assert found.total_ms_low < found.total_ms < found.total_ms_high
    assert mobile.spread is not None
    assert dense.spread is not None
    assert mobile.spread < dense.spread  # two networks of the fit have dense convolutions

"""Which of the files to prefer on a Raspberry Pi, as far as it is known.

There is no table of ONNX Runtime there. Known are executed instructions (`count_operators`, on an
emulated Cortex-A72: of depthwise convolutions ONNX Runtime executes four to six times as many as
XNNPACK, of dense ones as many) and a few published networks.
"""

from __future__ import annotations

from shrinkc.compiler.cost.predict import Prediction

TARGET = "rpi4/tflite-xnnpack"
MUCH = 0.1  # of a network's time
LARGE_MACS = 1e9
PUBLISHED = (9.6, 12.0)  # large networks in ONNX Runtime on a Pi 4, multiply-accumulates a ns


def which_file(p: Prediction) -> tuple[str, ...]:
    """A note, where something is known of such a network in float."""
    if p.target != TARGET or p.precision != "fp32" or not p.layers:
        return ()
    depthwise = sum(x.ms for x in p.layers if x.op.startswith("depthwise_conv2d")) / p.total_ms
    if depthwise >= MUCH:
        return (
            f"prefer the .tflite: depthwise convolutions take {depthwise:.0%} of it, and ONNX "
            "Runtime executes four to six times XNNPACK's instructions for them",
        )
    rate = p.macs / p.total_ms / 1e6
    if p.macs >= LARGE_MACS and rate < PUBLISHED[0]:
        return (
            f"time the .onnx, too: large networks are published at {PUBLISHED[0]:g} to "
            f"{PUBLISHED[1]:g} billion multiply-accumulates a second in ONNX Runtime on this "
            f"board (YOLOX-L at 6.4), and this one is predicted at {rate:.1f}",
        )
    return ()

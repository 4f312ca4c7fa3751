"""The image classifiers of MLPerf Inference's submitters, by the names that they gave them."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from shrinkc.errors import TableError
from shrinkc.latency_tables.makers.fit import Sample
from shrinkc.latency_tables.makers.script import read_csv
from shrinkc.latency_tables.makers.sources import networks
from shrinkc.latency_tables.makers.sources.networks import OpList


def sample(name: str, measured_ms: float) -> Sample:
    """The network that a submitter calls `name`. Raises TableError for other names."""
    for family, pattern, generate in _FAMILIES:
        match = pattern.fullmatch(name)
        if match:
            ops = generate(match)
            return Sample(name, family, ops[0].precision, ops, measured_ms)
    raise TableError(f"'{name}' is no network this script knows; add it to mlperf._FAMILIES")


def read_results(path: Path, devices: dict[str, float]) -> list[Sample]:
    """Of a file with the columns `device`, `description` and `ms`: the networks that every one of
    `devices` ran, their time the mean of the devices' times, each multiplied by its factor.

    Networks timed together with decoding and scaling an image are left out. Raises TableError:
    unreadable, nothing of a device, or a network that `networks` cannot generate.
    """
    times: dict[str, dict[str, float]] = {}
    try:
        for row in read_csv(path, "MLPerf results"):
            device, name = row["device"], row["description"]
            if device in devices and not name.endswith(_WITH_PREPROCESSING):
                times.setdefault(name, {})[device] = devices[device] * float(row["ms"])
    except (KeyError, ValueError) as error:
        raise TableError(f"{path}: not a list of MLPerf results: {error!r}") from error
    whole = {name: list(of.values()) for name, of in times.items() if of.keys() == devices.keys()}
    if not whole:
        raise TableError(f"{path}: no network that {' and '.join(devices)} ran")
    return [sample(name, sum(ms) / len(ms)) for name, ms in sorted(whole.items())]


_WITH_PREPROCESSING = "+ live preprocessing"


def _precision(match: re.Match[str]) -> str:
    return "int8" if match["kind"] in ("quantized", "uint8") else "fp32"


def _v1(match: re.Match[str]) -> OpList:
    return networks.mobilenet_v1(float(match["width"]), int(match["size"]), _precision(match))


def _v2(match: re.Match[str]) -> OpList:
    return networks.mobilenet_v2(float(match["width"]), int(match["size"]), _precision(match))


def _v3(match: re.Match[str]) -> OpList:
    groups = match.groupdict()
    return networks.mobilenet_v3(
        "large" if match["variant"] == "large" else "small",
        float(groups.get("width") or 1.0),
        int(match["size"]),
        _precision(match),
        minimalistic=match["minimalistic"] is not None,
    )


def _lite(match: re.Match[str]) -> OpList:
    return networks.efficientnet_lite(int(match["variant"]), _precision(match))


def _resnet50(match: re.Match[str]) -> OpList:
    return networks.resnet50(224, "fp32")


_SCALES = r"(?P<width>[\d.]+)-(?P<size>\d+)"
_QUANTISED = r"-(?P<kind>non-quantized|quantized)"
_CTUNING = r"-precision_(?P<kind>float)-"
_V3 = r"(?P<variant>large|small)(?P<minimalistic>-minimalistic)?"
# Two submitters, Krai and CTuning, whose names differ.
_FAMILIES: tuple[tuple[str, re.Pattern[str], Callable[[re.Match[str]], OpList]], ...] = tuple(
    (family, re.compile(pattern), generate)
    for family, pattern, generate in (
        ("mobilenet-v1", f"mobilenet-v1-{_SCALES}{_QUANTISED}", _v1),
        ("mobilenet-v1", f"mobilenet-v1{_CTUNING}{_SCALES}", _v1),
        ("mobilenet-v2", f"mobilenet-v2-{_SCALES}{_QUANTISED}", _v2),
        ("mobilenet-v2", f"mobilenet-v2{_CTUNING}{_SCALES}", _v2),
        (
            "mobilenet-v3",
            rf"mobilenet-v3-{_V3}_(?P<size>\d+)_(?P<width>[\d.]+)_(?P<kind>float|uint8)",
            _v3,
        ),
        ("mobilenet-v3", rf"mobilenet-v3{_CTUNING}{_V3}-(?P<size>\d+)", _v3),
        ("efficientnet-lite", rf"efficientnet-lite(?P<variant>[0-4]){_QUANTISED}", _lite),
        ("efficientnet-lite", r"efficientnet-(?P<kind>fp32)-lite(?P<variant>[0-4])", _lite),
        ("resnet", r"resnet50", _resnet50),
    )
)

"""Raspberry Pis timed by Nota's NetsPresso: classifiers, SegFormer and YOLOX through TFLite.

`pi4b_pi5.csv` has columns `device`, `precision` (fp16: of the weights, the arithmetic is float;
int8), `description` ("Classification ResNet18 (224, 224) classes=3") and `ms`. Threads and version
are not stated. Operators are those of shrinkc's own files of these networks (see `lists`); the
source's went through a converter of its own.
"""

from __future__ import annotations

import re
from pathlib import Path

from shrinkc.errors import TableError
from shrinkc.latency_tables.makers.fit import Sample
from shrinkc.latency_tables.makers.script import read_csv
from shrinkc.latency_tables.makers.sources.lists import in_precision, read_lists

_DESCRIPTION = re.compile(r"(?:Classification|Segmentation|Detection) (?P<name>\S+) \(.*")
_MISSPELT = {"MovileViT-s": "MobileViT-s", "SegFormet-b0": "SegFormer-b0"}
_PRECISIONS = {"fp16": "fp32", "int8": "int8"}
_FAMILIES = {
    **{"MobileNetV3": "mobilenet-v3", "ResNet": "resnet", "MixNet": "mixnet", "YOLOX": "yolox"},
    **{"EfficientFormer": "efficientformer", "MobileViT": "mobilevit", "ViT": "vit"},
    "SegFormer": "segformer",
}
PLAIN = ("mobilenet-v3", "resnet")  # families of which every XNNPACK runs every operator


def read_networks(path: Path, device: str) -> list[Sample]:
    """Of one Pi, in both precisions. Raises TableError: unreadable, or nothing of this device."""
    try:
        rows = [row for row in read_csv(path, "networks") if row["device"] == device]
        samples = [_sample(row) for row in rows]
    except (KeyError, ValueError) as error:
        raise TableError(f"{path}: not a list of networks: {error!r}") from error
    if not samples:
        raise TableError(f"{path}: no network of {device}")
    return sorted(samples, key=lambda s: (s.precision, s.network))


def _sample(row: dict[str, str]) -> Sample:
    match = _DESCRIPTION.fullmatch(row["description"])
    if match is None:
        raise ValueError(f"{row['description']!r} names no network")
    name, precision = _MISSPELT.get(match["name"], match["name"]), _PRECISIONS[row["precision"]]
    family = next(label for start, label in _FAMILIES.items() if name.startswith(start))
    lists = read_lists("netspresso")
    if name not in lists:
        raise TableError(f"network {name} has no operators; add it to benchmarks.operator_lists")
    ops = in_precision(lists[name], precision)
    return Sample(f"netspresso/{name}", family, precision, ops, float(row["ms"]))

"""ONNX's `metadata_props`: a dictionary of texts, for which no names are agreed upon."""

from __future__ import annotations

import json
from collections.abc import Sequence

import onnx

from shrinkc.compiler.formats.metadata.description import Description

PREFIX = "shrinkc."


def described(data: bytes, description: Description) -> bytes:
    """A file with its metadata, beside what others wrote there."""
    model = onnx.load_model_from_string(data)
    kept = {one.key: one.value for one in model.metadata_props if not one.key.startswith(PREFIX)}
    own = {PREFIX + key: value for key, value in _properties(description).items()}
    onnx.helper.set_model_props(model, kept | own)
    return model.SerializeToString()


def _properties(description: Description) -> dict[str, str]:
    found = {"name": description.name, "task": description.task}
    if description.image is not None:
        height, width = description.image.size
        found |= {"colour": description.colour, "size": f"{width}×{height}", "fit": description.fit}
        found |= {"mean": _listed(description.mean), "std": _listed(description.std)}
    if description.labels:
        found["labels"] = json.dumps(description.labels, ensure_ascii=False)
    return found


def _listed(numbers: Sequence[float]) -> str:
    """Of pixels of 0 to 255."""
    return ",".join(f"{number:.9g}" for number in numbers)

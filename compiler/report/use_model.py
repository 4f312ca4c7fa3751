"""`use_model.py`: a program of a few lines that runs a written file on an image as it was measured.

Names and numbers of a report get into the program as Python literals alone: names come out of model
files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from shrinkc.compiler.tasks.classification import CLASSIFICATION

Json = Mapping[str, Any]
TFLITE, ONNX = "tflite", "onnx"
BEST = 5  # classes that are shown


def use_model(report: Json) -> str | None:
    """The program, from the dictionary that report.json holds: for the TFLite file, else for the
    ONNX file; None where neither was written."""
    artefacts: dict[str, Json] = {one["name"]: one for one in report["artefacts"]}
    kind = next((name for name in (TFLITE, ONNX) if name in artefacts), None)
    if kind is None or not artefacts[kind].get("inputs"):
        return None
    artefact, preprocessing = artefacts[kind], report.get("preprocessing")
    ports: Sequence[Json] = artefact["inputs"]
    image = len(ports) == 1 and preprocessing is not None and len(ports[0]["shape"]) == 4
    image = image and preprocessing is not None and preprocessing["channels"] in (1, 3)
    what = "IMAGE" if image else " ".join(f"INPUT{i + 1}.npy" for i in range(len(ports)))
    kind_of = "an image as it was measured" if image else "arrays (N, …) as the network reads them"
    lines = [f'"""Runs the file beside it on {kind_of}: python use_model.py {what}"""', ""]
    lines += ["import sys", "from pathlib import Path", "", "import numpy as np"]
    lines += ["from PIL import Image, ImageOps"] if image else []
    lines += [_IMPORTS[kind], ""]
    if image and preprocessing is not None:
        lines += [*_read(preprocessing), *_numbers(preprocessing), "inputs = [x[None]]"]
    else:
        lines.append("inputs = [np.load(name) for name in sys.argv[1:]]")
    lines += _stored(ports, kind, image)
    lines += _run(artefact["file"], kind)
    lines += _answers(report, artefact["outputs"])
    return "\n".join(lines) + "\n"


_IMPORTS = {
    TFLITE: "from ai_edge_litert.interpreter import Interpreter",
    ONNX: 'import os\n\nos.environ["ORT_DISABLE_TELEMETRY"] = "1"  # else a device id is kept\n'
    "import onnxruntime",
}


def _read(given: Json) -> list[str]:
    """The image, resized and cropped."""
    grey = given["channels"] == 1
    height, width = given["size"]
    mode = "L" if grey else "RGB"
    lines = [
        "image = ImageOps.exif_transpose(Image.open(sys.argv[1]))",
        f"image = image.convert({mode!r})",
        "w, h = image.size",
    ]
    size = f"({width}, {height})"
    if given["fit"] == "stretch":
        return [*lines, f"image = image.resize({size}, Image.Resampling.BILINEAR)"]
    if given["fit"] == "letterbox":
        grey_of = "114" if grey else "(114, 114, 114)"
        return [
            *lines,
            f"scale = min({height} / h, {width} / w)",
            "w, h = max(1, round(w * scale)), max(1, round(h * scale))",
            "image = image.resize((w, h), Image.Resampling.BILINEAR)",
            f"whole = Image.new({mode!r}, {size}, {grey_of})",
            f"whole.paste(image, (({width} - w) // 2, ({height} - h) // 2))",
            "image = whole",
        ]
    return [
        *lines,
        f"scale = max({int(given['resize'])} / min(w, h), {height} / h, {width} / w)",
        "w, h = int(w * scale + 1e-6), int(h * scale + 1e-6)",
        "image = image.resize((w, h), Image.Resampling.BILINEAR)",
        f"left, top = round((w - {width}) / 2), round((h - {height}) / 2)",
        f"image = image.crop((left, top, left + {width}, top + {height}))",
    ]


def _numbers(given: Json) -> list[str]:
    """Pixels become numbers, (H, W, C)."""
    shape = f"({given['size'][0]}, {given['size'][1]}, {given['channels']})"
    lines = [f"x = np.asarray(image, np.float32).reshape{shape}"]
    if given["bgr"]:
        lines.append("x = x[:, :, ::-1]  # BGR")
    scale, mean, std = (given[key] for key in ("scale", "mean", "std"))
    if scale != 255:
        lines.append(f"x = x / 255 * {float(scale)!r}" if scale != 1 else "x = x / 255")
    if any(mean) or any(one != 1 for one in std):
        of, by = ([float(one) for one in values] for values in (mean, std))
        lines.append(f"x = (x - np.float32({of!r})) / np.float32({by!r})")
    return lines


def _stored(ports: Sequence[Json], kind: str, image: bool) -> list[str]:
    """As the file holds them: layout, batch, integers."""
    lines: list[str] = []
    for index, port in enumerate(ports):
        x, shape = f"inputs[{index}]", port["shape"]
        if len(shape) == 4 and image != (kind == TFLITE):
            order = "0, 3, 1, 2" if image else "0, 2, 3, 1"
            lines.append(f"{x} = {x}.transpose({order})")
        if image and isinstance(shape[0], int) and shape[0] > 1:
            lines.append(f"{x} = np.repeat({x}, {shape[0]}, 0)")
        dtype = _np_type(port["dtype"])
        if port["scale"] is not None:
            levels = f"np.rint({x} / {float(port['scale'])!r}) + {int(port['zero_point'])}"
            lines.append(f"limits = np.iinfo(np.{dtype})")
            lines.append(f"{x} = np.clip({levels}, limits.min, limits.max)")
        lines.append(f"{x} = np.ascontiguousarray({x}, np.{dtype})")
    return lines


def _np_type(dtype: str) -> str:
    """Of a port, as NumPy's module calls it."""
    known = ("float32", "int8", "uint8", "int32", "int64")
    return dtype if dtype in known else "bool_"


def _run(file: str, kind: str) -> list[str]:
    path = f"str(Path(__file__).with_name({file!r}))"
    if kind == ONNX:
        return [
            f"model = onnxruntime.InferenceSession({path}, providers=['CPUExecutionProvider'])",
            "names = [one.name for one in model.get_inputs()]",
            "outputs = model.run(None, dict(zip(names, inputs)))",
        ]
    return [
        f"model = Interpreter({path})",
        "model.allocate_tensors()",
        "for one, x in zip(model.get_input_details(), inputs):",
        '    model.set_tensor(one["index"], x)',
        "model.invoke()",
        'outputs = [model.get_tensor(one["index"]) for one in model.get_output_details()]',
    ]


def _answers(report: Json, ports: Sequence[Json]) -> list[str]:
    lines: list[str] = []
    for index, port in enumerate(ports):
        if port["scale"] is not None:
            y = f"outputs[{index}]"
            zero, scale = int(port["zero_point"]), float(port["scale"])
            lines.append(f"{y} = ({y}.astype(np.float32) - {zero}) * np.float32({scale!r})")
    if report["task"]["name"] == CLASSIFICATION.name and len(ports[0]["shape"]) == 2:
        labels = report.get("labels")
        named = "labels[i]" if labels else "i"
        if labels:
            read = "Path(__file__).with_name('labels.txt').read_text('utf-8')"
            lines.append(f"labels = {read}.splitlines()")
        return [
            *lines,
            "scores = outputs[0][0]",
            f"for i in np.argsort(-scores, kind='stable')[:{BEST}]:",
            f'    print(f"{{scores[i]:.6g}}", {named})',
        ]
    names = [str(port["name"]) for port in ports]
    return [*lines, f"for name, y in zip({names!r}, outputs):", "    print(name, y.shape, y.dtype)"]

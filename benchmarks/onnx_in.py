"""ONNX files of other exporters, compiled: are the files that come out equal to those that went in?

    python -m benchmarks.onnx_in
    python -m benchmarks.onnx_in --only unet

Each network of benchmarks/shared/exported_networks.py is exported by the TorchScript exporter at
opset 11 or 13 (in turn) and by the dynamo exporter at opset 18, with an open batch where the
exporter manages one; either file also as onnxsim simplifies it, where that still runs.
`shrinkc.compile` gets the file alone. Its ONNX and TFLite files are then run beside the file that
was given, in ONNX Runtime, on random inputs; errors are shares of the output's range.

Needs benchmarks/requirements-coverage.txt. Rows of earlier runs are kept.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxsim
import torch

import shrinkc
from benchmarks.shared import results
from benchmarks.shared.common import print_table
from benchmarks.shared.exported_networks import EXPORTED, Exported
from shrinkc.compiler.formats.onnx import OnnxRunner
from shrinkc.compiler.support.quiet import quiet

EQUAL = 1e-4  # of the output's range
BATCHES = 4
RESULT = results.result_path("onnx_in")


def files_of(network: Exported, opset: int, folder: Path) -> dict[str, Path]:
    """How it was exported → the file."""
    model, x = network.build(), torch.randn(2, *network.input_shape)
    found: dict[str, Path] = {}
    for how in (f"TorchScript, opset {opset}", "dynamo, opset 18"):
        path = folder / f"{network.name}-{len(found)}.onnx"
        try:
            with quiet(), torch.no_grad():
                _export(model, x, path, None if "dynamo" in how else opset)
        except Exception as error:
            print(f"{network.name} {how}: not exported: {type(error).__name__}: {error}"[:200])
            continue
        found[how] = path
        smaller, _ = onnxsim.simplify(onnx.load(path))
        simplified = path.with_suffix(".sim.onnx")
        onnx.save(smaller, simplified)
        try:
            runner = OnnxRunner(simplified.read_bytes())
            runner.run(_inputs(runner, 0))
        except Exception as error:
            print(f"{network.name} {how}: onnxsim breaks it: {error}"[:200])
            continue
        found[f"{how}, onnxsim"] = simplified
    return found


def _export(model: Any, x: torch.Tensor, path: Path, opset: int | None) -> None:
    names: dict[str, Any] = {"input_names": ["input"]}
    if opset is not None:
        names["dynamic_axes"] = {"input": {0: "batch"}}
        torch.onnx.export(model, (x,), str(path), dynamo=False, opset_version=opset, **names)
        return
    open_batch = ({0: torch.export.Dim("batch")},)
    how: dict[str, Any] = {"dynamo": True, "opset_version": 18, "external_data": False, **names}
    try:
        torch.onnx.export(model, (x,), str(path), dynamic_shapes=open_batch, **how)
    except Exception:  # a network that decides by its batch
        torch.onnx.export(model, (x[:1],), str(path), **how)


def compiled(network: Exported, how: str, path: Path) -> results.Row:
    """One row: a file in, files out."""
    row: results.Row = {"library": network.library, "name": network.name, "mode": how}
    start = time.perf_counter()
    try:
        made = shrinkc.compile(path, target="rpi4", runs=0)
    except shrinkc.ShrinkcError as error:
        row["failure"] = str(error).replace(f"{path}: ", "")[:300]
    else:
        given = OnnxRunner(path.read_bytes())
        ours = OnnxRunner(made.files["model.onnx"])
        row["outputs"] = len(given.run(_inputs(given, 0)))
        row["onnx_error"] = _largest(given, lambda x: ours.run(x))
        row["dynamic_batch"] = not any("batches of" in note for note in made.report.notes)
        if made.report.failures:
            row["failure"] = made.report.failures[0][:300]
        else:
            row["tflite_error"] = _largest(given, lambda x: _arrays(made(torch.from_numpy(x[0]))))
    row["seconds"] = round(time.perf_counter() - start, 1)
    return row


def _inputs(runner: OnnxRunner, seed: int) -> list[Any]:
    generator = np.random.default_rng(seed)
    return [generator.standard_normal(s, dtype=np.float32) for s in runner.input_shapes]


def _arrays(returned: Any) -> list[Any]:
    tensors = returned if isinstance(returned, tuple | list) else (returned,)
    return [t.numpy() for t in tensors]


def _largest(given: OnnxRunner, answer: Any) -> float:
    worst = 0.0
    for seed in range(BATCHES):
        inputs = _inputs(given, seed)
        for got, want in zip(answer(inputs), given.run(inputs), strict=True):
            spread = float(want.max() - want.min()) or 1.0
            worst = max(worst, float(np.abs(got - want).max()) / spread)
    return worst


def is_equal(row: results.Row) -> bool:
    """Both files are there, and are what went in."""
    return all(row.get(f"{kind}_error", 1.0) <= EQUAL for kind in ("onnx", "tflite"))


def save(rows: Sequence[results.Row]) -> None:
    """With how many are equal."""
    equal = sum(map(is_equal, rows))
    summary = {"networks": len(rows), "kept": {"share at least 0.95": equal >= 0.95 * len(rows)}}
    packages = ("torch", "onnx", "onnxruntime", "onnxscript", "onnxsim", "torchvision", "timm")
    results.write(RESULT, "onnx_in", rows, (*packages, "pytorchcv"), summary=summary)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", help="names of networks")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    chosen = [one for one in EXPORTED if not arguments.only or one.name in arguments.only]
    names = {one.name for one in chosen}
    known = {one.name for one in EXPORTED} - names
    rows = [row for row in results.earlier_rows(RESULT) if row["name"] in known]
    with tempfile.TemporaryDirectory() as folder:
        for network in chosen:
            opset = (11, 13)[EXPORTED.index(network) % 2]
            for how, path in files_of(network, opset, Path(folder)).items():
                rows.append(compiled(network, how, path))
                print(rows[-1], flush=True)
            save(rows)
    shown = [
        [f"{row['library']}/{row['name']}", row["mode"], "yes" if is_equal(row) else "no"]
        for row in rows
    ]
    print_table(["network", "exported by", "equal"], shown)


if __name__ == "__main__":
    main()

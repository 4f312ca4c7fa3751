"""How the files of benchmarks.peers are made.

All tools start from the same MobileNetV2 and see the same 300 images, no labels. A peer runs in
an environment of its own, by its script in benchmarks/peer_scripts.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from benchmarks.closed_form import calibration, classes_of, folded
from benchmarks.converters import Peer, environment_of
from benchmarks.prune_accuracy import by_peer, deployed
from benchmarks.shared.common import ROOT
from benchmarks.shared.halp_mdp import METHODS
from benchmarks.shared.mobilenet_v2 import IMAGES, SIZE, images, write_model
from shrinkc.compiler.api.steps.target import cost_table
from shrinkc.compiler.capture import capture
from shrinkc.compiler.cost.goal import Goal
from shrinkc.compiler.depth.trained import Trained, TrainedMethod, shrink_trained
from shrinkc.compiler.images.decoded import Images
from shrinkc.compiler.measure.speedup import host_file
from shrinkc.compiler.pipeline.run import run_exact_passes
from shrinkc.compiler.recover.layer_problems import Sample, size_of
from shrinkc.compiler.recover.recipe import Recipe
from shrinkc.compiler.recover.retrain import IMAGES as STATISTICS
from shrinkc.compiler.recover.retrain import retrain, statistics
from shrinkc.compiler.support.progress import Terminal
from shrinkc.passes.layers.insert_batch_norms import InsertBatchNorms

LITERT = Peer("litert-torch", "to_litert", ".tflite")
TORCH_ONNX = Peer("torch-onnx", "to_torch_onnx", ".onnx")
PRUNED_ONNX = Peer("torch-onnx", "module_to_onnx", ".onnx")
ORT_INT8 = Peer("onnxruntime", "quantize_onnx", ".onnx")
EDGE_INT8 = Peer("ai-edge-quantizer", "quantize_tflite", ".tflite")
TORCH_PRUNING = Peer("torch-pruning", "prune_mobilenet_v2", ".pt")

COMPILE, ARCHITECTURE = "compile", "benchmarks.shared.mobilenet_v2:mobilenet_v2"
READING = ("--mean", "0.5,0.5,0.5", "--std", "0.5,0.5,0.5")
SEEN = 10  # images at a time that scores are taken of: their gradients are the memory
BATCH, STEPS = 32, 2  # of the trainings; steps before an option's importance is judged


class PeerError(Exception):
    """A peer failed; says how."""


class Workshop:
    """What several contenders start from; everything is kept in `out`."""

    def __init__(self, data: Path, venvs: Path, target: str, epochs: int, out: Path) -> None:
        self.data, self.venvs, self.target, self.out = data.resolve(), venvs, target, out
        self.recipe = Recipe(
            epochs=epochs,
            steps=STEPS,
            batch=BATCH,
            learning_rate=Recipe.learning_rate * BATCH / Recipe.batch,
            distillation=1.0,  # no labels
        )
        self.taught = f"{epochs} epochs of self-distillation"
        self._chosen: dict[tuple[str, float], fx.GraphModule] = {}

    @property
    def steps(self) -> int:
        """Of each training."""
        count = len(self.images)
        return self.recipe.epochs * (count // self.recipe.batch_of(count))

    @cached_property
    def weights(self) -> Path:
        return write_model(self.data, self.out)

    @cached_property
    def original(self) -> fx.GraphModule:
        return folded(self.data)

    @cached_property
    def images(self) -> Images:
        return replace(calibration(self.data), labels=None)

    @cached_property
    def inputs(self) -> Tensor:
        return images(self.data / IMAGES / "calibration")[0]

    @cached_property
    def calibration_file(self) -> Path:
        """The images for peers' environments."""
        path = self.out / "calibration.npy"
        np.save(path, self.inputs.numpy())
        return path

    # --- shrinkc -----------------------------------------------------------------------------

    def compiled(self, name: str, *options: str, size: int = SIZE, command: str = COMPILE) -> Path:
        """The folder that the command wrote, of the network for images of `size`."""
        network = [str(self.weights), "--arch", ARCHITECTURE, "--input", f"1,3,{size},{size}"]
        return self._command(name, command, *network, *options)

    def in_int8(self, name: str, source: str) -> Path:
        """The same of the network in another folder, in int8 and otherwise as it is."""
        network = self.found(f"{source}/model.onnx")
        exact = ("--precision", "int8", "--calibration", self.seen)
        return self._command(name, COMPILE, str(network), *exact)

    def _command(self, name: str, command: str, *options: str) -> Path:
        folder = self.out / name
        if not folder.exists():
            tool = str(Path(sys.executable).parent / "shrinkc")
            reading = READING if self.seen in options else ()  # refused where nothing is read
            shared = ("--target", self.target, *reading, "-o", str(folder))
            _run([tool, command, *options, *shared])
        return folder

    @property
    def seen(self) -> str:
        return str(self.data / IMAGES / "calibration")

    # --- peers -------------------------------------------------------------------------------

    def by(self, peer: Peer, *arguments: str | Path) -> bytes:
        """The file that the peer's script wrote."""
        path = self.out / f"partial{peer.suffix}"
        try:
            python = environment_of(peer, self.venvs.resolve())
        except subprocess.CalledProcessError as error:
            raise PeerError(f"its environment cannot be made: {error.returncode}") from error
        _run([str(python), "-m", peer.module, *map(str, arguments), str(path)])
        content = path.read_bytes()
        path.unlink()
        return content

    def converted(self, peer: Peer) -> bytes:
        return self.by(peer, "mobilenet_v2", self.weights)

    def quantised(self, source: str, *arguments: str) -> bytes:
        """By the quantiser of its runtime alone, from a contender's file."""
        path = self.found(source)
        peer = ORT_INT8 if path.suffix == ".onnx" else EDGE_INT8
        return self.by(peer, path, self.calibration_file, *arguments)

    def found(self, file: str) -> Path:
        """Made by another contender. Raises PeerError."""
        if not (path := self.out / file).exists():
            raise PeerError(f"{file}, which it starts from, is not there")
        return path

    def pruned(self, importance: str, ratio: int) -> Path:
        """The module that Torch-Pruning left."""
        folder = self.out / TORCH_PRUNING.name / importance
        try:
            by_peer(TORCH_PRUNING, self.venvs, folder, str(self.data), importance)
        except subprocess.CalledProcessError as error:
            raise PeerError(f"exit code {error.returncode}") from error
        return folder / f"{ratio}.pt"

    def tuned(self, importance: str, ratio: int) -> Path:
        """The same after the same training as the methods that shrink depth get."""
        source = self.pruned(importance, ratio)
        path = source.with_name(f"{ratio}-tuned.pt")
        if not path.exists():
            model: Any = torch.load(source, weights_only=False).eval()  # by our own peer
            graph = deployed(capture(model, (torch.randn(1, 3, SIZE, SIZE),)))
            model.load_state_dict(self.trained(graph).state_dict())
            torch.save(model, path)
        return path

    def trained(self, graph: fx.GraphModule) -> fx.GraphModule:
        """What is left of the network after `taught`; trained once."""
        given = (graph, self.original, self.images, self.recipe, self.out / "work")
        return retrain(*given, Terminal())

    # --- channels and blocks by Taylor scores ------------------------------------------------

    def chosen(self, method: str, speedup: float) -> fx.GraphModule:
        """Untrained; chosen once."""
        if (method, speedup) not in self._chosen:
            batches = [((x,), classes_of(self.original, x)) for x in self.inputs.split(SEEN)]
            given = (self.original, batches, cost_table(self.target), Goal.speedup(speedup))
            self._chosen[method, speedup] = METHODS[method](*given)
        return self._chosen[method, speedup]

    # --- depth, with training ----------------------------------------------------------------

    @cached_property
    def trainable(self) -> fx.GraphModule:
        """With batch norms that change nothing yet, as the methods are published for."""
        sample = Sample(self.images, size_of(self.original), STATISTICS)
        norms = InsertBatchNorms(statistics(self.original, sample))
        return run_exact_passes(self.original, (norms,))[0].float()

    @cached_property
    def answered(self) -> Images:
        """Importances are judged by labels: here the original's own answers."""
        return replace(self.images, labels=classes_of(self.original, self.inputs))

    def shrunk(self, method: TrainedMethod, speedup: float, precision: str) -> tuple[bytes, str]:
        """Planned and trained in fp32; what was trained once is only read."""
        result = shrink_trained(
            *(self.trainable, self.answered, cost_table(self.target), "fp32", method),
            Goal.speedup(speedup),
            options=Trained(self.recipe),
            folder=self.out / "work",
            progress=Terminal(),
        )
        return self.written(result.graph_module, precision)

    def written(self, graph: fx.GraphModule, precision: str) -> tuple[bytes, str]:
        """Its TFLite file."""
        batches = [(x[None],) for x in self.inputs]
        return host_file(graph, precision, batches, "bias"), precision


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise PeerError(lines[-1])

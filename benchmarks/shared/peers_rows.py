"""Who takes part in benchmarks.peers: every tool, at every setting."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from benchmarks.converters import Peer
from benchmarks.shared.halp_mdp import METHODS
from benchmarks.shared.mobilenet_v2 import SIZE
from benchmarks.shared.peers_workshop import (
    EDGE_INT8,
    LITERT,
    ORT_INT8,
    PRUNED_ONNX,
    TORCH_ONNX,
    TORCH_PRUNING,
    Workshop,
)
from shrinkc.compiler.depth.trained import DEPTHSHRINKER, TWO_STAGE_DP
from shrinkc.compiler.formats.base import FILE_PRECISIONS

PEERS = (LITERT, TORCH_ONNX, ORT_INT8, EDGE_INT8, TORCH_PRUNING)
# What speedups are over, by the ending of the file.
ORIGINALS = {".tflite": "litert-torch-fp32.tflite", ".onnx": "torch-onnx-fp32.onnx"}
EXACT = "shrinkc-exact"
RUNTIMES = {".tflite": "TFLite", ".onnx": "ONNX Runtime"}
PRUNING = {
    "l1": "L1, all channels",
    "group-norm": "group norm, all channels",
    "l1-inside": "L1, inside blocks",
    "group-norm-inside": "group norm, inside blocks",
}
RATIOS = (10, 20)  # per cent of the channels
DEPTH = {DEPTHSHRINKER: "DepthShrinker", TWO_STAGE_DP: "two-stage DP"}
SHALLOWER = (1.1, 1.2)  # over fp32 in fp32, by depth alone
NARROWER = (1.1, 1.2, 1.4)  # the same by channels, and blocks with them
PLANNED_FP32 = (1.2, 1.4)  # the same by plans
PLANNED = (2.3, 2.6, 3.0)
PLANNED_SMALLER = (3.5, 4.0)  # where images may be smaller, too
SMALLER = (192, 160)  # pixels
THE_TOOL, REIMPLEMENTED = "the tool itself", "reimplemented in shrinkc"


@dataclass(frozen=True)
class Contender:
    """One file, and how it is made: bytes and precision. `by`: whose code made it. `closer`: how
    many times closer it looks at images, once it is made."""

    name: str
    tool: str
    settings: str
    by: str
    suffix: str
    make: Callable[[], tuple[bytes, str]]
    closer: Callable[[], float] = lambda: 1.0

    @property
    def file(self) -> str:
        return f"{self.name}{self.suffix}"

    @property
    def runtime(self) -> str:
        return RUNTIMES[self.suffix]


def contenders(shop: Workshop) -> list[Contender]:
    """In the order in which they are made: quantisers need the converters' files, and ours."""
    made = converters, ours, quantisers, scaled, pruners, shrinkers, narrowers, droppers
    return [one for some in made for one in some(shop)]


def version(peer: Peer, package: str) -> str:
    """As pinned."""
    pins = dict(line.split("==") for line in peer.requirements.read_text().split())
    return pins[package]


def converters(shop: Workshop) -> Iterator[Contender]:
    for peer, tool, package in (
        (LITERT, "litert-torch", "litert-torch"),
        (TORCH_ONNX, "torch.onnx", "torch"),
    ):
        name = Path(ORIGINALS[peer.suffix]).stem
        yield Contender(
            *(name, f"{tool} {version(peer, package)}", "plain conversion", THE_TOOL, peer.suffix),
            lambda p=peer: (shop.converted(p), "fp32"),
        )


def quantisers(shop: Workshop) -> Iterator[Contender]:
    for name, per, whose, source in (
        ("onnxruntime-per-tensor", "tensor", "torch.onnx's", ORIGINALS[".onnx"]),
        ("onnxruntime-per-channel", "channel", "torch.onnx's", ORIGINALS[".onnx"]),
        ("onnxruntime-of-shrinkc", "channel", "shrinkc's exact", f"{EXACT}-fp32.onnx"),
    ):
        yield Contender(
            name,
            f"onnxruntime {version(ORT_INT8, 'onnxruntime')} static int8",
            f"min/max, weights per {per}, of {whose} file",
            *(THE_TOOL, ".onnx"),
            lambda p=per, s=source: (shop.quantised(s, p), "int8"),
        )
    yield Contender(
        "ai-edge-quantizer",
        f"ai-edge-quantizer {version(EDGE_INT8, 'ai-edge-quantizer')}",
        "static_wi8_ai8, of litert-torch's file",
        *(THE_TOOL, ".tflite"),
        lambda: (shop.quantised(ORIGINALS[".tflite"]), "int8"),
    )


def ours(shop: Workshop) -> Iterator[Contender]:
    smaller = ("--resolutions", ",".join(map(str, SMALLER)))
    sizes = f"at {SIZE}, {' or '.join(map(str, SMALLER))} pixels"
    asked = [(f"planned, {s:g}× asked", ("--speedup", f"{s:g}")) for s in PLANNED]
    asked += [
        (f"planned in fp32, {s:g}× asked", ("--precision", "fp32", "--speedup", f"{s:g}"))
        for s in PLANNED_FP32
    ]
    asked += [
        (f"planned {sizes}, {s:g}× asked", (*smaller, "--speedup", f"{s:g}"))
        for s in PLANNED_SMALLER
    ]
    settings = [(f"exact {p}", exact(shop, p)) for p in FILE_PRECISIONS]
    settings += [(words, (*options, "--images", shop.seen)) for words, options in asked]
    for words, options in settings:
        folder = f"shrinkc-{words.replace(', ', '-').replace(' ', '-').replace('×', '')}"
        for suffix in (".tflite", ".onnx"):
            yield Contender(
                *(folder, "shrinkc", words, "shrinkc", suffix),
                lambda f=folder, o=options, s=suffix: _from(shop.compiled(f, *o), s),
                lambda f=folder: _closer(shop.out / f),
            )


def exact(shop: Workshop, precision: str) -> tuple[str, ...]:
    """Options of a compilation that leaves the network as it is."""
    return () if precision == "fp32" else ("--precision", "int8", "--calibration", shop.seen)


def scaled(shop: Workshop) -> Iterator[Contender]:
    """The network as it is on smaller images."""
    for size, precision in product(SMALLER, FILE_PRECISIONS):
        name = f"scaled-{size}-{precision}"
        for suffix in ORIGINALS:
            yield Contender(
                *(name, "uniform scaling", f"{size} pixels, exact {precision}", "shrinkc", suffix),
                lambda n=name, z=size, p=precision, s=suffix: _from(
                    shop.compiled(n, *exact(shop, p), size=z), s
                ),
            )


def _from(folder: Path, suffix: str) -> tuple[bytes, str]:
    """A file of ours, and the precision that was chosen for it."""
    report = json.loads((folder / "report.json").read_text())
    return (folder / f"model{suffix}").read_bytes(), report["precision"]


def _closer(folder: Path) -> float:
    """Of a plan."""
    plan = folder / "plan.json"
    found = json.loads(plan.read_text()).get("resolution") if plan.exists() else None
    return (found or {}).get("closer", 1.0)


def pruners(shop: Workshop) -> Iterator[Contender]:
    tool = f"Torch-Pruning {version(TORCH_PRUNING, 'torch-pruning')}"
    for (importance, what), ratio in product(PRUNING.items(), RATIOS):
        name, words = f"torch-pruning-{importance}-{ratio}", f"{what}, {ratio}%"
        yield Contender(
            *(name, tool, words, THE_TOOL, ".onnx"),
            lambda i=importance, r=ratio: (shop.by(PRUNED_ONNX, shop.pruned(i, r)), "fp32"),
        )
        tuned = f"{words}, {shop.taught}"
        yield Contender(
            *(f"{name}-tuned", tool, tuned, THE_TOOL, ".onnx"),
            lambda i=importance, r=ratio: (shop.by(PRUNED_ONNX, shop.tuned(i, r)), "fp32"),
        )
        yield Contender(
            *(f"{name}-tuned-int8", tool, f"{tuned}, onnxruntime's int8", THE_TOOL, ".onnx"),
            lambda n=name: (shop.quantised(f"{n}-tuned.onnx", "channel"), "int8"),
        )


def shrinkers(shop: Workshop) -> Iterator[Contender]:
    for (method, tool), speedup, precision in product(DEPTH.items(), SHALLOWER, FILE_PRECISIONS):
        yield Contender(
            f"{method.name}-{speedup:g}-{precision}",
            tool,
            f"{speedup:g}× asked in fp32, {shop.taught}",
            *(REIMPLEMENTED, ".tflite"),
            lambda m=method, s=speedup, p=precision: shop.shrunk(m, s, p),
        )


def narrowers(shop: Workshop) -> Iterator[Contender]:
    """HALP and MDP, on shrinkc's latency tables."""
    for tool, speedup, precision in product(METHODS, NARROWER, FILE_PRECISIONS):
        words = f"{speedup:g}× asked in fp32, Taylor scores by the network's own answers"
        for how, told, trained in (("untrained", "not trained", False), ("", shop.taught, True)):
            name = "-".join(filter(None, (tool.lower(), f"{speedup:g}", how, precision)))
            yield Contender(
                *(name, tool, f"{words}, {told}", REIMPLEMENTED, ".tflite"),
                lambda t=tool, s=speedup, p=precision, then=trained: shop.written(
                    shop.trained(shop.chosen(t, s)) if then else shop.chosen(t, s), p
                ),
            )


def droppers(shop: Workshop) -> Iterator[Contender]:
    """Practise, by its command."""
    for speedup in SHALLOWER:
        name = f"practise-{speedup:g}"
        words = f"{speedup:g}× asked in fp32, trainings of as many steps as {shop.taught}"

        def shrunk(n: str = name, s: float = speedup) -> Path:
            asked = ("--method", "practise", "--speedup", f"{s:g}", "--steps", str(shop.steps))
            return shop.compiled(f"{n}-fp32", *asked, "--images", shop.seen, command="shrink")

        def in_int8(n: str = name) -> Path:
            return shop.in_int8(f"{n}-int8", f"{n}-fp32")

        for precision, make in {"fp32": shrunk, "int8": in_int8}.items():
            yield Contender(
                *(f"{name}-{precision}", "Practise", words, REIMPLEMENTED, ".tflite"),
                lambda m=make: _from(m(), ".tflite"),
            )

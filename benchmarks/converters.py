"""Speed of exported files: ours against litert-torch's (TFLite) and torch.onnx's (ONNX).

    python -m benchmarks.converters --venvs out/venvs --data DIR
    python -m benchmarks.converters --venvs out/venvs --only resnet18

Each peer converts in an environment of its own, made under --venvs from the pinned
benchmarks/peer_scripts/requirements-*.txt when it is missing (litert-torch: 1 GB). All files then
run here in the same runtimes, one thread, our file and the peer's in turn. Every round loads both
anew and swaps their order. `ratio` is our time over the peer's: the median of the rounds' ratios of
medians, with the smallest and the largest. Ours is compiled with `--merge none`: what is compared
is how the same layers are written, not what a table of another device merges. DIR gives MobileNetV2
its ImageNet weights; other weights are random, which does not change the speed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import numpy as np
import torch

from benchmarks.shared import results
from benchmarks.shared.common import ROOT, add_data_argument, median_iqr, print_table
from benchmarks.shared.mobilenet_v2 import pretrained
from benchmarks.shared.models import randomise
from benchmarks.shared.networks import NETWORKS
from shrinkc.compiler.formats.registry import open_runner
from shrinkc.compiler.measure.bench import bench

DEFAULT_NETWORKS = ("mobilenet_v2", "mobilenet_v3_small", "resnet18")


@dataclass(frozen=True)
class Peer:
    """A tool: its requirements file, its script in benchmarks/peer_scripts, what it writes."""

    name: str
    script: str
    suffix: str

    @property
    def requirements(self) -> Path:
        return ROOT / "benchmarks" / "peer_scripts" / f"requirements-{self.name}.txt"

    @property
    def module(self) -> str:
        return f"benchmarks.peer_scripts.{self.script}"


PEERS = (Peer("litert-torch", "to_litert", ".tflite"), Peer("torch-onnx", "to_torch_onnx", ".onnx"))


@dataclass(frozen=True)
class Comparison:
    """Milliseconds, median and interquartile range over all runs of all rounds."""

    network: str
    runtime: str
    peer_tool: str
    ours_ms: float
    ours_iqr_ms: float
    peer_ms: float
    peer_iqr_ms: float
    ratio: float
    ratio_min: float
    ratio_max: float
    difference: float


def environment_of(peer: Peer, venvs: Path) -> Path:
    """The Python of the peer's environment, made when it is missing."""
    folder = venvs / peer.name
    python, stamp = folder / "bin" / "python", folder / ".complete"
    if not stamp.exists():
        print(f"making {folder} …", flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        install = [str(python), "-m", "pip", "install", "--quiet", "-r", str(peer.requirements)]
        subprocess.run(install, check=True)
        stamp.touch()
    return python


def state_dict(name: str, data: Path | None, out: Path) -> Path:
    """The weights that every converter gets."""
    path = out / f"{name}.pt"
    if name == "mobilenet_v2" and data is not None:
        model = pretrained(data)
    else:
        torch.manual_seed(0)
        model = NETWORKS[name].factory()
        randomise(model, torch.randn(2, *NETWORKS[name].input_shape[1:]))
    torch.save(model.state_dict(), path)
    return path


def compile_ours(name: str, weights: Path, out: Path) -> Path:
    """The folder that the shrinkc command wrote."""
    shrinkc = Path(sys.executable).parent / "shrinkc"
    shape = ",".join(map(str, NETWORKS[name].input_shape))
    command = [str(shrinkc), str(weights), "--arch", NETWORKS[name].arch, "--target", "rpi4"]
    command += ["--input", shape, "--merge", "none", "-o", str(out / f"{name}-shrinkc")]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return out / f"{name}-shrinkc"


def convert(peer: Peer, python: Path, name: str, weights: Path, out: Path) -> Path:
    """The file that the peer wrote."""
    path = out / f"{name}-{peer.name}{peer.suffix}"
    command = [
        str(python),
        "-m",
        f"benchmarks.peer_scripts.{peer.script}",
        name,
        str(weights),
        str(path),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{peer.name} failed on {name}:\n{done.stderr[-2000:]}")
    return path


def compare(name: str, peer: Peer, ours: Path, theirs: Path, rounds: int, runs: int) -> Comparison:
    """Time both files in turn."""
    ours_ms: list[float] = []
    peer_ms: list[float] = []
    ratios: list[float] = []
    runtime = ""
    for index in range(rounds):
        files = (ours, theirs) if index % 2 == 0 else (theirs, ours)
        first, second = bench([open_runner(path) for path in files], runs=runs, warmup=10)
        mine, other = (first, second) if index % 2 == 0 else (second, first)
        ours_ms += mine.times_ms
        peer_ms += other.times_ms
        ratios.append(mine.median_ms / other.median_ms)
        runtime = open_runner(ours).runtime
    return Comparison(
        *(name, runtime, peer.name, *median_iqr(ours_ms), *median_iqr(peer_ms)),
        *(median(ratios), min(ratios), max(ratios), difference(ours, theirs)),
    )


def difference(ours: Path, theirs: Path) -> float:
    """Largest difference of the first outputs, relative to their range: the same network?"""
    runners = [open_runner(ours), open_runner(theirs)]
    x = np.random.default_rng(0).standard_normal(runners[0].input_shapes[0], dtype=np.float32)
    a, b = (runner.run([x])[0] for runner in runners)
    return float(np.abs(a - b).max() / (b.max() - b.min()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_data_argument(parser, required=False)
    parser.add_argument("--venvs", type=Path, required=True, help="folder for the environments")
    parser.add_argument("--only", choices=NETWORKS, action="append")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("-o", "--out", type=Path, default=ROOT / "out" / "converters")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.out.mkdir(parents=True, exist_ok=True)
    pythons = {peer: environment_of(peer, arguments.venvs.resolve()) for peer in PEERS}
    comparisons: list[Comparison] = []
    for name in arguments.only or DEFAULT_NETWORKS:
        weights = state_dict(name, arguments.data, arguments.out)
        ours = compile_ours(name, weights, arguments.out)
        for peer in PEERS:
            theirs = convert(peer, pythons[peer], name, weights, arguments.out)
            mine = ours / f"model{peer.suffix}"
            comparisons.append(compare(name, peer, mine, theirs, arguments.rounds, arguments.runs))
    print_table(
        ("network", "runtime", "peer", "ours ms (IQR)", "peer ms (IQR)", "ratio (min to max)"),
        [row(comparison) for comparison in comparisons],
    )
    results.write(
        results.result_path("converters"),
        "converters",
        [asdict(comparison) for comparison in comparisons],
        ("torch", "onnxruntime", "ai-edge-litert"),
        settings={
            "peers": {p.name: p.requirements.read_text().split() for p in PEERS},
            "threads": 1,
            "rounds": arguments.rounds,
            "runs": arguments.runs,
        },
    )


def row(c: Comparison) -> tuple[str, ...]:
    """Cells of the printed table."""
    return (
        *(c.network, c.runtime, c.peer_tool),
        f"{c.ours_ms:.2f} ({c.ours_iqr_ms:.2f})",
        f"{c.peer_ms:.2f} ({c.peer_iqr_ms:.2f})",
        f"{c.ratio:.3f} ({c.ratio_min:.3f} to {c.ratio_max:.3f})",
    )


if __name__ == "__main__":
    main()

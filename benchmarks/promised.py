"""Do plans keep what they promise? Requests for this machine, their files timed and judged.

    python -m benchmarks.promised --data DIR [--networks cifar,resnet56] [--time] [--out OUT]

MobileNetV2 on ImageNet is fitted to 300 images without labels. A quarter of them is kept away from
the fits and says what is promised; 400 labelled images tell what was delivered. The networks for
CIFAR-10 are fitted to 1,000 training images without labels; 5,000 labelled test images say what is
promised, the other 5,000 what was delivered; `resnet56-500` has 500 without labels for both, and is
asked for more than int8 alone gives. Budgets in milliseconds are given as shares of the
original's measured time in fp32. The table has, for every request, the milliseconds asked for
(those that the plan found, where only a drop was asked for), the median of the file alone, the drop
of top-1 that was promised with its interval, and the drop on the other images ± its standard error.

Plans and answers are kept in out/plan and out/promised and made once; --time times the files of the
answers that there are once more. The machine should have nothing else to do.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.closed_form import CACHE, calibration
from benchmarks.plan import OUT as KEPT
from benchmarks.plan import file_of
from benchmarks.shared import cifar, resnet_cifar, results
from benchmarks.shared.common import ROOT, add_data_argument, print_table, replace_json
from benchmarks.shared.mobilenet_v2 import IMAGES, images, pretrained
from shrinkc.compiler.api.steps.target import cost_table
from shrinkc.compiler.capture import capture
from shrinkc.compiler.depth.closed_form import ClosedForm
from shrinkc.compiler.images.decoded import Images
from shrinkc.compiler.images.tensors import in_parts
from shrinkc.compiler.measure.speedup import alone_ms, host_file
from shrinkc.compiler.plan.drop import Labelled, answers, answers_of_file, promise_of
from shrinkc.compiler.plan.finished_plans import Planned
from shrinkc.compiler.plan.planner import Planner, Planning, prepare_planning
from shrinkc.compiler.support.progress import Terminal
from shrinkc.compiler.tasks.tally import SURE

OUT = ROOT / "out" / "promised"
TARGET = "host"
FITTED = 1000  # CIFAR-10 images
MS, POINTS = 1.05, 0.5  # what is kept: of the milliseconds asked for; of top-1


@dataclass(frozen=True)
class Request:
    """One of: `speedup` over fp32, `share` of the original's milliseconds, `drop` in points."""

    kind: str
    value: float

    @property
    def asked(self) -> dict[str, float]:
        """The field of a row."""
        match self.kind:
            case "speedup":
                return {"asked_speedup": self.value}
            case "share":
                return {"asked_latency": self.value}
            case _:
                return {"asked_drop": self.value / 100}

    @property
    def label(self) -> str:
        return f"{self.kind}-{self.value:g}"

    def planned(self, planner: Planner) -> Planned:
        match self.kind:
            case "speedup":
                return planner.within(planner.before_ms / self.value)
            case "share":
                return planner.within(planner.before_ms * self.value)
            case _:
                return planner.dropping(self.value / 100)


@dataclass(frozen=True, eq=False)
class Network:
    """fitted    images without labels
    promising    labelled ones that the promise is counted on; None: some of `fitted`
    delivering   labelled ones, (inputs, labels) batch by batch
    """

    model: nn.Module
    size: int
    fitted: Images
    promising: Images | None
    delivering: Callable[[], Labelled]


def mobilenet_v2(data: Path) -> Network:
    def others() -> Labelled:
        views, labels = images(data / IMAGES / "validation")
        return zip(in_parts((views,), 10), torch.tensor(labels).split(10), strict=True)

    fitted = replace(calibration(data), labels=None)  # folders are not in the network's order
    return Network(pretrained(data), 224, fitted, None, others)


def on_cifar(model: nn.Module, data: Path, count: int = FITTED) -> Network:
    """Fitted to so many images; every second test image promises, the others judge."""
    seen, test = cifar.images(data)
    promising, delivering = (test.part(torch.arange(start, len(test), 2)) for start in (0, 1))
    assert delivering.labels is not None
    labels = delivering.labels

    def others() -> Labelled:
        for pixels, few in zip(delivering.pixels.split(100), labels.split(100), strict=True):
            yield (delivering.inputs(pixels),), few

    fitted = replace(seen.part(torch.arange(0, len(seen), len(seen) // count)), labels=None)
    return Network(model.eval(), cifar.SIZE, fitted, promising, others)


NETWORKS: dict[str, Callable[[Path], Network]] = {
    "mobilenet_v2": mobilenet_v2,
    "cifar": lambda data: on_cifar(cifar.trained(data)[0], data),
    "resnet56": lambda data: on_cifar(resnet_cifar.pretrained(data), data),
    "resnet56-500": lambda data: replace(
        on_cifar(resnet_cifar.pretrained(data), data, 500), promising=None
    ),
}
USUAL = ("mobilenet_v2", "cifar", "resnet56")
REQUESTS: dict[str, tuple[Request, ...]] = {
    "mobilenet_v2": (
        *(Request("speedup", value) for value in (2.3, 2.6, 3.0)),
        Request("share", 0.36),
    ),
    "cifar": (
        *(Request("speedup", value) for value in (1.5, 1.8, 2.1)),
        *(Request("share", value) for value in (0.6, 0.45)),
        *(Request("drop", value) for value in (0.5, 1.5, 4.0)),
    ),
    "resnet56": (
        *(Request("speedup", value) for value in (1.5, 2.0, 2.5)),
        *(Request("share", value) for value in (0.55, 0.35)),
        *(Request("drop", value) for value in (0.5, 1.5, 4.0)),
    ),
    "resnet56-500": tuple(Request("speedup", value) for value in (4.0, 4.5, 5.0, 6.0)),
}


def planner_of(name: str, data: Path) -> tuple[Planner, Network]:
    network = NETWORKS[name](data)
    graph = capture(network.model, (torch.randn(1, 3, network.size, network.size),))
    planning = Planning(closed=ClosedForm(cache=CACHE / "damages"), folder=KEPT)
    planner = prepare_planning(
        *(graph, network.fitted, cost_table(TARGET), planning),
        held_out=network.promising,
        progress=Terminal(),
    )
    return planner, network


def deliver(name: str, data: Path) -> None:
    """Plans of all requests that have no answer yet, their files and what they lose."""
    left = [one for one in REQUESTS[name] if not _answer(name, one).exists()]
    if not left:
        return
    planner, network = planner_of(name, data)
    (OUT / name).mkdir(parents=True, exist_ok=True)
    (OUT / name / "original.tflite").write_bytes(host_file(planner.original, "fp32", ()))
    for request in left:
        started = time.monotonic()
        planned = request.planned(planner)
        seconds = time.monotonic() - started
        plan, file = planned.plan, file_of(planner, planned)
        _answer(name, request).with_suffix(".tflite").write_bytes(file)
        changed = answers_of_file(file, planned.graph_module, 1)
        delivered = promise_of(answers(planner.original), changed, network.delivering())
        assert plan.promise is not None
        answer = {
            "network": name,
            **request.asked,
            "precision": plan.precision,
            "steps": len(plan.steps),
            "predicted_ms": plan.after_ms,
            "budget_ms": _budget_ms(request, planner, planned),
            "promised": plan.promise.model_dump(exclude={"outputs"}),
            "delivered": delivered.model_dump(exclude={"outputs"}),
            "seconds": seconds,
        }
        replace_json(_answer(name, request), answer)


def _budget_ms(request: Request, planner: Planner, planned: Planned) -> float:
    """What was asked for; where no time was, what the plan says that it takes."""
    if request.kind == "speedup":
        return planner.before_ms / request.value
    if request.kind == "share":
        return planner.before_ms * request.value
    return planner.before_ms / (planned.plan.measured_speedup or planned.plan.speedup)


def time_files(name: str) -> None:
    """Of the answers that there are; before them the original, to be told of a busy machine."""
    original = OUT / name / "original.tflite"
    before_ms = alone_ms(original.read_bytes()) if original.exists() else None
    for request in REQUESTS[name]:
        place = _answer(name, request)
        if place.exists():
            ms = alone_ms(place.with_suffix(".tflite").read_bytes())
            timed = {"measured_ms": ms, "original_ms": before_ms}
            replace_json(place, json.loads(place.read_text()) | timed)


def _answer(name: str, request: Request) -> Path:
    return OUT / name / f"{request.label}.json"


# --- what was kept -------------------------------------------------------------------------------


def kept(row: dict[str, Any]) -> dict[str, bool]:
    """in_time: at most 5% over what was asked for. drop: at most half a point more was lost than
    promised. interval: the drop is inside what was promised with 95% confidence, or half a point
    from it. requested: a drop that was asked for, half a point more."""
    promised, delivered = (100 * row[key]["drop"] for key in ("promised", "delivered"))
    low, high = (100 * end for end in row["promised"]["interval"])
    found = {
        "in_time": row["measured_ms"] <= MS * row["budget_ms"],
        "drop": delivered <= promised + POINTS,
        "interval": low - POINTS <= delivered <= high + POINTS,
    }
    if "asked_drop" in row:
        found["requested"] = delivered <= 100 * row["asked_drop"] + POINTS
    return found


def summary(rows: list[dict[str, Any]]) -> dict[str, str]:
    """Promise → kept of how many."""
    found: dict[str, list[bool]] = {}
    for row in rows:
        for name, was in row["kept"].items():
            found.setdefault(name, []).append(was)
    return {name: f"{sum(all_)} of {len(all_)}" for name, all_ in found.items()}


def rows_of(names: list[str]) -> list[dict[str, Any]]:
    places = [_answer(name, request) for name in names for request in REQUESTS[name]]
    rows = [json.loads(place.read_text()) for place in places if place.exists()]
    timed = [row for row in rows if "measured_ms" in row]
    return [row | {"kept": kept(row)} for row in timed]


def show(rows: list[dict[str, Any]]) -> None:
    header = ("network", "asked", "plan", "budget ms", "predicted", "measured", "over")
    print_table(
        (*header, "promised drop", "95%", "delivered", "kept"),
        [
            (
                row["network"],
                _asked(row),
                f"{row['precision']}, {row['steps']}",
                *(f"{row[key]:.4g}" for key in ("budget_ms", "predicted_ms", "measured_ms")),
                f"{100 * (row['measured_ms'] / row['budget_ms'] - 1):+.1f}%",
                f"{100 * row['promised']['drop']:.2f}",
                " … ".join(f"{100 * end:.1f}" for end in row["promised"]["interval"]),
                f"{100 * row['delivered']['drop']:.2f} "
                f"± {100 * standard_error(row['delivered']):.2f}",
                ", ".join(name for name, was in row["kept"].items() if was),
            )
            for row in rows
        ],
    )
    for name, count in summary(rows).items():
        print(f"{name}: {count}")


def _asked(row: dict[str, Any]) -> str:
    if "asked_speedup" in row:
        return f"{row['asked_speedup']:g}×"
    if "asked_latency" in row:
        return f"{row['budget_ms']:.3g} ms"
    return f"≤ {100 * row['asked_drop']:g} points"


def standard_error(promise: dict[str, Any]) -> float:
    """Of a drop, from its interval with 95% confidence."""
    low, high = promise["interval"]
    return (high - low) / (2 * SURE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_data_argument(parser)
    parser.add_argument(
        "--networks", default=",".join(USUAL), help=f"some of {', '.join(NETWORKS)}"
    )
    parser.add_argument("--time", action="store_true", help="plan nothing, time files anew")
    parser.add_argument("--out", type=Path, default=results.result_path("promised"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    names = arguments.networks.split(",")
    for name in names:
        if not arguments.time:
            deliver(name, arguments.data)
        time_files(name)
    rows = rows_of(names)
    if rows:
        show(rows)
        packages = ("torch", "ai-edge-litert", "ai-edge-quantizer")
        results.write(arguments.out, "promised", rows, packages)


if __name__ == "__main__":
    main()

"""What one compilation did, as `report.json` holds it and `report.html` shows it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any

from shrinkc.compiler.cost.predict import Prediction
from shrinkc.compiler.formats.boundary import Port
from shrinkc.compiler.formats.metadata.description import LABELS, label_file
from shrinkc.compiler.measure.bench import Timing
from shrinkc.compiler.measure.layers import LayerTime
from shrinkc.compiler.pipeline.run import Step
from shrinkc.compiler.quantise.noise import LayerNoise
from shrinkc.compiler.report.html import html_report
from shrinkc.compiler.report.sections import (
    FrontierPoint,
    Judged,
    PlanSection,
    Sections,
    TableSection,
)
from shrinkc.compiler.report.use_model import use_model
from shrinkc.compiler.support.json_values import finite, json_text
from shrinkc.compiler.tasks.classification import CLASSIFICATION
from shrinkc.compiler.tasks.tally import ErrorEstimate, Estimate, Judgement
from shrinkc.compiler.tasks.task import Task
from shrinkc.compiler.verify.files import Artefact
from shrinkc.compiler.verify.signal import OutputSignal
from shrinkc.passes.base import Change, Skip
from shrinkc.version import __version__

SCHEMA = 2
NOT_CAPTURED = "not captured"


@dataclass(frozen=True)
class ArtefactReport:
    """One written file.

    `max_relative_error` is against the network that it was written from, as a share of a channel's
    range (int8: of the output's). Beside the user's network it is judged by `top1` (the task's
    metric, whichever it is), `agreement` on the evaluation images, None where answers are not
    scored, `details` (other metrics, by name), `drop` of the metric, and `errors`, every output's
    over its variance. Times in ms on this machine, memory as `memory_bytes` of memory.py measures
    it; `signal` is the signal to noise (dB) of every output of an int8 file; `inputs` and `outputs`
    are what it reads and returns.
    """

    name: str
    file: str
    bytes: int
    precision: str
    runtime: str
    max_relative_error: float
    top1: float | None = None
    agreement: float | None = None
    bytes_before: int | None = None
    measured_ms: float | None = None
    measured_iqr_ms: float | None = None
    measured_ms_before: float | None = None
    measured_iqr_ms_before: float | None = None
    memory_bytes: int | None = None
    memory_bytes_before: int | None = None
    drop: Estimate | None = None
    errors: tuple[ErrorEstimate, ...] = ()
    signal: tuple[OutputSignal, ...] = ()
    inputs: tuple[Port, ...] = ()
    outputs: tuple[Port, ...] = ()
    details: dict[str, float] = field(default_factory=dict[str, float])


@dataclass(frozen=True)
class Network:
    """The network before or after: graph nodes, multiply-accumulates, bytes of the file in the
    first format."""

    nodes: int
    macs: int | None
    bytes: int | None


@dataclass(frozen=True, repr=False)
class Report:
    """Everything about one compilation. "Before" is the network as a plain converter writes it,
    with batch norm folded, in fp32; `predicted_ms_before_in_precision` is the same network in the
    precision of what was written; `target_format` names the artefact that the target runs;
    `labels` are names of the
    classes, in order, where they are known; `ends` are files of the network and what is done
    behind it; `in_torch` is the network in the files, in PyTorch,
    beside the user's. What else may be there: sections.py."""

    model: str
    target: str
    precision: str
    input_shapes: dict[str, tuple[int, ...]]
    captured_by: str
    before: Network
    after: Network
    predicted_before: Prediction | None
    predicted_after: Prediction | None
    artefacts: tuple[ArtefactReport, ...]
    steps: tuple[Step, ...]
    max_relative_error: float
    target_format: str | None = None
    original_top1: float | None = None
    in_torch: Judgement | None = None
    images: int = 0
    calibration_images: int = 0
    preprocessing: dict[str, Any] | None = None
    host: dict[str, Any] = field(default_factory=dict[str, Any])
    threads: int = 1
    opset: int = 17
    notes: tuple[str, ...] = ()
    failures: tuple[str, ...] = ()
    predicted_ms_before_in_precision: float | None = None
    table: TableSection | None = None
    command: str | None = None
    changed: str | None = None
    judged: Judged | None = None
    plan: PlanSection | None = None
    frontier: tuple[FrontierPoint, ...] = ()
    noise: tuple[LayerNoise, ...] = ()
    measured_layers: tuple[LayerTime, ...] = ()
    task: Task = CLASSIFICATION
    labels: tuple[str, ...] = ()
    ends: tuple[str, ...] = ()

    def extended(self, sections: Sections) -> Report:
        """With what the caller of the compilation knows."""
        return replace(
            self,
            command=sections.command,
            changed=sections.changed,
            judged=sections.judged,
            plan=sections.plan,
            frontier=sections.frontier,
            noise=self.noise or sections.noise,
            notes=(*self.notes, *sections.notes),
        )

    @property
    def files(self) -> tuple[str, ...]:
        """What is written: the own file only of what could be captured."""
        own = () if self.captured_by == NOT_CAPTURED else ("model.safetensors",)
        models = (*(a.file for a in self.artefacts), *self.ends, *own)
        return (*models, *sorted(self.pages(), key=lambda name: not name.startswith("report")))

    def pages(self) -> dict[str, bytes]:
        """`report.json`, `report.html`, `use_model.py` where a file can be run by it, and
        `labels.txt` where class names are known: file name → content."""
        found = self.to_json()
        text, program = json_text(found), use_model(found)
        made = {
            "report.html": html_report(found).encode(),
            "report.json": f"{text}\n".encode(),
        }
        if program is not None:
            made["use_model.py"] = program.encode("utf-8", "backslashreplace")
        if self.labels:
            made[LABELS] = label_file(self.labels)
        return made

    def __repr__(self) -> str:
        files = ", ".join(artefact.file for artefact in self.artefacts)
        return f"Report({self.model} for {self.target} in {self.precision}: {files})"

    def to_json(self) -> dict[str, Any]:
        """Plain dictionaries, lists, finite numbers and strings."""
        found: dict[str, Any] = {
            "schema": SCHEMA,
            "shrinkc": __version__,
            "model": self.model,
            "target": self.target,
            "precision": self.precision,
            "input_shapes": {k: list(v) for k, v in self.input_shapes.items()},
            "captured_by": self.captured_by,
            "predicted_ms_before": _total(self.predicted_before),
            "predicted_ms_after": _total(self.predicted_after),
            "predicted_ms_before_in_precision": self.predicted_ms_before_in_precision,
            "prediction_before": _prediction(self.predicted_before),
            "prediction": _prediction(self.predicted_after),
            "table": _optional(self.table),
            "max_relative_error": self.max_relative_error,
            "task": _task(self.task),
            "labels": list(self.labels),
            "ends": list(self.ends),
            "original_top1": self.original_top1,
            "in_torch": _optional(self.in_torch),
            "before": asdict(self.before),
            "after": asdict(self.after),
            "artefacts": [asdict(a) for a in self.artefacts],
            "target_format": self.target_format,
            "images": self.images,
            "calibration_images": self.calibration_images,
            "preprocessing": self.preprocessing,
            "changes": [_change(s.name, c) for s in self.steps for c in s.changes],
            "skipped": [_skip(s.name, k) for s in self.steps for k in s.skipped],
            "passes": [
                {"name": s.name, "max_error_float64": s.max_error, "seconds": round(s.seconds, 4)}
                for s in self.steps
            ],
            "opset": self.opset,
            "threads": self.threads,
            "host": self.host,
            "notes": list(self.notes),
            "failures": list(self.failures),
            "command": self.command,
            "changed": self.changed,
            "judged": _optional(self.judged),
            "plan": _optional(self.plan),
            "frontier": [asdict(point) for point in self.frontier],
            "noise": [asdict(layer) for layer in self.noise],
            "measured_layers": [asdict(layer) for layer in self.measured_layers],
        }
        return finite(found)


def estimate_json(prediction: Prediction) -> dict[str, Any]:
    """`shrinkc estimate --json`."""
    layers = [
        {"name": x.name, "op": x.op, "ms": x.ms, "source": x.source, "macs": x.macs}
        for x in prediction.layers
    ]
    return {
        "target": prediction.target,
        "precision": prediction.precision,
        "total_ms": prediction.total_ms,
        "total_ms_low": prediction.total_ms_low,
        "total_ms_high": prediction.total_ms_high,
        "overhead_ms": prediction.overhead_ms,
        "macs": prediction.macs,
        "layers": layers,
        "unpriced": dict(prediction.unpriced),
        "notes": list(prediction.notes),
    }


def artefact_report(
    artefact: Artefact,
    *,
    precision: str,
    max_relative_error: float,
    judgement: Judgement,
    timings: tuple[Timing, Timing] | None,
    memory: tuple[int | None, int | None] = (None, None),
    size_before: int | None = None,
    signal: tuple[OutputSignal, ...] = (),
) -> ArtefactReport:
    """`timings` and `memory` are (before, after); sizes in bytes."""
    before, after = timings or (None, None)
    return ArtefactReport(
        name=artefact.name,
        file=artefact.format.file,
        bytes=len(artefact.data),
        precision=precision,
        runtime=artefact.runner.runtime,
        max_relative_error=max_relative_error,
        top1=judgement.score,
        agreement=judgement.agreement,
        drop=judgement.drop,
        errors=judgement.errors,
        details=judgement.details,
        bytes_before=size_before,
        measured_ms=after.median_ms if after else None,
        measured_iqr_ms=after.iqr_ms if after else None,
        measured_ms_before=before.median_ms if before else None,
        measured_iqr_ms_before=before.iqr_ms if before else None,
        memory_bytes=memory[1],
        memory_bytes_before=memory[0],
        signal=signal,
        inputs=artefact.boundary.inputs,
        outputs=artefact.boundary.outputs,
    )


def _task(task: Task) -> dict[str, str]:
    return {
        **{"name": task.name, "metric": task.metric, "unit": task.unit},
        **{"style": task.style, "likeness": task.likeness},
    }


def _total(prediction: Prediction | None) -> float | None:
    return None if prediction is None else prediction.total_ms


def _prediction(prediction: Prediction | None) -> dict[str, Any] | None:
    return None if prediction is None else estimate_json(prediction)


def _optional(
    section: TableSection | Judged | PlanSection | Judgement | None,
) -> dict[str, Any] | None:
    return None if section is None else asdict(section)


def _change(name: str, change: Change) -> dict[str, Any]:
    return {"pass": name, **asdict(change)}


def _skip(name: str, skip: Skip) -> dict[str, Any]:
    return {"pass": name, "node": skip.node, "reason": skip.reason}

"""What shrinkc itself wrote earlier: plans, reports, checkpoints."""

from __future__ import annotations

import copy
import io
import json
from collections.abc import Iterator
from contextlib import redirect_stdout
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import archives
import mutate
import pickles
import sample_reports
import torch
from reader import Files, Reader
from training_examples import FAST, images, net

from readers.models import block, graphs
from shrinkc.compiler.api.compare import Compared, _report  # pyright: ignore[reportPrivateUsage]
from shrinkc.compiler.capture import capture
from shrinkc.compiler.cli.show.compare import comparison, comparison_json
from shrinkc.compiler.images.decoded import Data
from shrinkc.compiler.pipeline.deployed import deployed
from shrinkc.compiler.plan.plan_file import Plan, plan_files, read_plan
from shrinkc.compiler.plan.replay import changed_tensors, model_digest, replay
from shrinkc.compiler.train.settings.config import Keeping, Training
from shrinkc.compiler.train.state import load_weights
from shrinkc.compiler.train.train import train
from shrinkc.errors import ShrinkcError
from shrinkc.passes.analysis.channels.channel_groups import channel_groups
from shrinkc.passes.analysis.linear.spans import find_spans

# --- plans ---------------------------------------------------------------------------------------


def _steps() -> Iterator[dict[str, Any]]:
    graph = deployed(graphs()[1])
    for span in find_spans(graph).spans:
        for kind in ("merge", "drop", "narrow", "exact"):
            channels = {"channels": 2, "channels_before": 4} if kind == "narrow" else {}
            yield {"kind": kind, "source": span.source, "sink": span.sink, **channels}
    for group in channel_groups(graph).groups:
        kept = list(range(1, group.size))
        numbers = {"channels": len(kept), "channels_before": group.size, "kept": kept}
        yield {"kind": "slice", "source": group.name, "sink": group.name, **numbers}


def _plan(*steps: dict[str, Any]) -> dict[str, Any]:
    return {
        **{"format": 2, "shrinkc": "0.1", "model": model_digest(graphs()[1]), "target": "rpi4"},
        **{"precision": "fp32", "before_ms": 2.0, "after_ms": 1.0, "steps": list(steps)},
        **{"promise": None, "ranges": {"input_1": [-1.0, 1.0]}, "keep_fp32": []},
    }


@cache
def _smaller() -> Any:
    """The network that plans are of, for smaller images."""
    found = capture(block(), (torch.zeros(1, 3, 4, 4),))
    found.load_state_dict(graphs()[1].state_dict())
    return found


@cache
def _plans() -> list[Files]:
    """Those of one step that can be done again, one of none, and one of smaller images."""
    found: list[Files] = []
    resized = _plan() | {"resolution": {"size": [4, 4], "size_before": [6, 6], "loss": 0.1}}
    for told in (_plan(), resized, *map(_plan, _steps())):
        plan = Plan.model_validate_json(json.dumps(told))
        try:
            original, changed = replay(graphs()[1], plan, {}, _smaller())
        except ShrinkcError:
            continue
        tensors = {k: v.clone() for k, v in changed_tensors(original, changed).items()}
        found.append(plan_files(plan, tensors))
    return found


def _changed_plan(rng: Random, files: Files) -> Files:
    found = dict(files)
    if rng.random() < 0.2:
        name = rng.choice(list(found))
        found[name] = mutate.data(rng, found[name])
        return found
    plan = json.loads(found["plan.json"])
    words = ("merge", "drop", "narrow", "slice", "exact", "int8", 2, 3, 4)
    steps = [json.loads(one["plan.json"])["steps"] for one in _plans()]
    if rng.random() < 0.6:
        plan["steps"] += rng.choice(steps)
    found["plan.json"] = mutate.json_bytes(rng, mutate.tree(rng, plan, words))
    return found


def _replay(folder: Path) -> None:
    plan, tensors = read_plan(folder)
    _, graph = replay(graphs()[1], plan, tensors, _smaller())
    (shape,) = graph.meta["input_shapes"].values()
    with torch.no_grad():
        graph(torch.zeros(shape))


# --- reports -------------------------------------------------------------------------------------


def _reports() -> list[Files]:
    reports = (sample_reports.plain(), sample_reports.rich())
    return [{"report.json": json.dumps(one).encode()} for one in reports]


def _changed_report(rng: Random, files: Files) -> Files:
    report = mutate.tree(rng, json.loads(files["report.json"]))
    return {"report.json": mutate.json_bytes(rng, report)}


def _compare(folder: Path) -> None:
    """With itself, as the command shows it."""
    report = _report(folder)
    found = Compared((folder, folder), (report, copy.deepcopy(report)), {})
    shown = io.StringIO()
    with redirect_stdout(shown):
        comparison(found)
    json.dumps(comparison_json(found))
    assert "\x1b" not in shown.getvalue(), "an escape code is printed"


# --- checkpoints ---------------------------------------------------------------------------------

_SETTINGS = Training(epochs=1, batch=8, optimiser=FAST)


def _train(folder: Path) -> None:
    train(net(), Data(images(8)), _SETTINGS, keeping=Keeping(folder))


@cache
def _checkpoints() -> list[Files]:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        _train(Path(folder))
        return [{name: Path(folder, name).read_bytes() for name in ("last.pt", "log.jsonl")}]


def _changed_checkpoint(rng: Random, files: Files) -> Files:
    found = dict(files)
    if rng.random() < 0.2:
        found["log.jsonl"] = mutate.text(rng, found["log.jsonl"])
        return found
    checkpoint = found["last.pt"]
    if rng.random() < 0.4:
        found["last.pt"] = archives.changed(rng, checkpoint)
    elif rng.random() < 0.5:
        pickle = pickles.changed(rng, archives.content(checkpoint, "data.pkl"))
        found["last.pt"] = archives.repacked(checkpoint, {"data.pkl": pickle})
    else:
        found["last.pt"] = _other_values(rng, checkpoint)
    return found


def _other_values(rng: Random, checkpoint: bytes) -> bytes:
    """The same containers with other numbers, texts and keys."""
    state = torch.load(io.BytesIO(checkpoint), weights_only=True)
    place, key = state, rng.choice(list(state))
    while isinstance(place[key], dict) and place[key] and rng.random() < 0.7:
        place = place[key]
        key = rng.choice(list(place))
    action = rng.randrange(3)
    if action == 0:
        del place[key]
    elif action == 1 and isinstance(place[key], torch.Tensor):
        place[key] = rng.choice(
            (place[key].flatten()[:1], place[key].int(), place[key] * float("nan"))
        )
    else:
        place[key] = rng.choice((*mutate.NUMBERS, "", None, [], {}, torch.zeros(2)))
    stream = io.BytesIO()
    torch.save(state, stream)
    return stream.getvalue()


def _resume(folder: Path) -> None:
    _train(folder)
    load_weights(net(), folder / "last.pt")


READERS = (
    Reader("plan", _plans, _changed_plan, _replay),
    Reader("report", _reports, _changed_report, _compare),
    Reader("checkpoint", _checkpoints, _changed_checkpoint, _resume),
)

"""Plans that are finished, kept in a folder: a run that was stopped goes on there."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from torch import Tensor, fx

from shrinkc.compiler.plan.plan_file import FORMAT, NAME, Plan, plan_files, read_plan
from shrinkc.compiler.plan.replay import replay
from shrinkc.compiler.quantise.noise import LayerNoise
from shrinkc.compiler.support.atomic_files import atomic_folder
from shrinkc.compiler.support.journal import digest_of
from shrinkc.compiler.support.reading.regular_file import read_regular
from shrinkc.compiler.support.reading.strict_json import parse_json
from shrinkc.errors import InputError, LoadError

NOISE = "noise.json"  # beside a plan: for the report of a run that goes on
MOST_BYTES = 16 << 20


@dataclass(frozen=True, eq=False)
class Planned:
    """A plan and its network. `noise`: of every layer in int8; none where a plan file was read."""

    plan: Plan
    tensors: dict[str, Tensor]
    graph_module: fx.GraphModule
    noise: tuple[LayerNoise, ...] = ()


@dataclass(frozen=True, eq=False)
class FinishedPlans:
    """Plans for one network by what was asked, of this run and, in a folder, of earlier ones.

    folder    None: nothing is kept
    settings  everything else that plans depend on
    smaller   the network for smaller images, where plans are for those
    """

    folder: Path | None
    captured: fx.GraphModule
    settings: tuple[object, ...]
    smaller: fx.GraphModule | None = None
    _here: dict[str, Planned] = field(default_factory=dict[str, Planned])

    def get(self, name: str) -> Planned | None:
        place = self._place
        if name not in self._here and place is not None and (place / name / NAME).exists():
            with suppress(InputError, LoadError):  # damaged: it is planned again
                plan, tensors = read_plan(place / name)
                graph = replay(self.captured, plan, tensors, self.smaller)[1]
                noise = _noise(place / name / NOISE)
                self._here[name] = Planned(plan, tensors, graph, noise)
        return self._here.get(name)

    def put(self, name: str, planned: Planned) -> None:
        self._here[name] = planned
        if self._place is not None:
            with atomic_folder(self._place / name) as folder:
                for file, content in plan_files(planned.plan, planned.tensors).items():
                    (folder / file).write_bytes(content)
                told = [(one.layer, str(one.snr_db), one.precision) for one in planned.noise]
                (folder / NOISE).write_text(json.dumps(told), "utf-8")

    def all(self) -> dict[str, Plan]:
        """What was asked → the plan."""
        kept = [] if self._place is None else sorted(self._place.glob(f"*/{NAME}"))
        found: dict[str, Plan] = {}
        for path in kept:
            with suppress(LoadError):
                found[path.parent.name] = read_plan(path)[0]
        return found | {name: planned.plan for name, planned in self._here.items()}

    @cached_property
    def _place(self) -> Path | None:
        if self.folder is None:
            return None
        return self.folder / digest_of(self.captured, str((FORMAT, *self.settings)))


def _noise(path: Path) -> tuple[LayerNoise, ...]:
    """Raises LoadError where it is missing or damaged."""
    try:
        told = parse_json(read_regular(path, MOST_BYTES))
        return tuple(LayerNoise(str(layer), float(db), str(as_)) for layer, db, as_ in told)
    except (OSError, ValueError, TypeError) as error:
        raise LoadError(f"{path}: damaged") from error

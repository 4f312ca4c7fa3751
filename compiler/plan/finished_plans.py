"""Plans that are finished, kept in a folder: a run that was stopped goes on there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, fx

from shrinkc.compiler.plan.plan_file import Plan, plan_files, read_plan
from shrinkc.compiler.plan.replay import replay
from shrinkc.compiler.quantise.noise import LayerNoise
from shrinkc.compiler.support.atomic_files import atomic_folder
from shrinkc.compiler.support.journal import digest_of


@dataclass(frozen=True, eq=False)
class Planned:
    """A plan and its network. `noise`: of every layer in int8, where the plan was made just now."""

    plan: Plan
    tensors: dict[str, Tensor]
    graph_module: fx.GraphModule
    noise: tuple[LayerNoise, ...] = ()


@dataclass(frozen=True, eq=False)
class FinishedPlans:
    """Plans for one network by what was asked. `settings`: everything else that they depend on.
    `folder`: None: nothing is kept."""

    folder: Path | None
    captured: fx.GraphModule
    settings: tuple[object, ...]

    def get(self, name: str) -> Planned | None:
        place = self._place(name)
        if place is None or not (place / "plan.json").exists():
            return None
        plan, tensors = read_plan(place)
        return Planned(plan, tensors, replay(self.captured, plan, tensors)[1])

    def put(self, name: str, planned: Planned) -> None:
        place = self._place(name)
        if place is not None:
            with atomic_folder(place) as folder:
                for file, content in plan_files(planned.plan, planned.tensors).items():
                    (folder / file).write_bytes(content)

    def _place(self, name: str) -> Path | None:
        if self.folder is None:
            return None
        return self.folder / digest_of(self.captured, str((name, *self.settings)))

"""The methods of benchmarks.methods_cifar, and how each is asked for from Python.

A new method is one line of ROWS. Every method is handed the same `Assignment` and gives back a
trained network. What it trains before its last training comes out of the same number of epochs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, fx, nn

import shrinkc
from benchmarks.converters import Peer
from benchmarks.prune_accuracy import by_peer, nearest
from benchmarks.shared import cifar
from benchmarks.shared.tuning_cifar import deployed
from shrinkc.compiler.cost.goal import Goal, GoalKind
from shrinkc.compiler.cost.keys import macs
from shrinkc.compiler.depth.trained import Trained
from shrinkc.compiler.export.lower import lower
from shrinkc.compiler.images.decoded import Images
from shrinkc.compiler.measure.speedup import measuring
from shrinkc.compiler.recover.recipe import Recipe, trainer_for
from shrinkc.compiler.support.choices import DepthMethod, Precision, Scratch
from shrinkc.compiler.support.journal import digest_of
from shrinkc.compiler.support.progress import Terminal
from shrinkc.compiler.support.text import counted
from shrinkc.compiler.width.allocation import Allocation
from shrinkc.compiler.width.prune import Pruning
from shrinkc.compiler.width.search.methods import Search
from shrinkc.compiler.width.search.methods import method_of as search_of
from shrinkc.errors import InputError
from shrinkc.passes.analysis.channels.channel_groups import channel_groups

MULTIPLE = 4  # channels, of which layers have 16 and more
CHAINS = 1.0  # hidden channels, over inputs
ROUNDS = 5  # of pruning and training in turn, at most
PEER = Peer("torch-pruning", "prune_cifar", "")


@dataclass(frozen=True)
class Length:
    """A budget, the same for all methods.

    networks     that it is meant for
    images       that are trained on
    epochs       of all trainings of a method together
    choosing     of them, for methods that train before their last training
    trial_steps  before an option's importance is judged, besides
    evaluations  of a search, at most; None: as many as published
    every        steps between removals while a network is trained
    base         share of the epochs that make the originals
    """

    networks: tuple[str, ...]
    images: int
    epochs: int
    choosing: int
    batch: int
    trial_steps: int
    evaluations: int | None
    every: int
    base: float = 1.0


@dataclass(frozen=True)
class Aim:
    """What a network is to become. `beside`: of a search for several goals, the other one."""

    name: str
    of: Literal["width", "depth"]
    kind: GoalKind
    value: float
    precision: Precision
    beside: float

    def goal(self, int8_alone: float) -> Goal:
        """int8 is compared with int8: shrinkc counts from fp32, than which int8 is faster."""
        times = int8_alone if self.precision == "int8" else 1.0
        return Goal(self.kind, times * self.value)


AIMS = (
    Aim("half-macs", "width", "macs", 0.5, "fp32", 0.7),
    Aim("width-1.5x", "width", "speedup", 1.5, "fp32", 1.25),
    Aim("depth-1.5x", "depth", "speedup", 1.5, "int8", 1.25),
    Aim("depth-2x", "depth", "speedup", 2.0, "int8", 1.5),
)


@dataclass(frozen=True, eq=False)
class Assignment:
    """What every method is given.

    base        captured, batch norms as they are; `state`: its state dict, for other tools
    int8_alone  its speed in int8 over fp32, measured
    looked      images for criteria, searches and calibration; `train`: those to train on
    folder      keeps what a method needs to go on
    """

    network: str
    base: fx.GraphModule
    state: Path
    int8_alone: float
    looked: Images
    train: Images
    aim: Aim
    length: Length
    rate: float
    seed: int
    folder: Path
    venvs: Path | None

    @property
    def goal(self) -> Goal:
        return self.aim.goal(self.int8_alone)

    def recipe(self, before: int = 0, each: int | None = None, **more: Any) -> Recipe:
        """`before`: epochs that are spent before the last training, `each` at a time."""
        return Recipe(
            epochs=self.length.epochs - before,
            search_epochs=each,
            batch=self.length.batch,
            learning_rate=self.rate,
            seed=self.seed,
            **more,
        )


def tensors(images: Images) -> tuple[Tensor, Tensor]:
    """As functions of shrinkc take them."""
    assert images.labels is not None
    return images.inputs(images.pixels).contiguous(), images.labels


@dataclass(frozen=True)
class Width:
    """By `shrinkc.prune`.

    looks  at images, for scores, compensation or a search
    learns in a training of its own, before the last one
    turns  pruning and training in turn: "rounds" or one group after the other
    chains hidden channels of chains beside what was pruned, over inputs, in the last training
    more   arguments of `shrinkc.prune`
    """

    criterion: str = "l1"
    looks: bool = False
    learns: bool = False
    turns: Literal["rounds", "groups"] | None = None
    search: str | None = None
    every: bool = False
    chains: float = 0.0
    scratch: Scratch | None = None
    allocation: Mapping[str, Any] = field(default_factory=dict[str, Any])
    more: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def __call__(self, given: Assignment) -> fx.GraphModule:
        times, each = self._trainings(given)
        looks = {"limit": len(given.looked)} if self.looks else {}
        if self.looks or given.aim.kind == "speedup":
            looks["images"] = tensors(given.looked)
        if given.aim.kind == "speedup":
            looks |= {"target": "host", "precision": given.aim.precision, "runs": 0}
        if self.every:
            looks["every"] = given.length.every
        pruned = shrinkc.prune(
            given.base,
            goal=given.goal,
            criterion=self.criterion,
            method=self._search(given),
            train=tensors(given.train),
            options=Pruning(
                Allocation(multiple=MULTIPLE, **self.allocation),
                rounds=times + 1 if self.turns == "rounds" else 1,
                recipe=given.recipe(each * times, each or None, chain_ratio=self.chains),
                from_scratch=self.scratch,
                one_by_one=self.turns == "groups",
            ),
            folder=given.folder,
            progress=True,
            **looks,
            **self.more,
        )
        return pruned.graph_module

    def _trainings(self, given: Assignment) -> tuple[int, int]:
        """Before the last one: how many, and their epochs. Raises InputError for less than one."""
        most = given.length.choosing
        if self.turns is None:
            return (1, most) if self.learns else (0, 0)
        groups = len(channel_groups(given.base).groups)
        times = min(ROUNDS - 1, most) if self.turns == "rounds" else groups
        if most < times:
            raise InputError(f"trains behind each of {times} groups, in {counted(most, 'epoch')}")
        return times, most // times

    def _search(self, given: Assignment) -> Search | None:
        if self.search is None:
            return None
        method, most = search_of(self.search), given.length.evaluations
        published = method.evaluations or most
        evaluations = None if most is None or published is None else min(most, published)
        return Search(self.search, evaluations, (given.aim.beside,) if method.several else ())


@dataclass(frozen=True)
class Depth:
    """By `shrinkc.shrink`.

    learns   what goes, in a training before the last one
    tries    every option for a few steps; `mimics`: features, for as many
    chains   as of Width
    options  of `Trained`; `more`: arguments of `shrinkc.shrink`
    """

    method: DepthMethod
    learns: bool = False
    tries: bool = False
    mimics: bool = False
    chains: float = 0.0
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    more: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def __call__(self, given: Assignment) -> fx.GraphModule:
        length = given.length
        steps = {"steps": length.trial_steps}
        tried, mimicked = (steps if asked else {} for asked in (self.tries, self.mimics))
        spent = (length.choosing, length.choosing) if self.learns else ()
        shrunk = shrinkc.shrink(
            given.base,
            target="host",
            precision=given.aim.precision,
            goal=given.goal,
            method=self.method,
            images=tensors(given.looked),
            train=tensors(given.train),
            options=Trained(given.recipe(*spent, chain_ratio=self.chains, **tried), **self.options),
            runs=0,
            folder=given.folder,
            progress=True,
            **mimicked,
            **self.more,
        )
        return shrunk.graph_module


@dataclass(frozen=True)
class TorchPruning:
    """In an environment of its own; of its networks at many ratios the one nearest to the goal,
    trained as all others. `sparse`: after a training with its penalty."""

    importance: str
    sparse: bool = False

    def __call__(self, given: Assignment) -> fx.GraphModule:
        assert given.venvs is not None
        spent = given.length.choosing if self.sparse else 0
        folder = given.folder / PEER.name / (f"{given.rate:g}" if self.sparse else "any rate")
        if not folder.exists():
            images = [self._training(given, spent)] if self.sparse else []
            told = (given.network, given.state, self.importance, *images)
            by_peer(PEER, given.venvs, folder, *map(str, told))
            for path in images:
                path.unlink()
        graph = cifar.captured(self._nearest(given, folder))
        run = digest_of(graph, f"{given.rate}")[:12]
        work = given.folder, run, Terminal()
        trainer = trainer_for(given.train, given.base, given.recipe(spent), *work)
        trainer.fit(graph.train(), "fine-tuning", given.length.epochs - spent)
        return graph.eval()

    def _training(self, given: Assignment, epochs: int) -> Path:
        x, labels = tensors(given.train)
        told = {"images": x, "labels": labels, "epochs": epochs, "batch": given.length.batch}
        given.folder.mkdir(parents=True, exist_ok=True)
        path = given.folder / "training.pt"
        torch.save(told | {"rate": given.rate, "seed": given.seed}, path)
        return path

    def _nearest(self, given: Assignment, folder: Path) -> nn.Module:
        aim, original = given.aim, deployed(given.base)
        beside = measuring(original, 1.0, aim.precision, ())

        def cost(model: nn.Module) -> float:
            graph = deployed(cifar.captured(model))
            if aim.kind == "macs":
                return macs(lower(graph)) / macs(lower(original))
            return beside(graph)

        return nearest(folder, cost, aim.value if aim.kind == "macs" else 1 / aim.value)


@dataclass(frozen=True)
class Row:
    """`cost`: of its choosing, in trainings, for the cheapest rows are made first; `equal`: whether
    it trains for as many epochs as all others."""

    method: str
    of: Literal["width", "depth"]
    make: Callable[[Assignment], fx.GraphModule]
    cost: int = 0
    by: str = "ours"
    equal: bool = True


SHORTCUTS = {"drop_below": 1e-3}
MEASURED = {"normalise": "measured"}
WIDTH = (
    Row("random", "width", Width("random")),
    Row("L1", "width", Width()),
    Row("L1, compensated", "width", Width(looks=True, more={"compensate": True})),
    Row("Pruning Filters", "width", Width(looks=True, allocation={"kind": "sensitivity"}), 1),
    Row("Network Slimming", "width", Width("slimming", learns=True), 1),
    Row("SSL", "width", Width("ssl", learns=True, more=SHORTCUTS), 1),
    Row("DepGraph's group sparsity", "width", Width("group-sl", learns=True), 1),
    Row("Channel Pruning", "width", Width("he", looks=True, more={"in_order": True}), 1),
    Row("He 2017, measured", "width", Width("he", looks=True, allocation=MEASURED), 1),
    Row("CaP", "width", Width("cap", looks=True, allocation={"kind": "search"}), 2),
    Row("HRank", "width", Width("hrank", looks=True, turns="groups"), 1),
    Row("HRank, at once", "width", Width("hrank", looks=True)),
    Row("DropNet, weights kept", "width", Width("dropnet", looks=True, turns="rounds"), 1),
    Row("Group Fisher", "width", Width("group-fisher", looks=True, learns=True, every=True), 1),
    Row("Group Fisher, at once", "width", Width("group-fisher", looks=True)),
    Row(
        *("Group Fisher, compensated, measured", "width"),
        Width("group-fisher", looks=True, allocation=MEASURED, more={"compensate": True}),
        cost=1,
    ),
    Row("ABCPruner, repaired", "width", Width(looks=True, search="abc"), 2),
    Row("GA + KD", "width", Width(looks=True, search="ga"), 3),
    Row("AMC", "width", Width(looks=True, search="amc"), 3),
    Row("CACP", "width", Width(looks=True, search="cacp"), 4),
    Row("DMCP", "width", Width(looks=True, learns=True, search="dmcp"), 4),
    Row("MetaPruning", "width", Width(looks=True, learns=True, search="meta"), 5),
    Row("UCP + MSEB", "width", Width("mseb", learns=True), 1),
)
DEPTH = (
    Row("uniform width", "depth", Width(allocation={"kind": "uniform"})),
    Row("closed form", "depth", Depth("closed-form", more={"steps": 0}), 1),
    Row("DepthShrinker", "depth", Depth("depthshrinker", learns=True), 1),
    Row(
        *("DepthShrinker, random blocks", "depth"),
        Depth("depthshrinker", options={"search": "random"}),
    ),
    Row(
        *("DepthShrinker, uniform blocks", "depth"),
        Depth("depthshrinker", options={"search": "uniform"}),
    ),
    Row(
        *("DepthShrinker, annealed", "depth"),
        Depth("depthshrinker", learns=True, options={"anneal": 0.5}),
        cost=1,
    ),
    Row("Layer Folding", "depth", Depth("layer-folding", learns=True), 1),
    Row("Practise", "depth", Depth("practise", mimics=True), 2),
    Row("layer pruning", "depth", Depth("layer-pruning", tries=True), 2),
    Row("LayerMerge", "depth", Depth("layermerge", tries=True), 3),
    Row("two-stage DP", "depth", Depth("two-stage-dp", tries=True), 4),
)
THEIRS = (
    Row("group_norm", "width", TorchPruning("group-norm"), by=PEER.name),
    Row("group_norm, uniform", "width", TorchPruning("group-norm-uniform"), by=PEER.name),
    Row("group_sl", "width", TorchPruning("group-sl", sparse=True), 1, PEER.name),
    Row("group_sl, uniform", "width", TorchPruning("group-sl-uniform", sparse=True), 1, PEER.name),
)
CONTROLS = (  # Rethinking's, in the shapes that these methods end in
    Row("L1, Scratch-E", "width", Width(scratch="E")),
    Row("L1, Scratch-B", "width", Width(scratch="B"), equal=False),
    Row("UCP + MSEB, Scratch-E", "width", Width("mseb", learns=True, scratch="E"), 1),
)


def chained(row: Row) -> Row:
    """The same with an over-parameterised last training, which takes some times as long."""
    assert isinstance(row.make, Width | Depth)
    make = replace(row.make, chains=CHAINS)
    return replace(row, method=f"{row.method} + chains", make=make, cost=row.cost + 3)


OURS = (*WIDTH, *DEPTH)
ROWS = (*OURS, *THEIRS, *CONTROLS, *map(chained, OURS))

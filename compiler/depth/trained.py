"""Shrinking depth with training, by the published methods.

depthshrinker  masks and weights are learned together, then fine-tuned (Fu et al., 2022)
two-stage-dp   importance of every span by training, the best set under the budget exactly
               (Kim et al., 2023)
layermerge     also convolutions that become the identity, and blocks that go (Kim et al., 2024)
layer-pruning  whole residual blocks go: what the others must beat
expand         nothing gets faster: convolutions become inverted residuals, are trained and merged
               back (Fu et al., 2022)

All of them end alike: padding moved to the spans' sources, an activation behind each span,
self-distillation from the network as it was, an exact merge, of what is linear besides, too. What
that saves anyway is saved before options are chosen.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch import fx, nn

from shrinkc.compiler.cost.budget import (
    check_reachable,
    measured_within,
    predicted_ms,
    predicted_within,
    price_of,
)
from shrinkc.compiler.cost.goal import SHRINK_GOALS, Goal, missing
from shrinkc.compiler.cost.predict import CostTable
from shrinkc.compiler.depth.gates import learn, search_space
from shrinkc.compiler.depth.options import DepthOption, Move, depth_options
from shrinkc.compiler.depth.select import most, select
from shrinkc.compiler.depth.surgery import DepthPlan, Prepared, finish, finished_ms, prepare, union
from shrinkc.compiler.depth.trials import damages
from shrinkc.compiler.images.decoded import Images
from shrinkc.compiler.pipeline.deployed import Network, merged, merged_shape, network
from shrinkc.compiler.pipeline.run import run_exact_passes
from shrinkc.compiler.recover.recipe import Recipe, Trainer, trainer_for
from shrinkc.compiler.support.journal import digest_of
from shrinkc.compiler.support.progress import Progress, Silent
from shrinkc.compiler.tasks.classification import CLASSIFICATION
from shrinkc.compiler.tasks.task import Task
from shrinkc.compiler.train.log import Row as LogRow
from shrinkc.errors import InputError
from shrinkc.passes.analysis.linear.spans import activations
from shrinkc.passes.base import Skip, copy_graph
from shrinkc.passes.ir import module_of
from shrinkc.passes.layers.expand_convs import ExpandConvs

ATTEMPTS = 20  # to meet the budget by the whole network's own prediction


@dataclass(frozen=True)
class TrainedMethod:
    """`moves`: what may happen to a span. `masked`: masks are learned together with the weights;
    otherwise each option is tried alone and the best set found."""

    name: str
    moves: tuple[Move, ...]
    masked: bool = False


DEPTHSHRINKER = TrainedMethod("depthshrinker", ("merge",), masked=True)
TWO_STAGE_DP = TrainedMethod("two-stage-dp", ("merge",))
LAYERMERGE = TrainedMethod("layermerge", ("merge", "identity", "drop"))
LAYER_PRUNING = TrainedMethod("layer-pruning", ("drop",))
TRAINED_METHODS = (DEPTHSHRINKER, TWO_STAGE_DP, LAYERMERGE, LAYER_PRUNING)


@dataclass(frozen=True)
class Trained:
    """Options beside the recipe.

    per_activation           a mask for every activation of its own (depthshrinker)
    expand_ratio             hidden channels of the blocks that "expand" makes, over their inputs
    keep_blocks, keep_ratio  how many blocks, or which share of them, keep their activations:
                             instead of a goal (depthshrinker)
    """

    recipe: Recipe = field(default_factory=Recipe)
    per_activation: bool = False
    expand_ratio: float = 2.0
    keep_blocks: int | None = None
    keep_ratio: float | None = None

    def __post_init__(self) -> None:
        if self.keep_ratio is not None and not 0 <= self.keep_ratio < 1:
            raise InputError(f"`keep_ratio` {self.keep_ratio:g}: give 0 or more, below 1")


@dataclass(frozen=True)
class Taken:
    """One option that was taken; `damage` is NaN where the method does not measure it."""

    option: str
    saving_ms: float
    damage: float

    def __str__(self) -> str:
        saved = f": saves {self.saving_ms:.3g} ms" if self.saving_ms else ""
        known = self.damage == self.damage
        harm = f", alone it raises the loss by {self.damage:.3g}" if known else ""
        return f"{self.option}{saved}{harm}"


@dataclass(frozen=True, eq=False)
class TrainedShrink:
    """The result. `before_ms` and `after_ms` are the table's, the first the original's in fp32."""

    graph_module: fx.GraphModule
    original: fx.GraphModule
    plan: DepthPlan
    before_ms: float
    after_ms: float
    taken: tuple[Taken, ...]
    skipped: tuple[Skip, ...]
    history: tuple[LogRow, ...]

    @property
    def speedup(self) -> float:
        return self.before_ms / self.after_ms


def shrink_trained(
    captured: fx.GraphModule,
    images: Images,
    table: CostTable,
    precision: str,
    method: TrainedMethod,
    goal: Goal | None = None,
    *,
    options: Trained | None = None,
    folder: Path | None = None,
    progress: Progress | None = None,
    measured_ms: Callable[[fx.GraphModule], float] | None = None,
    task: Task = CLASSIFICATION,
) -> TrainedShrink:
    """Shrink a captured network (batch norms as they are in training) and train what is left.

    goal         a speedup or milliseconds; None: `options` say how many blocks stay
    folder       keeps importances and checkpoints: a run that was stopped goes on there
    measured_ms  of a merged network whose numbers mean nothing yet: where the device is at hand,
                 plans meet the budget by it instead of by the table
    task         what the outputs mean

    Raises InputError: no candidate (says why, span by span), a budget that cannot be reached (says
    what can), labels missing; TableError where the table lacks the precision; TrainingError.
    """
    options, progress = options or Trained(), progress or Silent()
    _require_classes(method.name, images, options.recipe, task)
    net, price = network(captured), price_of(table, precision)
    before_ms = predicted_ms(net.folded, table)
    start_ms = predicted_ms(merged_shape(net.folded, price), table, precision)
    key = digest_of(net.graph, f"{method.name} {goal} {options} {images.digest}")[:12]
    teacher = copy_graph(net.graph)
    trainer = trainer_for(images, teacher, options.recipe, folder, key, progress, task=task)
    run = _Run(net, trainer, options, table, precision, before_ms, start_ms, measured_ms)
    found, refused = depth_options(net, price, method.moves)
    if method.masked:
        chosen = run.searched(found, goal)
    elif goal is None:
        raise missing(SHRINK_GOALS)
    else:
        chosen = run.planned(found, goal)
    plan = union(option.plan for option, _ in chosen)
    prepared = prepare(net.graph, plan, run.activation)
    name = f"fine-tuning-{digest_of(prepared.graph, str(plan))[:8]}"
    result = run.trainer.fit(prepared.graph, name, options.recipe.epochs)
    shrunk = merged(finish(prepared), price).graph_module
    return TrainedShrink(
        shrunk,
        net.folded,
        plan,
        before_ms,
        predicted_ms(shrunk, table, precision),
        tuple(Taken(option.label, option.saving_ms, damage) for option, damage in chosen),
        tuple(Skip(r.node, r.reason) for r in refused),
        result.history,
    )


@dataclass(frozen=True, eq=False)
class _Run:
    """What the methods share. `before_ms`: of the original in fp32; `start_ms`: in the precision,
    with what is linear merged."""

    net: Network
    trainer: Trainer
    options: Trained
    table: CostTable
    precision: str
    before_ms: float
    start_ms: float
    measured_ms: Callable[[fx.GraphModule], float] | None

    @property
    def activation(self) -> nn.Module | None:
        """The network's own most frequent one, for behind the merged spans."""
        return common_activation(self.net.graph) if self.options.recipe.activated else None

    def planned(self, found: Sequence[DepthOption], goal: Goal) -> list[tuple[DepthOption, float]]:
        """Importance of each option, then the best set within the budget."""
        budget = self._budget(found, goal)
        damage = damages(self.net, found, self.trainer, self.activation)
        priced = [option.priced(d) for option, d in zip(found, damage, strict=True)]
        chosen, _ = self._within(found, budget, lambda saving: select(priced, saving))
        return [(found[i], damage[i]) for i in chosen]

    def searched(
        self, found: Sequence[DepthOption], goal: Goal | None
    ) -> list[tuple[DepthOption, float]]:
        """Masks learned together with the weights, which `net.graph` keeps."""
        space = search_space(self.net, found, self.options.per_activation)
        epochs = self.options.recipe.search_epochs or self.options.recipe.epochs
        if goal is not None:
            budget = self._budget(space.options, goal)
            even = [1.0] * len(space.units)
            _, saving = self._within(space.options, budget, lambda ms: space.within(ms, even))
            scores = learn(self.net, space, lambda s: space.within(saving, s), self.trainer, epochs)
            chosen, _ = self._within(space.options, budget, lambda ms: space.within(ms, scores))
        else:
            kept = _kept(self.options, len(space.units))
            scores = learn(self.net, space, lambda s: space.keeping(kept, s), self.trainer, epochs)
            chosen = space.keeping(kept, scores)
        return [(space.options[i], float("nan")) for i in chosen]

    def _budget(self, found: Sequence[DepthOption], goal: Goal) -> float:
        budget = goal.among(SHRINK_GOALS).budget(self.before_ms)
        check_reachable(self.before_ms, self.start_ms - _most(found), budget)
        return budget

    def _within(
        self, found: Sequence[DepthOption], budget: float, choose: Callable[[float], list[int]]
    ) -> tuple[list[int], float]:
        """What `choose` takes to save so many milliseconds, as many as bring the whole network
        within the budget; and how many those are."""
        saving, measured_ms = max(0.0, self.start_ms - budget), self.measured_ms
        if measured_ms is not None:
            price = price_of(self.table, self.precision)
            return measured_within(
                choose,
                lambda chosen: measured_ms(
                    merged_shape(finish(self._prepared(found, chosen)), price)
                ),
                (0.0, saving, _most(found)),
                budget,
            )
        return predicted_within(
            choose,
            lambda chosen: finished_ms(self._prepared(found, chosen), self.table, self.precision),
            saving,
            budget,
            ATTEMPTS,
        )

    def _prepared(self, found: Sequence[DepthOption], chosen: Sequence[int]) -> Prepared:
        plan = union(found[i].plan for i in chosen)
        return prepare(self.net.graph, plan, self.activation)


def _most(found: Sequence[DepthOption]) -> float:
    """Milliseconds that all of them save at most."""
    return most([option.priced(0.0) for option in found])


def _kept(options: Trained, units: int) -> int:
    if options.keep_blocks is not None:
        kept = options.keep_blocks
    else:
        if options.keep_ratio is None:
            raise missing(SHRINK_GOALS)
        kept = round(options.keep_ratio * units)
    if not 0 <= kept < units:
        raise InputError(f"`keep_blocks` {kept} of {units}: give 0 to {units - 1}")
    return kept


def common_activation(graph: fx.GraphModule) -> nn.Module:
    """The network's most frequent element-wise one."""
    names = activations(graph)
    modules = [module_of(graph, node) for node in graph.graph.nodes if node.name in names]
    counts = Counter(type(module) for module in modules)
    if not counts:
        return nn.ReLU()
    kind = counts.most_common(1)[0][0]
    return next(m for m in modules if m is not None and type(m) is kind)


# --- expand, train, shrink -----------------------------------------------------------------------


def expand(
    captured: fx.GraphModule,
    images: Images,
    table: CostTable,
    precision: str,
    *,
    layers: Sequence[str] = (),
    options: Trained | None = None,
    folder: Path | None = None,
    progress: Progress | None = None,
    task: Task = CLASSIFICATION,
) -> TrainedShrink:
    """Train a network with inverted residuals beside its convolutions, then merge them back.

    layers  convolutions by node name; none: every one without groups whose kernel is larger
            than 1×1

    Raises as `shrink_trained`; InputError where there is no such convolution.
    """
    options, progress = options or Trained(), progress or Silent()
    _require_classes("expand", images, options.recipe, task)
    net = network(captured)
    recipe = options.recipe
    chosen = tuple(layers) or _dense(net.graph)
    if not chosen:
        raise InputError("nothing to expand: no convolution without groups larger than 1×1")
    key = digest_of(net.graph, f"expand {chosen} {options} {images.digest}")[:12]
    teacher = copy_graph(net.graph)
    trainer = trainer_for(images, teacher, recipe, folder, key, progress, task=task)
    made = ExpandConvs(chosen, options.expand_ratio, common_activation(net.graph), recipe.seed)
    wide, steps = run_exact_passes(net.graph, (made,))
    if steps[0].skipped:
        raise InputError(f"'{steps[0].skipped[0].node}': {steps[0].skipped[0].reason}")
    wide = wide.float().train()
    trainer.fit(wide, "expanded", recipe.search_epochs or recipe.epochs)
    plan = _shrink_back(wide, chosen)
    prepared = prepare(wide.eval(), plan, None)
    result = trainer.fit(prepared.graph, "fine-tuning", recipe.epochs)
    done = merged(finish(prepared), price_of(table, precision)).graph_module
    before, after = predicted_ms(net.folded, table), predicted_ms(done, table, precision)
    taken = tuple(Taken(f"expand '{name}'", 0.0, float("nan")) for name in chosen)
    return TrainedShrink(done, net.folded, plan, before, after, taken, (), result.history)


def _dense(graph: fx.GraphModule) -> tuple[str, ...]:
    return tuple(
        node.name
        for node in graph.graph.nodes
        if isinstance(conv := module_of(graph, node), nn.Conv2d)
        and conv.groups == 1
        and conv.kernel_size != (1, 1)
    )


def _shrink_back(wide: fx.GraphModule, layers: Sequence[str]) -> DepthPlan:
    """All that `ExpandConvs` put in goes, by merging."""
    known = activations(wide)
    removed = [f"{name}_{kind}_act" for name in layers for kind in ("expand", "depthwise")]
    nodes = {node.name: node for node in wide.graph.nodes}
    merged = tuple((nodes[f"{n}_conv"].all_input_nodes[0].name, n) for n in layers)
    return DepthPlan(tuple(n for n in removed if n in known), (), (), merged)


def _require_classes(method: str, images: Images, recipe: Recipe, task: Task) -> None:
    """Raises InputError where there are no class labels to judge options by."""
    if images.labels is None:
        raise labels_missing(method)
    if recipe.loss is not None or not task.classifies:
        why = f"the task is {task.name}" if recipe.loss is None else "`loss` takes their place"
        raise InputError(
            f"`method` {method} judges what it tries by class labels, and {why}",
            "give `method` closed-form, which trains too, with `train`",
        )


def labels_missing(method: str) -> InputError:
    """What to do about it."""
    return InputError(
        f"{method} learns from labels; give `train`, with a folder for every class, or "
        "`labels` when the folders of `images` are classes. `method` closed-form needs none"
    )

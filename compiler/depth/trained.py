"""Shrinking depth with training, by the published methods.

depthshrinker  masks and weights are learned together, then fine-tuned (Fu et al., 2022)
two-stage-dp   importance of every interval by training, which activations stay and where merged
               layers end chosen exactly under the budget (Kim et al., 2023)
layermerge     also convolutions that become the identity (Kim et al., 2024)
layer-folding  activations learn whether they are needed (Dror et al., 2022)
layer-pruning  whole residual blocks go: what the others must beat
expand         nothing gets faster: convolutions become inverted residuals, are trained and merged
               back (Fu et al., 2022)

All of them end alike: padding moved to the spans' sources, an activation behind each span,
self-distillation from the network as it was, an exact merge, of what is linear besides, too. What
that saves anyway is saved before options are chosen.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from torch import fx, nn

from shrinkc.compiler.cost.budget import (
    check_reachable,
    measured_within,
    predicted_ms,
    price_of,
)
from shrinkc.compiler.cost.goal import SHRINK_GOALS, Goal, missing
from shrinkc.compiler.cost.predict import CostTable
from shrinkc.compiler.depth.choices import nothing_to_shrink
from shrinkc.compiler.depth.masks.annealing import annealed, annealing, take_weights
from shrinkc.compiler.depth.masks.depthshrinker import searching, tuning, unlearned
from shrinkc.compiler.depth.masks.gates import Search, learn, search_space
from shrinkc.compiler.depth.masks.layer_folding import learn_alphas, past_threshold, within
from shrinkc.compiler.depth.options import DepthOption, Move, depth_options, depth_spans
from shrinkc.compiler.depth.select import Option, most, select
from shrinkc.compiler.depth.sets.fitting import fitting
from shrinkc.compiler.depth.sets.pricing import priced
from shrinkc.compiler.depth.sets.two_stage import interval_options, layers
from shrinkc.compiler.depth.surgery import (
    DepthPlan,
    Prepared,
    finish,
    finished_ms,
    in_spans,
    prepare,
    union,
)
from shrinkc.compiler.depth.trials import damage, tried
from shrinkc.compiler.images.decoded import Images
from shrinkc.compiler.pipeline.deployed import Network, merged, merged_shape, network
from shrinkc.compiler.pipeline.run import run_exact_passes
from shrinkc.compiler.recover.chains.over_parameterised import fit_over_parameterised
from shrinkc.compiler.recover.recipe import Recipe, Trainer, trainer_for
from shrinkc.compiler.support.checks import check_number
from shrinkc.compiler.support.choices import BlockSearch, Importance
from shrinkc.compiler.support.journal import digest_of
from shrinkc.compiler.support.progress import Progress, Silent
from shrinkc.compiler.tasks.classification import CLASSIFICATION
from shrinkc.compiler.tasks.task import Task
from shrinkc.compiler.train.log import Row as LogRow
from shrinkc.compiler.train.train import Result
from shrinkc.errors import InputError, UnreachableGoalError
from shrinkc.passes.analysis.linear.spans import NoSpan, activations
from shrinkc.passes.analysis.op_spec import Price
from shrinkc.passes.base import Skip, copy_graph
from shrinkc.passes.ir import module_of
from shrinkc.passes.layers.expand_convs import ExpandConvs

Learned = Literal["masks", "alphas"]
ATTEMPTS = 20  # to meet the budget by the whole network's own prediction


@dataclass(frozen=True)
class TrainedMethod:
    """`moves`: what may happen to a span; none: it is an interval of two-stage DP. `learned`: what
    says which activations go, learned together with the weights; without, each option is tried
    alone, its `importance` measured, and the best set found."""

    name: str
    moves: tuple[Move, ...]
    learned: Learned | None = None
    importance: Importance = "loss"


DEPTHSHRINKER = TrainedMethod("depthshrinker", ("merge",), "masks")
TWO_STAGE_DP = TrainedMethod("two-stage-dp", (), importance="accuracy")
LAYERMERGE = TrainedMethod("layermerge", ("merge", "identity"))
LAYER_FOLDING = TrainedMethod("layer-folding", ("merge",), "alphas")
LAYER_PRUNING = TrainedMethod("layer-pruning", ("drop",))
TRAINED_METHODS = (DEPTHSHRINKER, TWO_STAGE_DP, LAYERMERGE, LAYER_FOLDING, LAYER_PRUNING)


@dataclass(frozen=True)
class Trained:
    """Options beside the recipe.

    per_activation           a mask for every activation of its own (depthshrinker)
    expand_ratio             hidden channels of the blocks that "expand" makes, over their inputs
    keep_blocks, keep_ratio  how many blocks, or which share of them, keep their activations:
                             instead of a goal (depthshrinker)
    importance               of what is tried alone; None: as the method is published
    alpha                    how much long intervals are preferred (two-stage-dp; 1: not; the
                             authors take 1.6 for MobileNetV2, 1.2 at width 1.4, 1.4 for VGG-19)
    search                   which blocks give up their activations: as it is learned, or, to
                             compare with, random ones or evenly spread ones (depthshrinker)
    anneal                   share of the epochs of fine-tuning in which activations go little by
                             little; 0: at once
    """

    recipe: Recipe = field(default_factory=Recipe)
    per_activation: bool = False
    expand_ratio: float = 2.0
    keep_blocks: int | None = None
    keep_ratio: float | None = None
    importance: Importance | None = None
    alpha: float = 1.0
    search: BlockSearch = "learned"
    anneal: float = 0.0

    def __post_init__(self) -> None:
        check_number("alpha", self.alpha)
        check_number("anneal", self.anneal)
        if self.anneal > 1:
            raise InputError(f"`anneal` {self.anneal:g}: give a share of the epochs, 0 to 1")
        if self.keep_ratio is not None and not 0 <= self.keep_ratio < 1:
            raise InputError(f"`keep_ratio` {self.keep_ratio:g}: give 0 or more, below 1")


@dataclass(frozen=True)
class Taken:
    """One option that was taken; `damage`, by its `importance`, is NaN where the method does not
    measure it. `alphas`: of its activations, where those are learned."""

    option: str
    saving_ms: float
    damage: float
    importance: Importance = "loss"
    alphas: tuple[float, ...] = ()

    def __str__(self) -> str:
        saved = f": saves {self.saving_ms:.3g} ms" if self.saving_ms else ""
        known = self.damage == self.damage
        does = "raises the loss" if self.importance == "loss" else "lowers the accuracy"
        harm = f", alone it {does} by {self.damage:.3g}" if known else ""
        learned = f", α {', '.join(f'{alpha:.2f}' for alpha in self.alphas)}" if self.alphas else ""
        return f"{self.option}{saved}{harm}{learned}"


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

    goal         a speedup or milliseconds; None: `options` say how many blocks stay, or α does
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
    recipe = tuning(options.recipe) if method.learned == "masks" else options.recipe
    trainer = trainer_for(images, teacher, recipe, folder, key, progress, task=task)
    run = _Run(net, trainer, options, table, precision, before_ms, start_ms, measured_ms)
    found, refused = _options(net, price, method, options.recipe.activated)
    found, unpaid = priced(found, run.cost_ms)
    refused += unpaid
    if not found:
        raise nothing_to_shrink(refused)
    importance = options.importance or method.importance
    alphas: dict[str, float] = {}
    if method.learned == "masks":
        chosen = run.searched(found, goal)
    elif method.learned == "alphas":
        chosen, alphas = run.folded(found, goal)
    elif goal is None:
        raise missing(SHRINK_GOALS)
    else:
        chosen = run.planned(found, goal, importance)
    plan = union(option.plan for option, _ in chosen)
    prepared = prepare(net.graph, plan, run.activation)
    trained, history = run.tuned(prepared, plan, alphas)
    shrunk = merged(finish(trained), price).graph_module
    return TrainedShrink(
        shrunk,
        net.folded,
        plan,
        before_ms,
        predicted_ms(shrunk, table, precision),
        tuple(Taken(o.label, o.saving_ms, harm, importance, _of(o, alphas)) for o, harm in chosen),
        (*(Skip(r.node, r.reason) for r in refused), *_stay(alphas, plan)),
        history,
    )


def _of(option: DepthOption, alphas: Mapping[str, float]) -> tuple[float, ...]:
    return tuple(alphas[name] for name in option.plan.removed if name in alphas)


def _stay(alphas: Mapping[str, float], plan: DepthPlan) -> list[Skip]:
    """Activations that were asked and stay."""
    kept = alphas.keys() - set(plan.removed)
    return [Skip(name, f"its α is {alpha:.2f}") for name, alpha in alphas.items() if name in kept]


def _options(
    net: Network, price: Price, method: TrainedMethod, activated: bool
) -> tuple[list[DepthOption], list[NoSpan]]:
    """What a method chooses from, and why other spans stay."""
    if method.moves:
        return depth_options(net, price, method.moves)
    spans = depth_spans(net)
    found = interval_options(net, spans.spans, price, activated)
    if not found:
        raise nothing_to_shrink(spans.blocked)
    return found, list(spans.blocked)


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
    known: dict[DepthPlan, float] = field(default_factory=dict[DepthPlan, float])

    @property
    def activation(self) -> nn.Module | None:
        """The network's own most frequent one, for behind the merged spans."""
        return common_activation(self.net.graph) if self.options.recipe.activated else None

    def planned(
        self, found: Sequence[DepthOption], goal: Goal, importance: Importance
    ) -> list[tuple[DepthOption, float]]:
        """Importance of each option, then the best set within the budget."""
        budget = goal.among(SHRINK_GOALS).budget(self.before_ms)
        fits = self._reachable(found, budget)
        before, after = tried(self.net, found, self.trainer, self.activation)
        deep, alpha = [layers(self.net.folded, option.span) for option in found], self.options.alpha
        harm = [
            damage(importance, before, *given, alpha) for given in zip(after, deep, strict=True)
        ]
        judged = [option.priced(d) for option, d in zip(found, harm, strict=True)]
        try:
            chosen = self._within(found, judged, budget, lambda ms: select(judged, ms))
        except UnreachableGoalError:
            chosen = fits
        return [(found[i], harm[i]) for i in chosen[0]]

    def searched(
        self, found: Sequence[DepthOption], goal: Goal | None
    ) -> list[tuple[DepthOption, float]]:
        """Masks learned together with the weights, which `net.graph` keeps."""
        space = search_space(self.net, found, self.options.per_activation)
        if goal is not None:
            budget = goal.among(SHRINK_GOALS).budget(self.before_ms)
            fits = self._reachable(space.options, budget)
            saving = fits[1]
            scores = self._scores(space, lambda s: space.within(saving, s))
            judged = space.priced(scores)
            try:
                found_set = self._within(
                    space.options, judged, budget, lambda ms: select(judged, ms)
                )
            except UnreachableGoalError:
                found_set = fits
            chosen = found_set[0]
        else:
            kept = _kept(self.options, len(space.units))
            scores = self._scores(space, lambda s: space.keeping(kept, s))
            chosen = space.keeping(kept, scores)
        return [(space.options[i], float("nan")) for i in chosen]

    def folded(
        self, found: Sequence[DepthOption], goal: Goal | None
    ) -> tuple[list[tuple[DepthOption, float]], dict[str, float]]:
        """Options, and the α of each activation, learned together with the weights, which
        `net.graph` keeps. Nothing is learned where nothing has to go."""
        space, recipe = search_space(self.net, found, per_activation=True), self.options.recipe
        budget, fits = 0.0, [0]
        if goal is not None:
            budget = goal.among(SHRINK_GOALS).budget(self.before_ms)
            fits, _ = self._reachable(space.options, budget)
        if not fits:
            return [], {}
        trainer = replace(self.trainer, recipe=searching(recipe))
        alphas = learn_alphas(self.net, space, trainer, recipe.search_epochs or recipe.epochs)
        if goal is None:
            chosen = past_threshold(space, alphas)
        else:
            judged = space.priced([abs(1 - alpha) for alpha in alphas])
            try:
                chosen, _ = self._within(
                    space.options, judged, budget, lambda ms: within(space, alphas, ms)
                )
            except UnreachableGoalError:
                chosen = fits
        named = {name: alpha for (name,), alpha in zip(space.units, alphas, strict=True)}
        return [(space.options[i], float("nan")) for i in chosen], named

    def _scores(self, space: Search, choose: Callable[[Sequence[float]], list[int]]) -> list[float]:
        """Of the blocks, the more the better they keep their activations."""
        recipe = self.options.recipe
        if self.options.search != "learned":
            return unlearned(self.net.graph, space.units, self.options.search, recipe.seed)
        trainer = replace(self.trainer, recipe=searching(recipe))
        return learn(self.net, space, choose, trainer, recipe.search_epochs or recipe.epochs)

    def tuned(
        self, prepared: Prepared, plan: DepthPlan, alphas: Mapping[str, float]
    ) -> tuple[Prepared, tuple[LogRow, ...]]:
        """Train what will be merged; what goes little by little starts at its α."""
        share, epochs = self.options.anneal, self.options.recipe.epochs
        name = f"fine-tuning-{digest_of(prepared.graph, str(plan))[:8]}"

        def fit(graph: fx.GraphModule) -> Result:
            if not share:
                return self.trainer.fit(graph, name, epochs)
            model = annealed(graph, self.net.graph, plan.removed, alphas)
            result = self.trainer.fit(model, name, epochs, annealing(share))
            take_weights(graph, model)
            return result

        spans = in_spans(prepared)
        graph, result = fit_over_parameterised(self.trainer, prepared.graph, spans, fit)
        return replace(prepared, graph=graph), result.history

    def _reachable(self, found: Sequence[DepthOption], budget: float) -> tuple[list[int], float]:
        """Options that meet the budget, before any is judged, and what they save. Raises
        UnreachableGoalError."""
        even = [option.priced(1.0) for option in found]
        try:
            return self._within(found, even, budget, lambda ms: select(even, ms))
        except UnreachableGoalError as error:
            if self.measured_ms is None and error.fastest_ms is not None:
                check_reachable(self.before_ms, error.fastest_ms, budget)
            raise

    def _within(
        self,
        found: Sequence[DepthOption],
        judged: Sequence[Option],
        budget: float,
        choose: Callable[[float], list[int]],
    ) -> tuple[list[int], float]:
        """What `choose` takes to save so many milliseconds, as many as bring the whole network
        within the budget; and how many those are."""
        saving, measured_ms = max(0.0, self.start_ms - budget), self.measured_ms
        if measured_ms is None:

            def cost_ms(chosen: Sequence[int]) -> float:
                return self.cost_ms(union(found[i].plan for i in chosen))

            return fitting(judged, choose, cost_ms, saving, budget, ATTEMPTS)
        price = price_of(self.table, self.precision)

        def timed_ms(chosen: Sequence[int]) -> float:
            prepared = self._prepared(union(found[i].plan for i in chosen))
            return measured_ms(merged_shape(finish(prepared), price))

        return measured_within(choose, timed_ms, (0.0, saving, most(judged)), budget)

    def cost_ms(self, plan: DepthPlan) -> float:
        """What the table says of the network with a plan carried out."""
        if plan not in self.known:
            prepared = self._prepared(plan)
            self.known[plan] = finished_ms(prepared, self.table, self.precision)
        return self.known[plan]

    def _prepared(self, plan: DepthPlan) -> Prepared:
        return prepare(self.net.graph, plan, self.activation)


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
        "`labels` when the folders of `images` are classes. `method` closed-form and practise need "
        "none"
    )

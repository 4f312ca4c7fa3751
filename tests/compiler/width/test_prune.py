"""Pruning from scores to a trained smaller network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from pass_checks import fingerprint
from prune_doubles import Steps
from small_networks import InvertedResidual, conv
from torch import Tensor, fx, nn

from shrinkc.compiler.api.steps.target import cost_table
from shrinkc.compiler.capture import capture
from shrinkc.compiler.cost.budget import predicted_ms
from shrinkc.compiler.cost.goal import Goal
from shrinkc.compiler.cost.keys import macs
from shrinkc.compiler.export.lower import lower
from shrinkc.compiler.images.decoded import Images
from shrinkc.compiler.recover.recipe import Recipe, Trainer
from shrinkc.compiler.support.choices import Allocated
from shrinkc.compiler.train.train import Result
from shrinkc.compiler.width.allocation import Allocation
from shrinkc.compiler.width.methods import spec_of
from shrinkc.compiler.width.prune import Pruned, Pruning, Stages, channel_multiple, prune
from shrinkc.errors import InputError, UnreachableGoalError, VerificationError
from shrinkc.passes.analysis.channels.channel_groups import Groups, channel_groups
from shrinkc.passes.channels.selection import Selection
from shrinkc.passes.criteria.base import Scores, schedule_of
from shrinkc.passes.criteria.fisher_training import FisherSchedule
from shrinkc.passes.criteria.group_fisher import GROUP_FISHER, GroupFisher
from shrinkc.passes.criteria.magnitude import EqualScores, FilterNorm, RandomScores
from shrinkc.passes.criteria.shared.channel_costs import memory_per_channel
from shrinkc.passes.criteria.spec import Given, Penalty

SIZE, CLASSES = 12, 3


def captured() -> fx.GraphModule:
    torch.manual_seed(0)
    blocks = [InvertedResidual(8, 8, expansion=4)]
    net = nn.Sequential(
        *(conv(3, 8, 3, 2), nn.ReLU6(), *blocks, conv(8, 24, 1), nn.ReLU6()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, CLASSES)),
    )
    for norm in net.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.running_mean, -1, 1)
            nn.init.uniform_(norm.weight, 0.5, 2)
    return capture(net.eval(), (torch.randn(1, 3, SIZE, SIZE),))


def images(labelled: bool = True) -> Images:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(48) % CLASSES
    noise = torch.randint(0, 60, (48, SIZE, SIZE, 3), generator=generator)
    pixels = (noise + 80 * labels[:, None, None, None]).to(torch.uint8)
    return Images(pixels, labels if labelled else None)


EACH = Allocation(multiple=1)
QUICK = Recipe(epochs=1, batch=16)


def run(goal: Goal | None, options: Pruning | None = None, **more: object) -> Pruned:
    options = options or Pruning(EACH)
    return prune(captured(), Steps(), "fp32", FilterNorm(), goal, options=options, **more)  # pyright: ignore


def same(a: fx.GraphModule, b: fx.GraphModule) -> bool:
    x = torch.randn(2, 3, SIZE, SIZE)
    with torch.no_grad():
        return torch.equal(a(x)[0], b(x)[0])


@pytest.mark.parametrize("kind", ["knapsack", "global", "uniform"])
def test_the_whole_network_meets_the_budget(kind: Allocated) -> None:
    graph = captured()
    before = fingerprint(graph)
    options = Pruning(Allocation(kind, multiple=1))
    result = prune(graph, Steps(), "fp32", FilterNorm(), Goal.speedup(1.5), options=options)
    assert fingerprint(graph) == before
    assert result.after_ms == predicted_ms(result.graph_module, Steps(), "fp32")
    assert result.after_ms <= result.before_ms / 1.5
    # the same share of small groups goes in large steps
    assert result.speedup == pytest.approx(1.5, rel=0.35 if kind == "uniform" else 0.07)
    groups = {group.name: group.size for group in channel_groups(result.trainable).groups}
    for width in result.widths:
        assert groups.get(width.group, 1) == width.after <= width.before
    assert any(width.after < width.before for width in result.widths)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in result.graph_module.modules())


def test_a_budget_in_milliseconds() -> None:
    before = run(Goal.speedup(1.2)).before_ms
    assert run(Goal.budget_ms(0.7 * before)).after_ms <= 0.7 * before


def test_shares_of_work_parameters_and_channels() -> None:
    def parameters(graph: fx.GraphModule) -> int:
        return sum(p.numel() for p in graph.parameters())

    def share(result: Pruned, what: object) -> float:
        return what(result.graph_module) / what(result.original)  # pyright: ignore

    assert 0.4 < share(run(Goal.macs(0.5)), lambda g: macs(lower(g))) <= 0.5
    assert 0.4 < share(run(Goal.params(0.5)), parameters) <= 0.5
    widths = run(Goal.channels(0.5)).widths
    assert all(width.after == width.before // 2 for width in widths)


@pytest.mark.parametrize("share", [0.4, 0.45, 0.7, 0.8])
@pytest.mark.parametrize("multiple", [1, 4, 8])
def test_a_share_of_the_channels_is_the_nearest_to_what_was_asked_for(
    share: float, multiple: int
) -> None:
    for width in run(Goal.channels(share), Pruning(Allocation(multiple=multiple))).widths:
        allowed = [*range(multiple, width.before, multiple), width.before]
        apart = [abs(one - share * width.before) for one in allowed]
        assert abs(width.after - share * width.before) == min(apart)
    for kind in ("knapsack", "global"):
        widths = run(Goal.channels(share), Pruning(Allocation(kind, multiple=multiple))).widths
        kept, before = sum(w.after for w in widths), sum(w.before for w in widths)
        assert abs(kept - share * before) <= multiple / 2


def test_a_share_that_is_nearest_to_everything_is_refused() -> None:
    for kind in ("knapsack", "uniform", None):
        with pytest.raises(
            UnreachableGoalError, match=r"`channels` 0\.99 is nearest to all channels"
        ):
            run(Goal.channels(0.99), Pruning(Allocation(kind, multiple=8)))
    assert any(w.after < w.before for w in run(Goal.channels(0.9), Pruning(EACH)).widths)


def test_shares_of_single_groups() -> None:
    name = channel_groups(captured()).groups[1].name
    widths = {w.group: w for w in run(None, Pruning(EACH, keep={name: 0.25})).widths}
    assert widths[name].after == widths[name].before // 4
    assert all(w.after == w.before for w in widths.values() if w.group != name)


def test_the_least_important_channels_go() -> None:
    graph = captured()
    groups = channel_groups(graph)
    name = groups.groups[1].name
    scores = FilterNorm().scores(graph, groups)[name]
    result = run(None, Pruning(EACH, keep={name: 0.5}))
    path = next(s.path for s in groups[name].slices if s.role == "out")
    best = torch.tensor(np.sort(np.argsort(-scores)[: len(scores) // 2]))
    kept = graph.get_parameter(path)[best]
    assert torch.equal(result.trainable.get_parameter(path), kept)


# --- training ------------------------------------------------------------------------------------


@pytest.mark.parametrize("labelled", [True, False])
def test_rounds_of_pruning_and_training_go_on_where_they_stopped(
    labelled: bool, tmp_path: Path
) -> None:
    options = Pruning(EACH, 2, QUICK)
    shown = images(labelled)
    result = run(Goal.speedup(1.5), options, train=shown, folder=tmp_path)
    assert result.after_ms <= result.before_ms / 1.5
    assert len(result.history) == 2
    assert len(list(tmp_path.glob("*/round-1-*/last.pt"))) == 1
    assert len(list(tmp_path.glob("*/fine-tuning-*/last.pt"))) == 1
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("last.pt")}
    again = run(Goal.speedup(1.5), options, train=shown, folder=tmp_path)
    assert same(result.graph_module, again.graph_module)
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("last.pt")}


def test_training_changes_what_is_left() -> None:
    untrained = run(Goal.speedup(1.3))
    trained = run(Goal.speedup(1.3), Pruning(EACH, 1, QUICK), train=images())
    assert untrained.widths == trained.widths
    assert not same(untrained.graph_module, trained.graph_module)
    assert not untrained.history


def test_rounds_end_at_the_budget() -> None:
    one, three = (run(Goal.macs(0.5), Pruning(EACH, n)) for n in (1, 3))
    for result in (one, three):
        assert macs(lower(result.graph_module)) <= 0.5 * macs(lower(result.original))
    least = {w.group: 0.1 * w.before for w in three.widths}
    assert all(w.after >= least[w.group] for w in three.widths)  # of the first width


def test_a_penalty_is_trained_with_before_anything_goes() -> None:
    asked: list[tuple[str, ...]] = []

    def penalty(graph: fx.GraphModule, groups: Groups) -> Penalty:
        asked.append(tuple(g.name for g in groups.groups))
        path = next(n for n, m in graph.named_modules() if isinstance(m, nn.BatchNorm2d))
        return lambda model, _: 1e3 * model.get_parameter(f"{path}.weight").abs().sum()

    stages = Stages(penalty)
    result = run(Goal.speedup(1.3), Pruning(EACH, 1, QUICK), train=images(), stages=stages)
    assert len(asked) == 1
    assert len(result.history) == 2
    with pytest.raises(InputError, match="give `train`"):
        run(Goal.speedup(1.3), stages=stages)


# --- scores, compensation, measuring -------------------------------------------------------------


@pytest.mark.parametrize("goal", [Goal.macs(1e-4), Goal.params(1e-4), Goal.speedup(1e4)])
def test_a_goal_out_of_reach_is_refused_before_a_penalty_is_trained_with(goal: Goal) -> None:
    def fails(graph: fx.GraphModule, groups: Groups) -> Penalty:
        raise AssertionError("trained")

    with pytest.raises(UnreachableGoalError, match=r"cannot be reached.* closest"):
        run(goal, stages=Stages(fails), train=images())


@dataclass
class Counting:
    """A criterion that counts how often it is asked."""

    calls: list[int] = field(default_factory=list[int])
    name: ClassVar[str] = "counting"

    def scores(self, graph_module: fx.GraphModule, groups: Groups) -> Scores:
        self.calls.append(len(groups.groups))
        return RandomScores(1).scores(graph_module, groups)


def test_scores_are_kept(tmp_path: Path) -> None:
    criterion = Counting()
    results = [
        prune(
            *(captured(), Steps(), "fp32", criterion, Goal.macs(0.6)),
            options=Pruning(EACH),
            folder=tmp_path,
            seen=seen,
        )
        for seen in ("these", "these", "others")
    ]
    assert len(criterion.calls) == 2
    assert same(results[0].graph_module, results[1].graph_module)


def test_compensation_gets_the_selection_and_its_weights_are_used() -> None:
    def compensate(graph: fx.GraphModule, groups: Groups, selection: Selection) -> Selection:
        assert selection.keep
        name, module = next((n, m) for n, m in graph.named_modules() if isinstance(m, nn.Linear))
        return Selection(selection.keep, {f"{name}.bias": torch.full_like(module.bias, 7.0)})

    result = run(Goal.macs(0.6), stages=Stages(compensate=compensate))
    last = next(m for m in result.graph_module.modules() if isinstance(m, nn.Linear))
    assert bool((last.bias == 7).all())
    assert not same(result.graph_module, run(Goal.macs(0.6)).graph_module)


def test_where_the_device_is_at_hand_the_budget_is_met_by_measuring() -> None:
    """A device that is three times as slow, and slower still for what lies off the table."""
    measured: list[float] = []

    def ms(graph: fx.GraphModule) -> float:
        measured.append(3 * predicted_ms(graph, Steps(), "fp32") ** 0.8)
        return measured[-1]

    result = run(Goal.speedup(1.4), measured_ms=ms)
    assert ms(result.original) / ms(result.graph_module) == pytest.approx(1.4, rel=0.07)
    assert ms(result.graph_module) <= ms(result.original) / 1.4
    assert len(measured) < 12


def test_slicing_is_verified(monkeypatch: pytest.MonkeyPatch) -> None:
    from shrinkc.compiler.pipeline import slicing

    monkeypatch.setattr(slicing, "mask_channels", lambda graph, _: graph)
    with pytest.raises(VerificationError, match="differs from the masked network"):
        run(Goal.macs(0.6))


def test_multiples_are_the_targets() -> None:
    assert channel_multiple(Steps()) == 8
    assert channel_multiple(cost_table("rpi4")) == 8
    assert channel_multiple(cost_table("v100")) == 32
    widths = run(Goal.macs(0.7), Pruning(Allocation(multiple=4))).widths
    assert all(w.after % 4 == 0 or w.after == w.before for w in widths)


# --- what cannot be ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("goal", "message"),
    [
        (Goal.budget_ms(1e9), "fit into"),
        (Goal.speedup(1e6), "closest is"),
        (Goal.macs(0.001), "of the multiply-accumulates cannot be reached; closest: 0."),
        (Goal.params(0.001), "of the parameters cannot be reached; closest: 0."),
        (Goal.channels(0.001), "of the channels cannot be reached; closest: 0."),
        (Goal.max_drop(1), "`max_drop` cannot be the goal here: give one of `speedup`"),
    ],
)
def test_goals_that_cannot_be(goal: Goal, message: str) -> None:
    with pytest.raises(InputError, match=message):
        run(goal)


@pytest.mark.parametrize(
    ("goal", "keep", "message"),
    [
        (None, {}, "give exactly one of `speedup`, .*, or `keep`"),
        (Goal.macs(0.5), {"0.0": 0.5}, "give exactly one of `macs`, `keep`, not several"),
        (None, {"nothing": 0.5}, "no channel group of that name"),
        (None, {"0.0": 0.0}, "would vanish"),
    ],
)
def test_shares_of_groups_that_cannot_be(
    goal: Goal | None, keep: Mapping[str, float], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        run(goal, Pruning(EACH, keep=keep))


def test_other_options_that_cannot_be() -> None:
    with pytest.raises(InputError, match="`rounds` 0"):
        Pruning(rounds=0)
    with pytest.raises(InputError, match="no channel group can become narrower"):
        run(Goal.macs(0.5), Pruning(Allocation(multiple=512)))
    plain = nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU())
    graph = capture(plain.eval(), (torch.randn(1, 3, SIZE, SIZE),))
    with pytest.raises(InputError, match="an output of the network"):
        prune(graph, Steps(), "fp32", EqualScores(), Goal.macs(0.5))


def test_the_result_is_float32_like_the_input() -> None:
    graph: Tensor = next(run(Goal.macs(0.6)).graph_module.parameters())
    assert graph.dtype == torch.float32


def scheduled(every: int, epochs: int, folder: Path | None = None, multiple: int = 1) -> Pruned:
    recipe = Recipe(epochs=1, search_epochs=epochs, batch=16, learning_rate=0.01)
    options = Pruning(Allocation(multiple=multiple), recipe=recipe)
    given = (captured(), Steps(), "fp32", GroupFisher([], every=every), Goal.macs(0.7))
    return prune(*given, options=options, train=images(), folder=folder)


def test_channels_go_during_a_training_until_the_budget_is_met(tmp_path: Path) -> None:
    """As Group Fisher was published; a second run finds the training done."""
    result = scheduled(1, 8, tmp_path)
    before, after = (macs(lower(g)) for g in (result.original, result.graph_module))
    assert after <= 0.7 * before
    assert after > 0.5 * before  # and no further
    assert list(tmp_path.glob("*/removal/last.pt"))
    assert same(scheduled(1, 8, tmp_path).graph_module, result.graph_module)


def test_a_schedule_keeps_to_multiples() -> None:
    result = scheduled(1, 8, multiple=4)
    assert any(w.after < w.before for w in result.widths)
    assert all(w.after % 4 == 0 for w in result.widths)


def test_groups_that_are_too_narrow_for_the_multiple_stay_whole() -> None:
    result = scheduled(1, 8, multiple=12)
    after = {w.before: w.after for w in result.widths}
    assert after[8] == 8
    assert after[24] in (12, 24)


def test_a_schedule_that_ends_too_early_says_how_far_it_came() -> None:
    with pytest.raises(InputError, match=r"costs 1\.\d\d times the budget; give more"):
        scheduled(1, 1)
    given = (captured(), Steps(), "fp32", GroupFisher([], every=2), Goal.macs(0.7))
    with pytest.raises(InputError, match="Give labelled images"):
        prune(*given, train=images(labelled=False))
    with pytest.raises(InputError, match="`every` 0: a channel every so many steps"):
        scheduled(0, 1)


def test_a_schedule_that_cannot_reach_the_goal_is_refused_before_it_trains(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """48 images in batches of 4 are 12 steps: one removal of a channel after ten of them."""

    def fit(*_: object) -> None:
        raise AssertionError("a training began")

    monkeypatch.setattr(Trainer, "fit", fit)
    with pytest.raises(
        UnreachableGoalError, match=r"10 steps of 12, there are 1 removal: .* 1\."
    ) as e:
        scheduled(10, 1)
    assert e.value.hint == "give more `round_epochs` or a smaller `every`"
    with pytest.raises(AssertionError, match="a training began"):
        scheduled(1, 8)


def test_fisher_information_is_divided_by_memory_as_published() -> None:
    """Two channels of equal information: the one with the larger map goes first, whatever it takes
    of the budget."""
    assert schedule_of(GroupFisher([], every=25)) == FisherSchedule(25, "memory")
    build = GROUP_FISHER.build
    by_default = build(Given((), 0, by_cost=True, every=25))
    assert schedule_of(by_default) == FisherSchedule(25, "memory")
    per_budget = build(Given((), 0, by_cost=True, every=25, per="budget"))
    assert schedule_of(per_budget) == FisherSchedule(25, "budget")
    graph = captured()
    groups = channel_groups(graph)
    memory = memory_per_channel(graph, groups)
    asked: list[object] = []
    _, removal = FisherSchedule(1).start(
        graph, groups, lambda keep: asked.append(keep) or {}, lambda keep: False, 1
    )
    for total in removal.information.values():
        total.fill_(1.0)
    removal.after_step(nn.Identity(), None)
    (gone,) = (name for name, mask in removal.keep.items() if not mask.all())
    assert memory[gone] == max(memory[name] for name in removal.keep)
    assert asked == []


def test_channels_that_all_count_the_same_are_not_given_away() -> None:
    graph = captured()
    options = Pruning(Allocation(multiple=1))
    found = prune(graph, Steps(), "fp32", EqualScores(), Goal.macs(0.6), options=options)
    share = macs(lower(found.graph_module)) / macs(lower(found.original))
    assert 0.55 < share <= 0.6


# --- a criterion from outside --------------------------------------------------------------------


@dataclass(frozen=True)
class LastFirst:
    """A dummy: the last channels of every group are the least important."""

    name: ClassVar[str] = "last-first"

    def scores(self, graph_module: fx.GraphModule, groups: Groups) -> Scores:
        return {g.name: np.arange(g.size, 0, -1.0) for g in groups.groups}


def test_a_criterion_of_ones_own_is_an_object() -> None:
    criterion = LastFirst()
    spec = spec_of(criterion)
    assert (spec.name, spec.needs, spec.compensates) == ("last-first", "nothing", False)
    built = spec.build(Given((), 0, by_cost=True))
    assert built is criterion
    given = (captured(), Steps(), "fp32", built, Goal.macs(0.6))
    result = prune(*given, options=Pruning(EACH))
    assert macs(lower(result.graph_module)) <= 0.6 * macs(lower(result.original))
    assert spec_of(spec) is spec


def test_an_object_of_ours_is_used_as_by_its_name() -> None:
    spec = spec_of(GroupFisher([]))
    assert (spec.name, spec.needs, spec.normalise) == ("group-fisher", "labels", "none")
    assert schedule_of(GroupFisher([])) is None
    assert str(schedule_of(GroupFisher([], every=7))) == "a channel every 7 steps"


@pytest.mark.parametrize("criterion", ["magic", LastFirst, 3, None])
def test_what_is_no_criterion(criterion: Any) -> None:
    with pytest.raises(InputError, match=r"`criterion` .*: give one of l1, l2, .* or an object"):
        spec_of(criterion)


# --- published iterations ------------------------------------------------------------------------


@dataclass(frozen=True)
class Watched:
    """The first channels are the least important; notes how wide the groups were."""

    seen: list[dict[str, int]]
    name: ClassVar[str] = "watched"

    def scores(self, graph_module: fx.GraphModule, groups: Groups) -> Scores:
        self.seen.append({g.name: g.size for g in groups.groups})
        return {g.name: np.arange(1.0, g.size + 1) for g in groups.groups}


class Untrained:
    """In place of `Trainer.fit`: notes the network as it is given."""

    def __init__(self) -> None:
        self.given: list[tuple[str, dict[str, Tensor]]] = []

    def __call__(self, model: nn.Module, name: str, _epochs: int, *_: object) -> Any:
        self.given.append((name, {n: p.detach().clone() for n, p in model.named_parameters()}))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(1.0)
        return Result(model, (), 0, 0.0)


def untrained(monkeypatch: pytest.MonkeyPatch) -> Untrained:
    found = Untrained()
    monkeypatch.setattr(Trainer, "fit", lambda _, *args: found(*args))
    return found


def test_groups_go_one_by_one_with_training_behind_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """As HRank is published: a layer is scored once those before it are pruned and trained."""
    trained, watched = untrained(monkeypatch), Watched([])
    options = Pruning(Allocation("uniform", multiple=1), recipe=QUICK, one_by_one=True)
    result = prune(
        *(captured(), Steps(), "fp32", watched, Goal.channels(0.5)),
        options=options,
        train=images(),
    )
    sizes = {w.group: (w.before, w.after) for w in result.widths if w.after < w.before}
    names = list(sizes)
    assert len(names) >= 2
    for number, seen in enumerate(watched.seen[1:]):  # the first decides how many stay
        for place, name in enumerate(names):
            assert seen[name] == sizes[name][place < number]
    assert len(watched.seen) == 1 + len(names)
    assert [name.rsplit("-", 1)[0] for name, _ in trained.given] == [
        *(f"group-{number}" for number in range(1, len(names))),
        "fine-tuning",
    ]


def test_every_training_starts_at_the_initial_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """As DropNet is published: what is left goes back to what it was before the training."""
    trained = untrained(monkeypatch)
    torch.manual_seed(1)
    initial = captured()
    with torch.no_grad():
        for number, parameter in enumerate(initial.parameters()):
            parameter.copy_(torch.arange(parameter.numel()).view_as(parameter) + 1000.0 * number)
    options = Pruning(Allocation("uniform", multiple=1), 2, QUICK, initial=initial)
    given = captured(), Steps(), "fp32", Watched([]), Goal.channels(0.5)
    prune(*given, options=options, train=images())
    assert [name.rsplit("-", 1)[0] for name, _ in trained.given] == ["round-1", "fine-tuning"]
    whole = dict(initial.named_parameters())
    name = next(n for n, p in whole.items() if p.ndim == 4)
    for _, parameters in trained.given:
        left = len(parameters[name])  # the last channels stay, with the weights that they had
        assert left < len(whole[name])
        assert torch.equal(parameters[name], whole[name][-left:].float())
    other = capture(nn.Sequential(nn.Conv2d(3, 4, 1)), (torch.randn(1, 3, SIZE, SIZE),))
    with pytest.raises(InputError, match="`initial` is another network"):
        prune(*given, options=replace(options, initial=other), train=images())

"""Closed form on tiny networks: exact where it can be, within the budget, resumable."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from by_macs import ByMacs
from closed_form_doubles import FITTED, SIZE, Dense, distance, outputs, sample, small, some_images
from ray_double import FakeRay, installed
from small_networks import (
    NETWORKS,
    Basic,
    Classifier,
    InvertedResidual,
    conv,
    excited,
)
from torch import fx, nn

from shrinkc.compiler.cost.budget import predicted_ms
from shrinkc.compiler.cost.goal import Goal
from shrinkc.compiler.depth import importance
from shrinkc.compiler.depth.closed_form import (
    ClosedForm,
    Shrunk,
    apply,
    candidates,
    shrink_closed_form,
)
from shrinkc.compiler.images.decoded import Images
from shrinkc.compiler.recover import distil
from shrinkc.compiler.recover.distil import (
    Tuning,
    fitted_and_judged,
    last_feature,
    tapped,
    tune,
    views,
)
from shrinkc.compiler.recover.divergence import apart
from shrinkc.compiler.recover.layer_problems import Sample
from shrinkc.compiler.tasks.classification import CLASSIFICATION
from shrinkc.errors import InputError
from shrinkc.latency_tables.key import OpKey
from shrinkc.latency_tables.table import OpEstimate
from shrinkc.passes.base import copy_graph
from shrinkc.passes.ir import check_legal
from shrinkc.passes.merge.replace_span import DropSpan

UNTUNED = ClosedForm(rebuilding=FITTED, tuning=Tuning(steps=0))


class ByOperators(ByMacs):
    """A device to which every operator is the same."""

    def estimate(self, key: OpKey) -> OpEstimate:
        return OpEstimate(1.0, "measured", False)


@pytest.mark.parametrize("name", NETWORKS)
def test_within_the_budget_by_the_tables_own_numbers(name: str) -> None:
    graph = small(NETWORKS[name]())
    table = Dense()
    found = shrink_closed_form(
        graph, some_images(), table, "fp32", Goal.speedup(1.2), options=UNTUNED
    )
    check_legal(found.graph_module)
    assert found.before_ms == predicted_ms(graph, table, "fp32")
    assert found.after_ms == predicted_ms(found.graph_module, table, "fp32")
    assert found.after_ms <= found.before_ms / 1.2
    assert found.taken
    assert found.changes
    saved = sum(row.saving_ms for row in found.taken)
    assert found.before_ms - found.after_ms == pytest.approx(saved, rel=0.05)
    assert outputs(found.graph_module).isfinite().all()


def idle_activations() -> fx.GraphModule:
    """A block whose activations never act: what reaches them is positive and below six."""
    graph = small(
        Classifier(conv(3, 4, 3), nn.ReLU6(), InvertedResidual(4, 4), nn.ReLU(), channels=4)
    )
    layers = [m for m in graph.modules() if isinstance(m, nn.Conv2d)]
    with torch.no_grad():
        for layer in (layers[1], layers[2]):
            layer.weight.mul_(0.02).abs_()
            assert layer.bias is not None
            layer.bias.fill_(1.0)
    return graph


def test_a_span_that_is_linear_already_is_found_again() -> None:
    """Also at the border, where the depthwise layer's padding cuts into the expansion's bias: the
    fit cannot be right there, and says so; inside it is."""
    graph = idle_activations()
    found, _ = candidates(graph, Dense(), "fp32", ("merge",))
    whole = max((c for c in found if c.span.identity), key=lambda c: len(c.span.nodes))
    damages = importance.measure(graph, [whole], sample(), None, _silent())
    assert damages[0].error < 0.02
    assert damages[0].agreement == 1.0
    assert damages[0].loss < 1e-3


def _silent() -> Any:
    from shrinkc.compiler.support.progress import Silent

    return Silent()


def test_hidden_channels_that_nobody_reads_go_first() -> None:
    """Narrowing changes nothing as long as the channels that are read stay."""
    graph = small(
        Classifier(conv(3, 8, 3), nn.ReLU(), InvertedResidual(8, 8), nn.ReLU(), channels=8)
    )
    consumer = next(m for m in graph.modules() if isinstance(m, nn.Conv2d) and m.in_channels == 24)
    with torch.no_grad():
        consumer.weight[:, ::3] = 0
    found, _ = candidates(graph, ByMacs(), "fp32", ("narrow",))
    narrow = min((c for c in found if c.channels >= 16), key=lambda c: c.channels)
    result = apply(graph, [narrow], sample(), FITTED, _silent())
    kept = [m for m in result.graph_module.modules() if isinstance(m, nn.Conv2d)]
    assert [m.in_channels for m in kept] == [3, 8, narrow.channels, narrow.channels]
    assert narrow.channels < 20
    assert torch.allclose(outputs(result.graph_module), outputs(graph), atol=1e-3)


class InGroups(ByMacs):
    """A device that computes sixteen channels at a time, needed or not."""

    def estimate(self, key: OpKey) -> OpEstimate:
        groups = [-(-channels // 16) for channels in (key.in_channels, key.out_channels)]
        return OpEstimate(1e-3 * groups[0] * groups[1], "measured", False)


def test_only_widths_that_save_more_than_wider_ones_are_tried() -> None:
    graph = small(
        Classifier(conv(3, 16, 3), nn.ReLU(), InvertedResidual(16, 16), nn.ReLU(), channels=16)
    )
    smooth, stepped = (
        [c.channels for c in candidates(graph, table, "fp32", ("narrow",))[0]]
        for table in (ByMacs(), InGroups())
    )
    assert smooth == [40, 32, 24, 16]
    assert stepped == [32, 16]


def test_images_that_judge_do_not_fit() -> None:
    everything = Sample(some_images(), (SIZE, SIZE), limit=11)
    fitting, judging = everything.split()
    assert sorted((*fitting.indices, *judging.indices)) == list(everything.indices)
    assert len(judging) == 2
    assert sum(len(rows) for _, rows in fitting.batches()) == 9
    alone, same = Sample(some_images(1), (SIZE, SIZE)).split()
    assert alone.indices == same.indices == (0,)


def test_dropping_leaves_the_shortcut() -> None:
    graph = small(
        Classifier(conv(3, 4, 3), nn.ReLU(), InvertedResidual(4, 4), conv(4, 4, 1), channels=4)
    )
    found, _ = candidates(graph, ByMacs(), "fp32", ("drop",))
    assert [c.kind for c in found] == ["drop"]
    result = apply(graph, found, sample(), FITTED, _silent())
    check_legal(result.graph_module)
    names = [n.name for n in result.graph_module.graph.nodes]
    assert not set(found[0].span.nodes) & set(names)


def test_two_spans_one_behind_the_other_may_both_be_dropped() -> None:
    blocks = [InvertedResidual(4, 4), InvertedResidual(4, 4), InvertedResidual(4, 4)]
    graph = small(Classifier(conv(3, 4, 3), nn.ReLU(), *blocks, channels=4))
    found, _ = candidates(graph, Dense(), "fp32", ("drop", "merge"))
    drops = [c for c in found if c.kind == "drop"]
    last = drops[-1].span
    merge = next(c for c in found if c.kind == "merge" and c.span.nodes == last.nodes)
    result = apply(graph, [*drops[:2], merge], sample(), FITTED, _silent())
    check_legal(result.graph_module)
    assert len([m for m in result.graph_module.modules() if isinstance(m, nn.Conv2d)]) == 2


def test_a_resnet_block_is_merged_with_its_shortcut() -> None:
    body = (conv(3, 4, 3), nn.ReLU(), Basic(4, 6, 2), Basic(6, 6))
    graph = small(Classifier(*body, channels=6))
    found, _ = candidates(graph, ByOperators(), "fp32", ("merge",))
    block = next(c for c in found if c.span.window.stride == (2, 2) and c.span.sink == "add")
    assert len(block.span.removed) == 1
    result = apply(graph, [block], sample(), FITTED, _silent())
    kept = [m for m in result.graph_module.modules() if isinstance(m, nn.Conv2d)]
    assert [m.kernel_size for m in kept] == [(3, 3), (7, 7), (3, 3), (3, 3)]


def test_measurements_are_kept_and_a_torn_line_is_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = small(NETWORKS["mobilenet_v2"]())
    found, _ = candidates(graph, Dense(), "fp32")
    first = importance.measure(graph, found, sample(), tmp_path, _silent())
    (file,) = tmp_path.iterdir()
    lines = file.read_text().splitlines()
    assert len(lines) == len(found)
    file.write_text("\n".join(lines[:-1]) + '\n["drop: ')
    fitted: list[int] = []
    real = importance.fit_span

    def counted(*args: Any, **options: Any) -> Any:
        fitted.append(len(args[1]))
        return real(*args, **options)

    monkeypatch.setattr(importance, "fit_span", counted)
    again = importance.measure(graph, found, sample(), tmp_path, _silent())
    assert fitted == [1]
    assert [d.loss for d in again] == pytest.approx([d.loss for d in first], rel=1e-5)
    other = small(NETWORKS["mobilenet_v2"](), seed=1)
    importance.measure(other, found[:1], sample(), tmp_path, _silent())
    importance.measure(graph, found[:1], sample(20), tmp_path, _silent())
    assert len(list(tmp_path.iterdir())) == 3


def test_one_pass_sums_up_what_passes_for_every_span_do(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = small(NETWORKS["mobilenet_v2"]())
    found, _ = candidates(graph, Dense(), "fp32")
    together = importance.measure(graph, found, sample(), None, _silent())
    monkeypatch.setattr(importance, "CHUNK", 0)
    one_by_one = importance.measure(graph, found, sample(), None, _silent())
    assert {c.kind for c in found} == {"merge", "drop", "narrow"}
    for a, b in zip(together, one_by_one, strict=True):
        assert a.loss == pytest.approx(b.loss, rel=1e-3, abs=1e-7)
        assert a.error == pytest.approx(b.error, rel=1e-3, nan_ok=True)


def test_parts_are_in_a_row_and_of_about_the_same_weight() -> None:
    assert importance.parts([1, 1, 1, 1], 2) == [(0, 2), (2, 4)]
    assert importance.parts([9, 1, 1, 1], 2) == [(0, 1), (1, 4)]
    assert importance.parts([1, 9, 1], 9) == [(0, 1), (1, 2), (2, 3)]
    assert importance.parts([], 3) == []


def test_damages_have_the_same_bits_in_whatever_number_of_jobs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With the same threads. Networks, choices and images have been pickled."""
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    with installed(monkeypatch, FakeRay(1)) as ray:
        torch.set_num_threads(1)
        graph = small(NETWORKS["mobilenet_v2"]())
        found, _ = candidates(graph, Dense(), "fp32")
        given = graph, found[::2], sample(), None, _silent()
        wanted = list(map(repr, importance.measure(*given)))
        jobs: list[int] = []
        for cpus in (1, 2):
            ray.cpus = dict.fromkeys(map(str, range(cpus)), 1)
            ray.shutdown()
            assert list(map(repr, importance.measure(*given, parallel="ray"))) == wanted
            jobs.append(len(ray.jobs) - sum(jobs))
        assert 1 < jobs[0] < jobs[1]


def test_the_same_is_chosen_side_by_side(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    graph = small(NETWORKS["mobilenet_v2"]())
    with installed(monkeypatch, FakeRay(1, 1)) as ray:
        torch.set_num_threads(1)
        alone, beside = (
            shrink_closed_form(
                *(graph, some_images(), ByMacs(), "fp32", Goal.speedup(1.3)),
                options=replace(UNTUNED, parallel=parallel, kinds=("drop", "merge")),
            )
            for parallel in (1, "ray")
        )
        assert ray.jobs
    assert alone.taken
    assert repr(beside.taken) == repr(alone.taken)


def test_damage_is_what_the_changed_network_answers() -> None:
    """The replacement's own run from the images, not one that goes on from kept values."""
    graph = small(NETWORKS["mobilenet_v2"]())
    found, _ = candidates(graph, Dense(), "fp32", ("drop",))
    _, judging = sample().at_most(importance.MEASURED).split()
    measured = importance.measure(graph, found, sample(), None, _silent())
    for choice, damage in zip(found, measured, strict=True):
        changed = DropSpan(choice.span)(graph).graph_module
        total = 0.0
        with torch.no_grad():
            for x, rows in judging.batches():
                total += apart(CLASSIFICATION, changed(*x), graph(*x), len(rows))
        assert damage.loss == pytest.approx(total / len(judging), rel=1e-4, abs=1e-8)


def shrunk(graph: fx.GraphModule, goal: Goal) -> Shrunk:
    return shrink_closed_form(graph, some_images(), ByMacs(), "fp32", goal, options=UNTUNED)


def test_nothing_to_shrink_says_why() -> None:
    graph = small(Classifier(conv(3, 4, 3), nn.ReLU(), channels=4))
    with pytest.raises(InputError, match="nothing to shrink in depth: no two layers"):
        shrunk(graph, Goal.speedup(1.1))


def test_squeeze_excite_is_named() -> None:
    body = list(cast(Any, excited().body))[:3]
    graph = small(Classifier(*body, channels=4))
    _, refused = candidates(graph, Dense(), "fp32")
    assert any("squeeze-excite" in r.reason for r in refused)


def test_an_unreachable_budget_says_what_is_reachable() -> None:
    graph = small(NETWORKS["mobilenet_v2"]())
    with pytest.raises(InputError, match=r"cannot be reached: from .* the best is .* ms, .*×"):
        shrunk(graph, Goal.speedup(50))
    with pytest.raises(InputError, match="`params` cannot be the goal here"):
        shrunk(graph, Goal.params(0.5))


def test_tuning_brings_the_outputs_closer() -> None:
    torch.manual_seed(0)
    graph = small(NETWORKS["mobilenet_v2"]())
    student = copy_graph(graph)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.mul_(1 + 0.1 * torch.randn(parameter.shape))
    options = Tuning(steps=40, batch=8, learning_rate=0.01, scale=(0.8, 1.0))
    tuned = tune(student, graph, sample(), options, _silent())
    assert len(tuned.losses) == 40
    assert tuned.stopped is None
    assert distance(tuned.graph_module, graph) < 0.5 * distance(student, graph)


def test_a_loss_that_is_no_number_ends_the_tuning_and_keeps_the_network() -> None:
    graph = small(NETWORKS["vgg"]())
    options = Tuning(steps=40, batch=8, learning_rate=1e30)
    tuned = tune(graph, graph, sample(), options, _silent())
    assert tuned.stopped is not None
    assert "loss became" in tuned.stopped
    assert outputs(tuned.graph_module).isfinite().all()


def perturbed(graph: fx.GraphModule) -> fx.GraphModule:
    torch.manual_seed(0)
    student = copy_graph(graph)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.mul_(1 + 0.1 * torch.randn(parameter.shape))
    return student


def test_rates_that_destroy_are_left_for_smaller_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = small(NETWORKS["mobilenet_v2"]())
    student, few = perturbed(graph), Tuning(steps=40, batch=8)
    by_hand = tune(student, graph, sample(), replace(few, learning_rate=0.01), _silent())
    monkeypatch.setattr(distil, "RATES", (1e30, 10.0, 0.01, 1e-9))
    found = tune(student, graph, sample(), few, _silent())
    assert found.losses == by_hand.losses
    assert found.stopped is None


def test_a_rate_is_chosen_by_images_that_no_step_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is learned from black images makes answers to others worse; on black ones it gains."""
    graph = small(NETWORKS["mobilenet_v2"]())
    student, whole, options = perturbed(graph), sample(), Tuning(steps=80, batch=8)
    seen, judged = fitted_and_judged(whole, options)
    assert set(seen.indices).isdisjoint(judged.indices)
    assert len(seen) == 7 * len(judged)
    images = cast(Images, whole.images)
    pixels = images.pixels.clone()
    pixels[list(seen.indices)] = 0
    black = replace(whole, images=replace(images, pixels=pixels))
    by_hand = tune(student, graph, black, replace(options, learning_rate=0.06), _silent())
    assert by_hand.losses[-1] < by_hand.losses[0]
    (x,) = images.taken(torch.tensor(judged.indices), whole.size)

    def lost(network: fx.GraphModule) -> float:
        name = last_feature(graph, network)
        with torch.no_grad():
            return float((tapped(network, name)(x)[0] - tapped(graph, name)(x)[0]).square().mean())

    assert lost(by_hand.graph_module) > 1.5 * lost(student)
    monkeypatch.setattr(distil, "RATES", (0.06,))
    tuned = tune(student, graph, black, options, _silent())
    assert lost(tuned.graph_module) <= 1.001 * lost(student)


def test_a_student_that_no_rate_improves_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = small(NETWORKS["vgg"]())
    tuned = tune(graph, graph, sample(), Tuning(steps=40, batch=8), _silent())
    assert tuned.stopped is not None
    assert torch.equal(outputs(tuned.graph_module), outputs(graph))
    monkeypatch.setattr(distil, "RATES", (1e30,))
    spoilt = tune(perturbed(graph), graph, sample(), Tuning(steps=40, batch=8), _silent())
    assert torch.equal(outputs(spoilt.graph_module), outputs(perturbed(graph)))


def test_the_work_says_how_many_steps_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distil, "STEPS", (200, 4000))
    graph = small(NETWORKS["vgg"]())
    assert Tuning(steps=7).steps_for(graph, 300) == 7
    assert Tuning().steps_for(graph, 10) == 200
    assert Tuning(batch=10).steps_for(graph, 100) == 2500
    assert Tuning().steps_for(graph, 10**6) == 4000
    heavy = replace(Tuning(), batch=10**12)
    assert heavy.steps_for(graph, 10**20) == 200


def test_tuning_sees_the_images_of_its_sample_alone() -> None:
    images = some_images()
    dark = images.pixels.clone()
    fitting, judging = Sample(images, (SIZE, SIZE)).split()
    dark[list(judging.indices)] = 0
    darkened = replace(fitting, images=replace(images, pixels=dark))
    seen, again = (
        list(itertools.islice(views(one, Tuning(batch=6)), 9)) for one in (fitting, darkened)
    )
    assert all(torch.equal(x, y) for (x,), (y,) in zip(seen, again, strict=True))


def test_time_ends_the_tuning() -> None:
    graph = small(NETWORKS["vgg"]())
    options = Tuning(steps=10**6, batch=8, seconds=0.5, learning_rate=1e-4)
    tuned = tune(graph, graph, sample(), options, _silent())
    assert 0 < len(tuned.losses) < 10**6

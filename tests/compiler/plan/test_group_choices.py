"""Widths of channel groups as choices: what they save, which channels go, what that does."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from by_macs import ByMacs
from ray_double import FakeRay, installed
from small_networks import Classifier, InvertedResidual, conv
from torch import fx, nn

from shrinkc.compiler.capture import capture
from shrinkc.compiler.cost.predict import predict
from shrinkc.compiler.depth.choices import WORTH
from shrinkc.compiler.export.lower import lower
from shrinkc.compiler.images.decoded import Images
from shrinkc.compiler.pipeline.deployed import deployed
from shrinkc.compiler.plan import group_choices as module
from shrinkc.compiler.plan.group_choices import (
    GroupChoice,
    group_choices,
    measure_groups,
    sliced,
    sliced_and_fitted,
)
from shrinkc.compiler.recover.layer_problems import Sample
from shrinkc.compiler.support.progress import Silent
from shrinkc.passes.analysis.channels.channel_groups import channel_groups
from shrinkc.passes.ir import module_of

SIZE = 12


def network(channels: int = 8) -> fx.GraphModule:
    """A stream of two blocks behind a stem."""
    torch.manual_seed(0)
    model = Classifier(
        *(conv(3, channels, 3, 2), nn.ReLU6()),
        *(InvertedResidual(channels, channels), InvertedResidual(channels, channels)),
        channels=channels,
    )
    return deployed(capture(model.eval(), (torch.randn(1, 3, SIZE, SIZE),)))


def sample(count: int = 24) -> Sample:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, SIZE, SIZE, 3), generator=generator, dtype=torch.uint8)
    return Sample(Images(pixels, None, (0.5,), (0.25,)), (SIZE, SIZE))


def stream(graph: fx.GraphModule) -> list[GroupChoice]:
    """The widths of the stem's group."""
    first = channel_groups(graph).groups[0].name
    return [c for c in group_choices(graph, ByMacs(), "fp32", set()) if c.group.name == first]


def ms(graph: fx.GraphModule) -> float:
    return predict(lower(graph), ByMacs(), "fp32").total_ms


def test_a_choice_saves_what_the_sliced_network_costs_less() -> None:
    graph = network(16)
    found = group_choices(graph, ByMacs(), "fp32", set())
    assert {choice.group.name for choice in found} == {
        group.name for group in channel_groups(graph).groups
    }
    for choice in found:
        assert ms(graph) - ms(sliced(graph, [choice])) == pytest.approx(choice.saving_ms)


def test_wide_ones_first_each_worth_it() -> None:
    found = stream(network(16))
    channels = [choice.channels for choice in found]
    assert channels == sorted(channels, reverse=True)
    assert min(channels) >= 16 / 4
    savings = [0.0, *(choice.saving_ms for choice in found)]
    cost = 16 * found[0].saving_ms / (16 - channels[0])  # linear in this stream
    assert all(b - a >= 0.99 * WORTH * cost for a, b in pairwise(savings))


def test_groups_made_by_hidden_layers_are_left_out() -> None:
    graph = network()
    makers = {value.node for value in channel_groups(graph).groups[0].made}
    assert makers
    names = {c.group.name for c in group_choices(graph, ByMacs(), "fp32", {min(makers)})}
    assert channel_groups(graph).groups[0].name not in names
    every = {value.node for group in channel_groups(graph).groups for value in group.made}
    assert group_choices(graph, ByMacs(), "fp32", every) == []
    assert measure_groups(graph, [], sample(), None, Silent()) == {}


def test_channels_that_nobody_feels_go_first_and_do_no_damage() -> None:
    graph = network()
    group = channel_groups(graph).groups[0]
    dead = [1, 4]
    with torch.no_grad():
        for value in group.read:
            node = next(n for n in graph.graph.nodes if n.name == value.node)
            layer = module_of(graph, node)
            assert isinstance(layer, nn.Conv2d | nn.Linear)
            layer.weight[:, dead] = 0
    six = next(choice for choice in stream(graph) if choice.channels == 6)
    measured = measure_groups(graph, stream(graph), sample(), None, Silent())
    choice, damage = measured[six.label]
    assert np.flatnonzero(~choice.keep).tolist() == dead
    assert damage.loss < 1e-6
    assert damage.agreement == 1
    narrower, worse = min(measured.values(), key=lambda found: found[0].channels)
    assert narrower.channels < 6
    assert worse.loss > 1e-4


def test_what_was_measured_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = network()
    first = measure_groups(graph, stream(graph), sample(), tmp_path, Silent())
    for name in ("compensated", "_scores_from", "mask_channels"):
        monkeypatch.setattr(module, name, None)
    again = measure_groups(graph, stream(graph), sample(), tmp_path, Silent())
    assert {label: damage.loss for label, (_, damage) in again.items()} == {
        label: damage.loss for label, (_, damage) in first.items()
    }
    for label, (choice, _) in again.items():
        assert (choice.keep == first[label][0].keep).all()


def test_damages_have_the_same_bits_in_whatever_number_of_jobs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    with installed(monkeypatch, FakeRay(2)) as ray:
        torch.set_num_threads(1)
        graph = network(16)
        found = group_choices(graph, ByMacs(), "fp32", set())
        given = graph, found, sample(), None, Silent()
        alone, beside = measure_groups(*given), measure_groups(*given, parallel="ray")
        assert len(ray.jobs) > 1
    assert beside.keys() == alone.keys()
    for label, (choice, damage) in alone.items():
        assert (beside[label][0].keep == choice.keep).all()
        assert repr(beside[label][1]) == repr(damage)


def test_what_reads_a_sliced_group_makes_up_for_it() -> None:
    graph = network()
    chosen = [stream(graph)[-1]]
    fitted = sliced_and_fitted(graph, chosen, sample(), Silent())
    x = next(iter(sample().batches()))[0][0]
    with torch.no_grad():
        want = graph(x)[0]
        errors = [
            float((other(x)[0] - want).square().mean())
            for other in (fitted.graph_module, sliced(graph, chosen))
        ]
    assert errors[0] < 0.5 * errors[1]
    assert fitted.changes
    assert ms(fitted.graph_module) == pytest.approx(ms(sliced(graph, chosen)))
    nothing = sliced_and_fitted(graph, [], sample(), Silent()).graph_module
    assert nothing is not graph
    with torch.no_grad():
        assert torch.equal(nothing(x)[0], want)

"""Changed spans that learn to answer as the original's do."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from by_macs import ByMacs
from closed_form_doubles import FITTED, Dense, distance, outputs, sample, small
from small_networks import NETWORKS, Classifier, InvertedResidual, conv
from torch import fx, nn

from shrinkc.compiler.depth.choices import Choice
from shrinkc.compiler.depth.closed_form import apply, candidates
from shrinkc.compiler.recover import rebuild_span as rebuilding
from shrinkc.compiler.recover.rebuild_span import Rebuilding, between, maps, rebuild
from shrinkc.compiler.recover.resumed import Resumed
from shrinkc.compiler.support.progress import Silent
from shrinkc.passes.ir import check_legal

LONG = Rebuilding(steps=150, batch=8, learning_rate=0.02)


def network() -> fx.GraphModule:
    blocks = [InvertedResidual(6, 6), InvertedResidual(6, 8, stride=2), InvertedResidual(8, 8)]
    return small(Classifier(conv(3, 6, 3), nn.ReLU(), *blocks, channels=8))


def narrowest(graph: fx.GraphModule) -> list[Choice]:
    """Of every block, as many as a budget could take."""
    found, _ = candidates(graph, ByMacs(), "fp32", ("narrow",))
    best = {c.span.sink: c for c in sorted(found, key=lambda c: c.saving_ms)}
    return list(best.values())


@pytest.mark.parametrize("kind", ["narrow", "merge"])
def test_every_span_gets_nearer_and_so_does_the_network(kind: str) -> None:
    graph = network()
    if kind == "narrow":
        chosen = narrowest(graph)
    else:
        found, _ = candidates(graph, Dense(), "fp32", ("merge",))
        chosen = [c for c in found if len(c.span.removed) == 2][:1]
    assert chosen
    fitted = apply(graph, chosen, sample(), FITTED, Silent()).graph_module
    rebuilt = apply(graph, chosen, sample(), LONG, Silent()).graph_module
    check_legal(rebuilt)
    assert distance(rebuilt, graph) < 0.9 * distance(fitted, graph)


def test_layers_outside_the_span_keep_their_numbers() -> None:
    graph = network()
    (choice,) = narrowest(graph)[-1:]
    student = apply(graph, [choice], sample(), FITTED, Silent()).graph_module
    before = {name: p.clone() for name, p in student.named_parameters()}
    after = dict(
        rebuild(Resumed(student), Resumed(graph), choice.span, sample(), LONG).named_parameters()
    )
    moved = {name for name, p in after.items() if not torch.equal(p, before[name])}
    inside = dict(between(student, choice.span.source, choice.span.sink).named_parameters())
    assert moved == inside.keys()
    assert all(torch.equal(p, before[name]) for name, p in student.named_parameters())


def test_a_part_computes_what_the_whole_does() -> None:
    graph = network()
    span = narrowest(graph)[0].span
    reads, answers = maps(Resumed(graph), Resumed(graph), span, sample())
    with torch.no_grad():
        computed = between(graph, span.source, span.sink)(reads)
    assert torch.allclose(computed, answers, atol=1e-5)  # other batches round otherwise


def test_maps_stay_within_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = network()
    span = narrowest(graph)[0].span
    everything = maps(Resumed(graph), Resumed(graph), span, sample())
    size = sum(m.nbytes for m in everything)
    monkeypatch.setattr(rebuilding, "MEMORY", size // 3)
    fewer = maps(Resumed(graph), Resumed(graph), span, sample())
    assert 0 < sum(m.nbytes for m in fewer) <= size / 3
    assert len(fewer[0]) == len(everything[0]) // 3
    rebuild(
        Resumed(graph), Resumed(graph), span, sample(), replace(LONG, steps=2)
    )  # a batch of what there is


def test_a_rate_that_destroys_it_leaves_the_fit() -> None:
    graph = small(NETWORKS["mobilenet_v2"]())
    chosen = narrowest(graph)[:1]
    options = Rebuilding(steps=20, learning_rate=math.inf)
    fitted = apply(graph, chosen, sample(), FITTED, Silent()).graph_module
    kept = apply(graph, chosen, sample(), options, Silent()).graph_module
    assert torch.equal(outputs(kept), outputs(fitted))


def test_the_same_seed_gives_the_same_network() -> None:
    graph = network()
    chosen, short = narrowest(graph), replace(LONG, steps=20)
    one, two, other = (
        outputs(apply(graph, chosen, sample(), replace(short, seed=s), Silent()).graph_module)
        for s in (0, 0, 1)
    )
    assert torch.equal(one, two)
    assert not torch.equal(one, other)

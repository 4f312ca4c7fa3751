"""Bias correction takes the mean shift away, on images that it has not seen."""

from __future__ import annotations

import pytest
import torch
from hand_built import Net
from int8_networks import Batches, family, images, skewed
from pass_checks import fingerprint
from torch import Tensor, fx, nn

from shrinkc.compiler.export.lower import lower
from shrinkc.compiler.pipeline.run import node_values
from shrinkc.compiler.quantise import bias as correct
from shrinkc.compiler.quantise.bias import correct_biases
from shrinkc.compiler.quantise.ranges import calibrate
from shrinkc.compiler.quantise.simulate import Quantisation, simulate

SEEN, OTHERS = images(48), images(48, seed=1)


def together(batches: Batches) -> Batches:
    return [(torch.cat([x for (x,) in batches]),)]


def quantisation(graph: fx.GraphModule, *keep_fp32: str) -> Quantisation:
    program = lower(graph)
    ranges = calibrate(graph, program.names, SEEN, lambda: None)
    return Quantisation(program, ranges, frozenset(keep_fp32))


def shifts(
    graph: fx.GraphModule, changed: fx.GraphModule, made: Quantisation, batches: Batches
) -> dict[str, float]:
    """Layer → root mean square over channels of E[ŷ] − E[y], before the activation."""
    (inputs,) = together(batches)
    layers = set(made.layers())
    want = dict(node_values(graph, inputs, layers))
    got = dict(node_values(simulate(changed, made), inputs, layers))

    def means(x: Tensor) -> Tensor:
        return x.transpose(0, 1).flatten(1).mean(1)

    return {n: float((means(got[n]) - means(want[n])).square().mean().sqrt()) for n in layers}


def test_no_shift_is_left_on_images_that_were_not_seen() -> None:
    graph = skewed()
    made = quantisation(graph)
    corrected = correct_biases(graph, made, together(SEEN)).graph_module
    before = shifts(graph, graph, made, OTHERS)
    after = shifts(graph, corrected, made, OTHERS)
    shifted = [layer for layer in made.layers() if before[layer] > 0.009]
    assert len(shifted) >= 3
    for layer in shifted:
        assert after[layer] < before[layer] / 5


@pytest.mark.parametrize("name", ["mobilenet_v2", "resnet_18", "vgg"])
def test_one_batch_is_corrected_to_the_last_digit(name: str) -> None:
    graph = family(name)
    made = quantisation(graph)
    corrected = correct_biases(graph, made, together(SEEN)).graph_module
    before, after = (shifts(graph, g, made, SEEN) for g in (graph, corrected))
    assert max(after.values()) < 0.2 * max(before.values())


def test_batches_are_averaged() -> None:
    """Layer after layer in each batch: nearly what one large batch gives."""
    graph = skewed()
    made = quantisation(graph)
    parts = [(torch.cat([x for (x,) in SEEN[i : i + 12]]),) for i in range(0, len(SEEN), 12)]
    corrected = correct_biases(graph, made, parts).graph_module
    before, after = (shifts(graph, g, made, SEEN) for g in (graph, corrected))
    assert max(after.values()) < 0.2 * max(before.values())


def test_only_biases_change_and_the_graph_is_left_as_it_is() -> None:
    graph = skewed()
    made = quantisation(graph)
    before = fingerprint(graph)
    result = correct_biases(graph, made, together(SEEN))
    assert fingerprint(graph) == before
    assert {c.node for c in result.changes} == set(made.layers())
    new = result.graph_module.state_dict()
    for name, value in graph.state_dict().items():
        assert torch.equal(new[name], value) == (not name.endswith("bias"))


def test_layers_without_a_bias_get_one() -> None:
    net = Net(1, 3, 20, 20)
    x = net.call(nn.ReLU(), net.conv(net.x, 3, 8, 3, bias=False, name="front"))
    graph = net.build(net.conv(x, 8, 4, 1, bias=False, name="end")).float()
    result = correct_biases(graph, quantisation(graph), SEEN[:4])
    assert result.graph_module.front.bias.shape == (8,)


def test_a_layer_called_twice_is_skipped() -> None:
    net = Net(1, 3, 20, 20)
    a = net.conv(net.x, 3, 3, 1, name="twice")
    graph = net.build(net.conv(net.again(a, a), 3, 4, 1, name="end")).float()
    result = correct_biases(graph, quantisation(graph), SEEN[:4])
    assert [c.node for c in result.changes] == ["end"]
    assert {s.node for s in result.skipped} == {"twice", "twice_1"}
    assert "called 2 times" in result.skipped[0].reason


def test_no_images_no_change() -> None:
    graph = skewed()
    result = correct_biases(graph, quantisation(graph), [])
    assert not result.modified
    assert fingerprint(result.graph_module) == fingerprint(graph)


def test_a_wrong_sign_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = skewed()
    made = quantisation(graph)
    right = correct._move_bias
    monkeypatch.setattr(correct, "_move_bias", lambda layer, shift: right(layer, -shift))
    corrected = correct_biases(graph, made, together(SEEN)).graph_module
    before, after = (shifts(graph, g, made, OTHERS) for g in (graph, corrected))
    assert max(after.values()) > max(before.values())

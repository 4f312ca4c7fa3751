"""Networks that read no images, or several things, are calibrated, judged, pruned and planned as
those that read one image."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import shrinkc
from shrinkc import Goal, ShrinkcError
from shrinkc.compiler.cli.main import main
from shrinkc.errors import InputError

COUNT = 40
Streams = pytest.CaptureFixture[str]


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(COUNT, *shape, generator=torch.Generator().manual_seed(seed))


class Waves(nn.Module):
    """Classes of a signal of three channels."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv1d(3, 32, 5, 2, 2), nn.Conv1d(32, 32, 5, 1, 2)
        self.third, self.head = nn.Conv1d(32, 32, 3, 1, 1), nn.Linear(32, 4)

    def forward(self, signal: Tensor) -> Tensor:
        x = self.second(self.first(signal).relu()).relu()
        return self.head((x + self.third(x)).relu().mean(2))


class Both(nn.Module):
    """A picture and what is known of it."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = nn.Sequential(
            *(nn.Conv2d(3, 32, 3, 2, 1), nn.ReLU(), nn.Conv2d(32, 32, 3, 1, 1), nn.ReLU())
        )
        self.known = nn.Sequential(nn.Linear(6, 32), nn.ReLU())
        self.head = nn.Linear(32, 5)

    def forward(self, image: Tensor, facts: Tensor) -> Tensor:
        return self.head(self.seen(image).mean((2, 3)) + self.known(facts))


class Words(nn.Module):
    """Scores of a sentence of word numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(50, 16)
        self.hidden, self.head = nn.Linear(16, 32), nn.Linear(32, 3)

    def forward(self, words: Tensor) -> Tensor:
        return self.head(self.hidden(self.words(words)).relu().mean(1))


def made(kind: type[nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return kind().eval()


WORDS = torch.randint(0, 50, (COUNT, 12), generator=torch.Generator().manual_seed(0))
CASES: dict[str, tuple[type[nn.Module], tuple[Tensor, ...]]] = {
    "signal": (Waves, (drawn(3, 64),)),
    "two inputs": (Both, (drawn(3, 16, 16), drawn(6, seed=1))),
    "words": (Words, (WORDS,)),
}


def example(inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(x[:1] for x in inputs)


@pytest.mark.parametrize("name", CASES)
def test_int8_is_calibrated_and_judged(name: str) -> None:
    kind, inputs = CASES[name]
    network = made(kind)
    with torch.no_grad():
        labels = network(*inputs).argmax(1)
    given: Any = (inputs if len(inputs) > 1 else inputs[0], labels)
    found = shrinkc.compile(
        network, example(inputs), target="rpi4", precision="int8", images=given, runs=0
    )
    assert found.report.images == COUNT / 2  # others calibrate
    for file in found.report.artefacts:
        assert file.signal[0].snr_db > 25


@pytest.mark.parametrize("name", CASES)
def test_pruned_by_what_is_seen(name: str) -> None:
    kind, inputs = CASES[name]
    network, given = made(kind), inputs if len(inputs) > 1 else inputs[0]
    how: Any = {"goal": Goal.channels(0.7), "images": given}
    helped = shrinkc.prune(network, example(inputs), criterion="he", **how)
    alone = shrinkc.prune(network, example(inputs), criterion="he", compensate=False, **how)
    with torch.no_grad():
        want = network(*inputs)
        lost = [float((one(*inputs) - want).square().mean()) for one in (helped, alone)]
    assert sum(p.numel() for p in helped.parameters()) < sum(
        p.numel() for p in network.parameters()
    )
    assert lost[0] < 0.5 * lost[1]


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("name", ["signal", "two inputs"])
def test_planned_and_applied(name: str, precision: str, tmp_path: Path) -> None:
    kind, inputs = CASES[name]
    network, given = made(kind), inputs if len(inputs) > 1 else inputs[0]
    before = shrinkc.estimate(network, example(inputs), target="rpi4", precision=precision)
    planned = shrinkc.plan(
        *(network, example(inputs)),
        target="rpi4",
        goal=Goal.budget_ms(before.total_ms / 1.05),
        precision=precision,
        images=given,
        runs=0,
    )
    assert planned.plan.after_ms <= before.total_ms / 1.05
    assert planned.plan.promise is not None
    with torch.no_grad():
        want = network(*inputs)
        error = float((planned(*inputs) - want).square().mean() / want.var())
    assert error < 0.2
    assert planned.plan.promise.outputs[0].error is not None
    planned.save(tmp_path)
    again = shrinkc.apply(network, tmp_path / "plan.json", example(inputs), runs=0)
    with torch.no_grad():
        torch.testing.assert_close(again(*inputs), planned(*inputs), rtol=1e-5, atol=1e-6)


def test_shrunk_and_not_trained() -> None:
    kind, inputs = CASES["signal"]
    network = made(kind)
    how: Any = {"target": "rpi4", "images": inputs[0], "goal": Goal.speedup(1.1), "runs": 0}
    shrunk = shrinkc.shrink(network, example(inputs), precision="fp32", **how)
    with torch.no_grad():
        want = network(*inputs)
        assert float((shrunk(*inputs) - want).square().mean() / want.var()) < 0.2
    labelled = inputs[0], torch.arange(COUNT) % 4
    for options in ({"train": labelled}, {"train": labelled, "method": "depthshrinker"}):
        with pytest.raises(InputError, match="training reads images, one input"):
            shrinkc.shrink(network, example(inputs), precision="fp32", **how, **options)


def test_from_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Streams
) -> None:
    kind, (images, facts) = CASES["two inputs"]
    monkeypatch.chdir(tmp_path)
    shrinkc.save(made(kind), tmp_path / "model.safetensors", (images[:1], facts[:1]))
    np.savez(tmp_path / "seen.npz", image=images.numpy(), facts=facts.numpy())
    command = ["model.safetensors", "--target", "rpi4", "--images", "seen.npz", "--runs", "0"]
    assert main([*command, "--precision", "int8", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["images"] == COUNT / 2
    assert main([*command, "--speedup", "1.5"]) == 0
    assert main(["prune", *command[:-2], "--keep-ratio", "0.8", "--criterion", "he"]) == 0
    capsys.readouterr()
    np.savez(tmp_path / "seen.npz", image=images.numpy(), known=facts.numpy())
    assert main([*command, "--precision", "int8"]) == 3
    said = capsys.readouterr().err
    assert "arrays image, known beside 'target'; the network reads facts, image" in said
    assert len(said.strip().splitlines()) == 1
    with pytest.raises(ShrinkcError, match=r"2 inputs: give an .npz of the arrays image, facts"):
        shrinkc.compile(made(kind), (images[:1], facts[:1]), target="rpi4", images=tmp_path)


class Counted(nn.Module):
    """A picture and a number for it, (N,), as the step of a diffusion."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 16, 3, 1, 1), nn.Conv2d(16, 3, 3, 1, 1)

    def forward(self, image: Tensor, step: Tensor) -> Tensor:
        return self.second(self.first(image).relu() * step[:, None, None, None])


class Kept(nn.Module):
    """Words of which some are masked."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.head = nn.Embedding(20, 16), nn.Linear(16, 3)

    def forward(self, words: Tensor, kept: Tensor) -> Tensor:
        return self.head(self.words(words).masked_fill(~kept[..., None], 0.0).sum(1))


class Similar(nn.Module):
    """One query against several examples."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(8, 16)

    def forward(self, query: Tensor, examples: Tensor) -> Tensor:
        return self.embed(query) @ self.embed(examples).T


def test_files_are_called_with_what_the_network_reads() -> None:
    network, inputs = made(Kept), (torch.randint(0, 20, (4, 6)), torch.rand(4, 6) > 0.3)
    compiled = shrinkc.compile(network, example(inputs), target="rpi4", runs=0)
    with torch.no_grad():
        torch.testing.assert_close(compiled(*inputs), network(*inputs), rtol=1e-4, atol=1e-5)
    with pytest.raises(InputError, match="`inputs` holds float32; give int64 as the network"):
        compiled(inputs[0].float(), inputs[1])
    similar, given = made(Similar), (torch.randn(1, 8), torch.randn(5, 8))
    compiled = shrinkc.compile(similar, given, target="rpi4", runs=0)
    with torch.no_grad():
        torch.testing.assert_close(compiled(*given), similar(*given), rtol=1e-4, atol=1e-5)
    with pytest.raises(InputError, match="this network reads 1×8, 5×8"):
        compiled(torch.randn(5, 8), torch.randn(5, 8))


def test_a_number_for_each_sample_is_an_input() -> None:
    network, inputs = made(Counted), (drawn(3, 16, 16), drawn(seed=1))
    found = shrinkc.compile(
        network, example(inputs), target="rpi4", precision="int8", images=inputs, runs=0
    )
    assert all(file.signal[0].snr_db > 25 for file in found.report.artefacts)


def test_inputs_of_several_lengths_have_no_samples() -> None:
    with pytest.raises(InputError, match="the network reads 1×8, 5×8, not one"):
        shrinkc.prune(
            made(Similar),
            (torch.randn(1, 8), torch.randn(5, 8)),
            goal=Goal.channels(0.5),
            criterion="he",
            images=(drawn(8), drawn(8, seed=1)),
        )


@pytest.mark.parametrize("word", [50, -1])
def test_words_that_the_network_lacks(word: int) -> None:
    words = WORDS.repeat(3, 1)
    words[41, 3] = word  # none of those that tell what outputs mean
    network, how = made(Words), {"images": words, "target": "rpi4", "runs": 0}
    for run in (
        lambda: shrinkc.compile(network, WORDS[:1], precision="int8", **how),
        lambda: shrinkc.plan(network, WORDS[:1], goal=Goal.speedup(1.1), **how),
        lambda: shrinkc.sensitivity(network, WORDS[:1], images=words),
    ):
        with pytest.raises(InputError, match=r"`images`, sample 41: .* index out of range"):
            run()


def test_words_beside_truth_and_floats() -> None:
    class Said(Kept):
        def forward(self, words: Tensor, kept: Tensor, heard: Tensor) -> Tensor:  # pyright: ignore
            return super().forward(words, kept) * heard[:, :3]

    words, heard = WORDS % 20, drawn(5)
    inputs = words, WORDS % 3 > 0, heard
    found = shrinkc.compile(
        *(made(Said), example(inputs)), target="rpi4", precision="int8", images=inputs, runs=0
    )
    assert found.report.images == COUNT / 2
    words[3, 3] = 20
    with pytest.raises(InputError, match=r"`images`, sample 3: .* index out of range"):
        shrinkc.compile(made(Said), example(inputs), target="rpi4", images=inputs, runs=0)


def test_group_fisher_of_words() -> None:
    network, labels = made(Words), torch.arange(COUNT) % 3
    pruned = shrinkc.prune(
        *(network, WORDS[:1]),
        goal=Goal.channels(0.7),
        criterion="group-fisher",
        images=(WORDS, labels),
        labels=True,
    )
    assert sum(p.numel() for p in pruned.parameters()) < sum(
        p.numel() for p in network.parameters()
    )

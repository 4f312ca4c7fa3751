"""A dynamic batch is true or not said: what cannot follow the batch has a fixed one, and a note."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import shrinkc.compiler.capture as capturing
from shrinkc.compiler.capture import capture
from shrinkc.errors import CaptureError

X = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(5))
Answer = Callable[[Tensor], Any]


class Net(nn.Module):
    def __init__(self, answer: Answer) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.answer = nn.Conv2d(3, 4, 3), answer

    def forward(self, x: Tensor) -> Any:
        return self.answer(self.conv(x))


def more_than(limit: int) -> Answer:
    return lambda y: y * 2 if y.shape[0] > limit else y


def refusing(y: Tensor) -> Tensor:
    if y.shape[0] > 2:
        raise ValueError("too many images")
    return y


def at_most_two(y: Tensor) -> Tensor:
    return y * (1 / max(y.shape[0], 2))


def halves(y: Tensor) -> Tensor:
    return y + (torch.arange(y.shape[0]) // 2).view(-1, 1, 1, 1)


FIXED: dict[str, tuple[Answer, str]] = {
    "a slice": (lambda y: y[:4], "at a batch of 33 output 0"),
    "the last": (lambda y: y[-1:], "takes a part of the batch"),
    "a shift": (lambda y: torch.roll(y, 1, 0), "differs by"),
    "an if": (more_than(4), r"decides by its batch size .* in VR\[2, 4\]"),
    "a late if": (more_than(64), r"decides by its batch size .* in VR\[2, 64\]"),
    "even or odd": (lambda y: y * 2 if y.shape[0] % 2 else y, "decides by its batch size"),
    "a maximum": (at_most_two, ""),
    "its size": (lambda y: y * y.shape[0], "computes with the batch size"),
    "one by its size": (lambda y: y / y.shape[0], "computes with the batch size"),
    "halves": (halves, "its numbers follow the batch size"),
    "squeezed": (lambda y: y.mean((2, 3)).squeeze(), "how many dimensions"),
    "taken apart": (lambda y: y.unbind(0), "how many tensors|takes a part"),
    "refused": (refusing, "does not run on inputs of 33×3×8×8: too many images"),
    "returned": (lambda y: (y, y.shape[0]), "a number that follows the batch size"),
}
FREE: dict[str, Answer] = {
    "steps in front": lambda y: y.flatten(2).permute(2, 0, 1),
    "boxes": lambda y: y.permute(0, 2, 3, 1).reshape(-1, 4),
    "a number beside": lambda y: (y, y.mean()),
    "the mean of the batch": lambda y: y - y.mean(0, keepdim=True),
    "mixed with channels": lambda y: y.view(-1, 6, 6) * 2,
    "one row": lambda y: y.view(1, -1),
    "as many zeros": lambda y: y + torch.zeros(y.shape[0], 1, 1, 1),
}


@pytest.mark.parametrize("name", FIXED)
def test_what_cannot_follow_the_batch_is_fixed_to_it_with_the_reason(name: str) -> None:
    answer, reason = FIXED[name]
    model = Net(answer).eval()
    graph = capture(model, (X,))
    assert not graph.meta["dynamic_batch"]
    note = graph.meta["notes"][0]
    assert note.startswith("the files take batches of 1 only: ")
    assert "\n" not in note
    assert re.search(reason, note), note
    same_at(graph, model, 1)


@pytest.mark.parametrize("name", FREE)
def test_a_free_batch_holds_at_sizes_that_nobody_tried(name: str) -> None:
    model = Net(FREE[name]).eval()
    graph = capture(model, (X,))
    assert graph.meta["dynamic_batch"]
    assert not graph.meta["notes"]
    for batch in (1, 3, 8, 34):
        same_at(graph, model, batch)


def same_at(graph: nn.Module, model: nn.Module, batch: int) -> None:
    x = torch.randn(batch, 3, 8, 8)
    with torch.no_grad():
        got, want = graph(x), model(x)
    wanted = [want] if isinstance(want, Tensor) else [w for w in want if isinstance(w, Tensor)]
    for a, b in zip(got, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_a_larger_example_is_its_own_fixed_batch() -> None:
    graph = capture(Net(lambda y: y[:4]).eval(), (torch.randn(6, 3, 8, 8),))
    assert graph.meta["notes"][0].startswith("the files take batches of 6 only: ")
    assert graph(torch.randn(6, 3, 8, 8))[0].shape[0] == 4


class Queries(nn.Module):
    """The second input has no batch."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor, queries: Tensor) -> Tensor:
        return self.conv(x).flatten(2).mT @ queries.mT


def test_inputs_without_a_common_batch_are_taken_as_they_are() -> None:
    queries = torch.randn(5, 4)
    graph = capture(Queries().eval(), (X, queries))
    assert "different first dimensions" in graph.meta["notes"][0]
    assert graph(X, queries)[0].shape == (1, 36, 5)


def test_two_sizes_alone_would_not_have_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted fault: what is right at 1 and 2 counts as free."""
    monkeypatch.setattr(capturing, "batch_sizes", lambda inputs: (1, 2))  # pyright: ignore
    model = Net(FIXED["a slice"][0]).eval()
    graph = capture(model, (X,))
    assert graph.meta["dynamic_batch"]
    with pytest.raises(AssertionError):
        same_at(graph, model, 5)


def test_nothing_but_none_is_refused() -> None:
    with pytest.raises(CaptureError, match="no tensor"):
        capture(Net(lambda y: None).eval(), (X,))


def test_what_no_file_holds_is_named() -> None:
    graph = capture(Net(lambda y: {"map": y, "size": 7, "loss": None}).eval(), (X,))
    note = "the model also returns output['size'] (int), output['loss'] (None), which no file holds"
    assert graph.meta["notes"] == [note]

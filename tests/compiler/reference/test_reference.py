"""The model as a reference: run on copies, everything that it changes of itself put back."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from shrinkc.compiler.reference.original import Original
from shrinkc.compiler.reference.probes import batch_sizes, probes
from shrinkc.compiler.reference.reference import Reference
from shrinkc.errors import ModelRunError

X = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))


class Memory:
    """State in a class of the model's own."""

    def __init__(self) -> None:
        self.last = torch.zeros(1)


class Restless(nn.Module):
    """Changes whatever it can of itself."""

    def __init__(self, change: Callable[[Any, Tensor], None]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.register_buffer("buffer", torch.zeros(4))
        self.change = change
        self.count, self.cache, self.nested = 0, list[Tensor](), {"grids": [1, {2}]}
        self.recent, self.memory = deque[int](), Memory()
        self.plain = torch.ones(3)

    def forward(self, x: Tensor) -> Tensor:
        self.change(self, x)
        return self.conv(x) + self.buffer[0] + self.count


def _fill(m: Any, x: Tensor) -> None:
    m.buffer.fill_(2.0)


def _replace(m: Any, x: Tensor) -> None:
    m.buffer = x.mean((0, 2, 3))[:1]


def _behind_the_back(m: Any, x: Tensor) -> None:
    m.buffer.data.add_(1)


def _weights(m: Any, x: Tensor) -> None:
    m.conv.weight.data = m.conv.weight.data * 0.5


def _count(m: Any, x: Tensor) -> None:
    m.count += 1


def _append(m: Any, x: Tensor) -> None:
    m.cache.append(x)


def _deep(m: Any, x: Tensor) -> None:
    m.nested["grids"][1].add(3)


def _forget(m: Any, x: Tensor) -> None:
    del m.plain


def _note(m: Any, x: Tensor) -> None:
    m.recent.append(1)


def _object(m: Any, x: Tensor) -> None:
    m.memory.last = x


def _attribute(m: Any, x: Tensor) -> None:
    m.seen = x.shape


CHANGES = {
    "buffer": (_fill, _replace, _behind_the_back),
    "conv.weight": (_weights,),
    "count": (_count,),
    "cache[0]": (_append,),
    "nested.grids[1]": (_deep,),
    "plain": (_forget,),
    "recent[0]": (_note,),
    "memory.last": (_object,),
    "seen": (_attribute,),
}
EACH = [(path, change) for path, changes in CHANGES.items() for change in changes]


@pytest.mark.parametrize(("path", "change"), EACH, ids=lambda v: getattr(v, "__name__", v))
def test_what_a_model_changes_of_itself_is_named_and_put_back(
    path: str, change: Callable[[Any, Tensor], None]
) -> None:
    model = Restless(change).eval()
    reference = Reference(model)
    first = reference((X,))
    assert not reference.changed()
    assert torch.equal(reference((X,))[0], first[0])
    reference.run((X,))
    assert reference.changed() == (path,)
    with reference.preserved():
        pass
    assert not reference.changed()
    assert set(vars(model)) == set(vars(Restless(change)))


def test_a_failure_is_told_with_the_shapes_and_leaves_nothing() -> None:
    def fail(m: Any, x: Tensor) -> None:
        m.buffer.fill_(7.0)
        raise KeyError("anchors")

    model = Restless(fail)
    with pytest.raises(ModelRunError, match=r"2×3×6×6: .*anchors"):
        Reference(model)((X,))
    assert not bool(model.buffer.any())  # pyright: ignore


class Writing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.div_(255)


def test_inputs_are_copies_and_results_do_not_alias() -> None:
    x = X.clone()
    reference = Reference(Writing())
    first = reference((x,))[0]
    assert torch.equal(x, X)
    kept = first.clone()
    reference((x + 1,))
    assert torch.equal(first, kept)


class Drawing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x, 0.5)


def test_random_numbers_depend_on_the_seed_alone() -> None:
    reference, state = Reference(Drawing()), torch.get_rng_state()
    assert torch.equal(reference((X,))[0], reference((X,))[0])
    assert not torch.equal(reference((X,))[0], reference((X,), seed=1)[0])
    assert torch.equal(torch.get_rng_state(), state)


def test_only_tensors_are_answers_in_the_order_of_the_leaves() -> None:
    class Mixed(nn.Module):
        def forward(self, x: Tensor) -> Any:
            return {"name": "net", "pair": (x + 1, None), "last": [x.mean(), 3]}

    one, two = Reference(Mixed())((X,))
    assert torch.equal(one, X + 1)
    assert two.shape == ()


def test_probes_reach_limits_at_every_batch() -> None:
    assert batch_sizes((torch.zeros(1, 3, 224, 224),)) == (1, 2, 5)
    assert batch_sizes((torch.zeros(4, 3, 8, 8),)) == (4, 8, 1, 33)
    found = list(probes((X,), (2, 4, 1, 5)))
    assert max(float(p.inputs[0].max()) for p in found) > 40
    assert min(float(p.inputs[0].abs().max()) for p in found) == 0
    assert {len(p.inputs[0]) for p in found} == {1, 2, 4, 5}
    assert any(p.inputs[0] is X for p in found)
    for scale in ("1", "0.05", "20"):  # a fixed batch of one still gives ranges of channels
        one = [p for p in probes((X[:1],), (1,)) if p.group == f"normal × {scale}"]
        assert sum(len(p.inputs[0]) for p in one) >= 4


def test_no_group_is_judged_by_a_single_sample() -> None:
    """A score that is nearly 0 on the one example would have no range to be judged by."""
    for batches in ((1, 2, 5), (1,)):
        samples = Counter[str]()
        for probe in probes((X[:1],), batches):
            samples[probe.group] += len(probe.inputs[0])
        assert min(samples.values()) >= 4


def test_whole_numbers_stay_whole() -> None:
    indices = torch.arange(6).reshape(2, 3)
    for probe in probes((X, indices), (2, 5)):
        assert probe.inputs[1].dtype == torch.int64
        assert int(probe.inputs[1].max()) <= 5


def answers(function: Callable[[Tensor], Any]) -> Original:
    class Net(nn.Module):
        def forward(self, x: Tensor) -> Any:
            return function(x)

    return Original.of_model(Reference(Net()))


TOGETHER = SimpleNamespace(
    whole_batch=lambda x: x - x.mean(0),
    flattened=lambda x: x.reshape(-1, 6),
    constant=lambda x: (x, torch.ones(3)),
    number=lambda x: (x, x.sum()),
    turned=lambda x: x.transpose(0, 1),
    first_only=lambda x: x[:2],
)


@pytest.mark.parametrize("name", vars(TOGETHER))
def test_samples_that_depend_on_each_other_are_noticed(name: str) -> None:
    assert not answers(getattr(TOGETHER, name)).treats_samples_alone((X,))


def test_samples_that_do_not_are_noticed_too() -> None:
    assert answers(lambda x: (x * 2, x.flatten(1).argmax(1))).treats_samples_alone((X,))


def test_rounding_is_what_the_network_does_to_itself() -> None:
    steady, shaky = answers(lambda x: x), answers(lambda x: (x + 1e4) - 1e4)
    assert [*steady.rounding([(X,)])][-1][0].relative() < 1e-4
    assert [*shaky.rounding([(X,)])][-1][0].relative() > 1e-4

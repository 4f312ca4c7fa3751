"""ABCPruner: its steps by hand, and what its colony does on a small network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from searches import Recorder, in_memory, searched, trained
from torch import fx

from shrinkc.compiler.cost.goal import Goal
from shrinkc.compiler.cost.keys import macs
from shrinkc.compiler.export.lower import lower
from shrinkc.compiler.width.search.bees import EVALUATIONS, BeeColony, Hive, beside, chances
from shrinkc.compiler.width.search.task import SearchTask

HALF = Goal.macs(0.5)


@pytest.fixture(scope="module")
def graph() -> fx.GraphModule:
    return trained()


def test_a_bee_lands_beside_a_source() -> None:
    code, other = np.array([5, 9, 2, 7]), np.array([1, 4, 8, 7])
    # 5 + 0.5·4 = 7; 9 + 1·5 = 14, clipped to 9; 2 − 0.9·(2 − 8) = 7.4, towards zero
    assert beside(code, other, [0, 1, 2], [0.5, 1.0, -0.9], 9).tolist() == [7, 9, 7, 7]
    # 5 − 1·4 = 1; 2 + 0.6·(−6) = −1.6 → −1, clipped to 1
    assert beside(code, other, [0, 2], [-1.0, 0.6], 9).tolist() == [1, 9, 1, 7]
    assert code.tolist() == [5, 9, 2, 7]


def test_onlookers_prefer_what_is_fit() -> None:
    assert chances([0.8, 0.4, 0.0]) == pytest.approx([1.0, 0.55, 0.1])
    assert chances([0.0, 0.0]) == [1.0, 1.0]
    assert chances([-3.0, 0.5]) == pytest.approx([0.1, 1.0])


def test_ten_cycles_of_ten_sources_as_published() -> None:
    assert EVALUATIONS == 220


class Fixed:
    """Fitness by what is asked, nothing judged."""

    most = 1000

    def __init__(self, values: list[float]) -> None:
        self.values = values

    def of(self, candidates: list[object]) -> list[float]:
        return [self.values.pop(0) for _ in candidates]


class Codes(SearchTask):
    def candidate(self, shares: object) -> object:  # pyright: ignore
        return shares


def hive(values: list[float], **options: int) -> Hive:
    colony = BeeColony(**options)
    return Hive(colony, Codes(None, ("a", "b", "c"), None, Fixed(values)))  # pyright: ignore


def test_what_is_fitter_takes_the_source_and_a_failure_is_counted() -> None:
    one = hive([0.5, 0.5, 0.6, 0.4], sources=2, limit=2)
    before = one.codes.copy()
    one.employed()
    assert one.fitness == [0.6, 0.5]
    assert one.failed == [0, 1]
    assert (one.codes[1] == before[1]).all()


def test_a_scout_draws_anew_what_failed_most_often() -> None:
    one = hive([0.5, 0.5, 0.1], sources=2, limit=2)
    one.failed = [1, 2]
    one.scout()
    assert one.fitness == [0.5, 0.1]
    assert one.failed == [1, 0]
    one.failed = [1, 1]
    one.scout()  # nobody has failed often enough: nothing is judged
    assert one.fitness == [0.5, 0.1]


def test_the_best_never_falls_and_every_candidate_meets_the_goal(
    graph: fx.GraphModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitness = in_memory(graph, 24)
    search = Recorder(BeeColony(sources=4).search, fitness)
    costs: list[float] = []
    network = type(fitness.judge).network

    def counted(judge: object, keep: object) -> fx.GraphModule:
        found = network(judge, keep)  # pyright: ignore
        costs.append(macs(lower(found)))
        return found

    monkeypatch.setattr(type(fitness.judge), "network", counted)
    result = searched(graph, search, HALF)
    whole = macs(lower(graph))
    assert 12 <= fitness.count == len(costs) == len(search.best) <= 24  # the same widths: once
    assert search.best == sorted(search.best)
    assert max(costs) <= 0.5 * whole
    assert min(costs) > 0.35 * whole  # scaled to the goal, not merely below it
    after = macs(lower(result.graph_module))
    assert 0.35 * whole < after <= 0.5 * whole
    assert search.best[-1] > search.best[0] > 0.8


def test_a_seed_is_the_same_search(graph: fx.GraphModule) -> None:
    widths = []
    for seed in (1, 1, 2):
        fitness = in_memory(graph, 6)
        searched(graph, Recorder(BeeColony(sources=4).search, fitness, seed=seed), HALF)
        widths.append(sorted(fitness._known))
    assert widths[0] == widths[1] != widths[2]


def test_killed_and_resumed_it_ends_alike(graph: fx.GraphModule, tmp_path: Path) -> None:
    class KilledError(Exception):
        pass

    def run(stop: int | None, folder: Path) -> tuple[object, int]:
        fitness = in_memory(graph, 12, folder)
        search = Recorder(BeeColony(sources=4).search, fitness)
        judged = 0
        put = fitness._journal.put

        def counting(label: str, numbers: list[float]) -> None:
            nonlocal judged
            if judged == stop:
                raise KilledError
            judged += 1
            put(label, numbers)

        fitness._journal.put = counting  # pyright: ignore
        return searched(graph, search, HALF).widths, judged

    whole, count = run(None, tmp_path / "whole")
    assert count > 5
    with pytest.raises(KilledError):
        run(5, tmp_path / "killed")
    assert run(None, tmp_path / "killed") == (whole, count - 5)

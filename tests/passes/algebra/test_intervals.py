"""The chosen intervals are as good as the best of all subsets."""

from __future__ import annotations

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st
from torch import fx

from shrinkc.passes.algebra.intervals import Interval, best_disjoint, region_order

intervals = st.builds(
    lambda first, length, value: Interval(first, first + length, value),
    st.integers(0, 12),
    st.integers(0, 5),
    st.integers(-2, 9),
)


def disjoint(chosen: tuple[Interval, ...]) -> bool:
    return all(a.last < b.first or b.last < a.first for a, b in combinations(chosen, 2))


@given(st.lists(intervals, max_size=7))
def test_against_all_subsets(options: list[Interval]) -> None:
    chosen = tuple(options[i] for i in best_disjoint(options))
    assert disjoint(chosen)
    assert all(i.value > 0 for i in chosen)
    subsets = (s for n in range(len(options) + 1) for s in combinations(options, n))
    best = max(sum(i.value for i in s) for s in subsets if disjoint(s))
    assert sum(i.value for i in chosen) == best


def test_branches_that_alternate_in_the_graph_are_neighbours_in_the_order() -> None:
    graph = fx.Graph()
    x = graph.placeholder("x")
    a = b = x
    for _ in range(3):  # execution alternates between the branches
        a, b = graph.call_function(abs, (a,)), graph.call_function(abs, (b,))
    total = graph.call_function(max, (a, b))
    graph.output((total,))
    order = region_order(graph.nodes)
    for tip in (a, b):
        branch = [tip, tip.args[0], tip.args[0].args[0]]
        assert sorted(order[n] for n in branch) == list(range(order[branch[-1]], order[tip] + 1))
    assert order[x] == 0
    assert order[total] == 7

"""Jobs over Ray itself, where it is installed: two nodes on this machine, one of which is lost."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
from job_examples import scored, slow, slowly
from torch import nn

from shrinkc.compiler.support.jobs import Job, Ray, finished, run_jobs, workers

ray: Any = pytest.importorskip("ray")
pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own: sockets and files left open


@pytest.fixture
def two_nodes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    cluster.add_node(num_cpus=1)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def alive(process: int) -> bool:
    """Whether there is one that is not just waiting for its parent."""
    try:
        return Path(f"/proc/{process}/stat").read_text().split()[2] != "Z"
    except OSError:
        return False


def until(reached: Callable[[], bool]) -> None:
    """Wait for it; a minute at most."""
    end = time.monotonic() + 60
    while not reached():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_jobs_of_a_lost_node_are_done_again(two_nodes: Any, tmp_path: Path) -> None:
    where = Ray(two_nodes.address)
    shared = (nn.Linear(3, 2), torch.randn(8, 3))
    scores = [Job(f"span {i}", scored, (i,)) for i in range(8)]
    found, wanted = run_jobs(scores, where, shared=shared), run_jobs(scores, shared=shared)
    assert [score for score, *_ in found] == [score for score, *_ in wanted]
    assert {threads for *_, threads in found} == {1}
    assert os.getpid() not in {process for _, process, _ in found}
    assert workers(where) == 2

    jobs = [Job(f"number {i}", slowly, (i, 0.3)) for i in range(12)]
    results: dict[int, tuple[int, int]] = {}
    with closing(finished(jobs, 12, where)) as coming:
        for index, result in coming:
            results[index] = result
            if len(results) == 4:
                two_nodes.remove_node(next(iter(two_nodes.worker_nodes)), allow_graceful=False)
    assert {index: number for index, (number, _) in results.items()} == {i: i for i in range(12)}
    until(lambda: sum(node["Alive"] for node in ray.nodes()) == 1)

    jobs = [Job("short", slowly, (0, 0.0)), Job("long", slow, (tmp_path,))]
    with closing(finished(jobs, 2, where)) as coming:
        assert next(coming)[0] == 0
        until((tmp_path / "pid").exists)
        until(lambda: (tmp_path / "pid").read_text() != "")
        process = int((tmp_path / "pid").read_text())
        assert alive(process)
    until(lambda: not alive(process))

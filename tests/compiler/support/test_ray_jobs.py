"""Jobs over Ray by a double of it: what is handed over when, what is refused, what is sent."""

import socket
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import torch
from job_examples import Arriving, arrivals, failing, numbered, scored
from ray_double import FakeRay, installed
from torch import nn

from shrinkc.compiler.support.jobs import Job, Ray, finished, run_jobs, workers
from shrinkc.compiler.support.side_by_side import cluster
from shrinkc.compiler.support.side_by_side.over_ray import AHEAD, LOST
from shrinkc.errors import InputError, TrainingError

SHARED = (nn.Linear(3, 2), torch.randn(8, 3))
SCORES = [Job(f"span {i}", scored, (i,)) for i in range(8)]
FINE = [Job(f"number {i}", failing, ("fine",)) for i in range(8)]


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeRay]:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    with installed(monkeypatch, FakeRay(2, 2, seconds=lambda number: 9.0 - number)) as fake:
        yield fake


def test_ray_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(TrainingError, match=r"over Ray need it: pip install 'shrinkc\[ray\]'"):
        run_jobs(FINE, "ray")


def test_results_are_in_order_whatever_order_they_come_in(ray: FakeRay) -> None:
    with closing(finished(SCORES, 8, "ray", shared=SHARED)) as results:
        order = [index for index, _ in results]
    assert order != sorted(order)
    assert run_jobs(SCORES, "ray", shared=SHARED) == run_jobs(SCORES, shared=SHARED)
    assert ray.addresses == ["local"]  # once
    given = {"num_cpus": 1, "max_retries": LOST, "retry_exceptions": False}
    assert all(task.options == given for task in ray.jobs)


def test_what_is_shared_is_sent_and_unpickled_once(ray: FakeRay) -> None:
    arrivals.clear()
    jobs = [Job(f"number {i}", numbered, (i,)) for i in range(6)]
    for _ in range(2):
        assert run_jobs(jobs, "ray", shared=(Arriving(),)) == [(i, 1) for i in range(6)]
    assert len(ray.sent) == 1
    assert run_jobs(SCORES, "ray", shared=SHARED) == run_jobs(SCORES, shared=SHARED)
    assert len(ray.sent) == 2


def test_a_failing_job_ends_the_others(ray: FakeRay) -> None:
    jobs = [*FINE[:3], Job("bad", failing, ("division",)), *FINE[4:]]
    with pytest.raises(TrainingError, match="job 'bad' failed: ZeroDivisionError") as caught:
        run_jobs(jobs, "ray")
    assert "in failing" in caught.value.__notes__[0]
    assert len(ray.cancelled) == len(ray.jobs) - 1 == 7
    assert all(force for _, force in ray.cancelled)


def test_ctrl_c_ends_what_runs(ray: FakeRay, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    assert workers("ray") == 4  # and it is connected
    monkeypatch.setattr(ray, "wait", interrupted)
    monkeypatch.setattr(cluster.Cluster, "check", lambda self: None)
    with pytest.raises(KeyboardInterrupt):
        run_jobs(FINE, "ray")
    assert len(ray.cancelled) == 8


def test_a_job_that_is_lost_as_often_as_it_is_tried(ray: FakeRay) -> None:
    ray.lost = {5}
    with pytest.raises(TrainingError, match="job 'number 5' failed: the worker died 'unexp") as e:
        run_jobs(FINE, "ray")
    assert "\n" not in str(e.value)


def test_what_cannot_be_sent(ray: FakeRay) -> None:
    with pytest.raises(TrainingError, match="job 'local' cannot be sent to another process"):
        run_jobs([*FINE[:1], Job("local", failing, (lambda: 1,))], "ray")
    assert len(ray.cancelled) == 1
    with pytest.raises(TrainingError, match="shared arguments cannot be sent"):
        run_jobs(FINE, "ray", shared=(lambda: 1,))
    with pytest.raises(TrainingError, match="job 'result' failed: its result cannot be sent back"):
        run_jobs([Job("result", failing, ("closure",))], "ray")


# --- scheduling ----------------------------------------------------------------------------------


def test_sixty_four_workers_are_kept_busy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Jobs that take 1 to 2 seconds; few of them in memory."""
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    fake = FakeRay(32, 32, seconds=lambda number: 1 + (number * 37 % 101) / 100)
    made = [0]

    def making() -> Iterator[Job[int]]:
        for i in range(6400):
            made[0] += 1
            yield Job(f"number {i}", failing, ("fine",))

    with installed(monkeypatch, fake), closing(finished(making(), 6400, "ray")) as results:
        for done, _ in enumerate(results):
            assert made[0] - done <= AHEAD * 64
    ideal = sum(task.seconds for task in fake.jobs) / 64
    assert fake.now <= 1.03 * ideal
    assert fake.most_waiting == AHEAD * 64


def test_a_cluster_that_grows_is_used(ray: FakeRay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "COUNTED", 0.0)
    jobs = [Job(f"number {i}", failing, ("fine",)) for i in range(100)]
    with closing(finished(jobs, 100, "ray")) as results:
        next(results)
        assert ray.most_waiting == AHEAD * 4
        ray.cpus["node2"] = 12
        assert len(list(results)) == 99
    assert ray.most_waiting == AHEAD * 16


def test_few_jobs_share_the_cpus_and_none_has_more_than_a_node(ray: FakeRay) -> None:
    for cpus, count, each in (((8, 8), 16, 1), ((8, 8), 5, 3), ((8, 2), 1, 2), ((4, 0), 1, 4)):
        ray.cpus = {f"node{i}": n for i, n in enumerate(cpus)}
        ray.shutdown()  # another connection
        found = run_jobs([*SCORES, *SCORES][:count], "ray", shared=SHARED)
        assert {threads for _, _, threads in found} == {each}
        assert ray.jobs[-1].cpus == each


# --- clusters ------------------------------------------------------------------------------------


def test_nodes_that_differ_are_refused(ray: FakeRay) -> None:
    ray.versions["node1"] = {"torch": "1.0"}
    wrong = rf"node 10.0.0.1 of the Ray cluster has torch 1.0, .* has {torch.__version__}"
    with pytest.raises(TrainingError, match=wrong.replace("+", r"\+")):
        workers("ray")
    ray.versions["node1"] = {"shrinkc": "0.0.1 (code 12345678)"}
    with pytest.raises(
        TrainingError, match=r"has shrinkc 0.0.1 \(code 12345678\), and this .*code"
    ):
        run_jobs(FINE, "ray")
    assert not ray.jobs


def test_a_node_that_comes_later_and_differs(ray: FakeRay, monkeypatch: pytest.MonkeyPatch) -> None:
    from shrinkc.compiler.support.side_by_side import over_ray

    monkeypatch.setattr(over_ray, "_alike", "")
    assert run_jobs(FINE, "ray") == [1] * 8
    ray.node = "node9"
    assert run_jobs(FINE, "ray") == [1] * 8  # the versions of this process
    monkeypatch.setattr(over_ray, "_alike", "")
    monkeypatch.setattr(over_ray, "telling", lambda: lambda: {"Python": "2.7"})
    with pytest.raises(TrainingError, match=r"node9, which came later, has Python 2\.7, and"):
        run_jobs(FINE, "ray")


def test_what_is_connected_already_is_used(ray: FakeRay) -> None:
    ray.running = True
    assert run_jobs(FINE, "ray") == [1] * 8
    assert run_jobs(FINE, Ray("10.0.0.0:6379")) == [1] * 8
    assert ray.addresses == []
    with pytest.raises(InputError, match=r"`ray` 10.0.0.9:1: .* connected to 10.0.0.0:6379 alr"):
        run_jobs(FINE, Ray("10.0.0.9:1"))


def closed_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def test_an_address_that_does_not_answer(ray: FakeRay, monkeypatch: pytest.MonkeyPatch) -> None:
    address = f"127.0.0.1:{closed_port()}"
    with pytest.raises(InputError, match=rf"`ray` {address} does not answer \(.*refused\); give"):
        workers(Ray(address))
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(InputError, match=f"RAY_ADDRESS {address} does not answer"):
        workers("ray")
    assert workers(Ray("local")) == 4
    assert ray.addresses == ["local"]


def test_a_port_behind_which_something_else_is(
    ray: FakeRay, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(cluster, "ANSWERED", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setattr(cluster, "_PROBE", "import time; time.sleep(60)")
        with pytest.raises(InputError, match="does not answer as Ray does within 1 seconds; give"):
            workers(Ray(address))
        monkeypatch.setattr(cluster, "_PROBE", "import sys; sys.exit('a\\nVersion mismatch: `9`')")
        with pytest.raises(InputError, match="cannot be used: Version mismatch: '9'; give"):
            workers(Ray(address))
        (tmp_path / "ray").mkdir()
        (tmp_path / "ray" / "ray_current_cluster").write_text(address)
        with pytest.raises(InputError, match=f"started on this machine, {address}, cannot be us"):
            workers("ray")
        monkeypatch.setattr(cluster, "_PROBE", "")
        assert workers("ray") == 4
        assert ray.addresses == [address]


@pytest.mark.parametrize("address", ["head", "head:port", ":6379", "head:99999"])
def test_what_is_no_address(ray: FakeRay, address: str) -> None:
    with pytest.raises(InputError, match=f"`ray` {address} is no address; give the HOST:PORT"):
        workers(Ray(address))


def test_no_address_at_all(ray: FakeRay) -> None:
    with pytest.raises(InputError, match="`ray` auto: no cluster runs on this machine"):
        workers(Ray("auto"))
    with pytest.raises(InputError, match="`ray` is empty"):
        Ray(" ")
    with pytest.raises(InputError, match="`ray` is a int; give the address"):
        Ray(6379)  # pyright: ignore

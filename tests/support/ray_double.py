"""Ray's part of the bargain, done in this process by a clock of its own: tasks wait until CPUs are
free, take the seconds that they are given, and are run when they are done."""

import pickle
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

from shrinkc.compiler.support.side_by_side import cluster


class RayError(Exception):
    pass


class LostError(RayError):
    """A task whose process died as often as it was tried."""


@dataclass(eq=False)
class Task:
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    options: dict[str, Any]
    seconds: float
    done_at: float | None = None

    @property
    def cpus(self) -> float:
        return self.options["num_cpus"]


@dataclass(frozen=True)
class Affinity:
    node: str
    soft: bool


@dataclass(eq=False)
class RemoteFunction:
    ray: "FakeRay"
    function: Callable[..., Any]
    given: dict[str, Any] = field(default_factory=dict[str, Any])

    def options(self, **given: Any) -> "RemoteFunction":
        return RemoteFunction(self.ray, self.function, self.given | given)

    def remote(self, *arguments: Any) -> Task:
        return self.ray.submitted(Task(self.function, arguments, self.given, 0.0))


class FakeRay(types.ModuleType):
    """`cpus`: of each node; `seconds`: of the jobs, by the order of their submission."""

    def __init__(self, *cpus: int, seconds: Callable[[int], float] = lambda number: 1.0) -> None:
        super().__init__("ray")
        self.cpus = {f"node{i}": count for i, count in enumerate(cpus or (2,))}
        self.seconds = seconds
        self.now, self.running = 0.0, False
        self.versions: dict[str, dict[str, str]] = {}  # node → what it has otherwise
        self.addresses, self.sent = list[str](), list[Any]()
        self.jobs, self.cancelled = list[Task](), list[tuple[Task, bool]]()
        self.most_waiting = 0
        self.lost = set[int]()  # numbers of jobs
        self.node = "node0"  # where tasks run
        self.exceptions = types.SimpleNamespace(RayError=RayError)
        self.cloudpickle = pickle
        self._open: list[Task] = []

    # --- a process and its cluster

    def is_initialized(self) -> bool:
        return self.running

    def init(self, address: str, log_to_driver: bool, logging_level: int) -> None:
        assert not log_to_driver
        self.addresses.append(address)
        self.running = True

    def shutdown(self) -> None:
        self.running = False

    def nodes(self) -> list[dict[str, Any]]:
        return [
            {
                "NodeID": node,
                "Alive": True,
                "NodeManagerAddress": f"10.0.0.{i}",
                "Resources": {"CPU": count},
            }
            for i, (node, count) in enumerate(self.cpus.items())
        ]

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": float(sum(self.cpus.values()))}

    def get_runtime_context(self) -> Any:
        return types.SimpleNamespace(
            get_node_id=lambda: self.node,
            get_job_id=lambda: str(len(self.addresses)),
            get_assigned_resources=lambda: {"CPU": self.jobs[-1].cpus},
            gcs_address="10.0.0.0:6379",
        )

    # --- tasks

    def put(self, value: Any) -> Any:
        self.sent.append(value)
        return value

    def remote(self, function: Callable[..., Any]) -> RemoteFunction:
        return RemoteFunction(self, function)

    def submitted(self, task: Task) -> Task:
        if task.cpus:
            task.seconds = self.seconds(len(self.jobs))
            self.jobs.append(task)
        self._open.append(task)
        self.most_waiting = max(self.most_waiting, len(self._open))
        self._start()
        return task

    def _start(self) -> None:
        free = sum(self.cpus.values()) - sum(t.cpus for t in self._open if t.done_at is not None)
        for task in self._open:
            if task.done_at is None and task.cpus <= free:
                task.done_at, free = self.now + task.seconds, free - task.cpus

    def wait(
        self, references: list[Task], num_returns: int, timeout: float | None = None
    ) -> tuple[list[Task], list[Task]]:
        ready: list[Task] = []
        while len(ready) < min(num_returns, len(references)):
            started = [t for t in references if t.done_at is not None and t not in ready]
            task = min(started, key=lambda t: t.done_at or 0.0)
            self.now = max(self.now, task.done_at or 0.0)
            self._open.remove(task)
            ready.append(task)
            self._start()
        return ready, [t for t in references if t not in ready]

    def get(self, task: Task) -> Any:
        if task in self.jobs and self.jobs.index(task) in self.lost:
            raise LostError("the worker died `unexpectedly`\nbeside its logs")
        answer = task.function(*task.arguments)
        if isinstance(answer, dict):
            answer |= self.versions.get(task.options["scheduling_strategy"].node, {})
        return answer

    def cancel(self, task: Task, force: bool) -> None:
        self.cancelled.append((task, force))


@contextmanager
def installed(monkeypatch: pytest.MonkeyPatch, ray: FakeRay) -> Iterator[FakeRay]:
    """In place of Ray, which may not be there at all; no cluster is known before or afterwards."""
    strategies = types.SimpleNamespace(NodeAffinitySchedulingStrategy=Affinity)
    worker = types.SimpleNamespace(_worker_logs_enabled=True)
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setitem(sys.modules, "ray.util.scheduling_strategies", strategies)
    monkeypatch.setitem(sys.modules, "ray._private.worker", worker)
    monkeypatch.setattr(cluster, "_cluster", None)
    threads = torch.get_num_threads()
    try:
        yield ray
    finally:
        torch.set_num_threads(threads)

"""Jobs side by side: order, names of what fails, nothing left running."""

import multiprocessing
import os
import sys
import time
import types
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from job_examples import failing, failing_later, scored, slow
from torch import nn

from shrinkc.compiler.support.jobs import Job, run_jobs
from shrinkc.compiler.support.progress import Advance
from shrinkc.errors import TrainingError

SHARED = (nn.Linear(3, 2), torch.randn(8, 3))
SCORES = [Job(f"span {i}", scored, (i,)) for i in range(8)]


class Noting:
    def __init__(self) -> None:
        self.notes: list[str] = []

    @contextmanager
    def task(self, text: str, total: int | None = None) -> Generator[Advance]:
        assert (text, total) == ("Importance", 8)
        yield lambda note="": self.notes.append(note)


def test_results_come_in_order_from_processes_that_share_the_cores() -> None:
    here, there = Noting(), Noting()
    wanted = run_jobs(SCORES, shared=SHARED, progress=here, text="Importance")
    found = run_jobs(SCORES, 2, shared=SHARED, progress=there, text="Importance")
    assert here.notes == [job.name for job in SCORES]
    assert sorted(there.notes) == here.notes
    assert [score for score, _, _ in found] == pytest.approx([score for score, _, _ in wanted])
    assert {process for _, process, _ in wanted} == {os.getpid()}
    processes = {process for _, process, _ in found}
    assert len(processes) in (1, 2)  # one may have been slow to start
    assert os.getpid() not in processes
    assert {threads for _, _, threads in found} == {max(1, (os.cpu_count() or 1) // 2)}
    assert not multiprocessing.active_children()
    assert run_jobs([], 2) == []


def test_a_failing_job_is_named_with_its_traceback() -> None:
    for kind, message in (
        ("own", r"job 'layer own' failed: TFLite cannot express node 'n1' \(erf\)"),
        ("division", "job 'layer division' failed: ZeroDivisionError: integer division"),
    ):
        jobs = [Job(f"layer {k}", failing, (k,)) for k in ("fine", kind, "fine")]
        with pytest.raises(TrainingError, match=message) as caught:
            run_jobs(jobs)
        assert "in failing" in caught.value.__notes__[0]


def test_a_failing_job_ends_the_others(tmp_path: Path) -> None:
    jobs = [Job("slow", slow, (tmp_path,)), Job("bad", failing_later, (tmp_path,))]
    start = time.monotonic()
    with pytest.raises(TrainingError, match="job 'bad' failed: TFLite cannot express") as caught:
        run_jobs(jobs, 2)
    assert "in failing_later" in caught.value.__notes__[0]
    assert time.monotonic() - start < 200
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)
    assert not multiprocessing.active_children()


def test_a_process_that_dies() -> None:
    with pytest.raises(TrainingError, match="a process died while running 'bad', perhaps for"):
        run_jobs([Job("bad", failing, ("exit",))], 2)


def test_what_cannot_be_sent() -> None:
    with pytest.raises(TrainingError, match="job 'local' cannot be sent to another process"):
        run_jobs([Job("local", lambda: 1)] * 2, 2)
    with pytest.raises(TrainingError, match="shared arguments cannot be sent"):
        run_jobs([Job("fine", failing, ("fine",))] * 2, 2, shared=(lambda: 1,))
    with pytest.raises(TrainingError, match="job 'result' failed: its result cannot be sent back"):
        run_jobs([Job("result", failing, ("closure",))], 2)
    with pytest.raises(TrainingError, match="0 processes; give 1 or more, or 'ray'"):
        run_jobs([], 0)


# --- Ray -----------------------------------------------------------------------------------------


class FakeRay(types.ModuleType):
    """What is asked of Ray, done here: objects are references, tasks run when waited for."""

    def __init__(self, initialised: bool) -> None:
        super().__init__("ray")
        self.running, self.calls, self.cancelled = initialised, list[str](), list[Any]()
        self.exceptions = types.SimpleNamespace(RayError=ConnectionError)

    def is_initialized(self) -> bool:
        return self.running

    def init(self, log_to_driver: bool, logging_level: int) -> None:
        self.calls.append("init")
        self.running = True

    def shutdown(self) -> None:
        self.calls.append("shutdown")
        self.running = False

    def put(self, value: Any) -> Any:
        return value

    def remote(self, function: Any) -> Any:
        return types.SimpleNamespace(remote=lambda *arguments: Reference(function, arguments))

    def wait(self, references: list[Any], num_returns: int) -> tuple[list[Any], list[Any]]:
        return references[-1:], references[:-1]  # the last is done first

    def get(self, reference: Any) -> Any:
        if reference.arguments[-1] == "node":
            raise ConnectionError("the node is gone")
        return reference.function(*reference.arguments)

    def cancel(self, reference: Any, force: bool) -> None:
        self.cancelled.append(reference)


class Reference:
    def __init__(self, function: Any, arguments: tuple[Any, ...]) -> None:
        self.function, self.arguments = function, arguments


def test_ray_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(TrainingError, match=r"over Ray need it: pip install 'shrinkc\[ray\]'"):
        run_jobs([Job("a", failing, ("fine",))], "ray")


@pytest.mark.parametrize("initialised", [False, True])
def test_jobs_over_ray(monkeypatch: pytest.MonkeyPatch, initialised: bool) -> None:
    ray = FakeRay(initialised)
    monkeypatch.setitem(sys.modules, "ray", ray)
    found = run_jobs(SCORES, "ray", shared=SHARED)
    assert found == run_jobs(SCORES, shared=SHARED)
    jobs = [Job("first", failing, ("fine",)), Job("second", failing, ("division",))]
    with pytest.raises(TrainingError, match="job 'second' failed: ZeroDivisionError"):
        run_jobs(jobs, "ray")
    with pytest.raises(TrainingError, match="job 'lost' failed: the node is gone"):
        run_jobs([Job("lost", failing, ("node",))], "ray")
    assert ray.calls == ([] if initialised else ["init", "shutdown"] * 3)
    assert len(ray.cancelled) == (1 if initialised else 0)

"""Jobs side by side: order, names of what fails, nothing left running."""

import multiprocessing
import os
import time
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import torch
from job_examples import failing, failing_later, scored, slow
from torch import nn

from shrinkc.compiler.support.jobs import Job, finished, run_jobs
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


def test_jobs_are_made_when_there_is_room_for_them() -> None:
    made: list[int] = []

    def making() -> Iterator[Job[int]]:
        for i in range(9):
            made.append(i)
            yield Job(f"number {i}", failing, ("fine",))

    with closing(finished(making(), 9)) as results:
        assert next(results) == (0, 1)
        assert made == [0]
    with closing(finished(making(), 9, 2)) as results:
        next(results)
        assert len(made) <= 1 + 6  # two run, two wait, and one or two are done
    assert not multiprocessing.active_children()

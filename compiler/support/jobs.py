"""Independent jobs, such as importance scores of many candidates, side by side.

Over processes of this machine, or over Ray where it is installed and asked for. Functions and
arguments must be picklable: functions of modules, tensors, plain values, models. Processes are
spawned, so a script that runs jobs needs its `if __name__ == "__main__":`.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from types import NoneType
from typing import Any, Literal, TypeVar

from shrinkc.compiler.support.checks import check_kind
from shrinkc.compiler.support.progress import Progress, Silent
from shrinkc.compiler.support.side_by_side.job import Failure, Job, Outcome, Outcomes, called
from shrinkc.compiler.support.text import shown
from shrinkc.errors import InputError, TrainingError

__all__ = ["Job", "Parallel", "Ray", "finished", "require_workers", "run_jobs", "workers"]

T = TypeVar("T")


@dataclass(frozen=True)
class Ray:
    """Jobs on a Ray cluster.

    address  HOST:PORT of its head, ray://HOST:PORT of its client server, "auto" for the one that
             was started on this machine, "local" for a new one here; None: what this process is
             connected to, or RAY_ADDRESS, or as "auto" where one was started, or as "local"
    """

    address: str | None = None

    def __post_init__(self) -> None:
        check_kind("ray", self.address, (str, NoneType), "the address of a cluster as HOST:PORT")
        if self.address is not None and not self.address.strip():
            raise InputError("`ray` is empty: give the address of a cluster as HOST:PORT")


Parallel = int | Literal["ray"] | Ray


def run_jobs(
    jobs: Sequence[Job[T]],
    parallel: Parallel = 1,
    *,
    shared: tuple[Any, ...] = (),
    progress: Progress | None = None,
    text: str = "Running jobs",
) -> list[T]:
    """The results, in the order of `jobs`.

    parallel  how many processes, sharing the cores; 1: in this one; "ray" or `Ray(address)`: over
              Ray, where jobs of processes and nodes that are lost are done again
    shared    first arguments of every job, sent to each process once; jobs must not change them

    Raises TrainingError: a job failed (with its name and reason; its traceback is a note), a
    process died, something cannot be pickled, Ray is not installed or its nodes differ. InputError:
    a cluster does not answer. Running jobs are ended then.
    """
    results: dict[int, T] = {}
    with (
        (progress or Silent()).task(text, len(jobs)) as done,
        closing(finished(jobs, len(jobs), parallel, shared=shared)) as outcomes,
    ):
        for index, result in outcomes:
            results[index] = result
            done(jobs[index].name)
    return [results[index] for index in range(len(jobs))]


def finished(
    jobs: Iterable[Job[T]],
    count: int,
    parallel: Parallel = 1,
    *,
    shared: tuple[Any, ...] = (),
) -> Generator[tuple[int, T]]:
    """(index, result) of `count` jobs, as they are done. Jobs are taken from `jobs` when there is
    room for them: those that a generator makes are not in memory all at once. Close it to end
    what runs (`contextlib.closing`). Raises as `run_jobs`."""
    _check(parallel)
    with closing(_outcomes(jobs, count, parallel, shared)) as outcomes:
        for outcome in outcomes:
            if isinstance(outcome.result, Failure):
                raise _error(outcome.name, outcome.result)
            yield outcome.index, outcome.result


def workers(parallel: Parallel) -> int:
    """How many jobs run at a time; on a cluster, as many as it has CPUs now. Raises as
    `run_jobs`."""
    _check(parallel)
    if isinstance(parallel, int):
        return parallel
    from shrinkc.compiler.support.side_by_side.cluster import cluster_at

    return cluster_at(_address(parallel)).cpus()


def require_workers(parallel: Parallel) -> None:
    """Before any long work: raise what `run_jobs` would for a cluster that cannot be used."""
    workers(parallel)


def _check(parallel: Parallel) -> None:
    if isinstance(parallel, Ray) or parallel == "ray":
        return
    if type(parallel) is not int or parallel < 1:
        raise TrainingError(f"{parallel} processes; give 1 or more, or 'ray'")


def _address(parallel: Literal["ray"] | Ray) -> str | None:
    return parallel.address if isinstance(parallel, Ray) else None


def _outcomes(
    jobs: Iterable[Job[Any]], count: int, parallel: Parallel, shared: tuple[Any, ...]
) -> Outcomes:
    if parallel == 1 or count == 0:
        return _here(jobs, shared)
    if isinstance(parallel, int):
        from shrinkc.compiler.support.side_by_side.processes import over_processes

        return over_processes(jobs, shared, min(parallel, count))
    from shrinkc.compiler.support.side_by_side.cluster import cluster_at
    from shrinkc.compiler.support.side_by_side.over_ray import over_ray

    return over_ray(jobs, shared, count, cluster_at(_address(parallel)))


def _here(jobs: Iterable[Job[Any]], shared: tuple[Any, ...]) -> Outcomes:
    for index, job in enumerate(jobs):
        yield Outcome(index, job.name, called(job.function, shared, *job.arguments))


def _error(name: str, failure: Failure) -> TrainingError:
    error = TrainingError(f"job '{shown(name)}' failed: {failure.message}")
    error.add_note(failure.trace)
    return error

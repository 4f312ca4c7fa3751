"""Independent jobs, such as importance scores of many candidates, side by side.

Over processes of this machine, or over Ray where it is installed and asked for. Functions and
arguments must be picklable: functions of modules, tensors, plain values, models. Processes are
spawned, so a script that runs jobs needs its `if __name__ == "__main__":`.
"""

from __future__ import annotations

import importlib
import logging
import multiprocessing
import os
import pickle
import signal
import traceback
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

import torch

from shrinkc.compiler.support.apart.pickled import pickled
from shrinkc.compiler.support.progress import Progress, Silent
from shrinkc.compiler.support.text import named, one_line, shown
from shrinkc.errors import ShrinkcError, TrainingError

Parallel = int | Literal["ray"]
T = TypeVar("T")


@dataclass(frozen=True)
class Job(Generic[T]):
    """Calls `function(*shared, *arguments)`; `name` says in errors which one it was."""

    name: str
    function: Callable[..., T]
    arguments: tuple[Any, ...] = ()


@dataclass(frozen=True)
class _Failure:
    """An exception as text: not every exception survives the way between processes."""

    message: str
    trace: str


def run_jobs(
    jobs: Sequence[Job[T]],
    parallel: Parallel = 1,
    *,
    shared: tuple[Any, ...] = (),
    progress: Progress | None = None,
    text: str = "Running jobs",
) -> list[T]:
    """The results, in the order of `jobs`.

    parallel  how many processes, sharing the cores; 1: in this one; "ray": over Ray
    shared    first arguments of every job, sent to each process once; jobs must not change them

    Raises TrainingError: a job failed (with its name and reason; its traceback is a note), a
    process died, something cannot be pickled, Ray is not installed. Running jobs are ended then.
    """
    if parallel != "ray" and parallel < 1:
        raise TrainingError(f"{parallel} processes; give 1 or more, or 'ray'")
    if parallel == 1:
        outcomes = _here(jobs, shared)
    elif parallel == "ray":
        outcomes = _over_ray(jobs, shared)
    else:
        outcomes = _over_processes(jobs, shared, min(parallel, len(jobs)))
    results: dict[int, T] = {}
    with (progress or Silent()).task(text, len(jobs)) as done:
        for index, outcome in outcomes:
            if isinstance(outcome, _Failure):
                outcomes.close()
                raise _error(jobs[index].name, outcome)
            results[index] = outcome
            done(jobs[index].name)
    return [results[index] for index in range(len(jobs))]


Outcomes = Generator[tuple[int, Any]]  # index and result, or _Failure, as they come


def _error(name: str, failure: _Failure) -> TrainingError:
    error = TrainingError(f"job '{shown(name)}' failed: {failure.message}")
    error.add_note(failure.trace)
    return error


def _called(function: Callable[..., Any], shared: tuple[Any, ...], *arguments: Any) -> Any:
    try:
        return function(*shared, *arguments)
    except Exception as error:  # told to whoever asked
        message = one_line(error, 300) if isinstance(error, ShrinkcError) else named(error)
        return _Failure(message, traceback.format_exc())


def _here(jobs: Sequence[Job[Any]], shared: tuple[Any, ...]) -> Outcomes:
    for index, job in enumerate(jobs):
        yield index, _called(job.function, shared, *job.arguments)


# --- processes -----------------------------------------------------------------------------------

_shared: tuple[Any, ...] = ()  # of this worker


def _over_processes(jobs: Sequence[Job[Any]], shared: tuple[Any, ...], count: int) -> Outcomes:
    before = set(multiprocessing.active_children())
    threads = max(1, (os.cpu_count() or 1) // max(count, 1))
    pool = ProcessPoolExecutor(
        max(count, 1),
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_enter_worker,
        initargs=(_pickled("shared arguments", shared), threads),
    )
    running: dict[Future[bytes], int] = {}
    waiting = iter(enumerate(jobs))
    try:
        while True:
            while len(running) < 2 * count and (item := next(waiting, None)) is not None:
                index, job = item
                data = _pickled(f"job '{job.name}'", (job.function, job.arguments))
                running[pool.submit(_in_worker, data)] = index
            if not running:
                break
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                result = pickle.loads(future.result())
                yield running.pop(future), result
    except BrokenProcessPool as error:
        names = ", ".join(f"'{shown(jobs[i].name)}'" for i in sorted(running.values())[:count])
        raise TrainingError(
            f"a process died while running {names}, perhaps for lack of memory; "
            "run fewer jobs side by side"
        ) from error
    except BaseException:  # a failed job, Ctrl-C: what still runs is of no use
        for process in set(multiprocessing.active_children()) - before:
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _pickled(what: str, value: object) -> bytes:
    """Plain bytes: multiprocessing would hold a file open for every tensor."""
    try:
        return pickled(value)
    except Exception as error:  # pickling asks the objects
        raise TrainingError(
            f"{what} cannot be sent to another process ({named(error)}); "
            "use functions of modules and plain arguments"
        ) from error


def _enter_worker(shared: bytes, threads: int) -> None:
    global _shared
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its workers
    torch.set_num_threads(threads)
    _shared = pickle.loads(shared)


def _in_worker(data: bytes) -> bytes:
    function, arguments = pickle.loads(data)
    result = _called(function, _shared, *arguments)
    try:
        return pickled(result)
    except Exception as error:  # as above
        return pickle.dumps(_Failure(f"its result cannot be sent back ({named(error)})", ""))


# --- Ray -----------------------------------------------------------------------------------------


def _over_there(function: Callable[..., Any], shared: bytes, *arguments: Any) -> Any:
    return _called(function, pickle.loads(shared), *arguments)


def _over_ray(jobs: Sequence[Job[Any]], shared: tuple[Any, ...]) -> Outcomes:
    try:
        ray: Any = importlib.import_module("ray")
    except ImportError as error:
        raise TrainingError("jobs over Ray need it: pip install 'shrinkc[ray]'") from error
    started = not ray.is_initialized()
    refs: dict[Any, int] = {}
    if started:
        ray.init(log_to_driver=False, logging_level=logging.ERROR)
    try:
        remote, sent = ray.remote(_over_there), ray.put(_pickled("shared arguments", shared))
        refs |= {remote.remote(job.function, sent, *job.arguments): i for i, job in enumerate(jobs)}
        while refs:
            (ref,), _ = ray.wait(list(refs), num_returns=1)
            index = refs.pop(ref)
            try:
                outcome = ray.get(ref)
            except ray.exceptions.RayError as error:
                outcome = _Failure(one_line(error, 300), "")
            yield index, outcome
    finally:
        if started:
            ray.shutdown()
        else:
            for ref in refs:
                ray.cancel(ref, force=True)

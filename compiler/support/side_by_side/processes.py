"""Jobs in processes of this machine, which share its cores."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
from collections.abc import Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import torch

from shrinkc.compiler.support.side_by_side.job import (
    Job,
    Outcome,
    Outcomes,
    called,
    packed,
    packed_result,
)
from shrinkc.compiler.support.text import shown
from shrinkc.errors import TrainingError

AHEAD = 2  # jobs in memory for every process: one runs, one waits

_shared: tuple[Any, ...] = ()  # of this worker


def over_processes(jobs: Iterable[Job[Any]], shared: tuple[Any, ...], count: int) -> Outcomes:
    """In `count` of them. Raises TrainingError: a process died, something cannot be sent."""
    before = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(
        count,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_enter,
        initargs=(packed("shared arguments", shared), max(1, (os.cpu_count() or 1) // count)),
    )
    running: dict[Future[bytes], tuple[int, str]] = {}
    waiting = iter(enumerate(jobs))
    try:
        while True:
            while len(running) < AHEAD * count and (item := next(waiting, None)) is not None:
                index, job = item
                data = packed(f"job '{shown(job.name)}'", (job.function, job.arguments))
                running[pool.submit(_run, data)] = index, job.name
            if not running:
                break
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                result = pickle.loads(future.result())
                yield Outcome(*running.pop(future), result)
    except BrokenProcessPool as error:
        names = ", ".join(f"'{shown(name)}'" for _, name in sorted(running.values())[:count])
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


def _enter(shared: bytes, threads: int) -> None:
    global _shared
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its workers
    torch.set_num_threads(threads)
    _shared = pickle.loads(shared)


def _run(data: bytes) -> bytes:
    function, arguments = pickle.loads(data)
    return packed_result(called(function, _shared, *arguments))

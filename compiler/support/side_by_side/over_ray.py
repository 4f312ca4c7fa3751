"""Jobs on a Ray cluster.

Jobs of workers and nodes that are lost are done again by Ray, and nothing else is: a job's own
exception is a result. A few jobs for every CPU are handed over at a time, so that there may be very
many of them, and so that a cluster that grows on demand sees that there is more to do.
"""

from __future__ import annotations

import importlib
import pickle
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch

from shrinkc.compiler.support.side_by_side.cluster import Cluster, reason
from shrinkc.compiler.support.side_by_side.job import (
    Failure,
    Job,
    Outcome,
    Outcomes,
    called,
    packed,
    packed_result,
)
from shrinkc.compiler.support.side_by_side.versions import Versions, difference, telling
from shrinkc.compiler.support.text import shown

AHEAD = 2  # jobs that are handed over, for every one that runs
LOST = 5  # times that a job is done again because its process or node was lost


@dataclass(frozen=True)
class _Sender:
    """What workers know of the process that gives them jobs.

    versions  that they must have, `nodes` that were asked for them
    path      where it finds modules: where the same files are, its functions are found there too
    """

    versions: Versions
    nodes: frozenset[str]
    path: tuple[str, ...]


def over_ray(
    jobs: Iterable[Job[Any]], shared: tuple[Any, ...], count: int, cluster: Cluster
) -> Outcomes:
    """`count` of them. Raises TrainingError for what cannot be sent."""
    ray, each = cluster.ray, cluster.each(count)
    digest, sent = cluster.sent(packed("shared arguments", shared))
    run = ray.remote(_run).options(num_cpus=each, max_retries=LOST, retry_exceptions=False)
    sender = _Sender(cluster.here, cluster.nodes, tuple(sys.path))
    running: dict[Any, tuple[int, str]] = {}
    waiting = iter(enumerate(jobs))
    try:
        while True:
            ahead = AHEAD * max(1, cluster.cpus() // each)
            while len(running) < ahead and (item := next(waiting, None)) is not None:
                index, job = item
                function = ray.cloudpickle.dumps(job.function)  # of a script, too
                data = packed(f"job '{shown(job.name)}'", job.arguments)
                running[run.remote(function, data, digest, sent, sender)] = index, job.name
            if not running:
                break
            ready, _ = ray.wait(list(running), num_returns=1)
            for reference in ready:
                result = _result(ray, reference)
                yield Outcome(*running.pop(reference), result)
    finally:  # a failed job, Ctrl-C: what still runs is of no use
        for reference in running:
            ray.cancel(reference, force=True)


def _result(ray: Any, reference: Any) -> Any:
    try:
        return pickle.loads(ray.get(reference))
    except ray.exceptions.RayError as error:
        return Failure(reason(error))


# --- in a worker ---------------------------------------------------------------------------------

_shared: tuple[str, tuple[Any, ...]] = ("", ())  # of this process: what, unpickled once
_alike: str | None = ""  # how its versions differ; "": not asked


def _run(function: bytes, data: bytes, digest: str, shared: Any, sender: _Sender) -> bytes:
    """`shared`: bytes as an array of uint8, in memory that the processes of a node share."""
    ray: Any = importlib.import_module("ray")
    context = ray.get_runtime_context()
    if wrong := _difference(context.get_node_id(), sender):
        return pickle.dumps(Failure(wrong))
    torch.set_num_threads(max(1, int(context.get_assigned_resources().get("CPU", 1))))
    return packed_result(called(_unpacked, (), function, data, digest, shared, sender.path))


def _unpacked(function: bytes, data: bytes, digest: str, shared: Any, path: tuple[str, ...]) -> Any:
    global _shared
    sys.path += [place for place in path if place not in sys.path]
    if _shared[0] != digest:
        _shared = digest, pickle.loads(memoryview(shared))
    return pickle.loads(function)(*_shared[1], *pickle.loads(data))


def _difference(node: str, sender: _Sender) -> str | None:
    """Of a node that came after the others were asked."""
    global _alike
    if node in sender.nodes:
        return None
    if _alike == "":
        _alike = difference(sender.versions, telling()())
    return None if _alike is None else f"the node {node}, which came later, {_alike}"

"""A Ray cluster: one that answers within seconds, and runs the same programs on every node.

A process connects once and stays connected until it ends, or calls `ray.shutdown()`: the next jobs
find workers that have imported everything, and what was sent to them before.
"""

from __future__ import annotations

import hashlib
import importlib
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shrinkc.compiler.support.side_by_side.versions import Versions, difference, telling
from shrinkc.compiler.support.text import named, one_line, shown
from shrinkc.errors import InputError, TrainingError

REACHED, ANSWERED = 5.0, 30.0  # seconds: the port of an address, Ray behind it
NODES_ANSWERED = 120.0  # seconds: every node starts a process first
COUNTED = 5.0  # seconds that a number of CPUs is good for: clusters grow and shrink
_PROBE = """
import sys, ray
try:
    ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
except Exception as error:  # what it is about may stand in the last line of its cause alone
    cause = str(error.__cause__ or "").strip().rpartition("\\n")[2].strip()
    sys.exit("\\n" + " ".join(str(error).split()) + (f" ({cause})" if cause else ""))
"""


@dataclass(eq=False)
class Cluster:
    """That this process is connected to.

    ray      the module
    address  that was asked for; None: whatever the process was connected to
    here     versions of this process, and `nodes` that have the same
    """

    ray: Any
    address: str | None
    connection: object
    here: Versions
    nodes: frozenset[str] = frozenset()
    _sent: tuple[str, Any] | None = None
    _counted: tuple[float, int] = field(default=(-COUNTED, 0))

    def cpus(self) -> int:
        """Of all nodes; at least 1, where one is still to come."""
        at, count = self._counted
        if time.monotonic() - at >= COUNTED:
            count = max(1, int(self.ray.cluster_resources().get("CPU", 0)))
            self._counted = time.monotonic(), count
        return count

    def each(self, jobs: int) -> int:
        """CPUs of every job, where there are so many: jobs share the CPUs, and none has more than
        the smallest node."""
        sizes = [int(node["Resources"].get("CPU", 0)) for node in _alive(self.ray)]
        smallest = min((size for size in sizes if size), default=1)
        return max(1, min(self.cpus() // max(1, jobs), smallest))

    def sent(self, data: bytes) -> tuple[str, Any]:
        """(digest, reference) of what all jobs are given; the same is not sent twice in a row.
        Workers map an array into their memory, where bytes would be copied for every job."""
        import numpy as np

        digest = hashlib.sha256(data).hexdigest()
        if self._sent is None or self._sent[0] != digest:
            self._sent = digest, self.ray.put(np.frombuffer(data, np.uint8))
        return self._sent

    def check(self) -> None:
        """Ask the nodes that are new. Raises TrainingError, which names both versions."""
        new = {n["NodeID"]: n for n in _alive(self.ray) if n["Resources"].get("CPU", 0) > 0}
        new = {node: row for node, row in new.items() if node not in self.nodes}
        affinity = importlib.import_module("ray.util.scheduling_strategies")
        ask = self.ray.remote(telling())
        asked: dict[Any, str] = {}
        for node in new:
            only = affinity.NodeAffinitySchedulingStrategy(node, soft=False)
            asked[ask.options(num_cpus=0, scheduling_strategy=only).remote()] = node
        ready, late = self.ray.wait(
            list(asked), num_returns=len(asked) or 1, timeout=NODES_ANSWERED
        )
        for reference in ready:
            node = new[asked[reference]]
            try:
                wrong = difference(self.here, self.ray.get(reference))
            except self.ray.exceptions.RayError as error:
                if node["NodeID"] not in {n["NodeID"] for n in _alive(self.ray)}:
                    continue  # it is gone
                wrong = f"cannot run a job: {reason(error)}"
            if wrong is not None:
                raise unlike(node["NodeManagerAddress"], wrong)
        if late:
            node = new[asked[late[0]]]["NodeManagerAddress"]
            raise TrainingError(
                f"the node {node} of the Ray cluster starts no process within "
                f"{NODES_ANSWERED:.0f} seconds; see 'ray status' there"
            )
        self.nodes |= frozenset(asked[reference] for reference in ready)


def unlike(node: str, wrong: str) -> TrainingError:
    return TrainingError(
        f"the node {shown(node)} of the Ray cluster {wrong}; install the same on all nodes"
    )


def reason(error: BaseException) -> str:
    """An error of Ray's, on one line: what a process died of, without the traceback of Ray's."""
    cause = getattr(error, "cause", None)
    words = named(cause) if isinstance(cause, BaseException) else one_line(error, 300)
    return words.replace("`", "'")


_cluster: Cluster | None = None


def cluster_at(address: str | None) -> Cluster:
    """The cluster at an address; None: the one that is connected, or RAY_ADDRESS, or the one that
    was started on this machine, or a new one here. Its nodes have the versions of this process.

    Raises InputError: an address that does not answer, or another one than is connected;
    TrainingError: no Ray here, nodes that differ.
    """
    global _cluster
    try:
        ray: Any = importlib.import_module("ray")
    except ImportError as error:
        raise TrainingError("jobs over Ray need it: pip install 'shrinkc[ray]'") from error
    if ray.is_initialized() and address is not None:
        _require_connected(ray, address)
    if not ray.is_initialized():
        _connect(ray, address)
        _cluster = Cluster(ray, address, _connection(ray), telling()())
    elif _cluster is None or _cluster.connection != _connection(ray):
        _cluster = Cluster(ray, None, _connection(ray), telling()())
    _cluster.check()
    return _cluster


def _alive(ray: Any) -> list[Any]:
    return [node for node in ray.nodes() if node["Alive"]]


def _connection(ray: Any) -> tuple[str, str]:
    """Another one after a process was connected anew."""
    context = ray.get_runtime_context()
    return context.get_node_id(), context.get_job_id()


def _require_connected(ray: Any, address: str) -> None:
    """Another cluster that is connected by this module is left; another's stays."""
    ours = _cluster is not None and _cluster.connection == _connection(ray)
    if ours and _cluster is not None and _cluster.address is not None:
        if _cluster.address != address:
            ray.shutdown()
        return
    connected = getattr(ray.get_runtime_context(), "gcs_address", "another cluster")
    if address not in ("auto", connected):
        raise InputError(
            f"`ray` {shown(address)}: this process is connected to {connected} already",
            "leave the address out, or call ray.shutdown() first",
        )


def _connect(ray: Any, address: str | None) -> None:
    """Within seconds: `ray.init` itself tries for minutes, and may end the process."""
    words, asked = f"`ray` {shown(address or '')}", address
    if asked is None and (asked := os.environ.get("RAY_ADDRESS") or None):
        words = f"RAY_ADDRESS {shown(asked)}"
    if asked in (None, "auto") and (asked := _started_here() or asked):
        words = f"the Ray cluster that was started on this machine, {shown(asked)},"
    if asked == "auto":
        raise InputError("`ray` auto: no cluster runs on this machine", "give its address")
    if asked not in (None, "local") and (problem := _problem(asked)):
        raise InputError(
            f"{words} {problem}",
            "give the HOST:PORT that Ray printed at its start, or local to start it here",
        )
    in_main = threading.current_thread() is threading.main_thread()
    stopping = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address=asked or "local", log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:
        raise TrainingError(f"Ray does not start: {reason(error)}") from error
    finally:
        if in_main:  # Ray puts its own there
            signal.signal(signal.SIGTERM, stopping)
    # Of a node that is lost, Ray would print logs to stdout, where JSON may be; there is no option.
    worker: Any = importlib.import_module("ray._private.worker")
    if hasattr(worker, "_worker_logs_enabled"):
        worker._worker_logs_enabled = False


def _started_here() -> str | None:
    """The address that `ray start` leaves for other processes of this machine."""
    path = Path(os.environ.get("RAY_TMPDIR") or "/tmp") / "ray" / "ray_current_cluster"
    try:
        return path.read_text("utf-8").strip() or None
    except (OSError, ValueError):
        return None


def _problem(address: str) -> str | None:
    """Why no cluster can be reached there, asked by a process that can be ended."""
    host, colon, port = address.rpartition("://")[2].rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:
        return "is no address"
    try:
        socket.create_connection((host.strip("[]"), int(port)), REACHED).close()
    except OSError as error:
        return f"does not answer ({one_line(error)})"
    try:
        subprocess.run(
            [sys.executable, "-P", "-c", _PROBE, address],
            capture_output=True,
            check=True,
            text=True,
            timeout=ANSWERED,
        )
    except subprocess.TimeoutExpired:
        return f"does not answer as Ray does within {ANSWERED:.0f} seconds"
    except subprocess.CalledProcessError as error:
        said = (error.stderr or "").strip().rpartition("\n")[2]
        return f"cannot be used: {one_line(said, 300) or error}".replace("`", "'")
    return None

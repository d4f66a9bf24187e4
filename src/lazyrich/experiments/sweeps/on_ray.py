"""Jobs spread over processes and machines by Ray. A job whose process or machine is lost is started again."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from ..._support.extras import needs
from ...errors import DataError, MissingExtraError

POLL_SECONDS = 1.0
ANSWER_SECONDS = 10.0
OBJECT_STORE = 100 * 2**20  # bytes; the results of jobs are on disk, and Ray's default is 30 % of the memory


@dataclass(frozen=True)
class Cluster:
    """Where the runs of a sweep are done, and what each run needs.

    Attributes:
        address: of a running cluster, as ``ray.init`` takes it ("auto", "10.0.0.1:6379"); None starts Ray on this machine and
            shuts it down afterwards.
        cpus_per_run: processor cores for each run, which uses as many threads.
        gpus_per_run: GPUs for each run; with 0.5 two runs share one, with 0 a run trains on the CPU.
        retries: how often a run is restarted after its process or machine was lost.
    """

    address: str | None = None
    cpus_per_run: int = 1
    gpus_per_run: float = 0.0
    retries: int = 3

    def __post_init__(self) -> None:
        if self.cpus_per_run < 1:
            raise ValueError(f"cpus_per_run must be at least 1, got {self.cpus_per_run}")
        if not 0 <= self.gpus_per_run <= 1:
            raise ValueError(f"gpus_per_run must be between 0 and 1, because a run trains on one GPU, got {self.gpus_per_run}")
        if self.retries < 0:
            raise ValueError(f"retries must be 0 or more, got {self.retries}")


@dataclass
class Outcome:
    """What came of the jobs.

    Attributes:
        failed: job -> its error.
        lost: job -> how often its process or machine was lost.
        version: the version of Ray.
    """

    failed: dict[str, str] = field(default_factory=dict)
    lost: dict[str, int] = field(default_factory=dict)
    version: str | None = None


def run_jobs(
    work: Callable[..., None], jobs: Mapping[str, tuple[Any, ...]], cluster: Cluster, watch: Callable[[Outcome], None]
) -> Outcome:
    """Call ``work(*arguments)`` for every job on some machine, and return when all jobs are done or have failed.

    A job fails if ``work`` raises an exception. If its process was killed or its machine was lost, it is called again; ``work``
    should then continue from what it has stored.

    Args:
        work: a function of a module that all machines have.
        jobs: name -> arguments.
        watch: called at the start and about once a second, with the outcome so far.

    Raises:
        DataError: no cluster answers at the address, or this machine has fewer cores or GPUs than one job needs.
        KeyboardInterrupt: Ctrl-C, or SIGTERM if the program has no handler for it; Ray is shut down first.
        MissingExtraError: Ray is not installed.
    """
    outcome = Outcome()
    with _connected(cluster) as ray:
        outcome.version = ray.__version__
        _check_room(ray, cluster)
        # no retries by Ray: it does not count those after a lack of memory, and would try such a job for ever
        task = ray.remote(num_cpus=cluster.cpus_per_run, num_gpus=cluster.gpus_per_run, max_retries=0)(work)
        under_way = {task.remote(*arguments): name for name, arguments in jobs.items()}
        watch(outcome)
        while under_way:
            ready, _ = ray.wait(list(under_way), timeout=POLL_SECONDS)
            for reference in ready:
                name = under_way.pop(reference)
                try:
                    ray.get(reference)
                except ray.exceptions.RayTaskError as error:
                    outcome.failed[name] = _reason(error.cause or error)
                except ray.exceptions.RayError as error:
                    outcome.lost[name] = outcome.lost.get(name, 0) + 1
                    if outcome.lost[name] <= cluster.retries:
                        under_way[task.remote(*jobs[name])] = name
                    else:
                        outcome.failed[name] = f"lost {outcome.lost[name]} times, the last time by {_reason(error)}"
            watch(outcome)
    return outcome


@contextmanager
def _connected(cluster: Cluster) -> Iterator[Any]:
    """The module ``ray``, connected: to a new Ray on this machine, to a cluster, or to a Ray that the caller has started."""
    with warnings.catch_warnings(), _environment(cluster):
        warnings.simplefilter("ignore")  # the import itself may warn
        ray = needs("ray", "ray")
    if ray.is_initialized():
        yield ray
        return
    with _sigterm() as end_in_order:
        try:
            with warnings.catch_warnings(), _environment(cluster):
                warnings.filterwarnings("ignore", category=FutureWarning, module=r"ray\.")  # about its next versions
                _start(ray, cluster)
            end_in_order()
            yield ray
        finally:
            ray.shutdown()


def _start(ray: Any, cluster: Cluster) -> None:
    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if cluster.address is None:
        ray.init("local", include_dashboard=False, object_store_memory=OBJECT_STORE, **quiet)
        return
    try:
        _check_answer(cluster.address)
        ray.init(cluster.address, **quiet)
    except Exception as error:  # sockets, Ray's checks and gRPC raise different kinds
        raise DataError(
            f"no Ray cluster answers at address={cluster.address!r} ({_reason(error)}); `ray start --head` starts "
            "one, and with address=None the runs are on this machine"
        ) from error


def _check_answer(address: str) -> None:
    """Raise an error if nothing listens at the address; Ray itself would try for a quarter of an hour."""
    if address == "auto":  # then the environment names it, or Ray searches on this machine
        address = os.environ.get("RAY_ADDRESS", "auto")
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon and address != "auto":
        raise ValueError("an address is HOST:PORT, or auto")
    if colon:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_SECONDS).close()


@contextmanager
def _environment(cluster: Cluster) -> Iterator[None]:
    """Set variables that Ray reads when it is imported and when it starts; those that the user has set stay.

    - No usage statistics are sent.
    - For every lost process Ray prints a paragraph on standard output. The sweep reports the losses itself, so all these messages
      are skipped; only where the program has imported Ray before they are shown.
    - Below ``uv run`` Ray would pack the current folder and start each process from the copy, which helps only on other machines.
    """
    ours = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS_SKIP_REGEX": "^"}
    ours |= {"RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"} if cluster.address is None else {}
    ours = {name: value for name, value in ours.items() if name not in os.environ}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in ours:
            os.environ.pop(name, None)


@contextmanager
def _sigterm() -> Iterator[Callable[[], Any]]:
    """A function that makes SIGTERM act as Ctrl-C, or as the program has set it. Call it after Ray has set its own handler."""
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    before = signal.getsignal(signal.SIGTERM) or signal.SIG_DFL
    ours = signal.default_int_handler if before is signal.SIG_DFL else before
    try:
        yield lambda: signal.signal(signal.SIGTERM, ours)
    finally:
        signal.signal(signal.SIGTERM, before)


def _check_room(ray: Any, cluster: Cluster) -> None:
    """Raise an error, or warn, if no machine has what one job needs; Ray itself would wait for ever."""
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    for kind, needed, name in (("CPU", cluster.cpus_per_run, "cpus_per_run"), ("GPU", cluster.gpus_per_run, "gpus_per_run")):
        most = max((machine.get(kind, 0) for machine in machines), default=0)
        if needed <= most:
            continue
        if cluster.address is None:
            raise DataError(f"{name} is {needed:g}, and this machine has {most:g} {kind}s")
        warnings.warn(f"{name} is {needed:g}, and no machine of the cluster has more than {most:g}: waiting", stacklevel=2)


def _reason(error: BaseException) -> str:
    """The error in one line: the message of our own errors, the kind and the message of others."""
    text = " ".join(str(error).split())[:500]
    return text if isinstance(error, (DataError, MissingExtraError)) else f"{type(error).__name__}: {text}"

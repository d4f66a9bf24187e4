"""Jobs spread over processes and machines by Ray: a job whose process or machine is lost is tried again."""

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
HERE = "127.0.0.1"  # Ray then listens to this machine alone
ANSWER_SECONDS = 10.0
OBJECT_STORE = 100 * 2**20  # bytes; a job's results are on disk, and Ray's own default is 30 % of the memory


@dataclass(frozen=True)
class Cluster:
    """Where jobs run, and what each of them takes.

    Attributes:
        address: of a cluster that runs already, as ``ray.init`` takes it ("auto", "10.0.0.1:6379"); None starts Ray on this
            machine and ends it again.
        cpus_per_run: processor cores for each run, which computes with as many threads.
        gpus_per_run: GPUs for each; 0.5 puts two on one, 0 trains on the CPU.
        retries: how often a run is tried again whose process or machine was lost.
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
    """How it went.

    Attributes:
        failed: job -> its error.
        lost: job -> how often its process or machine was lost.
        version: Ray's.
    """

    failed: dict[str, str] = field(default_factory=dict)
    lost: dict[str, int] = field(default_factory=dict)
    version: str | None = None


def run_jobs(
    work: Callable[..., None], jobs: Mapping[str, tuple[Any, ...]], cluster: Cluster, watch: Callable[[Outcome], None]
) -> Outcome:
    """Calls ``work(*arguments)`` for every job on some machine; returns when each is done, or has failed.

    An exception that ``work`` raises is the job's failure. A job whose process was killed or whose machine went away is called
    again, so ``work`` goes on from what it left behind.

    Args:
        work: a function of a module that all machines have.
        jobs: name -> arguments.
        watch: called at the start and about every second, with what has come so far.

    Raises:
        DataError: no cluster answers at the address, or this machine has not what one job takes.
        KeyboardInterrupt: Ctrl-C, or SIGTERM where the program has set no handler of its own; Ray is ended first.
        MissingExtraError: Ray is not installed.
    """
    outcome = Outcome()
    with _connected(cluster) as ray:
        outcome.version = ray.__version__
        _has_room(ray, cluster)
        # Ray's own retries count a machine without memory for nothing, and would try such a job for ever
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
                        outcome.failed[name] = f"lost {outcome.lost[name]} times, at last: {_reason(error)}"
            watch(outcome)
    return outcome


@contextmanager
def _connected(cluster: Cluster) -> Iterator[Any]:
    """Ray, started here and ended afterwards, or the cluster at the address; one that the caller has started is left running."""
    with warnings.catch_warnings(), _told(cluster):
        warnings.simplefilter("ignore")  # the import itself is not always clean
        ray = needs("ray", "ray")
    if ray.is_initialized():
        yield ray
        return
    with _sigterm() as end_in_order, _without_its_errors(ray):
        try:
            with warnings.catch_warnings(), _told(cluster):
                warnings.filterwarnings("ignore", category=FutureWarning, module=r"ray\.")  # of what its next versions will do
                _begin(ray, cluster)
            end_in_order()
            yield ray
        finally:
            ray.shutdown()


def _begin(ray: Any, cluster: Cluster) -> None:
    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if cluster.address is None:
        ray.init("local", include_dashboard=False, object_store_memory=OBJECT_STORE, _node_ip_address=HERE, **quiet)
        return
    try:
        _answers(cluster.address)
        ray.init(cluster.address, **quiet)
    except Exception as error:  # sockets, its own checks and gRPC each raise their own
        raise DataError(
            f"no Ray cluster answers at address={cluster.address!r} ({_reason(error)}); `ray start --head` starts "
            "one, and with address=None the runs are on this machine"
        ) from error


def _answers(address: str) -> None:
    """Whether anything listens at all: Ray itself would try for a quarter of an hour."""
    if address == "auto":  # then it is named by the environment, or Ray looks for it on this machine
        address = os.environ.get("RAY_ADDRESS", "auto")
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon and address != "auto":
        raise ValueError("an address is HOST:PORT, or auto")
    if colon:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_SECONDS).close()


@contextmanager
def _told(cluster: Cluster) -> Iterator[None]:
    """What Ray reads from the environment; what the user has set stays.

    It would send usage statistics home. Below ``uv run`` it would pack the current folder, and start each process from the copy:
    of use on other machines only.
    """
    ours = {"RAY_USAGE_STATS_ENABLED": "0"} | ({"RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"} if cluster.address is None else {})
    ours = {name: value for name, value in ours.items() if name not in os.environ}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in ours:
            os.environ.pop(name, None)


@contextmanager
def _sigterm() -> Iterator[Callable[[], Any]]:
    """Gives what makes SIGTERM end in order as Ctrl-C does, or as the program has it; Ray sets its own, and leaves it behind."""
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    before = signal.getsignal(signal.SIGTERM) or signal.SIG_DFL
    ours = signal.default_int_handler if before is signal.SIG_DFL else before
    try:
        yield lambda: signal.signal(signal.SIGTERM, ours)
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _without_its_errors(ray: Any) -> Iterator[None]:
    """Ray prints a paragraph on standard output for every process that is lost, and has no option against it; we count them."""
    worker = ray._private.worker
    before = getattr(worker, "print_to_stdstream", None)
    worker.print_to_stdstream = lambda data, ignore_prefix: None
    try:
        yield
    finally:
        worker.print_to_stdstream = before


def _has_room(ray: Any, cluster: Cluster) -> None:
    """Whether some machine can hold a job at all; Ray itself would wait for one without end."""
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    for kind, asked, name in (("CPU", cluster.cpus_per_run, "cpus_per_run"), ("GPU", cluster.gpus_per_run, "gpus_per_run")):
        most = max((machine.get(kind, 0) for machine in machines), default=0)
        if asked <= most:
            continue
        if cluster.address is None:
            raise DataError(f"{name} is {asked:g}, and this machine has {most:g} {kind}s")
        warnings.warn(f"{name} is {asked:g}, and no machine of the cluster has more than {most:g}: waiting", stacklevel=2)


def _reason(error: BaseException) -> str:
    """One line: the message of an error of ours, the kind and the message of any other."""
    text = " ".join(str(error).split())[:500]
    return text if isinstance(error, (DataError, MissingExtraError)) else f"{type(error).__name__}: {text}"

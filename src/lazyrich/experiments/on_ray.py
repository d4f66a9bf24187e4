"""Jobs spread over processes and machines by Ray: a job whose process or machine is lost is tried again."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from .._extras import needs
from ..errors import DataError, MissingExtraError

POLL_SECONDS = 1.0
HERE = "127.0.0.1"  # Ray then listens to this machine alone
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
            raise ValueError(f"gpus_per_run must lie between 0 and 1, for a run trains on one GPU, got {self.gpus_per_run}")
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
        watch: called about every second, with what has come so far.

    Raises:
        DataError: no cluster answers at the address, or this machine has not what one job takes.
        MissingExtraError: Ray is not installed.
    """
    outcome = Outcome()
    with _connected(cluster) as ray:
        outcome.version = ray.__version__
        _has_room(ray, cluster)
        # Ray's own retries count a machine without memory for nothing, and would try such a job for ever
        task = ray.remote(num_cpus=cluster.cpus_per_run, num_gpus=cluster.gpus_per_run, max_retries=0)(work)
        under_way = {task.remote(*arguments): name for name, arguments in jobs.items()}
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
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the import itself is not always clean
        ray = needs("ray", "ray")
    if ray.is_initialized():
        yield ray
        return
    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    try:
        with warnings.catch_warnings(), _statistics_off():
            warnings.filterwarnings("ignore", category=FutureWarning, module=r"ray\.")  # of what its next versions will do
            if cluster.address is None:
                ray.init("local", include_dashboard=False, object_store_memory=OBJECT_STORE, _node_ip_address=HERE, **quiet)
            else:
                try:
                    ray.init(cluster.address, **quiet)
                except Exception as error:  # sockets, its own checks and gRPC each raise their own
                    raise DataError(
                        f"no Ray cluster answers at --address {cluster.address!r} ({_reason(error)}); `ray start --head` starts "
                        "one, and without --address the runs are on this machine"
                    ) from error
        yield ray
    finally:
        ray.shutdown()


@contextmanager
def _statistics_off() -> Iterator[None]:
    """Ray sends usage statistics home unless it is told not to; what the user has set stays."""
    name = "RAY_USAGE_STATS_ENABLED"
    given = os.environ.get(name)
    os.environ.setdefault(name, "0")
    try:
        yield
    finally:
        if given is None:
            del os.environ[name]


def _has_room(ray: Any, cluster: Cluster) -> None:
    """Whether some machine can hold a job at all; Ray itself would wait for one without end."""
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    for kind, asked, option in (("CPU", cluster.cpus_per_run, "--cpus-per-run"), ("GPU", cluster.gpus_per_run, "--gpus-per-run")):
        most = max((machine.get(kind, 0) for machine in machines), default=0)
        if asked <= most:
            continue
        if cluster.address is None:
            raise DataError(f"{option} is {asked:g}, and this machine has {most:g} {kind}s")
        warnings.warn(f"{option} is {asked:g}, and no machine of the cluster has more than {most:g}: waiting", stacklevel=2)


def _reason(error: BaseException) -> str:
    """One line: the message of an error of ours, the kind and the message of any other."""
    text = " ".join(str(error).split())[:500]
    return text if isinstance(error, (DataError, MissingExtraError)) else f"{type(error).__name__}: {text}"

"""A sweep of short runs that writes down every step it trains, and can lose a process in the middle."""

import dataclasses
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from small_experiment import SMALL, Blobs

from lazyrich.experiments import Cluster, Experiment, Optimizer, sweep_experiment
from lazyrich.experiments.setup import regular_steps

RATES = ("0.001", "0.002", "0.003", "0.004", "0.005", "0.006")
STEPS, KILLED_AT, CHECKPOINT = 60, 50, 30  # the last checkpoint before it is killed


_began: dict[str, int] = {}  # the last step of the run that this process is at


def written(line: str) -> None:
    """One line to the log, by one write, for several processes append to it."""
    with Path(os.environ["SWEEP_LOG"]).open("ab", buffering=0) as file:
        file.write(f"{os.getpid()} {line}\n".encode())


@dataclass(frozen=True)
class LoggedBlobs(Blobs):
    """Blobs; a seed that is loaded is written down."""

    def load(self, seed, root):
        written(f"seed {seed}")
        return super().load(seed, root)


def waits(step: int) -> None:
    """Runs that begin after as many as ``SWEEP_LOG.hold`` says wait until that file is gone, so that the sweep cannot end."""
    if step > _began.get("step", STEPS):
        _began["step"] = step
        return
    _began["step"] = step
    written("begin 0")
    log, hold = Path(os.environ["SWEEP_LOG"]), Path(os.environ["SWEEP_LOG"] + ".hold")
    lines = [line.split()[0] for line in log.read_text().splitlines() if line.endswith(" begin 0")]
    place = max(k for k, process in enumerate(lines, 1) if int(process) == os.getpid())
    while hold.exists() and place > int(hold.read_text()):
        time.sleep(0.02)


@dataclass(frozen=True)
class LoggedAdam(Optimizer):
    """Adam; every step is written down. Where a file lies beside the log, it goes, and the process is killed."""

    def set_rate(self, optimizer, step):
        waits(step)
        written(f"{self.rate} {step}")
        super().set_rate(optimizer, step)
        kill = Path(os.environ["SWEEP_LOG"] + ".kill")
        if step == KILLED_AT and self.rate == 0.003 and kill.exists():
            kill.unlink()
            os.kill(os.getpid(), signal.SIGKILL)


def setups(preset):
    full = SMALL.setups(preset)["full"]
    return {
        "full": dataclasses.replace(
            full, data=LoggedBlobs(), optimizer=LoggedAdam(), steps=STEPS, evaluate=regular_steps(CHECKPOINT, STEPS)
        )
    }


LOGGED: Experiment = dataclasses.replace(SMALL, setups=setups)


def sweep(out, *, rates=RATES, **options):
    options = {"seeds": 2, "cluster": Cluster(), **options}
    return sweep_experiment(LOGGED, "quick", Path(out), grid=[f"optimizer.rate={','.join(rates)}"], **options)


def trained(log: Path) -> dict[tuple[float, int], list[list[int]]]:
    """(rate, seed) -> the steps that each process trained that took it up, in the order of the processes."""
    found: dict[tuple[float, int], list[list[int]]] = {}
    seeds, steps = {}, {}
    for line in log.read_text().splitlines():
        process, what, value = line.split()
        if what == "begin":
            continue
        if what == "seed":
            seeds[process], steps[process] = int(value), None
            continue
        if steps[process] is None:
            steps[process] = []
            found.setdefault((float(what), seeds[process]), []).append(steps[process])
        steps[process].append(int(value))
    return found


def program(argv):
    """The command line with this experiment; called from elsewhere, so that what Ray sends are this module's names."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has the programs in its background ignore it
    from lazyrich.cli.main import main
    from lazyrich.experiments import EXPERIMENTS

    EXPERIMENTS["small"] = LOGGED
    return main(["sweep", "small", *argv])

"""Where an experiment runs: accelerator, processes, precision."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

from .._support.extras import needs
from ..errors import DataError


@dataclass(frozen=True)
class Machine:
    """Accelerator, number of processes and precision, as Lightning Fabric takes them."""

    accelerator: str = "auto"
    processes: int = 1
    precision: str = "32-true"

    def __post_init__(self) -> None:
        if self.processes < 1:
            raise ValueError(f"processes must be at least 1, got {self.processes}")


def create_fabric(machine: Machine) -> Any:
    """Lightning Fabric for this machine, not yet launched.

    Raises:
        DataError: the accelerator is not available here.
        MissingExtraError: ``lazyrich[experiments]`` is not installed.
    """
    needs("lightning", "experiments")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the import itself may warn
        from lightning.fabric import Fabric
    try:
        return Fabric(
            accelerator=machine.accelerator,
            devices=machine.processes,
            strategy="ddp_spawn" if machine.processes > 1 else "auto",
            precision=machine.precision,  # pyright: ignore[reportArgumentType]
        )
    except Exception as error:  # Lightning's own kinds
        raise DataError(f"accelerator={machine.accelerator!r} is not available here: {error}") from error

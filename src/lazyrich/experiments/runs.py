"""The folder of one run: its setup, its series of evaluations, a checkpoint; and reading it back."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .._support.files import write_text, write_whole
from .._support.resume import check_same
from .._support.stored import number, read_object
from ..errors import DataError
from ..results.series import Evaluation, Series, SeriesFolder
from .setup import Setup


class RunFolder:
    """Where one condition and seed is kept while it runs.

    ``setup.json`` says what it is, its series grows by one evaluation after the other, ``checkpoint.pt`` is replaced, and
    ``done.json`` is written last: without it the run is not whole.
    """

    def __init__(self, path: Path, name: str) -> None:
        self.path = path
        self.name = name
        self.series = SeriesFolder(path)
        self.evaluations = 0
        self.seconds = 0.0
        self._began = time.monotonic()

    @property
    def done(self) -> bool:
        """Whether the run is whole."""
        return (self.path / "done.json").is_file()

    def claim(self, setup: Setup, seed: int) -> None:
        """Makes the folder this run's, or finds that it is.

        Raises:
            DataError: it holds another run.
        """
        ours = {"seed": seed, **setup.to_dict()}
        path = self.path / "setup.json"
        if path.is_file():
            check_same(self.path, read_object(path), ours, "a run with another setup")
        else:
            write_text(path, json.dumps(ours, indent=1) + "\n")

    def resume(self, network: nn.Module, optimizer: Any, fabric: Any) -> int:
        """Loads the checkpoint, drops what was measured after it, and returns its step; 0 where there is none."""
        path = self.path / "checkpoint.pt"
        self._began = time.monotonic()
        if not path.is_file():
            if fabric.is_global_zero:
                self.series.rewind(-1)
            return 0
        try:
            saved = torch.load(path, map_location=fabric.device, weights_only=True)
            network.load_state_dict(saved["network"])
            optimizer.load_state_dict(saved["optimizer"])
            self.evaluations, self.seconds, step = saved["evaluations"], saved["seconds"], saved["step"]
        except Exception as error:  # a damaged file can raise anything
            raise DataError(f"{path} is damaged ({type(error).__name__}): delete {self.path} to run it anew") from error
        if fabric.is_global_zero:
            self.series.rewind(step)
            self._counted(self.series.read())
        return step

    def add(self, found: Evaluation, fabric: Any) -> None:
        """One evaluation: its numbers and its curves."""
        self.evaluations += 1
        if fabric.is_global_zero:
            self.series.add(found)

    def save(self, step: int, network: nn.Module, optimizer: Any, fabric: Any) -> None:
        """Replaces the checkpoint."""
        if not fabric.is_global_zero:
            return
        seconds = self.seconds + time.monotonic() - self._began
        state = {"step": step, "evaluations": self.evaluations, "seconds": seconds}
        state |= {"network": network.state_dict(), "optimizer": optimizer.state_dict()}
        whole = io.BytesIO()  # torch.save's own writing reports a full disk badly
        torch.save(state, whole)
        write_whole(self.path / "checkpoint.pt", lambda file: file.write(whole.getbuffer()))

    def finish(self, fabric: Any) -> None:
        """Marks the run as whole."""
        if fabric.is_global_zero:
            seconds = round(self.seconds + time.monotonic() - self._began, 1)
            write_text(self.path / "done.json", json.dumps({"evaluations": self.evaluations, "seconds": seconds}) + "\n")
            (self.path / "checkpoint.pt").unlink(missing_ok=True)
        fabric.barrier()

    def read(self) -> Run:
        """The numbers of a whole run.

        Raises:
            DataError: not whole, or damaged.
        """
        if not self.done:
            raise DataError(f"{self.path} is not finished: finish it with resume=True")
        done = read_object(self.path / "done.json")
        self.evaluations = done.get("evaluations", 0)
        series = self.series.read()
        self._counted(series)
        try:
            seconds = number("seconds", done.get("seconds"))
        except DataError as error:
            raise DataError(f"{self.path / 'done.json'} is damaged ({error}): delete {self.path} to run it anew") from error
        return Run(series, self.path, seconds)

    def _counted(self, series: Series) -> None:
        if len(series) != self.evaluations:
            raise DataError(
                f"{self.path}/evaluations.jsonl holds {len(series)} evaluations for {self.evaluations}: "
                f"delete {self.path} to run it anew"
            )


def holds_runs(out: Path) -> bool:
    """Whether an evaluation of any run is stored in the output folder of an experiment or a sweep."""
    return next((out / "runs").rglob("evaluations.jsonl"), None) is not None


class Run(Series):
    """The numbers of one condition and seed over training.

    Attributes:
        seconds: how long the run took, measurements included.
    """

    def __init__(self, series: Series, folder: Path, seconds: float) -> None:
        super().__init__(series.evaluations, folder)
        self.seconds = seconds

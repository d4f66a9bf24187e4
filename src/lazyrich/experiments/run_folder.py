"""The folder of one run, which is one training: its setup, its series of evaluations, its checkpoint."""

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
    """The files of one run: of one condition with one seed.

    ``setup.json`` describes the run, the series gets one evaluation after another, ``checkpoint.pt`` is replaced from time to
    time, and ``done.json`` is written last: without it the run is not complete.
    """

    def __init__(self, path: Path, name: str) -> None:
        self.path = path
        self.name = name
        self.series = SeriesFolder(path)
        self.num_evaluations = 0
        self.seconds = 0.0
        self._began = time.monotonic()

    @property
    def done(self) -> bool:
        """Whether the run is complete."""
        return (self.path / "done.json").is_file()

    def claim(self, setup: Setup, seed: int) -> None:
        """Write the setup into a new folder, or check that the folder belongs to this run.

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
        """Load the checkpoint, drop the evaluations after it, and return its step; 0 without a checkpoint."""
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
            self.num_evaluations, self.seconds, step = saved["evaluations"], saved["seconds"], saved["step"]
        except Exception as error:  # a damaged file can raise anything
            raise self._damaged(path, type(error).__name__) from error
        if fabric.is_global_zero:
            self.series.rewind(step)
            self._check_count(self.series.read())
        return step

    def add(self, evaluation: Evaluation, fabric: Any) -> None:
        """Write one evaluation: its numbers and its curves."""
        self.num_evaluations += 1
        if fabric.is_global_zero:
            self.series.add(evaluation)

    def save(self, step: int, network: nn.Module, optimizer: Any, fabric: Any) -> None:
        """Replace the checkpoint."""
        if not fabric.is_global_zero:
            return
        seconds = self.seconds + time.monotonic() - self._began
        state = {"step": step, "evaluations": self.num_evaluations, "seconds": seconds}
        state |= {"network": network.state_dict(), "optimizer": optimizer.state_dict()}
        content = io.BytesIO()  # torch.save reports a full disk badly when it writes to a file
        torch.save(state, content)
        write_whole(self.path / "checkpoint.pt", lambda file: file.write(content.getbuffer()))

    def finish(self, fabric: Any) -> None:
        """Mark the run as complete."""
        if fabric.is_global_zero:
            seconds = round(self.seconds + time.monotonic() - self._began, 1)
            write_text(self.path / "done.json", json.dumps({"evaluations": self.num_evaluations, "seconds": seconds}) + "\n")
            (self.path / "checkpoint.pt").unlink(missing_ok=True)
        fabric.barrier()

    def read(self) -> Run:
        """The numbers of a complete run.

        Raises:
            DataError: the run is not complete, or a file is damaged.
        """
        if not self.done:
            raise DataError(f"{self.path} is not finished: finish it with resume=True")
        done = read_object(self.path / "done.json")
        self.num_evaluations = done.get("evaluations", 0)
        series = self.series.read()
        self._check_count(series)
        try:
            seconds = number("seconds", done.get("seconds"))
        except DataError as error:
            raise self._damaged(self.path / "done.json", str(error)) from error
        return Run(series, self.path, seconds)

    def _check_count(self, series: Series) -> None:
        if len(series) != self.num_evaluations:
            reason = f"it holds {len(series)} evaluations, and should hold {self.num_evaluations}"
            raise self._damaged(self.path / "evaluations.jsonl", reason)

    def _damaged(self, path: Path, reason: str) -> DataError:
        return DataError(f"{path} is damaged ({reason}): delete {self.path} to run it again")


def holds_runs(out: Path) -> bool:
    """Whether the output folder of an experiment or a sweep holds an evaluation of any run."""
    return next((out / "runs").rglob("evaluations.jsonl"), None) is not None


class Run(Series):
    """The series of one complete run.

    Attributes:
        seconds: duration of the run, measurements included.
    """

    def __init__(self, series: Series, folder: Path, seconds: float) -> None:
        super().__init__(series.evaluations, folder)
        self.seconds = seconds

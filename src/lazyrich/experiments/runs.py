"""The folder of one run: its setup, one line per number, the curves, a checkpoint; and reading it back."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from .._files import write_text, write_whole
from ..errors import DataError
from .evaluation import Evaluation
from .setup import Setup


class RunFolder:
    """Where one condition and seed is kept while it runs.

    ``setup.json`` says what it is, ``rows.jsonl`` grows by one line per number, ``curves/`` by one file per evaluation,
    ``checkpoint.pt`` is replaced, and ``done.json`` is written last: without it the run is not whole.
    """

    def __init__(self, path: Path, name: str) -> None:
        self.path = path
        self.name = name
        self.rows = 0
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
        text = json.dumps(ours, indent=1) + "\n"
        path = self.path / "setup.json"
        if not path.is_file():
            write_text(path, text)
            return
        theirs = _json(path)
        ours = json.loads(text)
        if theirs != ours:
            unlike = sorted(key for key in {*ours, *theirs} if ours.get(key) != theirs.get(key))
            key = unlike[0]
            raise DataError(
                f"{self.path} holds a run with another setup: {', '.join(unlike)} differ ({key} is {theirs.get(key)} there and "
                f"{ours.get(key)} here); choose another --out, or delete that folder"
            )

    def resume(self, network: nn.Module, optimizer: Any, fabric: Any) -> int:
        """Loads the checkpoint, drops what was measured after it, and returns its step; 0 where there is none."""
        path = self.path / "checkpoint.pt"
        self._began = time.monotonic()
        if not path.is_file():
            if fabric.is_global_zero:
                (self.path / "rows.jsonl").unlink(missing_ok=True)
            return 0
        try:
            saved = torch.load(path, map_location=fabric.device, weights_only=True)
            network.load_state_dict(saved["network"])
            optimizer.load_state_dict(saved["optimizer"])
            self.rows, self.seconds, step = saved["rows"], saved["seconds"], saved["step"]
        except Exception as error:  # a damaged file can raise anything
            raise DataError(f"{path} is damaged ({type(error).__name__}): delete {self.path} to run it anew") from error
        if fabric.is_global_zero:
            lines = _lines(self.path / "rows.jsonl")
            if len(lines) < self.rows:
                raise DataError(f"{self.path}/rows.jsonl has lost lines: delete {self.path} to run it anew")
            write_text(self.path / "rows.jsonl", "".join(line + "\n" for line in lines[: self.rows]))
        return step

    def add(self, step: int, found: Evaluation, fabric: Any) -> None:
        """One evaluation: its numbers and its curves."""
        self.rows += len(found.values)
        if not fabric.is_global_zero:
            return
        if found.curves:
            curves: dict[str, Any] = found.curves
            write_whole(self.path / "curves" / f"step-{step:08d}.npz", lambda file: np.savez_compressed(file, **curves))
        lines = [json.dumps({"step": step, "measure": name, "value": value}) for name, value in found.values.items()]
        try:
            with (self.path / "rows.jsonl").open("a", encoding="utf-8") as file:
                file.write("".join(line + "\n" for line in lines))
        except OSError as error:
            raise OSError(error.errno, f"cannot write {self.path}/rows.jsonl: {error.strerror}") from error

    def save(self, step: int, network: nn.Module, optimizer: Any, fabric: Any) -> None:
        """Replaces the checkpoint."""
        if not fabric.is_global_zero:
            return
        seconds = self.seconds + time.monotonic() - self._began
        state = {"step": step, "rows": self.rows, "seconds": seconds}
        state |= {"network": network.state_dict(), "optimizer": optimizer.state_dict()}
        whole = io.BytesIO()  # torch.save's own writing reports a full disk badly
        torch.save(state, whole)
        write_whole(self.path / "checkpoint.pt", lambda file: file.write(whole.getbuffer()))

    def finish(self, fabric: Any) -> None:
        """Marks the run as whole."""
        if fabric.is_global_zero:
            seconds = round(self.seconds + time.monotonic() - self._began, 1)
            write_text(self.path / "done.json", json.dumps({"rows": self.rows, "seconds": seconds}) + "\n")
            (self.path / "checkpoint.pt").unlink(missing_ok=True)
        fabric.barrier()

    def read(self) -> Run:
        """The numbers of a whole run.

        Raises:
            DataError: not whole, or damaged.
        """
        if not self.done:
            raise DataError(f"{self.path} is not finished: run the same command with --resume")
        done, lines = _json(self.path / "done.json"), _lines(self.path / "rows.jsonl")
        if len(lines) != done.get("rows"):
            raise DataError(
                f"{self.path}/rows.jsonl has {len(lines)} lines for {done.get('rows')}: delete {self.path} to run it anew"
            )
        return Run(self.path, lines, float(done["seconds"]))


class Run:
    """The numbers of one condition and seed over training.

    Attributes:
        steps: when it was looked at.
        seconds: how long the run took, measurements included.
    """

    def __init__(self, path: Path, lines: list[str], seconds: float) -> None:
        rows = [json.loads(line) for line in lines]
        self.path = path
        self.seconds = seconds
        self.steps = np.array(sorted({row["step"] for row in rows}))
        place = {step: k for k, step in enumerate(self.steps.tolist())}
        self._series: dict[str, np.ndarray] = {}
        for row in rows:
            series = self._series.setdefault(row["measure"], np.full(len(self.steps), np.nan))
            series[place[row["step"]]] = row["value"]

    @property
    def measures(self) -> list[str]:
        """Names of what was measured."""
        return list(self._series)

    def __getitem__(self, measure: str) -> np.ndarray:
        """(evaluations,) one measure over training; NaN where it could not be taken."""
        return self._series.get(measure, np.full(len(self.steps), np.nan))

    def last(self, measure: str) -> float:
        """One measure at the end of training."""
        return float(self[measure][-1])

    def first(self, measure: str, least: float) -> int:
        """Place of the first evaluation at which a measure has reached ``least``; -1, the last, if it never does."""
        reached = np.flatnonzero(self[measure] >= least)
        return int(reached[0]) if len(reached) else -1

    def curves(self, place: int) -> dict[str, np.ndarray]:
        """The three curves at one evaluation; empty where they could not be taken."""
        path = self.path / "curves" / f"step-{self.steps[place]:08d}.npz"
        if not path.is_file():
            return {}
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}


def _json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is damaged ({error}): delete its folder to run it anew") from error
    if not isinstance(values, dict):
        raise DataError(f"{path} is damaged: delete its folder to run it anew")
    return values


def _lines(path: Path) -> list[str]:
    """The whole lines of a file; what a crash cut off is left out."""
    if not path.is_file():
        return []
    *lines, _ = path.read_text(encoding="utf-8").split("\n")
    return lines

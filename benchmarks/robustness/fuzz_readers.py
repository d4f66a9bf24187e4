"""Damaged and hostile files: every reader must give a result or an error of the library by name, and never run what it reads.

A good file of each kind is mutated (bytes flipped, cut, repeated, inserted; JSON values exchanged for others) and read. Every
batch of cases runs in a process of its own with bounded memory, so that a crash of the interpreter is a finding too.

    python benchmarks/robustness/fuzz_readers.py 10000        # cases for each reader
    python benchmarks/robustness/fuzz_readers.py 1 --reader idx --first 4711        # one of them again, with its traceback
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import os
import pickle
import random
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import nn

import lazyrich
from lazyrich.errors import CheckpointError, DataError
from lazyrich.experiments.ingredients.images import _read_cifar, _read_idx  # pyright: ignore[reportPrivateUsage]
from lazyrich.experiments.run_folder import RunFolder
from lazyrich.model.checkpoints import load_checkpoint
from lazyrich.results.series import Evaluation, SeriesFolder

MEMORY, CHUNK = 6 * 2**30, 2500
NETWORK = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
ODD = [None, True, -1, 0, 2**63, 10**400, 1e308, "", "x", "\x1b[31m", "\ud800", [], {}, [[]], [1, "a"], {"a": 1}, "NaN", -0.5]
# what CPython writes, besides the MemoryError, where a pickle asks for a bytearray larger than there is memory
BY_PYTHON = "SystemError: deallocated bytearray object has exported buffers"
Reader = tuple[bytes, Callable[[Path], object], str]


def good_result() -> bytes:
    torch.manual_seed(0)
    x, y = torch.randn(60, 3), torch.arange(60) % 2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        r = lazyrich.measure(NETWORK, (x, y), layers="all", nc4=True)
    return json.dumps(r.to_dict()).encode()


def read_result(path: Path) -> object:
    r = lazyrich.load(path)
    return str(r), r.numbers(), r.curves(), json.dumps(r.to_dict())


def good_series() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        series = SeriesFolder(Path(folder))
        for step in range(3):
            series.add(Evaluation(step, {"low_rank": 1 / (step + 3), "nc1": step}, note="dead" if step == 1 else None))
        return (Path(folder) / "evaluations.jsonl").read_bytes()


def read_series(path: Path) -> object:
    folder = SeriesFolder(path.parent)
    path.rename(path.parent / "evaluations.jsonl")
    series = folder.read()
    folder.rewind(1)
    return series.steps, series["low_rank"], series.notes, folder.read()


def good_curves() -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, quality=np.arange(9, dtype=np.float32), utilization=np.ones(4, np.float32))
    return file.getvalue()


def read_curves(path: Path) -> object:
    (path.parent / "curves").mkdir(exist_ok=True)
    path.rename(path.parent / "curves" / "step-00000000.npz")
    return lazyrich.Series([Evaluation(0, {})], path.parent).curves(0)


def good_done() -> bytes:
    return json.dumps({"evaluations": 0, "seconds": 3.5}).encode()


def read_done(path: Path) -> object:
    path.rename(path.parent / "done.json")
    return RunFolder(path.parent, "run").read().seconds


def saved(value: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    torch.save(value, file, **options)
    return file.getvalue()


def read_checkpoint(path: Path) -> object:
    return load_checkpoint(NETWORK, path)


def good_cifar() -> bytes:
    return pickle.dumps({b"data": np.zeros((2, 3072), np.uint8), b"labels": [0, 1]}, protocol=2)


def good_idx() -> bytes:
    return b"\x00\x00\x08\x03" + b"".join(n.to_bytes(4, "big") for n in (2, 3, 4)) + bytes(range(24))


STATE = NETWORK.state_dict()
READERS: dict[str, Callable[[], Reader]] = {
    "result": lambda: (good_result(), read_result, "file.json"),
    "series": lambda: (good_series(), read_series, "file.jsonl"),
    "curves": lambda: (good_curves(), read_curves, "file.npz"),
    "run": lambda: (good_done(), read_done, "file.json"),
    "checkpoint": lambda: (saved({"state_dict": STATE}), read_checkpoint, "file.pt"),
    "old checkpoint": lambda: (saved(STATE, _use_new_zipfile_serialization=False), read_checkpoint, "file.pt"),
    "safetensors": lambda: (save(STATE), read_checkpoint, "file.safetensors"),
    "cifar": lambda: (good_cifar(), _read_cifar, "data_batch_1"),
    "idx": lambda: (good_idx(), _read_idx, "train-images-idx3-ubyte"),
    "compressed idx": lambda: (gzip.compress(good_idx()), _read_idx, "train-images-idx3-ubyte.gz"),
}


def mutated(content: bytes, draw: random.Random, name: str) -> bytes:
    if name.endswith((".json", ".jsonl")) and draw.random() < 0.6:
        lines = content.decode().splitlines()
        k = draw.randrange(len(lines))
        lines[k] = json.dumps(exchanged(json.loads(lines[k]), draw))
        return "\n".join([*lines, ""]).encode()
    data = bytearray(content)
    for _ in range(draw.choice((1, 1, 1, 2, 4, 16))):
        place = draw.randrange(len(data) + 1) if draw.random() < 0.7 else draw.randrange(min(len(data), 64) + 1)
        kind = draw.randrange(6)
        if kind == 0 and place < len(data):
            data[place] ^= 1 << draw.randrange(8)
        elif kind == 1 and place < len(data):
            data[place] = draw.choice((0, 1, 127, 128, 255, draw.randrange(256)))
        elif kind == 2:
            del data[place : None if draw.random() < 0.3 else place + draw.randrange(9)]
        elif kind == 3:
            data[place:place] = draw.randbytes(draw.randrange(1, 9))
        elif kind == 4:
            other = draw.randrange(len(data) + 1)
            data[place:place] = data[other : other + draw.randrange(64)]
        else:
            data[place : place + 4] = draw.choice((b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x00\x00\x00\x00", b"[" * 4))
    if draw.random() < 0.002:
        return b"[" * 200_000
    return bytes(data)


def exchanged(value: Any, draw: random.Random) -> Any:
    """The value with one entry, somewhere inside, exchanged for an odd one, renamed or taken out."""
    if isinstance(value, (dict, list)) and value and draw.random() < 0.85:
        key = draw.choice(list(value)) if isinstance(value, dict) else draw.randrange(len(value))
        copy: Any = dict(value) if isinstance(value, dict) else list(value)
        if draw.random() < 0.1:
            copy.pop(key)
        else:
            copy[key] = exchanged(value[key], draw)
        return copy
    return draw.choice(ODD)


def run(reader: str, first: int, count: int, progress: Path | None) -> int:
    """Reads so many cases here; prints each that ends in another error than the library's."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    content, read, name = READERS[reader]()
    found = 0
    with tempfile.TemporaryDirectory() as folder:
        for case in range(first, first + count):
            if progress is not None:
                progress.write_text(str(case))
            path = Path(folder) / name
            path.write_bytes(mutated(content, random.Random(f"{reader} {case}"), name))  # noqa: S311
            try:
                read(path)
            except (DataError, CheckpointError):
                pass
            except Exception as error:
                found += 1
                print(f"{reader}, case {case}: {type(error).__name__}: {str(error)[:200]}", flush=True)
                if count == 1:
                    raise
    return found


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("cases", type=int, help="for each reader")
    parser.add_argument("--reader", choices=READERS)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--here", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.here is not None or given.cases == 1:
        return run(given.reader, given.first, given.cases, given.here)
    failed = False
    for reader in [given.reader] if given.reader else READERS:
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            for start in range(given.first, given.first + given.cases, CHUNK):
                count = min(CHUNK, given.first + given.cases - start)
                place = os.path.join(folder, "case")  # noqa: PTH118
                command = [sys.executable, __file__, str(count), "--reader", reader, "--first", str(start), "--here", place]
                done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
                print(done.stdout, end="")
                failed |= done.returncode != 0
                said = done.stderr.replace(BY_PYTHON, "").strip()
                if done.returncode < 0 or said:
                    print(f"{reader}, case {Path(place).read_text()}: ended by {done.returncode}: {said[-500:]}")
        print(f"{reader}: {given.cases:,} cases in {time.monotonic() - began:.0f} s", flush=True)
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())

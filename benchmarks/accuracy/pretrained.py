"""Pretrained networks whose weights come with a package of PyPI: the head, the rows, and D_LR against a float64 reference.

Each network is measured without ``head=`` and, if that asks for a head, with the one that the package's source names. The
rows are counted by hand. The reference takes features and outputs from hooks of its own and forms the n × n kernels in NumPy. The
inputs are synthetic tones and patches of scikit-learn's two photographs, the same each time. Times are processor time, medians
of interleaved repetitions (one where it is long); the first batch runs more than once, because the head is found on it.

    pip install --no-deps torchcrepe resemblyzer pesto-pitch facenet-pytorch easyocr silero-vad   # and what they import
    python benchmarks/accuracy/pretrained.py --out results/accuracy/pretrained.md

A package that is not installed, or whose weights are not, is skipped by name. The exit status is 1 if a head, a number of rows or
a value is wrong.
"""

from __future__ import annotations

import argparse
import re
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import lazyrich

TOLERANCE = 1e-6
REPETITIONS, LONG = 3, 20  # one alone where that takes more than LONG seconds
RATE = 16_000  # audio samples a second
COLUMNS = ("network", "package", "without head=", "head", "rows", "by hand", "D_LR", "reference", "difference", "time / forward")


@dataclass(frozen=True)
class Pretrained:
    """A network, its inputs, and what a measurement must find.

    Attributes:
        package: on PyPI.
        name: of the network.
        build: the network with its pretrained weights, and batches.
        head: the layer that the source names; "" where none can be seen.
        rows: counted by hand.
        found: what must come without ``head=``: the head's name, or the names that the error must offer.
        forward: how the network is called.
    """

    package: str
    name: str
    build: Callable[[], tuple[nn.Module, Sequence[Any]]]
    head: str
    rows: int
    found: str | tuple[str, ...]
    forward: Callable[[nn.Module, Any], Any] | None = None


def tone(seconds: float, seed: int) -> np.ndarray:
    """(seconds · RATE,) a voice-like sound: eight harmonics of a gliding pitch, of changing loudness, with noise."""
    rng, count = np.random.default_rng(seed), int(seconds * RATE)
    t = np.arange(count) / RATE

    def path(points: int) -> np.ndarray:
        return np.interp(t, np.linspace(0, seconds, points), rng.random(points))

    phase = 2 * np.pi * np.cumsum(110 * 2 ** (2.5 * path(12)) * (1 + 0.01 * np.sin(2 * np.pi * 5.5 * t))) / RATE
    sound = sum(rng.random() / k * np.sin(k * phase) for k in range(1, 9)) * (0.2 + 0.8 * path(40))
    return ((sound + 0.01 * rng.standard_normal(count)) / 4).astype(np.float32)


def patches(count: int, size: int) -> Tensor:
    """(count, 3, size, size) patches of two photographs at half their resolution, scaled as the face detector takes them."""
    images = [torch.tensor(np.array(x), dtype=torch.float32).permute(2, 0, 1) for x in _datasets().load_sample_images().images]
    rng = np.random.default_rng(0)

    def patch(image: Tensor) -> Tensor:
        top, left = (int(rng.integers(0, side - 2 * size)) for side in image.shape[1:])
        return nn.functional.avg_pool2d(image[:, top : top + 2 * size, left : left + 2 * size], 2)

    return (torch.stack([patch(images[k % 2]) for k in range(count)]) - 127.5) / 128


def _datasets() -> Any:
    return import_module("sklearn.datasets")


def crepe(size: str, seconds: float, batch: int) -> tuple[nn.Module, Sequence[Any]]:
    """Pitch of frames of 1,024 samples, one every 10 ms."""
    package = import_module("torchcrepe")
    network = package.Crepe(size)
    network.load_state_dict(torch.load(str(files("torchcrepe") / "assets" / f"{size}.pth"), weights_only=True))
    return network, list(package.preprocess(torch.tensor(tone(seconds, 0))[None], RATE, RATE // 100, batch_size=batch))


def resemblyzer() -> tuple[nn.Module, Sequence[Any]]:
    """Speaker of a spectrogram of 1.6 s; the embedding is the rectified output of a linear layer, at unit length."""
    package, audio = import_module("resemblyzer"), import_module("resemblyzer.audio")
    spectrograms = np.stack([audio.wav_to_mel_spectrogram(tone(1.6, k))[:160] for k in range(300)])
    return package.VoiceEncoder("cpu", verbose=False), torch.tensor(spectrograms).split(100)


def pesto() -> tuple[nn.Module, Sequence[Any]]:
    """Pitch of every 10 ms of clips, and whether there is one; the pitch ends in a convolution with a long kernel."""
    network = import_module("pesto").load_model("mir-1k_g7", step_size=10.0, sampling_rate=RATE)
    return network, torch.tensor(np.stack([tone(2.5, k) for k in range(2)])).split(1)


def faces(name: str, count: int, size: int) -> tuple[nn.Module, Sequence[Any]]:
    """One of the three networks of the detector: a face or not, its box, its landmarks."""
    return getattr(import_module("facenet_pytorch.models.mtcnn"), name)(), patches(count, size).split(100)


def easyocr() -> tuple[nn.Module, Sequence[Any]]:
    """Characters along lines of text, if the weights were downloaded before."""
    options = {"gpu": False, "detector": False, "download_enabled": False, "quantize": False, "verbose": False}
    recogniser = import_module("easyocr").Reader(["en"], **options).recognizer
    return recogniser, patches(40, 64)[:, :1].split(20)


def silero() -> tuple[nn.Module, Sequence[Any]]:
    """Speech or not in 512 samples; a TorchScript program."""
    return import_module("silero_vad").load_silero_vad(), torch.tensor(tone(1.92, 0)).reshape(60, 512).split(30)


def named(layer: str, heads: int) -> tuple[str, ...]:
    """The names of the detector's heads."""
    return tuple(f"{layer}_{k}" for k in range(1, heads + 1))


NETWORKS = [
    Pretrained("torchcrepe", "CREPE, tiny", lambda: crepe("tiny", 6, 100), "classifier", 600 + 1, "classifier"),
    Pretrained("torchcrepe", "CREPE, full", lambda: crepe("full", 0.6, 16), "classifier", 60 + 1, "classifier"),
    Pretrained("resemblyzer", "speaker encoder", resemblyzer, "linear", 300, ("linear",)),
    Pretrained("pesto-pitch", "PESTO, voiced or not", pesto, "confidence.linear", 2 * 251, "confidence.linear"),
    Pretrained("pesto-pitch", "PESTO, pitch", pesto, "encoder.fc", 2 * 251, "confidence.linear"),
    Pretrained("facenet-pytorch", "MTCNN, P", lambda: faces("PNet", 4, 48), "conv4_1", 4 * 19**2, named("conv4", 2)),
    Pretrained("facenet-pytorch", "MTCNN, R", lambda: faces("RNet", 400, 24), "dense5_1", 400, named("dense5", 2)),
    Pretrained("facenet-pytorch", "MTCNN, O", lambda: faces("ONet", 400, 48), "dense6_2", 400, named("dense6", 3)),
    Pretrained("easyocr", "recogniser", easyocr, "Prediction", 40 * 15, "Prediction", lambda net, x: net(x, None)),
    Pretrained("silero-vad", "voice activity", silero, "", 0, (), lambda net, x: net(x, RATE)),
]


def rows_of(network: nn.Module, head: str, run: Callable[[], object]) -> tuple[np.ndarray, np.ndarray]:
    """(n, p) features and (n, C) outputs of a layer by a hook, in float64; the channels of a map become its columns."""
    features: list[np.ndarray] = []
    outputs: list[np.ndarray] = []

    def keep(_: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        for x, rows in ((args[0], features), (output, outputs)):
            x = x.movedim(1, -1) if x.ndim == 4 else x
            rows.append(x.reshape(-1, x.shape[-1]).double().numpy().copy())

    handle = network.get_submodule(head).register_forward_hook(keep)
    run()
    handle.remove()
    return np.concatenate(features), np.concatenate(outputs)


def reference(features: np.ndarray, outputs: np.ndarray) -> float:
    """1 - Tr(HKH·HPH)/(‖HKH‖‖HPH‖), K = ΦΦᵀ and P the projection to the outputs' span, by n × n matrices."""
    n = len(features)
    u, s, _ = np.linalg.svd(outputs, full_matrices=False)
    noise = 50 * np.finfo(np.float32).eps * np.sqrt((outputs**2).sum() / outputs.shape[1])  # the outputs were rounded
    u = u[:, s > max(noise, 1e-7 * s[0])]
    x, u = features - features.mean(0), u - u.mean(0)
    k, p = x @ x.T / n, u @ u.T
    return 1 - np.sum(k * p) / (np.linalg.norm(k) * np.linalg.norm(p))


def timed(calls: Sequence[Callable[[], object]]) -> list[float]:
    """Median processor time of each call; they take turns."""
    seconds: list[list[float]] = [[] for _ in calls]
    for k in range(REPETITIONS):
        if k and sum(map(sum, seconds)) > LONG:
            break
        for call, times in zip(calls, seconds, strict=True):
            began = time.process_time()
            call()
            times.append(time.process_time() - began)
    return [statistics.median(times) for times in seconds]


def found_without_head(measure: Callable[..., lazyrich.Richness]) -> tuple[str | tuple[str, ...], str]:
    """The head's name, or the names that the error offers; and the same in words."""
    try:
        head = measure().head
    except lazyrich.HeadError as error:
        offered = tuple(sorted(re.findall(r"head='([^']*)'", str(error))))
        reason = f"offers {', '.join(f'`{name}`' for name in offered)}" if offered else "TorchScript is named as the cause"
        return offered, f"HeadError: {reason if offered or 'TorchScript' in str(error) else str(error)}"
    return head, f"`{head}`"


def line(entry: Pretrained) -> tuple[list[str], bool]:
    """One row of the table, and whether everything is right."""
    network, batches = entry.build()
    network.eval()

    def measure(**more: Any) -> lazyrich.Richness:
        return lazyrich.measure(network, iter(batches), forward=entry.forward, **more)

    def run() -> None:
        with torch.no_grad():
            for batch in batches:
                network(batch) if entry.forward is None else entry.forward(network, batch)

    found, words = found_without_head(measure)
    cells, right = [entry.name, f"{entry.package} {version(entry.package)}", words], found == entry.found
    if not entry.head:
        return [*cells, *["—"] * (len(COLUMNS) - len(cells))], right
    result = measure(head=entry.head)
    expected = reference(*rows_of(network, entry.head, run))
    difference = abs(result.low_rank - expected)
    with_measure, bare = timed([lambda: measure(head=entry.head), run])
    numbers = [f"{result.num_samples:,}", f"{entry.rows:,}", f"{result.low_rank:.8f}", f"{expected:.8f}", f"{difference:.0e}"]
    right = right and result.num_samples == entry.rows and difference < TOLERANCE
    return [*cells, f"`{entry.head}`", *numbers, f"{with_measure / bare:.2f}"], right


def lines(networks: Sequence[Pretrained]) -> Iterator[tuple[list[str] | str, bool]]:
    """A row for each network, or why it was skipped."""
    for entry in networks:
        try:
            yield line(entry)
        except ModuleNotFoundError as error:
            yield f"{entry.name} ({entry.package}) was skipped: {error}", True
        except FileNotFoundError:
            yield f"{entry.name} ({entry.package}) was skipped: its weights do not come with the package; it downloads them", True


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, help="write the table there too")
    parser.add_argument("--only", default="", help="networks whose name or package holds this")
    given = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # of the packages, and of weak output directions
    versions = ", ".join(f"{name} {version(name)}" for name in ("lazyrich", "torch", "numpy"))
    text = [
        "# Pretrained weights that packages of PyPI ship",
        f"Python {sys.version.split()[0]}, {versions}; one thread. `python benchmarks/accuracy/pretrained.py` prints this table.",
        f"| {' | '.join(COLUMNS)} |\n|{' --- |' * len(COLUMNS)}",
    ]
    print("\n\n".join(text))
    skipped, all_right = [], True
    for row, right in lines([entry for entry in NETWORKS if given.only in entry.name + entry.package]):
        all_right &= right
        if isinstance(row, str):
            skipped.append(row)
        else:
            text[-1] += f"\n| {' | '.join(row)} |"
            print(text[-1].splitlines()[-1] + ("" if right else " **wrong**"), flush=True)
    text += skipped
    print("\n", "\n\n".join(skipped))
    if given.out is not None:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text("\n\n".join(text) + "\n", encoding="utf-8")
    return 0 if all_right else 1


if __name__ == "__main__":
    sys.exit(main())

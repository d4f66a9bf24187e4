"""The data of the experiments: images, scikit-learn's digits, modular arithmetic; each set is one tensor in memory."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..._support.extras import needs
from ...errors import DataError
from .images import Arrays, read_images
from .seeds import generator


@dataclass(frozen=True, eq=False)
class Split:
    """Inputs (n, …) and class labels (n,)."""

    inputs: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: Tensor | slice) -> Split:
        return Split(self.inputs[rows], self.labels[rows])

    def to(self, device: torch.device) -> Split:
        """The same samples on another device."""
        return Split(self.inputs.to(device), self.labels.to(device))


@dataclass(frozen=True, eq=False)
class Data:
    """A training and a test set."""

    train: Split
    test: Split
    num_classes: int


@dataclass(frozen=True)
class Images:
    """Images of a published data set.

    Attributes:
        name: "mnist", "fashion-mnist", "cifar10" or "cifar100". Pixels of the first two are in [0, 1]; the channels of CIFAR are
            standardised with the mean and the standard deviation of the training images.
        train, test: number of images, which the seed chooses; None takes all.
        shuffled: share of the training labels that are permuted among themselves.
        encoded: if not 0, the label of a training image is written into it: this is the value of the pixel whose index is the
            label. In a test image the index is random.
        augmented: whether training batches are shifted by up to 4 pixels, flipped, and rotated by up to 15°.
    """

    name: str
    train: int | None = None
    test: int | None = None
    shuffled: float = 0.0
    encoded: float = 0.0
    augmented: bool = False

    def arrays(self, root: Path) -> tuple[str, tuple[np.ndarray, ...]]:
        """The name of the data set and its arrays as they are read, before a seed chooses from them."""
        return self.name, _raw(self.name, root)

    def load(self, seed: int, root: Path) -> Data:
        """Read the files in ``root``, and choose images and random labels by the seed."""
        train_images, train_labels, test_images, test_labels = _raw(self.name, root)
        train = self._drawn(train_images, train_labels, self.train, seed, "train")
        test = self._drawn(test_images, test_labels, self.test, seed, "test")
        num_classes = int(train_labels.max()) + 1
        if self.name.startswith("cifar"):
            spread, mean = torch.std_mean(train.inputs, dim=(0, 2, 3), keepdim=True)
            train, test = (replace(s, inputs=(s.inputs - mean) / spread) for s in (train, test))
        if self.encoded:
            random = torch.randint(10, (len(test),), generator=generator(seed, "encoding"))
            train, test = self._written(train, train.labels), self._written(test, random)
        if self.shuffled:
            train = replace(train, labels=_permuted(train.labels, self.shuffled, generator(seed, "shuffling")))
        return Data(train, test, num_classes)

    def _drawn(self, images: np.ndarray, labels: np.ndarray, count: int | None, seed: int, part: str) -> Split:
        if count is not None and not 0 < count <= len(labels):
            raise DataError(f"{self.name} has {len(labels):,} images to {part}, got {part}={count:,}")
        rows = torch.randperm(len(labels), generator=generator(seed, self.name, part))[:count].numpy()
        return Split(torch.from_numpy(images[rows]).float() / 255, torch.from_numpy(labels[rows]))

    def _written(self, split: Split, values: Tensor) -> Split:
        if split.inputs.shape[1:] != (1, 28, 28):
            raise DataError(f"encoded={self.encoded:g} needs grey images of 28 × 28 pixels; those of {self.name} are not")
        inputs = split.inputs.clone()
        inputs[torch.arange(len(values)), 0, 0, values] = self.encoded
        return replace(split, inputs=inputs)


@dataclass(frozen=True)
class Digits:
    """scikit-learn's 1,797 digits of 8 × 8 pixels; needs no file."""

    def arrays(self, root: Path) -> tuple[str, tuple[np.ndarray, ...]]:
        """The name of the data set and its arrays as they are read, before a seed chooses from them."""
        raw = needs("sklearn.datasets", "experiments").load_digits()
        return "digits", (raw.images, raw.target)

    def load(self, seed: int, root: Path) -> Data:
        """Four fifths for training, which the seed chooses, and the rest for testing."""
        _, (raw_images, raw_labels) = self.arrays(root)
        images = torch.from_numpy(raw_images).float()[:, None] / 16
        labels = torch.from_numpy(raw_labels).long()
        order = torch.randperm(len(labels), generator=generator(seed, "digits"))
        samples = Split(images, labels)
        return Data(samples[order[:1437]], samples[order[1437:]], 10)


_OPERATIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "addition": lambda a, b: a + b,
    "subtraction": lambda a, b: a - b,
    "multiplication": lambda a, b: a * b,
}


@dataclass(frozen=True)
class ModularArithmetic:
    """All pairs (a, b) modulo a prime, as four tokens: a, the operation, b, "="; the label is the result.

    Attributes:
        prime: the modulus. The tokens are the numbers below it, then the operation, then "=".
        fraction: share of the pairs that are training data.
    """

    prime: int
    fraction: float = 0.5
    operation: str = "addition"

    def __post_init__(self) -> None:
        if self.prime < 2 or not 0 < self.fraction < 1:
            raise ValueError(f"prime must be at least 2 and fraction between 0 and 1, got {self.prime} and {self.fraction}")

    def arrays(self, root: Path) -> tuple[str, tuple[np.ndarray, ...]]:
        """A name, and no arrays, because all pairs are computed."""
        return "modular arithmetic", ()

    def load(self, seed: int, root: Path) -> Data:
        """All pairs; the seed chooses which are training data and which are test data."""
        if self.operation not in _OPERATIONS:
            raise DataError(f"operation must be one of {', '.join(_OPERATIONS)}, got {self.operation!r}")
        a, b = torch.meshgrid(torch.arange(self.prime), torch.arange(self.prime), indexing="ij")
        a, b = a.flatten(), b.flatten()
        signs = torch.tensor([self.prime, self.prime + 1]).expand(len(a), 2)
        tokens = torch.stack([a, signs[:, 0], b, signs[:, 1]], dim=1)
        pairs = Split(tokens, _OPERATIONS[self.operation](a, b) % self.prime)
        order = torch.randperm(len(pairs), generator=generator(seed, "pairs"))
        count = math.floor(self.fraction * len(pairs))
        return Data(pairs[order[:count]], pairs[order[count:]], self.prime)


def augment(images: Tensor, seed: int) -> Tensor:
    """Shift images (n, c, h, w) by up to 4 pixels, flip and rotate them by up to 15°, in one resampling on their device."""
    n, size = len(images), images.shape[-1]
    draws = torch.rand(4, n, generator=torch.Generator().manual_seed(seed)).to(images.device)
    angle = (draws[0] * 2 - 1) * math.radians(15)
    flip = torch.where(draws[1] < 0.5, -1.0, 1.0)
    shift = ((draws[2:] * 9).floor() - 4) * 2 / size  # integer numbers of pixels, in units of half an image
    rotation = torch.stack([angle.cos() * flip, -angle.sin(), shift[0], angle.sin() * flip, angle.cos(), shift[1]], dim=1)
    grid = torch.nn.functional.affine_grid(rotation.view(n, 2, 3), list(images.shape), align_corners=False)
    return torch.nn.functional.grid_sample(images, grid.to(images.dtype), align_corners=False)


def _permuted(labels: Tensor, share: float, draws: torch.Generator) -> Tensor:
    if not 0 <= share <= 1:
        raise DataError(f"shuffled must be a share between 0 and 1, got {share}")
    rows = torch.randperm(len(labels), generator=draws)[: round(share * len(labels))]
    labels = labels.clone()
    labels[rows] = labels[rows[torch.randperm(len(rows), generator=draws)]]
    return labels


@lru_cache(maxsize=2)
def _raw(name: str, root: Path) -> Arrays:
    """The arrays, cached because the conditions and seeds of an experiment use the same files."""
    return read_images(name, root)

"""What an entry of the zoo is: a network with data, and the right answer or the right error."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

SINGLE = 2.0**-23  # the rounding of float32


@dataclass(frozen=True)
class Answer:
    """What a measurement must find.

    Attributes:
        head: the dotted name of the head; None where ``forward=`` returns the rows itself.
        features: (rows, p) float64, computed by hand. The order of the rows does not matter.
        outputs: (rows, C) float64.
        labels: (rows,) class labels; None where there are none or they cannot be used.
        targets: (rows, T) real targets; None where there are none.
        linear: whether the outputs are the features times the head's own weight, plus its bias.
        returned: how the model returns the head's outputs, a part of ``evidence.returned``.
        row: "sample" or "position"; None where nobody can say.
        left_out: how many rows do not count; None where nobody asks.
        counted: which rows count, in words, for the documentation.
        note: words that the notes must hold, in any case.
        layers: the features of inner layers, by name.
        unmarked: inner layers with fewer features than output directions: they have no isotropic reference.
        tolerance: of D_LR and of every moment, relative.
        eps: the rounding of the network's numbers, which the rank of the outputs depends on.
    """

    head: str | None
    features: np.ndarray
    outputs: np.ndarray
    labels: np.ndarray | None = None
    targets: np.ndarray | None = None
    linear: bool = True
    returned: str = "as it is"
    row: str | None = "sample"
    left_out: int | None = 0
    counted: str = ""
    note: str = ""
    layers: Mapping[str, np.ndarray] = field(default_factory=dict)
    unmarked: tuple[str, ...] = ()
    tolerance: float = 1e-6
    eps: float = 2.0**-52


@dataclass(frozen=True)
class Refusal:
    """The error that must come.

    Attributes:
        error: its class, or several.
        words: what the message must hold.
        offers: names that the message must offer as ``head='name'``.
        first: the name that it must offer first.
    """

    error: type[Exception] | tuple[type[Exception], ...]
    words: tuple[str, ...] = ()
    offers: tuple[str, ...] = ()
    first: str | None = None


@dataclass(frozen=True)
class Case:
    """A network with data, built again for every test.

    Attributes:
        options: for ``lazyrich.measure``.
        around: the context in which everything runs, such as ``torch.inference_mode``.
        trains: whether the network can be trained, so that training with a monitor can be compared with training without.
        writes: whether a forward pass or a change of mode writes parameters, so that their version counters may move.
    """

    model: nn.Module
    data: Any
    right: Answer | Refusal
    options: dict[str, Any] = field(default_factory=dict)
    around: Callable[[], AbstractContextManager[Any]] = nullcontext
    trains: bool = True
    writes: bool = False


@dataclass(frozen=True)
class Entry:
    """One row of the table."""

    kind: str
    name: str
    builder: Callable[[], Case]

    def build(self) -> Case:
        """The case, the same every time: float64 unless the builder asks for something else."""
        torch.default_generator.manual_seed(0)  # torch.manual_seed takes milliseconds, also for devices that are not there
        previous = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64)
        try:
            return self.builder()
        finally:
            torch.set_default_dtype(previous)


class Shelf(list[Entry]):
    """The entries of one kind, collected by a decorator."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def entry(self, name: str) -> Callable[[Callable[[], Case]], Callable[[], Case]]:
        """Adds the decorated builder under this name."""

        def add(builder: Callable[[], Case]) -> Callable[[], Case]:
            self.append(Entry(self.kind, name, builder))
            return builder

        return add

    def entries(self, variants: Mapping[str, Any]) -> Callable[[Callable[[Any], Case]], Callable[[Any], Case]]:
        """Adds one entry for each variant: the decorated builder is called with the variant's value."""

        def add(builder: Callable[[Any], Case]) -> Callable[[Any], Case]:
            for name, value in variants.items():
                self.append(Entry(self.kind, name, lambda value=value: builder(value)))
            return builder

        return add


class Net(nn.Module):
    """A body, a head, and what the model makes of the head's outputs."""

    def __init__(self, body: nn.Module, head: nn.Module, finish: Callable[..., Any] = lambda out, features, x: out) -> None:
        super().__init__()
        self.body, self.head, self.finish = body, head, finish

    def forward(self, x: Tensor) -> Any:
        features = self.body(x)
        return self.finish(self.head(features), features, x)


def split(data: Any, size: int) -> Iterator[Any]:
    """A tensor, a pair or a mapping of tensors in batches of ``size``."""
    if isinstance(data, Tensor):
        yield from data.split(size)
    elif isinstance(data, Mapping):
        for values in zip(*(value.split(size) for value in data.values()), strict=True):
            yield dict(zip(data, values, strict=True))
    else:
        yield from zip(*(x.split(size) for x in data), strict=True)


def stack(samples: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Features and outputs of one row, or of several, for each sample: all rows in order."""
    features, outputs = zip(*samples, strict=True)
    return np.concatenate([np.atleast_2d(x) for x in features]), np.concatenate([np.atleast_2d(x) for x in outputs])

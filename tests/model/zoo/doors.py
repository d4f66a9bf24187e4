"""Contexts around the call, and what the model does within: the same numbers through every door."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from .by_hand import linear, relu
from .entries import Answer, Case, Net, Shelf

shelf = Shelf("doors")


def perceptron(dtype=torch.float64, **answer):
    """A network of two layers, its inputs, and its rows by hand."""
    model, x = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3)).to(dtype), torch.randn(60, 8)
    features = relu(linear(x.to(dtype), model[0]))
    return model, x, Answer("2", features, linear(features, model[2]), **answer)


@contextmanager
def _default_device() -> Iterator[None]:
    torch.set_default_device("cpu")
    try:
        yield
    finally:
        torch.set_default_device(None)


@contextmanager
def _default_dtype() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextmanager
def _deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


@contextmanager
def _slow_attention() -> Iterator[None]:
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(True)


AROUND: dict[str, Any] = {
    "inference_mode around the call": torch.inference_mode,
    "no_grad around the call": torch.no_grad,
    "gradients switched on around the call": torch.enable_grad,
    "a default device": _default_device,
    "another default type": _default_dtype,
    "deterministic algorithms": _deterministic,
    "fast path of attention switched off": _slow_attention,
    "detection of anomalies": lambda: torch.autograd.set_detect_anomaly(True),
}


@shelf.entries(AROUND)
def _(around):
    model, x, right = perceptron()
    trains = around not in (torch.inference_mode, torch.no_grad)
    return Case(model, list(x.split(25)), right, around=around, trains=trains)


@shelf.entries({f"{name}, with the whole standard output": around for name, around in list(AROUND.items())[:2]})
def _(around):
    model, x, right = perceptron()
    y = torch.arange(60) % 3
    right = Answer(right.head, right.features, right.outputs, y.numpy(), layers={"2": right.features})
    return Case(model, (x, y), right, {"layers": ["2"], "nc4": True}, around=around, trains=False)


@shelf.entry("inputs made under inference_mode")
def _():
    model, _, _ = perceptron()
    with torch.inference_mode():
        x = torch.randn(60, 8)
    features = relu(linear(x, model[0]))
    return Case(model, x, Answer("2", features, linear(features, model[2])), trains=False)


@shelf.entry("inputs that require gradients")
def _():
    model, x, right = perceptron()
    return Case(model, x.requires_grad_(), right, trains=False)


@shelf.entry("forward under inference_mode")
def _():
    class Inferred(Net):
        @torch.inference_mode()
        def forward(self, x):
            return super().forward(x)

    model, x = Inferred(nn.Sequential(nn.Linear(8, 16), nn.Tanh()), nn.Linear(16, 3)), torch.randn(60, 8)
    features = np.tanh(linear(x, model.body[0]))
    return Case(model, x, Answer("head", features, linear(features, model.head)), trains=False)


@shelf.entry("forward that switches gradients on")
def _():
    class Force(nn.Module):
        """Returns an energy and the gradient of it, as models of molecules do."""

        def __init__(self):
            super().__init__()
            self.fc, self.head = nn.Linear(8, 16), nn.Linear(16, 1)

        def forward(self, x):
            with torch.enable_grad():
                x = x.detach().requires_grad_()
                energy = self.head(torch.tanh(self.fc(x)))
                force = -torch.autograd.grad(energy.sum(), x, create_graph=self.training)[0]
            return {"energy": energy.squeeze(-1), "force": force}

    model, x = Force(), torch.randn(60, 8)
    features = np.tanh(linear(x, model.fc))
    return Case(model, x, Answer("head", features, linear(features, model.head)))


@shelf.entry("gradient checkpointing")
def _():
    class Checkpointed(Net):
        def forward(self, x):
            return self.head(checkpoint(self.body, x, use_reentrant=False))

    model, x = Checkpointed(nn.Sequential(nn.Linear(8, 16), nn.Dropout(0.2), nn.Tanh()), nn.Linear(16, 3)), torch.randn(60, 8)
    features = np.tanh(linear(x, model.body[0]))
    return Case(model, x, Answer("head", features, linear(features, model.head)))


@shelf.entry("checkpointing around the head")
def _():
    class Checkpointed(Net):
        def forward(self, x):
            return checkpoint(lambda x: self.head(self.body(x)), x, use_reentrant=False)

    model, x = Checkpointed(nn.Sequential(nn.Linear(8, 16), nn.Tanh()), nn.Linear(16, 3)), torch.randn(60, 8)
    features = np.tanh(linear(x, model.body[0]))
    return Case(model, x, Answer("head", features, linear(features, model.head)))


@shelf.entry("wrapped in DataParallel")
def _():
    model, x, right = perceptron()
    return Case(nn.DataParallel(model), x, right)

"""Number formats and layouts: what the library has to cast, or to read as it is."""

import warnings

import numpy as np
import torch
from torch import nn

from lazyrich import HeadError

from .by_hand import array, linear, relu
from .doors import perceptron
from .entries import SINGLE, Answer, Case, Net, Refusal, Shelf

shelf = Shelf("number formats")
HALF = {"float16": 2.0**-10, "bfloat16": 2.0**-7}


@shelf.entry("autocast around the call")
def _():
    """What was computed in bfloat16 is measured: by hand it is rounded in the same places."""
    model, x, _ = perceptron(torch.float32)
    x = x.float()

    def rounded(values):
        return torch.as_tensor(values).to(torch.bfloat16).double().numpy()

    parameters = [rounded(array(p)) for p in model.parameters()]
    features = relu(rounded(rounded(array(x)) @ parameters[0].T + parameters[1]))
    outputs = rounded(features @ parameters[2].T + parameters[3])
    right = Answer("2", features, outputs, tolerance=1e-2, eps=HALF["bfloat16"])
    return Case(model, x, right, around=lambda: torch.autocast("cpu", dtype=torch.bfloat16))


@shelf.entries({f"network in {name}, inputs in float32": name for name in HALF})
def _(name):
    model, x, right = perceptron(getattr(torch, name), tolerance=2e-2, eps=HALF[name])
    return Case(model, x.float(), right, trains=False)


@shelf.entry("network in float64, inputs in float32")
def _():
    model, x, _ = perceptron()
    x = x.float()
    features = relu(linear(x, model[0]))
    return Case(model, x, Answer("2", features, linear(features, model[2])), trains=False)


@shelf.entry("network in float32, inputs in float64")
def _():
    model, x, right = perceptron(torch.float32, tolerance=1e-5, eps=SINGLE)
    return Case(model, x, right, trains=False)


@shelf.entry("layers of different types")
def _():
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.head = nn.Linear(8, 16).float(), nn.Linear(16, 3)

        def forward(self, x):
            return self.head(torch.tanh(self.fc(x.float())).double())

    model, x = Mixed(), torch.randn(60, 8)
    features = np.tanh(linear(x.float(), model.fc))
    return Case(model, x, Answer("head", features, linear(features, model.head), tolerance=1e-5, eps=SINGLE))


@shelf.entries({"sparse inputs": torch.Tensor.to_sparse, "sparse inputs in rows": torch.Tensor.to_sparse_csr})
def _(sparse):
    x = torch.where(torch.rand(60, 20) < 0.2, torch.randn(60, 20), torch.zeros(60, 20))
    model = nn.Sequential(nn.Linear(20, 16), nn.ReLU(), nn.Linear(16, 3))
    features = relu(linear(x, model[0]))
    y = torch.arange(60) % 3
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # compressed rows are in beta
        data = [(sparse(x[:40]), y[:40]), (sparse(x[40:]), y[40:])]
    return Case(model, data, Answer("2", features, linear(features, model[2]), y.numpy()))


@shelf.entry("channels last in memory")
def _():
    body = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU())
    model, x = Net(body, nn.Conv2d(8, 4, 1)).to(memory_format=torch.channels_last), torch.randn(8, 3, 4, 5)  # type: ignore[call-overload]
    features = relu(linear(array(x).transpose(0, 2, 3, 1).reshape(-1, 3), body[0]))
    right = Answer("head", features, linear(features, model.head), row="position")
    return Case(model, x.to(memory_format=torch.channels_last), right)


@shelf.entry("complex numbers on the way")
def _():
    class Spectral(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight, self.head = nn.Parameter(torch.randn(9, dtype=torch.complex128)), nn.Linear(16, 3)

        def forward(self, x):
            return self.head(torch.fft.irfft(torch.fft.rfft(x) * self.weight, n=16).tanh())

    model, x = Spectral(), torch.randn(60, 16)
    weight = model.weight.detach().numpy()
    features = np.tanh(np.fft.irfft(np.fft.rfft(array(x)) * weight, n=16))
    return Case(model, x, Answer("head", features, linear(features, model.head)))


@shelf.entry("a head with complex outputs")
def _():
    model = nn.Sequential(nn.Linear(8, 16, dtype=torch.complex64), nn.Linear(16, 3, dtype=torch.complex64))
    x = torch.randn(60, 8, dtype=torch.complex64)
    return Case(model, x, Refusal((HeadError, TypeError), ("complex",)), trains=False)

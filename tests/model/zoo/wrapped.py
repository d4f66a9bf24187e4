"""Layers that are pruned, normalised, quantised or compiled to a script."""

import warnings

import numpy as np
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm

from lazyrich import HeadError

from .by_hand import array, linear, relu
from .entries import SINGLE, Answer, Case, Refusal, Shelf

shelf = Shelf("wrapped layers")


def _pruned(layer):
    prune.l1_unstructured(layer, "weight", 0.5)


def _old(normalise):
    def apply(layer):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # both are deprecated, and both are in use
            normalise(layer)

    return apply


WRAPPERS = {
    "pruning": _pruned,
    "weight norm": parametrizations.weight_norm,
    "weight norm, the old one": _old(weight_norm),
    "spectral norm": parametrizations.spectral_norm,
    "spectral norm, the old one": _old(spectral_norm),
    "orthogonal weights": parametrizations.orthogonal,
}


def _weight(layer):
    """The weight that a wrapped layer computes with in evaluation mode, from its own parts."""
    if hasattr(layer, "weight_orig") and hasattr(layer, "weight_mask"):
        return array(layer.weight_orig) * array(layer.weight_mask)
    if hasattr(layer, "weight_g"):
        return array(layer.weight_g) * array(layer.weight_v) / np.linalg.norm(array(layer.weight_v), axis=1, keepdims=True)
    if hasattr(layer, "weight_orig"):
        return array(layer.weight_orig) / (array(layer.weight_u) @ array(layer.weight_orig) @ array(layer.weight_v))
    parts = layer.parametrizations.weight
    if hasattr(parts, "original1"):
        return array(parts.original0) * array(parts.original1) / np.linalg.norm(array(parts.original1), axis=1, keepdims=True)
    if hasattr(parts[0], "_u"):
        return array(parts.original) / (array(parts[0]._u) @ array(parts.original) @ array(parts[0]._v))
    return array(layer.weight)  # orthogonal: a product of reflections, taken from the layer


@shelf.entries({f"{name} of the {part}": (wrap, part) for name, wrap in WRAPPERS.items() for part in ("body", "head")})
def _(how):
    wrap, part = how
    model, x = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3)), torch.randn(60, 8)
    layer = model[0 if part == "body" else 2]
    wrap(layer)
    weights = [_weight(m) if m is layer else array(m.weight) for m in (model[0], model[2])]
    features = relu(array(x) @ weights[0].T + array(model[0].bias))
    return Case(model, x, Answer("2", features, features @ weights[1].T + array(model[2].bias)))


def _quantized(layer):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated, and in use
        return torch.ao.quantization.quantize_dynamic(nn.Sequential(layer), {nn.Linear})[0]


def _dequantized(x, layer):
    """What a dynamically quantised layer computes: weights on their grid, inputs rounded to eight bits of their range."""
    low, high = min(float(x.min()), 0.0), max(float(x.max()), 0.0)
    step = (high - low) / 127  # one bit is kept in reserve against overflow
    zero = round(-low / step)
    grid = (np.clip(np.rint(x / step) + zero, 0, 127) - zero) * step
    weight = layer.weight()
    return grid @ array(weight.dequantize()).T + array(layer.bias())


def _network():
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3)).float(), torch.randn(60, 8).float()


@shelf.entry("quantised body")
def _():
    model, x = _network()
    model[0] = _quantized(model[0])
    features = relu(_dequantized(array(x), model[0]))
    right = Answer("2", features, linear(features, model[2]), tolerance=2e-2, eps=SINGLE)
    return Case(model, x, right, trains=False)


@shelf.entry("quantised head, named")
def _():
    model, x = _network()
    features = relu(linear(x, model[0]))
    model[2] = _quantized(model[2])
    outputs = _dequantized(features, model[2])
    right = Answer("2", features, outputs, linear=False, tolerance=2e-2, eps=SINGLE)
    return Case(model, x, right, {"head": "2"}, trains=False)


@shelf.entry("quantised head, not named")
def _():
    model, x = _network()
    model[2] = _quantized(model[2])
    return Case(model, x, Refusal(HeadError, offers=("2",), first="2"), trains=False)


def _scripted(module, example=None):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated, and in use
        return torch.jit.script(module) if example is None else torch.jit.trace(module, example)


@shelf.entries({f"body as a TorchScript, {how}": how for how in ("scripted", "traced")})
def _(how):
    model, x = nn.Sequential(nn.Sequential(nn.Linear(8, 16), nn.Tanh()), nn.Linear(16, 3)), torch.randn(60, 8)
    features = np.tanh(linear(x, model[0][0]))
    right = Answer("1", features, linear(features, model[1]))
    model[0] = _scripted(model[0], x[:2] if how == "traced" else None)
    return Case(model, x, right)


@shelf.entries({f"all of it as a TorchScript, {how}": how for how in ("scripted", "traced")})
def _(how):
    """No hook runs within a script: the reason is named."""
    model, x = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 3)), torch.randn(60, 8)
    model = _scripted(model, x[:2] if how == "traced" else None)
    return Case(model, x, Refusal(HeadError, ("TorchScript",)), trains=False)

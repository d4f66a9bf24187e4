"""Layers in float64 NumPy, one sample at a time: what the zoo's answers are computed with. Nothing here runs a module."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from torch import Tensor, nn


def array(x: Any) -> np.ndarray:
    """A tensor, or anything that is an array already, as float64."""
    if isinstance(x, Tensor):
        x = x.detach().double().numpy()
    return np.asarray(x, dtype=np.float64)


def linear(x: Any, layer: Any) -> np.ndarray:
    """x Wᵀ + b over the last dimension, with the parameters of a linear layer or of a 1×1 convolution."""
    weight = array(layer.weight)
    bias = 0.0 if layer.bias is None else array(layer.bias)
    return array(x) @ weight.reshape(len(weight), -1).T + bias


def relu(x: np.ndarray) -> np.ndarray:
    """max(x, 0)."""
    return np.maximum(x, 0)


def gelu(x: np.ndarray) -> np.ndarray:
    """x Φ(x) with the exact normal distribution function."""
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def sigmoid(x: np.ndarray) -> np.ndarray:
    """1/(1 + exp(-x))."""
    return 1 / (1 + np.exp(-x))


def softmax(x: np.ndarray) -> np.ndarray:
    """Over the last dimension."""
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def unit(x: np.ndarray) -> np.ndarray:
    """Rows of length one."""
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def layer_norm(x: np.ndarray, layer: nn.LayerNorm) -> np.ndarray:
    """Over the last dimension."""
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + layer.eps) * array(layer.weight) + array(layer.bias)


def batch_norm(x: np.ndarray, layer: Any) -> np.ndarray:
    """As in evaluation mode, over the first dimension's channels (c, …)."""
    shape = (-1,) + (1,) * (x.ndim - 1)
    mean, variance = array(layer.running_mean).reshape(shape), array(layer.running_var).reshape(shape)
    scale, shift = array(layer.weight).reshape(shape), array(layer.bias).reshape(shape)
    return (x - mean) / np.sqrt(variance + layer.eps) * scale + shift


def convolution(x: Any, layer: Any) -> np.ndarray:
    """A convolution of stride 1 without padding: (c, length) or (c, height, width) to maps of the output channels."""
    x, weight = array(x), array(layer.weight)
    sizes = weight.shape[2:]
    places = [n - k + 1 for n, k in zip(x.shape[1:], sizes, strict=True)]
    out = np.zeros((len(weight), *places))
    for offset in np.ndindex(*sizes):
        window = x[(slice(None), *(slice(o, o + n) for o, n in zip(offset, places, strict=True)))]
        out += np.tensordot(weight[(slice(None), slice(None), *offset)], window, axes=(1, 0))
    return out + (0.0 if layer.bias is None else array(layer.bias).reshape(-1, *[1] * len(sizes)))


def lstm(x: Any, layer: nn.LSTM, state: tuple[np.ndarray, np.ndarray] | None = None) -> np.ndarray:
    """(T, d) to (T, h): one layer, step by step."""
    wi, wh = array(layer.weight_ih_l0), array(layer.weight_hh_l0)
    bias = array(layer.bias_ih_l0) + array(layer.bias_hh_l0)
    h, c = state or (np.zeros(layer.hidden_size),) * 2
    out = []
    for step in array(x):
        i, f, g, o = np.split(wi @ step + wh @ h + bias, 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        out.append(h)
    return np.stack(out)


def gru(x: Any, layer: nn.GRU, state: np.ndarray | None = None) -> np.ndarray:
    """(T, d) to (T, h): one layer, step by step."""
    wi, wh, bi, bh = (array(getattr(layer, name)) for name in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"))
    h = np.zeros(layer.hidden_size) if state is None else state
    out = []
    for step in array(x):
        (ri, zi, ni), (rh, zh, nh) = np.split(wi @ step + bi, 3), np.split(wh @ h + bh, 3)
        z = sigmoid(zi + zh)
        h = (1 - z) * np.tanh(ni + sigmoid(ri + rh) * nh) + z * h
        out.append(h)
    return np.stack(out)


def attention(x: np.ndarray, layer: nn.MultiheadAttention, keep: Any = None) -> np.ndarray:
    """Self-attention of (T, d); keys that ``keep`` leaves out get no weight."""
    q, k, v = np.split(x @ array(layer.in_proj_weight).T + array(layer.in_proj_bias), 3, axis=-1)
    heads = []
    for qh, kh, vh in zip(*(np.split(y, layer.num_heads, axis=-1) for y in (q, k, v)), strict=True):
        scores = qh @ kh.T / math.sqrt(qh.shape[-1])
        if keep is not None:
            scores[:, ~np.asarray(keep)] = -np.inf
        heads.append(softmax(scores) @ vh)
    return linear(np.concatenate(heads, axis=-1), layer.out_proj)


def encoder_layer(x: Any, layer: Any, keep: Any = None) -> np.ndarray:
    """PyTorch's transformer layer (T, d) with normalisation after each part and ReLU, in evaluation mode."""
    x = array(x)
    x = layer_norm(x + attention(x, layer.self_attn, keep), layer.norm1)
    return layer_norm(x + linear(relu(linear(x, layer.linear1)), layer.linear2), layer.norm2)

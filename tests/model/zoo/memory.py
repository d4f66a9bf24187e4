"""Networks that a pass or an error could leave changed: each comes back bit for bit."""

from __future__ import annotations

import random

import numpy as np
import torch
from torch import nn

from lazyrich import HeadError

from .by_hand import array, gru, linear, lstm, relu
from .entries import Answer, Case, Refusal, Shelf

shelf = Shelf("networks with a memory")


class Writing(nn.Module):
    """Writes into buffers, parameters or attributes as it runs, in evaluation mode too."""

    def __init__(self, write):
        super().__init__()
        self.f, self.h, self.write = nn.Linear(8, 16), nn.Linear(16, 3), write
        self.register_buffer("mean", torch.zeros(16))
        self.register_buffer("queue", torch.randn(16, 32))
        self.register_buffer("pointer", torch.zeros(1, dtype=torch.long), persistent=False)
        self.teacher = nn.Linear(8, 16).requires_grad_(False)
        self.calls, self.log, self.cache, self.last = 0, [], {}, None

    def forward(self, x):
        z = torch.relu(self.f(x))
        self.write(self, z.detach())
        return self.h(z - self.mean)


def _running(m, z):
    m.mean.mul_(0.9).add_(0.1 * z.mean(0))


def _running_replaced(m, z):
    m.mean = 0.9 * m.mean + 0.1 * z.mean(0)


def _running_data(m, z):
    m.mean.data.lerp_(z.mean(0), 0.1)


def _queue(m, z):
    start = int(m.pointer)
    m.queue[:, start : start + 8] = z[:8].T
    m.pointer[0] = (start + 8) % 32


def _momentum(m, z):
    for theirs, ours in zip(m.teacher.parameters(), m.f.parameters(), strict=True):
        theirs.data.mul_(0.99).add_(ours.data, alpha=0.01)


def _counter(m, z):
    m.calls += 1


def _log(m, z):
    m.log.append(float(z.mean()))


def _cache(m, z):
    m.cache[len(m.cache)] = z


def _last(m, z):
    m.last = z


def _new(m, z):
    m.features = z


def _random(m, z):
    torch.rand(3), np.random.rand(), random.random()


def _flags(m, z):
    m.f.requires_grad_(False)
    m.h.training = True


def _hooks(m, z):
    """As Transformers does to record hidden states: hooks at the first run, and a flag so that there will be no others."""
    if not getattr(m, "hooked", False):
        m.f.register_forward_hook(lambda *_: None)
        m.hooked = True


def _child(m, z):
    m.late = nn.Identity()


MEANS = {
    "running mean in a buffer": _running,
    "running mean in a buffer that is replaced": _running_replaced,
    "running mean written through .data": _running_data,
}
WRITES = {
    "queue and pointer": _queue,
    "momentum encoder": _momentum,
    "counter": _counter,
    "list that grows": _log,
    "dictionary that grows": _cache,
    "last activations in an attribute": _last,
    "last activations in an attribute that was not there": _new,
    "hooks at the first run": _hooks,
    "a module that the forward pass adds": _child,
    "random numbers drawn": _random,
    "flags of parameters and modules": _flags,
}


@shelf.entries(MEANS | WRITES)
def _(write):
    model, x = Writing(write), torch.randn(60, 8)
    z = relu(linear(x, model.f))
    features = z - (0.1 * z.mean(0) if write in MEANS.values() else 0)
    right = Answer("h", features, linear(features, model.h))
    return Case(model, x, right, writes=write in (_momentum, _flags), trains=write is not _flags)


@shelf.entries({f"{name}, several batches": write for name, write in MEANS.items()})
def _(write):
    """What one batch leaves behind, the next one finds: as in one loop over the data."""
    model, x = Writing(write), torch.randn(60, 8)
    mean, rows = np.zeros(16), []
    for part in x.split(20):
        z = relu(linear(part, model.f))
        mean = 0.9 * mean + 0.1 * z.mean(0)
        rows.append(z - mean)
    features = np.concatenate(rows)
    return Case(model, list(x.split(20)), Answer("h", features, linear(features, model.h)))


@shelf.entries({f"{name}, and an error": write for name, write in (MEANS | WRITES).items()})
def _(write):
    model, x = Writing(write), torch.randn(60, 8)
    model.h = nn.Sequential(nn.Linear(16, 3), nn.Linear(3, 3), nn.GLU(-1))  # an odd width: it raises after everything was written
    right = Refusal(RuntimeError, ("dimension",))
    return Case(model, x, right, writes=write in (_momentum, _flags), trains=False)


@shelf.entry("two heads and a running mean")
def _():
    model = Writing(_running)
    model.h = _Split()
    return Case(model, torch.randn(60, 8), Refusal(HeadError, offers=("h.left", "h.right")))


class _Split(nn.Module):
    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Linear(16, 3), nn.Linear(16, 2)

    def forward(self, x):
        return self.left(x), self.right(x)


class Stateful(nn.Module):
    """Keeps its state between calls, as a player of games does."""

    def __init__(self, net, state):
        super().__init__()
        self.net, self.fc, self.state = net, nn.Linear(net.hidden_size, 3), state

    def forward(self, x):
        out, self.state = self.net(x, self.state)
        if isinstance(self.state, tuple):
            self.state = tuple(s.detach() for s in self.state)
        else:
            self.state = self.state.detach()
        return self.fc(out[:, -1])


@shelf.entries({"hidden state in an attribute": False, "hidden state in an attribute, at its start": True})
def _(empty):
    state = None if empty else torch.randn(1, 30, 10)
    model, data = Stateful(nn.GRU(4, 10, batch_first=True), state), [torch.randn(30, 5, 4) for _ in range(2)]
    states, rows = [None] * 30 if state is None else list(array(state[0])), []
    for batch in data:
        out = [gru(sample, model.net, s) for sample, s in zip(batch, states, strict=True)]
        states = [o[-1] for o in out]
        rows += states
    features = np.stack(rows)
    return Case(model, data, Answer("fc", features, linear(features, model.fc)))


@shelf.entry("hidden state in a tuple")
def _():
    state = (torch.randn(1, 60, 10), torch.randn(1, 60, 10))
    model, x = Stateful(nn.LSTM(4, 10, batch_first=True), state), torch.randn(60, 5, 4)
    h, c = (array(s[0]) for s in state)
    features = np.stack([lstm(sample, model.net, (h[k], c[k]))[-1] for k, sample in enumerate(x)])
    return Case(model, x, Answer("fc", features, linear(features, model.fc)))


@shelf.entry("hidden state that is written in place")
def _():
    class InPlace(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.head, self.state = nn.Linear(8, 16), nn.Linear(16, 3), torch.randn(16)

        def forward(self, x):
            self.state.mul_(0.5).add_(x.detach().mean())
            return self.head(torch.tanh(self.fc(x) + self.state))

    model, x = InPlace(), torch.randn(60, 8)
    features = np.tanh(linear(x, model.fc) + 0.5 * array(model.state) + array(x).mean())
    return Case(model, x, Answer("head", features, linear(features, model.head)))


@shelf.entry("inputs that are written in place")
def _():
    class Whitens(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.head = nn.Linear(8, 16), nn.Linear(16, 3)

        def forward(self, x):
            return self.head(torch.tanh(self.fc(x.mul_(0.5).add_(1))))

    model, x = Whitens(), torch.randn(60, 8)
    features = np.tanh(linear(0.5 * x + 1, model.fc))
    return Case(model, x, Answer("head", features, linear(features, model.head)), trains=False)

"""Bodies of the random networks: vectors, maps and sequences through whatever layers are drawn."""

from __future__ import annotations

import random
from collections.abc import Callable

import torch
from torch import Tensor, nn


class Residual(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inner(x.clone())  # what is inside may write into its input


class Branches(nn.Module):
    def __init__(self, branches: list[nn.Module]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x.clone()) for branch in self.branches], dim=-1)


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase], width: int, out: int) -> None:
        super().__init__()
        self.inner = kind(width, out, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)[0]


class Attention(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.MultiheadAttention(width, 2, batch_first=True)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.inner(x, x, x, key_padding_mask=None if mask is None else mask == 0, need_weights=False)[0]


class Transformer(nn.Module):
    def __init__(self, width: int, **options: float | bool) -> None:
        super().__init__()
        self.inner = nn.TransformerEncoderLayer(width, 2, 8, batch_first=True, **options)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.inner(x, src_key_padding_mask=None if mask is None else mask == 0)


class Tokens(nn.Module):
    """Embedded tokens, or vectors, through layers of sequences."""

    def __init__(self, embedding: nn.Module, layers: list[nn.Module], finish: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.embedding, self.layers, self.finish = embedding, nn.ModuleList(layers), finish

    def forward(self, x: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        x = self.embedding(x)
        for layer in self.layers:
            x = layer(x, attention_mask) if isinstance(layer, (Attention, Transformer, Encoder)) else layer(x)
        return self.finish(x)


class Encoder(nn.Module):
    """PyTorch's own stack of layers, with its fast path over nested tensors."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.TransformerEncoder(nn.TransformerEncoderLayer(width, 2, 8, batch_first=True), 2)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        out = self.inner(x, src_key_padding_mask=None if mask is None else mask == 0)
        return nn.functional.pad(out, (0, 0, 0, x.shape[1] - out.shape[1]))  # it cuts off what all samples leave out


class Remembering(nn.Module):
    """Passes its input on and writes into itself on the way, in evaluation mode too."""

    def __init__(self, kind: str, width: int) -> None:
        super().__init__()
        self.kind, self.runs, self.lengths, self.hidden = kind, 0, [], torch.zeros(width)
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("queue", torch.zeros(3, width))
        self.slow = nn.Parameter(torch.ones(width), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        now = x.detach().flatten(0, -2).mean(0)
        if self.kind == "in place":
            self.mean.mul_(0.9).add_(now.to(self.mean), alpha=0.1)
        elif self.kind == "data":
            self.mean.data.copy_(now)
        elif self.kind == "replaced":
            self.mean = 0.9 * self.mean + now.to(self.mean)
        elif self.kind == "queue":
            self.queue[self.runs % 3] = now.to(self.queue)
        elif self.kind == "slow parameter":
            self.slow.data.mul_(0.99).add_(now.to(self.slow), alpha=0.01)
        else:
            self.hidden, _ = now, self.lengths.append(len(x))
        self.runs += 1
        return x


class BatchStatistics(nn.Module):
    """Normalises by the batch in evaluation mode too, and writes its running statistics."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("var", torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.batch_norm(x, self.mean, self.var, training=True)


class Merging(nn.Linear):
    """An adapted layer that merges its adapter in evaluation mode and takes it out in training mode, as loralib's does."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__(width, out)
        self.merged, self.adapter = False, nn.Parameter(torch.randn(out, width))

    def train(self, mode: bool = True) -> Merging:
        super().train(mode)
        if self.merged == mode:
            self.weight.data += -self.adapter.data if mode else self.adapter.data
            self.merged = not mode
        return self

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + (0 if self.merged else x @ self.adapter.T)


class TimeFirst(nn.Module):
    """PyTorch's recurrent layers as they are by default: the last state of each sample, or the output of every step."""

    def __init__(self, width: int, out: int, steps: bool) -> None:
        super().__init__()
        self.inner, self.steps = nn.GRU(width, out), steps

    def forward(self, x: Tensor) -> Tensor:
        outputs, state = self.inner(x)
        return outputs if self.steps else state[-1]


MEMORIES = ("in place", "data", "replaced", "queue", "slow parameter", "attributes")


def activation(draw: random.Random) -> nn.Module:
    return draw.choice(
        [nn.ReLU(inplace=True), nn.ReLU(), nn.Tanh(), nn.GELU(), nn.Sigmoid(), nn.SiLU(inplace=True), nn.LeakyReLU(0.1, True)]
    )


def dense(draw: random.Random, width: int, out: int, depth: int = 0) -> nn.Module:
    """Vectors, or the last dimension of anything, from width to out."""
    layers: list[nn.Module] = []
    for _ in range(draw.randrange(3)):
        new = draw.choice([4, 6, 8, 12])
        kind = draw.randrange(11) if depth < 2 else draw.randrange(5)
        if kind <= 1:
            layers += [nn.Linear(width, new), activation(draw)]
        elif kind == 2:
            layers += [nn.utils.parametrizations.weight_norm(nn.Linear(width, new)), activation(draw)]
        elif kind == 3:
            layers += [draw.choice([nn.Identity(), nn.LayerNorm(width), nn.Dropout(0.5), nn.Dropout(0.5, inplace=True)])]
            new = width
        elif kind == 4:
            layers += [nn.Linear(width, new, bias=False)]
        elif kind == 5:
            layers, new = [*layers, Residual(dense(draw, width, width, depth + 1))], width
        elif kind == 6:
            layers += [Branches([dense(draw, width, new, depth + 1), dense(draw, width, 3, depth + 1)])]
            new += 3
        elif kind == 7:
            shared = nn.Linear(width, width)
            layers, new = [*layers, shared, activation(draw), shared], width
        elif kind == 8:
            layers, new = [*layers, Remembering(draw.choice(MEMORIES), width)], width
        elif kind == 9:
            layers += [Merging(width, new), activation(draw)]
        else:
            layers += [nn.Sequential(dense(draw, width, new, depth + 1))]
        width = new
    return nn.Sequential(*layers, nn.Linear(width, out), activation(draw))


def vectors(draw: random.Random, width: int, out: int) -> nn.Module:
    body = dense(draw, width, out)
    if draw.random() < 0.3:
        return nn.Sequential(draw.choice([nn.BatchNorm1d(width), BatchStatistics(width), nn.ReLU(inplace=True)]), body)
    return nn.Sequential(body, nn.BatchNorm1d(out), nn.Dropout(0.3)) if draw.random() < 0.2 else body


def maps(draw: random.Random, channels: int, out: int) -> nn.Module:
    layers: list[nn.Module] = []
    for _ in range(draw.randrange(1, 3)):
        new = draw.choice([4, 6])
        layers += [nn.Conv2d(channels, new, draw.choice([1, 3]), padding=draw.choice([0, 1]), groups=draw.choice([1, 1, 2]))]
        layers += [*[nn.BatchNorm2d(new), nn.Identity()][: draw.randrange(3)], activation(draw)]
        channels = new
        if draw.random() < 0.3:
            layers += [Residual(nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), activation(draw)))]
    if draw.random() < 0.4:
        layers += [draw.choice([nn.MaxPool2d(2), nn.AvgPool2d(2)])]
    return nn.Sequential(*layers, nn.Conv2d(channels, out, 1, padding=draw.choice([0, 1])), activation(draw))


def sequences(draw: random.Random, tokens: bool, width: int, out: int, finish: Callable[[Tensor], Tensor]) -> nn.Module:
    layers: list[nn.Module] = []
    for _ in range(draw.randrange(1, 3)):
        kind = draw.randrange(6)
        if kind == 0:
            layers, width = [*layers, Recurrent(draw.choice([nn.LSTM, nn.GRU]), width, 6)], 6
        elif kind == 1:
            layers.append(Attention(width))
        elif kind == 2 and draw.random() < 0.3:
            layers.append(Encoder(width))
        elif kind <= 3:
            layers.append(Transformer(width, norm_first=kind == 3, dropout=0.1))
        else:
            layers, width = [*layers, dense(draw, width, 6)], 6
    layers.append(nn.Linear(width, out))
    return Tokens(nn.Embedding(20, 8) if tokens else nn.Identity(), layers, finish)

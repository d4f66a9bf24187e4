"""Inner layers: where the channels are, whatever the order of the dimensions; and a value that depends on no other layer."""

import numpy as np
import torch
from torch import nn

from lazyrich import DataError, HeadError

from .by_hand import array, attention, convolution, encoder_layer, gelu, layer_norm, linear, relu
from .entries import Answer, Case, Refusal, Shelf, split

shelf = Shelf("inner layers")


@shelf.entry("one-dimensional convolutions: channels first, also for the activation and the pooling")
def _():
    pool = nn.AdaptiveAvgPool1d(1)
    model, x = nn.Sequential(nn.Conv1d(3, 16, 5), nn.ReLU(), pool, nn.Flatten(), nn.Linear(16, 4)), torch.randn(60, 3, 20)
    maps = [convolution(sample, model[0]) for sample in x]
    before, features = np.stack([m.mean(1) for m in maps]), np.stack([relu(m).mean(1) for m in maps])
    layers = {"0": array(x).mean(2), "1": before, "2": features, "4": features}
    right = Answer("4", features, linear(features, model[4]), layers=layers, unmarked=("0",))
    return Case(model, x, right, {"layers": list(layers)})


@shelf.entry("two-dimensional convolutions with batch norm and dropout")
def _():
    body = [nn.Conv2d(2, 12, 3), nn.BatchNorm2d(12, affine=False), nn.ReLU(), nn.Dropout2d(0.5), nn.Conv2d(12, 10, 1), nn.Tanh()]
    model = nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(10, 3))
    x, scale = torch.randn(60, 2, 6, 6), (1 + model[1].eps) ** -0.5
    maps = [convolution(image, model[0]) for image in x]
    hidden = [relu(m * scale) for m in maps]
    mixed = [linear(h.transpose(1, 2, 0), model[4]) for h in hidden]
    features = np.stack([np.tanh(m).mean((0, 1)) for m in mixed])
    pooled = np.stack([h.mean((1, 2)) for h in hidden])
    layers = {
        "1": np.stack([m.mean((1, 2)) for m in maps]),
        "2": scale * np.stack([m.mean((1, 2)) for m in maps]),
        "3": pooled,
        "4": pooled,
        "5": np.stack([m.mean((0, 1)) for m in mixed]),
        "8": features,
    }
    right = Answer("8", features, linear(features, model[8]), layers=layers)
    return Case(model, x, right, {"layers": list(layers)})


class ChannelsLast(nn.Module):
    """Blocks on (n, height, width, channels), as Swin's."""

    def __init__(self):
        super().__init__()

        class Block(nn.Module):
            def __init__(self):
                super().__init__()
                self.norm, self.mlp = nn.LayerNorm(12), nn.Sequential(nn.Linear(12, 24), nn.GELU(), nn.Linear(24, 12))

            def forward(self, x):
                return x + self.mlp(self.norm(x))

        self.patches, self.blocks = nn.Conv2d(3, 12, 1), nn.Sequential(Block(), Block())
        self.norm, self.head = nn.LayerNorm(12), nn.Linear(12, 5)

    def forward(self, x):
        x = self.blocks(self.patches(x).permute(0, 2, 3, 1))
        return self.head(self.norm(x).mean((1, 2)))


@shelf.entry("blocks with the channels last")
def _():
    model, x = ChannelsLast(), torch.randn(60, 3, 4, 4)
    hidden = [linear(array(x).transpose(0, 2, 3, 1), model.patches)]
    for block in model.blocks:
        h = hidden[-1]
        hidden.append(h + linear(gelu(linear(layer_norm(h, block.norm), block.mlp[0])), block.mlp[2]))
    features = layer_norm(hidden[2], model.norm).mean((1, 2))
    layers = {"blocks.0": hidden[0].mean((1, 2)), "blocks.1": hidden[1].mean((1, 2)), "norm": hidden[2].mean((1, 2))}
    right = Answer("head", features, linear(features, model.head), layers=layers)
    return Case(model, x, right, {"layers": list(layers)})


class Branches(nn.Module):
    def __init__(self):
        super().__init__()
        self.i, self.a, self.b, self.act = nn.Linear(8, 32), nn.Linear(32, 16), nn.Linear(32, 16), nn.ReLU(inplace=True)
        self.fc = nn.Linear(16, 3)

    def forward(self, x):
        h = self.i(x)
        a = self.a(h)
        h = self.act(h)
        return self.fc(torch.tanh(a + self.b(h)))


class Inferred(Branches):
    forward = torch.inference_mode()(Branches.forward)


@shelf.entries({"change in place between two layers": Branches, "change in place, forward under inference_mode": Inferred})
def _(kind):
    model, x = kind(), torch.randn(60, 8)
    h = linear(x, model.i)
    features = np.tanh(linear(h, model.a) + linear(relu(h), model.b))
    layers = {"a": h, "b": relu(h), "fc": features}
    right = Answer("fc", features, linear(features, model.fc), layers=layers)
    return Case(model, x, right, {"layers": list(layers)}, trains=False)


@shelf.entry("encoder with padding, whose fast path skips its layers")
def _():
    class Text(nn.Module):
        def __init__(self):
            super().__init__()
            layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
            self.encoder, self.fc = nn.TransformerEncoder(layer, 2, enable_nested_tensor=True), nn.Linear(16, 3)

        def forward(self, x, pad):
            return self.fc(self.encoder(x, src_key_padding_mask=pad)[:, 0])

    model, x = Text(), torch.randn(40, 7, 16)
    pad = torch.arange(7) >= torch.arange(40)[:, None] % 5 + 2
    first, second = model.encoder.layers
    seen = {name: [] for name in ("0.linear1", "0.linear2", "1.linear1", "1.linear2")}
    features = []
    for sample, keep in zip(x, (~pad).numpy(), strict=True):
        h = array(sample)
        for number, layer in enumerate((first, second)):
            normed = layer_norm(h + attention(h, layer.self_attn, keep), layer.norm1)
            seen[f"{number}.linear1"].append(normed.mean(0))
            seen[f"{number}.linear2"].append(relu(linear(normed, layer.linear1)).mean(0))
            h = encoder_layer(h, layer, keep)
        features.append(h[0])
    layers = {f"encoder.layers.{name}": np.stack(values) for name, values in seen.items()}
    features = np.stack(features)
    right = Answer("fc", features, linear(features, model.fc), layers=layers | {"fc": features})
    return Case(model, [((x, pad), None)], right, {"layers": "all"})


@shelf.entry("layer with fewer features than the outputs have directions")
def _():
    model = nn.Sequential(nn.Linear(20, 4), nn.ReLU(), nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 10))
    x = torch.randn(80, 20)
    narrow = relu(linear(x, model[0]))
    features = relu(linear(narrow, model[2]))
    right = Answer("4", features, linear(features, model[4]), layers={"0": array(x), "2": narrow, "4": features}, unmarked=("2",))
    return Case(model, x, right, {"layers": "all"})


class Sentence(nn.Module):
    """A layer on every token, then the answer at one of them."""

    def __init__(self, side):
        super().__init__()
        self.side = side
        self.embed, self.fc, self.head = nn.Embedding(12, 10), nn.Linear(10, 16), nn.Linear(16, 3)

    def forward(self, input_ids, attention_mask):
        h = torch.tanh(self.fc(self.embed(input_ids)))
        first, last = attention_mask.argmax(1), attention_mask.shape[1] - 1 - attention_mask.flip(1).argmax(1)
        return self.head(h[torch.arange(len(h)), first if self.side == "first" else last])


@shelf.entries({f"pooling={side!r}, padding on the {where}": (side, where) for side in ("average", "first", "last")
                for where in ("left", "right")})  # fmt: skip
def _(how):
    side, where = how
    model, ids, lengths = Sentence(side), torch.randint(12, (40, 7)), 2 + torch.arange(40) % 5
    mask = (torch.arange(7) < lengths[:, None]).long()
    mask = mask.flip(1) if where == "left" else mask
    kept = [array(model.embed.weight)[row[m > 0].numpy()] for row, m in zip(ids, mask, strict=True)]
    pooled = np.stack([{"average": e.mean(0), "first": e[0], "last": e[-1]}[side] for e in kept])
    features = np.tanh(linear(np.stack([e[0] if side == "first" else e[-1] for e in kept]), model.fc))
    right = Answer("head", features, linear(features, model.head), layers={"fc": pooled})
    data = list(split({"input_ids": ids, "attention_mask": mask}, 15))
    return Case(model, data, right, {"layers": ["fc"], "pooling": side})


@shelf.entry("sequences that become channels first on the way")
def _():
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.tokens, self.act, self.conv = nn.Linear(5, 12), nn.Tanh(), nn.Conv1d(12, 10, 3)
            self.after, self.head = nn.ReLU(), nn.Linear(10, 3)

        def forward(self, x):
            h = self.act(self.tokens(x)).transpose(1, 2)
            return self.head(self.after(self.conv(h)).mean(2))

    model, x = Mixed(), torch.randn(60, 9, 5)
    tokens = linear(x, model.tokens)
    maps = [convolution(np.tanh(t).T, model.conv) for t in tokens]
    features = np.stack([relu(m).mean(1) for m in maps])
    layers = {"act": tokens.mean(1), "conv": np.tanh(tokens).mean(1), "after": np.stack([m.mean(1) for m in maps])}
    right = Answer("head", features, linear(features, model.head), layers=layers)
    return Case(model, x, right, {"layers": list(layers)})


@shelf.entry("a layer at every position of a network that answers there")
def _():
    model, x = nn.Sequential(nn.Linear(5, 12), nn.Tanh(), nn.Linear(12, 10), nn.ReLU(), nn.Linear(10, 3)), torch.randn(12, 9, 5)
    hidden = np.tanh(linear(x, model[0])).reshape(-1, 12)
    features = relu(linear(hidden, model[2]))
    layers = {"2": hidden, "4": features}
    right = Answer("4", features, linear(features, model[4]), row="position", layers=layers)
    return Case(model, x, right, {"layers": list(layers)})


@shelf.entry("a name that is no layer")
def _():
    return Case(
        nn.Sequential(nn.Linear(6, 3)), torch.randn(60, 6), Refusal(HeadError, ("'fc'",)), {"layers": ["fc"]}, trains=False
    )


@shelf.entry("a layer that runs twice")
def _():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.step, self.head = nn.Linear(6, 6), nn.Linear(6, 3)

        def forward(self, x):
            return self.head(torch.tanh(self.step(torch.tanh(self.step(x)))))

    return Case(Twice(), torch.randn(60, 6), Refusal(DataError, ("step", "2 times")), {"layers": ["step"]}, trains=False)

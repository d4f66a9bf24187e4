"""Networks as they are in textbooks."""

import numpy as np
import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence

from .by_hand import array, batch_norm, convolution, encoder_layer, gelu, gru, layer_norm, linear, lstm, relu
from .entries import Answer, Case, Net, Shelf, split, stack

shelf = Shelf("plain")


@shelf.entry("multilayer perceptron")
def _():
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 12), nn.Tanh(), nn.Linear(12, 3))
    x, y = torch.randn(60, 6), torch.arange(60) % 3
    features = np.tanh(linear(relu(linear(x, model[0])), model[2]))
    return Case(model, (x, y), Answer("4", features, linear(features, model[4]), labels=y.numpy()))


@shelf.entry("multilayer perceptron in float32")
def _():
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3)).float()
    x = torch.randn(60, 6).float()
    features = relu(linear(x, model[0]))
    return Case(model, x, Answer("2", features, linear(features, model[2]), tolerance=1e-5, eps=2.0**-23))


@shelf.entry("one linear layer, which is its own head")
def _():
    model, x = nn.Linear(6, 3), torch.randn(60, 6)
    return Case(model, x, Answer("(the model itself)", array(x), linear(x, model)))


@shelf.entry("residual network with layer norm, several batches")
def _():
    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.norm, self.up, self.down = nn.Linear(6, 12), nn.LayerNorm(12), nn.Linear(12, 24), nn.Linear(24, 12)
            self.fc = nn.Linear(12, 3)

        def forward(self, x):
            h = self.stem(x)
            return self.fc(h + self.down(nn.functional.gelu(self.up(self.norm(h)))))

    model, x = Residual(), torch.randn(61, 6)
    h = linear(x, model.stem)
    features = h + linear(gelu(linear(layer_norm(h, model.norm), model.up)), model.down)
    return Case(model, list(split(x, 20)), Answer("fc", features, linear(features, model.fc)))


@shelf.entry("convolutional network with batch norm, in training mode")
def _():
    body = nn.Sequential(nn.Conv2d(2, 8, 3), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model, x = Net(body, nn.Linear(8, 3)), torch.randn(40, 2, 6, 6)
    with torch.no_grad():
        model(x * 2 + 1)  # so that the running statistics are not those of the start
    features = np.stack([relu(batch_norm(convolution(image, body[0]), body[1])).mean((1, 2)) for image in x])
    return Case(model, x, Answer("head", features, linear(features, model.head)))


@shelf.entry("1×1 convolution as the head, an answer at every pixel")
def _():
    model, x = Net(nn.Sequential(nn.Conv2d(2, 8, 3), nn.ReLU()), nn.Conv2d(8, 3, 1)), torch.randn(10, 2, 6, 6)
    features = np.concatenate([relu(convolution(image, model.body[0])).reshape(8, -1).T for image in x])
    return Case(model, x, Answer("head", features, linear(features, model.head), row="position"))


@shelf.entry("1×1 convolution as the head, averaged over the pixels")
def _():
    body, pooled = nn.Sequential(nn.Conv2d(2, 8, 3), nn.ReLU()), lambda out, features, x: out.mean((2, 3))
    model, x = Net(body, nn.Conv2d(8, 3, 1), pooled), torch.randn(40, 2, 6, 6)
    features = np.stack([relu(convolution(image, body[0])).mean((1, 2)) for image in x])
    return Case(model, x, Answer("head", features, linear(features, model.head), returned="mean over positions"))


class Encoder(nn.Module):
    def __init__(self, everywhere):
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, 4, 24, batch_first=True, dropout=0.1)
        self.encoder, self.fc, self.everywhere = nn.TransformerEncoder(layer, 2), nn.Linear(16, 3), everywhere

    def forward(self, x):
        h = self.encoder(x)
        return self.fc(h if self.everywhere else h[:, 0])


@shelf.entries({"transformer encoder, first token": False, "transformer encoder, an answer at every token": True})
def _(everywhere):
    model, x = Encoder(everywhere), torch.randn(24, 5, 16)
    first, second = model.encoder.layers
    hidden = [encoder_layer(encoder_layer(sample, first), second) for sample in x]
    features = np.concatenate(hidden) if everywhere else np.stack([h[0] for h in hidden])
    row = "position" if everywhere else "sample"
    return Case(model, x, Answer("fc", features, linear(features, model.fc), row=row))


class Recurrent(nn.Module):
    """Reads a sequence and answers after its last step."""

    def __init__(self, net):
        super().__init__()
        self.net, self.fc = net, nn.Linear(net.hidden_size, 3)

    def forward(self, x):
        state = self.net(x)[1]
        return self.fc((state[0] if isinstance(state, tuple) else state)[-1])


@shelf.entry("LSTM, batch first")
def _():
    model, x = Recurrent(nn.LSTM(4, 10, batch_first=True)), torch.randn(40, 7, 4)
    features = np.stack([lstm(sample, model.net)[-1] for sample in x])
    return Case(model, x, Answer("fc", features, linear(features, model.fc)))


@shelf.entry("LSTM, time first")
def _():
    model, data = Recurrent(nn.LSTM(4, 10)), [torch.randn(7, 8, 4) for _ in range(5)]
    features = np.stack([lstm(batch[:, k], model.net)[-1] for batch in data for k in range(8)])
    return Case(model, data, Answer("fc", features, linear(features, model.fc)))


@shelf.entry("GRU, time first, an answer at every step")
def _():
    class Tagger(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.fc = nn.GRU(4, 10), nn.Linear(10, 3)

        def forward(self, x):
            return self.fc(self.net(x)[0])

    model, x = Tagger(), torch.randn(7, 9, 4)
    features = np.concatenate([gru(x[:, k], model.net) for k in range(9)])
    return Case(model, [x], Answer("fc", features, linear(features, model.fc), row="position"))


@shelf.entry("packed sequences, an answer for each")
def _():
    model = Recurrent(nn.LSTM(4, 10))
    sequences = [torch.randn(length, 4) for length in (9, 7, 5, 8, 8, 2)]
    features = np.stack([lstm(sequence, model.net)[-1] for sequence in sequences])
    packs = [pack_sequence(sequences[:3]), pack_sequence(sequences[3:])]
    return Case(model, packs, Answer("fc", features, linear(features, model.fc)))


@shelf.entry("packed sequences, an answer at every step")
def _():
    class Tagger(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.fc = nn.GRU(4, 10), nn.Linear(10, 3)

        def forward(self, x: PackedSequence):
            return self.fc(self.net(x)[0].data)

    model, sequences = Tagger(), [torch.randn(length, 4) for length in (9, 7, 5, 4)]
    features = np.concatenate([gru(sequence, model.net) for sequence in sequences])
    right = Answer("fc", features, linear(features, model.fc), row=None)  # steps of a pack have no sample of their own
    return Case(model, [pack_sequence(sequences)], right)


@shelf.entry("vision transformer that works with patches first")
def _():
    class Vision(nn.Module):
        def __init__(self):
            super().__init__()
            self.patches, self.token = nn.Conv2d(2, 16, 2, stride=2), nn.Parameter(torch.randn(1, 1, 16))
            self.layer, self.fc = nn.TransformerEncoderLayer(16, 4, 24), nn.Linear(16, 3)

        def forward(self, x):
            patches = self.patches(x).flatten(2).permute(2, 0, 1)
            return self.fc(self.layer(torch.cat([self.token.expand(1, len(x), 16), patches]))[0])

    model, x = Vision(), torch.randn(24, 2, 4, 4)
    weight, samples = array(model.patches.weight).reshape(16, -1), []
    for image in array(x):
        squares = [image[:, i : i + 2, j : j + 2].reshape(-1) for i in (0, 2) for j in (0, 2)]
        tokens = np.stack([array(model.token)[0, 0], *(weight @ square + array(model.patches.bias) for square in squares)])
        features = encoder_layer(tokens, model.layer)[0]
        samples.append((features, linear(features, model.fc)))
    return Case(model, x, Answer("fc", *stack(samples)))


@shelf.entry("bags of words: a flat list of tokens and where each text begins")
def _():
    class Bags(nn.Module):
        def __init__(self):
            super().__init__()
            self.bag, self.fc = nn.EmbeddingBag(20, 10, mode="mean"), nn.Linear(10, 3)

        def forward(self, tokens, offsets):
            return self.fc(self.bag(tokens, offsets))

    model, lengths = Bags(), [3, 5, 2, 7, 4, 4, 6, 1, 3, 5, 2, 6]
    tokens, offsets = torch.randint(20, (sum(lengths),)), torch.tensor([0, *np.cumsum(lengths)[:-1]])
    texts = np.split(tokens.numpy(), np.cumsum(lengths)[:-1])
    features = np.stack([array(model.bag.weight)[text].mean(0) for text in texts])
    return Case(model, [((tokens, offsets), None)], Answer("fc", features, linear(features, model.fc)))


@shelf.entry("head of a class named Conv1D, with its weight transposed")
def _():
    class Conv1D(nn.Module):
        def __init__(self, nf, nx):
            super().__init__()
            self.nf, self.weight, self.bias = nf, nn.Parameter(torch.randn(nx, nf)), nn.Parameter(torch.randn(nf))

        def forward(self, x):
            return x @ self.weight + self.bias

    model, x = Net(nn.Sequential(nn.Linear(6, 12), nn.Tanh()), Conv1D(3, 12)), torch.randn(60, 6)
    features = np.tanh(linear(x, model.body[0]))
    outputs = features @ array(model.head.weight) + array(model.head.bias)
    return Case(model, x, Answer("head", features, outputs))


@shelf.entry("answers within nested containers, next to other tensors")
def _():
    def finish(out, features, x):
        return {"hidden": (features, x), "answers": [None, {"logits": out, "loss": out.square().mean()}]}

    model, x = Net(nn.Sequential(nn.Linear(6, 12), nn.Tanh()), nn.Linear(12, 3), finish), torch.randn(60, 6)
    features = np.tanh(linear(x, model.body[0]))
    return Case(model, x, Answer("head", features, linear(features, model.head)))

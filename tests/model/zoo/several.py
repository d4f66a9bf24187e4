"""Several heads, and heads that run several times."""

import numpy as np
import torch
from torch import nn

from lazyrich import HeadError

from .by_hand import array, gru, linear, relu
from .entries import Answer, Case, Refusal, Shelf

two_heads = Shelf("several heads")
repeated = Shelf("head that runs several times")


class Two(nn.Module):
    """Two heads on the same features, and what is returned of their outputs."""

    def __init__(self, finish, outputs=(2, 4)):
        super().__init__()
        self.body, self.left, self.right, self.finish = (
            nn.Linear(8, 16),
            nn.Linear(16, outputs[0]),
            nn.Linear(16, outputs[1]),
            finish,
        )

    def forward(self, x):
        h = torch.relu(self.body(x))
        return self.finish(self.left(h), self.right(h))

    def rows(self, x, head):
        features = relu(linear(x, self.body))
        return features, linear(features, getattr(self, head))


RETURNED = {
    "both returned": (lambda left, right: (left, right), (2, 4)),
    "both returned, in a mapping": (lambda left, right: {"a": left, "b": [right]}, (3, 3)),
    "first behind a softmax": (lambda left, right: (right, left.softmax(-1)), (2, 4)),
    "second behind a sigmoid": (lambda left, right: (left, right.sigmoid()), (2, 4)),
    "joined in one tensor": (lambda left, right: torch.cat([left, right], -1), (2, 4)),
    "policy and value": (lambda left, right: (left.log_softmax(-1), right.squeeze(-1)), (4, 1)),
    "policy and value, squashed": (lambda left, right: (left.softmax(-1), right.tanh().squeeze(-1)), (4, 1)),
    "mean and logarithm of the variance": (lambda left, right: (left, right.clamp(-1, 1)), (3, 3)),
    "main and auxiliary classifier": (lambda left, right: {"out": left, "aux": right}, (3, 3)),
    "two critics": (lambda left, right: (left, right), (1, 1)),
}


@two_heads.entries(RETURNED)
def _(how):
    return Case(Two(*how), torch.randn(80, 8), Refusal(HeadError, offers=("left", "right")))


@two_heads.entries({f"{name}, one of them named": how for name, how in list(RETURNED.items())[:6]})
def _(how):
    model, x = Two(*how), torch.randn(80, 8)
    return Case(model, x, Answer("right", *model.rows(x, "right"), returned=""), {"head": "right"})


DUELING = {
    "dueling network": lambda value, advantage: value + advantage - advantage.mean(1, keepdim=True),
    "dueling network, largest advantage removed": lambda value, advantage: value + advantage - advantage.amax(1, keepdim=True),
    "product of two heads": lambda value, advantage: value * advantage,
    "quantiles of a dueling network": lambda value, advantage: (value + advantage).reshape(-1, 2, 2),
}


@two_heads.entries(DUELING)
def _(finish):
    return Case(Two(finish, (1, 4)), torch.randn(80, 8), Refusal(HeadError, offers=("left", "right")))


@two_heads.entry("the second head is used for a loss alone")
def _():
    model, x = Two(lambda left, right: {"logits": left, "loss": right.square().mean()}), torch.randn(80, 8)
    return Case(model, x, Answer("left", *model.rows(x, "left")))


@two_heads.entry("the second head is not returned")
def _():
    model, x = Two(lambda left, right: left.softmax(-1), (3, 3)), torch.randn(80, 8)
    return Case(model, x, Answer("left", *model.rows(x, "left"), returned="softmax"))


@two_heads.entry("heads at different depths, both returned")
def _():
    class Early(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.exit, self.second, self.fc = nn.Linear(8, 16), nn.Linear(16, 3), nn.Linear(16, 12), nn.Linear(12, 3)

        def forward(self, x):
            h = torch.relu(self.first(x))
            return self.exit(h), self.fc(torch.relu(self.second(h)))

    return Case(Early(), torch.randn(80, 8), Refusal(HeadError, offers=("exit", "fc")))


@two_heads.entry("an answer for every token and one for the text")
def _():
    class Pretrained(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.words, self.next = nn.Embedding(20, 12), nn.Linear(12, 20), nn.Linear(12, 2)

        def forward(self, tokens):
            h = torch.tanh(self.embed(tokens).cumsum(1))
            return self.words(h), self.next(h[:, 0])

    return Case(Pretrained(), torch.randint(20, (12, 5)), Refusal(HeadError, offers=("words", "next")))


@two_heads.entry("a layer whose outputs are returned and used further")
def _():
    """What is returned first is a hidden layer; which of the two is meant nobody can say."""

    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.fc = nn.Linear(8, 16), nn.Linear(16, 3)

        def forward(self, x):
            hidden = self.body(x)
            return self.fc(torch.relu(hidden)), hidden

    return Case(Both(), torch.randn(80, 8), Refusal(HeadError, offers=("fc", "body"), first="fc"))


# --- one head that runs several times ---------------------------------------------------------------------------------


class Repeated(nn.Module):
    def __init__(self, answer, body=None):
        super().__init__()
        self.body, self.drop, self.head, self.answer = body or nn.Linear(8, 16), nn.Dropout(0.5), nn.Linear(16, 3), answer

    def forward(self, x):
        return self.answer(self, torch.relu(self.body(x)))

    def rows(self, x):
        features = relu(linear(x, self.body))
        return features, linear(features, self.head)


ONE_SET = {
    "mean over samples of dropout": lambda m, h: torch.stack([m.head(m.drop(h)) for _ in range(5)]).mean(0),
    "sum over samples of dropout, divided": lambda m, h: sum(m.head(m.drop(h)) for _ in range(4)) / 4,
    "twice with the same features, both returned": lambda m, h: (m.head(h), m.head(h)),
    "samples in chunks": lambda m, h: torch.cat([m.head(part) for part in h.split(30)]),
    "samples in chunks, softmax at the end": lambda m, h: torch.cat([m.head(part) for part in h.split(7)]).softmax(-1),
    "one sample after the other": lambda m, h: torch.stack([m.head(row) for row in h]),
}


@repeated.entries(ONE_SET)
def _(answer):
    model, x = Repeated(answer), torch.randn(80, 8)
    return Case(model, x, Answer("head", *model.rows(x), returned=""))


@repeated.entry("one step of a sequence after the other")
def _():
    class Decoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.fc = nn.GRU(4, 10, batch_first=True), nn.Linear(10, 3)

        def forward(self, x):
            state, answers = None, []
            for step in range(x.shape[1]):
                h, state = self.net(x[:, step : step + 1], state)
                answers.append(self.fc(h[:, 0]))
            return torch.stack(answers, 1)

    model, x = Decoder(), torch.randn(12, 5, 4)
    features = np.concatenate([gru(sample, model.net) for sample in x])
    return Case(model, x, Answer("fc", features, linear(features, model.fc), returned="", row=None))


@repeated.entry("positions of a map in chunks")
def _():
    body, head = nn.Conv2d(2, 16, 1), nn.Conv2d(16, 3, 1)
    model = Repeated(lambda m, h: torch.cat([m.head(part) for part in h.split(2, dim=-1)], -1), body)
    model.head = head
    x = torch.randn(8, 2, 4, 6)
    features = relu(linear(array(x).transpose(0, 2, 3, 1).reshape(-1, 2), body))
    return Case(model, x, Answer("head", features, linear(features, head), returned="", row=None))


DIFFERENT = {
    "distance of two inputs": lambda m, h: (m.head(h) - m.head(h.roll(1, 0))).norm(dim=-1),
    "difference of two inputs": lambda m, h: m.head(h) - m.head(h.roll(1, 0)),
    "mean over two views": lambda m, h: (m.head(h) + m.head(h.flip(-1))) / 2,
    "two views, both returned": lambda m, h: (m.head(h), m.head(h.flip(-1))),
    "every step of a refinement, the mean returned": lambda m, h: torch.stack([m.head(h * k) for k in (1, 2, 3)]).mean(0),
    "iterated on its own outputs": lambda m, h: m.head(torch.relu(m.back(m.head(h)))),
}


@repeated.entries(DIFFERENT)
def _(answer):
    model = Repeated(answer)
    model.back = nn.Linear(3, 16)
    return Case(model, torch.randn(80, 8), Refusal(HeadError, words=("head",)))


@repeated.entry("two inputs with shared layers, embeddings returned")
def _():
    class Siamese(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))

        def forward(self, left, right):
            return self.net(left), self.net(right)

    data = [((torch.randn(40, 8), torch.randn(40, 8)), None)]
    return Case(Siamese(), data, Refusal(HeadError, words=("net.2",)))


@repeated.entry("named, though it runs on different features")
def _():
    model = Repeated(DIFFERENT["difference of two inputs"])
    return Case(model, torch.randn(80, 8), Refusal(HeadError, words=("head", "2 times")), {"head": "head"})


@repeated.entry("a shared hidden layer before one head")
def _():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.step, self.fc = nn.Linear(8, 8), nn.Linear(8, 3)

        def forward(self, x):
            return self.fc(torch.tanh(self.step(torch.tanh(self.step(x)))))

    model, x = Shared(), torch.randn(80, 8)
    features = np.tanh(linear(np.tanh(linear(x, model.step)), model.step))
    return Case(model, x, Answer("fc", features, linear(features, model.fc)))

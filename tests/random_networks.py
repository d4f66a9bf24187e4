"""Random small networks with data, of which it is known what the head sees: what the capture is tried on.

``draw(seed)`` gives the same network, weights, data and options every time; nothing here imports the package.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from random_bodies import Merging, TimeFirst, maps, sequences, vectors
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset


class Refused(Exception):  # noqa: N818
    """What a network or a hook of the user raises."""


@dataclass
class Answer:
    """What some networks return."""

    logits: Tensor | None
    extra: Any = 3


@dataclass
class Drawn:
    """A network and data.

    Attributes:
        make: () -> the data, new each time and the same.
        head: dotted name of the layer that is the head; None where no one can say.
        certain: whether the capture must find it, or must refuse nothing.
        refused: whether any number is wrong, because what is returned is not what a linear layer computes.
        reduce: "rows", "places" (every place is a row), "steps" (so, time first), "mean", "pick" or "loop" (several calls of one
            batch are rows): places of the head to rows.
        pick: (samples, batch inputs) -> place of each sample.
        labels: "class", "one-hot", "real", "wrong", "places" or None.
    """

    model: nn.Module
    make: Callable[[], Any]
    head: str | None
    reduce: str
    options: dict[str, Any]
    certain: bool = True
    refused: bool = False
    pick: Callable[[int, Any], Tensor] | None = None
    labels: str | None = None
    what: list[str] = field(default_factory=list)


class LowRankAdapted(nn.Module):
    """A head with an adapter beside it; its output is the sum."""

    def __init__(self, width: int, out: int, zero: bool) -> None:
        super().__init__()
        self.base, self.down, self.up = nn.Linear(width, out), nn.Linear(width, 2, bias=False), nn.Linear(2, out, bias=False)
        if zero:
            nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.up(self.down(x))


class Prototypes(nn.Module):
    """A head whose weight is a bare parameter: cosines."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out, width))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(nn.functional.normalize(x, dim=-1), self.weight)


class Network(nn.Module):
    """Body, head, and whatever surrounds them."""

    def __init__(self, body: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.body, self.head = body, head
        self.calls, self.fail_at, self.error = 0, None, Refused
        self.around = "plain"
        self.finish: Callable[[Tensor, Tensor, Any], Any] = lambda out, features, inputs: out

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        if self.calls == self.fail_at:
            raise self.error("the network refused")
        if self.around == "autocast":
            with torch.autocast("cpu", dtype=torch.bfloat16):
                return self._run(args, kwargs)
        if self.around == "inference":
            with torch.inference_mode():
                return self._run(args, kwargs)
        if self.around == "random":
            torch.rand(2), random.random()
        return self._run(args, kwargs)

    def _run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        kwargs.pop("labels", None)
        features = self.body(*args, **kwargs)
        out = self.head(input=features) if self.around == "keyword" else self.head(features)
        return self.finish(out, features, kwargs.get("attention_mask"))


# --- what surrounds the head ------------------------------------------------------------------------------------------

UNHARMED: dict[str, Callable[[Tensor, Tensor, Any], Any]] = {
    "tensor": lambda out, features, _: out,
    "tuple": lambda out, features, _: (out, features),
    "list": lambda out, features, _: [None, out],
    "dict": lambda out, features, _: {"hidden": features, "nested": {"logits": out}},
    "dataclass": lambda out, features, _: Answer(out),
    "softmax": lambda out, features, _: out.softmax(-1),
    "log softmax": lambda out, features, _: (out * 3).log_softmax(-1),
    "sigmoid": lambda out, features, _: out.sigmoid(),
    "in place": lambda out, features, _: out.relu_(),
    "features overwritten": lambda out, features, _: (out, features.zero_())[0],
    "scaled in place": lambda out, features, _: out.mul_(-2),
    "squeezed": lambda out, features, _: out.squeeze(-1),
    "with a loss": lambda out, features, _: {"loss": out.float().square().mean(), "logits": out},
}
ODD: dict[str, Callable[[Tensor, Tensor, Any], Any]] = {
    "nothing": lambda out, features, _: None,
    "classes": lambda out, features, _: out.argmax(-1),
    "text": lambda out, features, _: "done",
    "the features": lambda out, features, _: features,
    "a loss alone": lambda out, features, _: out.float().mean(),
    "shifted": lambda out, features, _: out + torch.arange(out.shape[-1]).to(out),
    "sparse": lambda out, features, _: out.float().flatten(1).to_sparse(),
    "complex": lambda out, features, _: torch.complex(out.float(), out.float()),
}


def last_kept(mask: Tensor) -> Tensor:
    return mask.sum(1) - 1


def finish_of_places(draw: random.Random, drawn: Drawn, masked: bool) -> None:
    """How a network that has answers at every token makes its own of them."""
    net: Any = drawn.model
    several = net.head.out_features > 1
    kind = draw.choice(["places", "mean", "first", "last", "last", "largest"] if several else ["places", "mean"])
    drawn.what.append(kind)
    if kind == "places":
        drawn.reduce = "places"
        net.finish = draw.choice([UNHARMED["tensor"], UNHARMED["dict"], UNHARMED["softmax"], UNHARMED["tuple"]])
    elif kind == "mean":
        drawn.reduce = "mean"
        net.finish = lambda out, features, mask: out.mean(1)
    elif kind == "largest":  # no set of features gives this
        drawn.head, drawn.certain, net.finish = None, False, lambda out, features, mask: out.amax(1)
    elif kind == "last" and masked:
        drawn.reduce, drawn.pick = "pick", lambda n, inputs: last_kept(inputs["attention_mask"])
        net.finish = lambda out, features, mask: out[torch.arange(len(out)), last_kept(mask)]
    else:
        place = 0 if kind == "first" else -1
        drawn.reduce = "pick"
        drawn.pick = lambda n, inputs: torch.full((n,), place)
        net.finish = lambda out, features, mask: out[:, place]


OTHERS = (
    "odd", "two heads", "joined heads", "parameter head", "named parameter head", "not run", "adapter", "named adapter",
    "merging", "helper", "gate", "residual", "twice", "both", "loop",
)  # fmt: skip


def surround(draw: random.Random, drawn: Drawn, classes: int, kind: str | None) -> None:
    """What may go wrong around a head on vectors."""
    net: Any = drawn.model
    kind = kind or draw.choice([*["finish"] * 12, *OTHERS])
    drawn.what.append(kind)
    width, in_place = net.head.in_features, draw.random() < 0.5

    def refuse() -> None:
        drawn.certain, drawn.refused, drawn.head = False, True, None

    if kind == "finish":
        name = draw.choice(list(UNHARMED))
        net.finish = UNHARMED[name]
        drawn.what.append(name)
    elif kind == "odd":
        name = draw.choice(list(ODD))
        net.finish, drawn.certain = ODD[name], False
        drawn.head = None if name == "the features" else drawn.head
        drawn.what.append(name)
    elif kind in ("two heads", "joined heads"):
        net.other = other = nn.Linear(width, draw.choice([classes, 2, 3]))
        first = draw.choice([lambda out: out, torch.sigmoid])
        join = kind == "joined heads"
        net.finish = lambda out, features, _: torch.cat([out, other(features)], -1) if join else (first(out), other(features))
        if draw.random() < 0.3:
            drawn.options["head"] = "head"
        else:
            refuse()
    elif kind == "parameter head":
        net.weight, net.around = net.head.weight, "plain"
        del net.head
        net.head = lambda x: nn.functional.linear(x, net.weight)
        refuse()
    elif kind == "named parameter head":
        net.head, net.around = Prototypes(width, classes), "plain"
        drawn.options["head"] = draw.choice(["head", net.head])
    elif kind == "not run":
        net.spare = nn.Linear(width, classes)
        if draw.random() < 0.5:
            drawn.options["head"] = draw.choice(["spare", "nothing", "body", nn.Linear(2, 2), "head"])
            drawn.certain = drawn.options["head"] == "head"
            drawn.head = "head" if drawn.certain else None
    elif kind in ("adapter", "named adapter"):
        net.head = LowRankAdapted(width, classes, zero := draw.random() < 0.3)
        net.around = "plain"
        if kind == "named adapter":
            drawn.options["head"] = draw.choice(["head", net.head])
        elif zero:
            drawn.head = "head.base"
        else:
            refuse()
    elif kind == "merging":
        net.head, net.around = Merging(width, classes), "plain"
    elif kind == "helper":
        net.helper = helper = nn.Linear(width, draw.choice([classes, 4]))
        net.finish = lambda out, features, _: (out, helper(features).sum(), out)[0]
    elif kind == "gate":
        net.gate = gate = nn.Linear(width, draw.choice([classes, 1]))
        waves = lambda features: 1.5 + (5 * gate(features)).sin()  # noqa: E731
        net.finish = lambda out, features, _: out.mul_(waves(features)) if in_place else out * waves(features)
        refuse()
    elif kind == "residual":
        net.more = more = nn.Linear(width, classes)
        waves = lambda features: 3 * (5 * more(features)).sin()  # noqa: E731
        net.finish = lambda out, features, _: out.add_(waves(features)) if in_place else out + waves(features)
        refuse()
    elif kind == "twice":  # the head runs again on other inputs
        net.finish = lambda out, features, _: (out, net.head(features.flip(0).clone()))[0]
    elif kind == "both":
        net.finish = lambda out, features, _: (out, net.head(features * 2))
    else:
        net.finish = lambda out, features, _: torch.stack([net.head(features + k) for k in range(2)], 1)
        drawn.reduce = "loop"


# --- data -------------------------------------------------------------------------------------------------------------


def data_of(
    draw: random.Random, drawn: Drawn, x: Tensor, mask: Tensor | None, classes: int, places: tuple[int, ...], axis: int
) -> None:
    """Labels, batches, weights and options; samples are counted along one axis of the inputs."""
    n = x.shape[axis]
    kind = draw.choice(["class"] * 4 + ["one-hot", "real", "missing", "wrong", "small type", None, None])
    if drawn.reduce == "places":
        kind = draw.choice(["places", None])
    if drawn.reduce in ("loop", "steps"):
        kind = None
    if kind in ("class", "missing", "small type", "one-hot", "wrong"):
        y = torch.randint(classes, (n,)) if draw.random() < 0.5 else torch.arange(n) % classes
        y = y.clamp_max(max(classes - 2, 0)) if kind == "missing" else y
        y = y.to(draw.choice([torch.int32, torch.uint8, torch.int16])) if kind == "small type" else y
        if kind == "one-hot":
            y = nn.functional.one_hot(y, max(classes, 2)).to(draw.choice([torch.float32, torch.int64, torch.float64]))
        if kind == "wrong":
            y[draw.randrange(n)] = draw.choice([-1, classes + 3, -100])
    elif kind == "real":
        y = torch.randn(n, draw.choice([1, 3]))
    elif kind == "places":
        y = torch.randint(classes, (n, *places))
        y = y.masked_fill(torch.rand(y.shape) < draw.choice([0.0, 0.2]), -100)
    else:
        y = None
    drawn.labels = {"missing": "class", "small type": "class"}.get(kind, kind)
    inputs: Any = x
    if mask is not None:
        kinds = ["mapping"]
    elif axis:
        kinds = ["iterator"] if y is None else ["list", "iterator"]  # a list of two tensors may be inputs with targets
    else:
        kinds = ["tensors", "list", "list", "loader", "loader", "shuffled", "iterator", "with empty"]
    form = draw.choice(kinds)
    size = draw.choice([1, 3, 7, 16, n]) if n < 40 else draw.choice([7, 16, n])
    cuts = [slice(k, k + size) for k in range(0, n, size)]
    if form == "with empty":
        cuts = [*cuts]
        cuts.insert(draw.choice([0, 1, len(cuts)]), slice(0, 0))
    drawn.what += [f"labels {kind}", form, f"n {n}", f"batches of {size}"]

    def make() -> Any:
        if form == "mapping":
            whole = {"x": inputs, "attention_mask": mask} | ({} if y is None else {"labels": y})
            return [{name: value[rows].clone() for name, value in whole.items()} for rows in cuts]
        if form == "tensors":
            return inputs.clone() if y is None else (inputs.clone(), y.clone())
        pieces = [(inputs[:, c] if axis else inputs[c]).clone() for c in cuts]
        parts = pieces if y is None else [(piece, y[c].clone()) for piece, c in zip(pieces, cuts, strict=True)]
        if form in ("list", "with empty"):
            return parts
        if form == "iterator":
            return iter(parts)
        tensors = TensorDataset(inputs.clone()) if y is None else TensorDataset(inputs.clone(), y.clone())
        return DataLoader(tensors, size, shuffle=form == "shuffled", generator=torch.Generator().manual_seed(1))

    drawn.make = make
    options = drawn.options
    once = form == "iterator"
    if draw.random() < 0.2 and form != "shuffled":
        options["num_samples"] = draw.choice([1, 2, n // 2 + 1, n, 10 * n])
    if drawn.reduce == "places" and draw.random() < 0.4:
        options["rows"] = draw.choice(["all", "mask" if mask is not None else "labels" if y is not None else "all"])
    if drawn.reduce == "loop" and mask is not None:
        options["rows"] = "all"
    if drawn.reduce == "steps":
        options["layout"] = "time_first"
    if draw.random() < 0.25 and drawn.reduce not in ("places", "steps", "loop"):
        rows = min(n, options.get("num_samples", n))
        w = torch.rand(rows, dtype=draw.choice([torch.float32, torch.float64])) + 0.05
        w = w * (torch.rand(rows) < draw.choice([1.0, 0.7, 0.0])) if draw.random() < 0.5 else w
        options["sample_weights"] = w * draw.choice([1.0, 1e-12, 1e12])
    if draw.random() < 0.15:
        options["class_balanced"] = True
    if draw.random() < 0.2:
        options["nc4"] = True
    if draw.random() < 0.3:
        options["layers"] = "all"
        options["pooling"] = draw.choice(["average", "average", "flatten", "positions", "first", "last"])
    if draw.random() < 0.05 and not once:
        options["check"] = True


# --- all together -----------------------------------------------------------------------------------------------------


def draw_network(seed: Any, kind: str | None = None, around: str | None = None) -> Drawn:
    """A network with weights and data, the same for the same seed; of one kind, or with one thing around its head, if asked."""
    draw = random.Random(f"network {seed}")
    torch.manual_seed(draw.randrange(2**31))
    classes, width = draw.choice([1, 2, 3, 3, 4, 5]), draw.choice([2, 5, 8, 12])
    n = draw.choice([2, 3, 9, 20, 40, 60])
    kind = kind or draw.choice(["vectors"] * 5 + ["maps", "maps", "sequences", "tokens", "alone", "time first"])
    masked, places, mask, axis = False, (), None, int(kind == "time first")
    if kind == "time first":
        steps = draw.random() < 0.3
        x, everywhere = torch.randn(draw.choice([1, 4, 7]), n, 4), False
        model: Any = Network(TimeFirst(4, width, steps), nn.Linear(width, classes))
    elif kind == "vectors":
        x = torch.randn(n, 6)
        model = Network(vectors(draw, 6, width), nn.Linear(width, classes, bias=draw.random() < 0.7))
    elif kind == "alone":
        x = torch.randn(n, 6)
        model = nn.Linear(6, classes)
    elif kind == "maps":
        x = torch.randn(n, 2, 6, 6)
        body = maps(draw, 2, width)
        flat = draw.random() < 0.5
        if flat:
            model = Network(nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten()), nn.Linear(width, classes))
        else:
            model = Network(body, nn.Conv2d(width, classes, 1))
    else:
        tokens, length = kind == "tokens", draw.choice([1, 4, 7])
        x = torch.randint(20, (n, length)) if tokens else torch.randn(n, length, 8)
        masked = draw.random() < 0.5
        mask = (torch.arange(length) < torch.randint(1, length + 1, (n, 1))).long() if masked else None
        everywhere = draw.random() < 0.5
        finish = (lambda t: t) if everywhere else draw.choice([lambda t: t[:, -1], lambda t: t.mean(1), lambda t: t[:, 0]])
        model = Network(sequences(draw, tokens, 8, width, finish), nn.Linear(width, classes))
    drawn = Drawn(model, lambda: None, "" if kind == "alone" else "head", "rows", {}, what=[kind])

    if kind == "maps" and not flat:
        drawn.reduce = how = draw.choice(["places", "mean", "mean", "largest"])
        drawn.what.append(how)
        if how == "mean":
            pooled = nn.functional.adaptive_avg_pool2d
            model.finish = draw.choice([lambda out, *_: out.mean((2, 3)), lambda out, *_: pooled(out, 1).flatten(1)])
        elif how == "largest":
            model.finish, drawn.head, drawn.certain = (lambda out, *_: out.amax((2, 3))), None, False
        with torch.no_grad():
            places = tuple(model.eval().body(x[:1]).shape[2:])
        model.train()
    elif kind in ("sequences", "tokens") and everywhere:
        places = (length,)
        finish_of_places(draw, drawn, masked)
    elif kind == "time first" and steps:
        drawn.reduce = "steps"
    elif kind != "alone":
        surround(draw, drawn, classes, around)
    if kind != "alone" and draw.random() < 0.1 and hasattr(model, "head") and isinstance(model.head, nn.Linear):
        if draw.random() < 0.5:
            model.head = nn.utils.parametrizations.weight_norm(model.head)
        else:
            nn.utils.parametrizations.spectral_norm(model.head).eval()
            drawn.what.append("spectral norm")
    if isinstance(model, Network) and model.around == "plain" and drawn.what[-1:] != ["parameter head"]:
        model.around = draw.choice(["plain"] * 6 + ["random", "autocast", "inference", "keyword"])
        if model.around == "keyword" and not isinstance(getattr(model, "head", None), nn.Linear):
            model.around = "plain"
        drawn.what.append(model.around)
    spoil(draw, drawn, model, x)
    x = x if not x.is_floating_point() else x * draw.choice([1, 1, 1, 1, 1e-3, 1e3]) + draw.choice([0, 0, 0, 30])
    if x.is_floating_point() and draw.random() < 0.05:
        x.select(axis, draw.randrange(n)).fill_(draw.choice([torch.nan, torch.inf, -torch.inf]))
        drawn.what.append("not finite")
    dtype = draw.choice([torch.float32] * 7 + [torch.float64, torch.bfloat16, torch.float16])
    if dtype != torch.float32 and getattr(model, "around", "") != "autocast":
        model.to(dtype)
        x = x.to(dtype) if x.is_floating_point() and draw.random() < 0.95 else x
        drawn.what.append(str(dtype))
    data_of(draw, drawn, x, mask, classes, places, axis)
    modes(draw, model)
    return drawn


def spoil(draw: random.Random, drawn: Drawn, model: Any, x: Tensor) -> None:
    """Hooks of the user, failures, degenerate weights."""
    head = dict(model.named_modules()).get(drawn.head or "head")
    for _ in range(draw.choice([0, 0, 0, 1, 2])):
        kind = draw.randrange(7)
        target = draw.choice(list(model.modules()))
        if kind == 0:
            target.register_forward_hook(lambda *_: None)
        elif kind == 1 and isinstance(head, nn.Linear):
            head.register_forward_pre_hook(lambda module, args: (args[0] * 1.5, *args[1:]) if args else None)
        elif kind == 2 and isinstance(head, nn.Linear) and "softmax" not in drawn.what:
            head.register_forward_hook(lambda module, args, output: output * 2.0, prepend=draw.random() < 0.5)
        elif kind == 3 and draw.random() < 0.4:
            target.register_forward_hook(raises(draw.choice([Refused, KeyError, AttributeError, RuntimeError])))
        elif kind == 4 and isinstance(model, Network) and draw.random() < 0.4:
            model.fail_at = draw.choice([1, 2, 3])
            model.error = draw.choice([Refused, RuntimeError, KeyError, AssertionError, IndexError, AttributeError])
        elif kind == 5 and head is not None and draw.random() < 0.4:
            with torch.no_grad():
                for p in head.parameters():
                    p.mul_(draw.choice([0.0, 1e-12, 1e12, 1e-6, torch.nan]))
        elif kind == 6 and draw.random() < 0.4:
            for p in model.parameters():
                p.requires_grad_(draw.random() < 0.5)
        else:
            continue
        drawn.what.append(f"spoilt {kind}")
    for p in model.parameters():
        if p.requires_grad and draw.random() < 0.1:
            p.grad = torch.ones_like(p)


def raises(error: type[Exception]) -> Callable[..., None]:
    def hook(*_: Any) -> None:
        raise error("the user's hook")

    return hook


def modes(draw: random.Random, model: nn.Module) -> None:
    """Training or evaluation, also mixed."""
    model.train(draw.random() < 0.6)
    if draw.random() < 0.3:
        for module in model.modules():
            module.training = draw.random() < 0.5

"""One trial of the capture: measures a drawn network and holds what comes out against plain hooks and the slow reference."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import reference
import torch
from random_bodies import BatchStatistics
from random_networks import Answer, Drawn, Refused, draw_network
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

import lazyrich
from lazyrich import DataError, DegenerateError, HeadError, NonFiniteError

OWN = (HeadError, DataError, TypeError, ValueError, lazyrich.NondeterminismError)
MARKS = ("the network refused", "the user's hook")
HOOKS = (
    "_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks", "_forward_hooks_with_kwargs",
    "_forward_pre_hooks_with_kwargs", "_forward_hooks_always_called", "_state_dict_hooks",
)  # fmt: skip
GLOBAL_HOOKS = ("_global_forward_hooks", "_global_forward_pre_hooks", "_global_backward_hooks")


class Finding(AssertionError):  # noqa: N818
    """Something the library must not do."""


@dataclass
class Seen:
    """What plain hooks saw: for each batch, what every linear layer and convolution was given and returned, call by call.

    Attributes:
        calls, batches: one entry for each batch.
        returned: the tensors that the network returned, for each batch.
    """

    calls: list[dict[str, list[tuple[Tensor, Tensor]]]]
    batches: list[tuple[Any, Tensor | None]]
    returned: list[list[Tensor]]

    def heads(self, head: str) -> list[list[tuple[Tensor, Tensor]]]:
        """The head's calls in each batch; those with the same input and output count as one."""
        return [distinct(calls[head]) for calls in self.calls]


def distinct(calls: list[tuple[Tensor, Tensor]]) -> list[tuple[Tensor, Tensor]]:
    found: list[tuple[Tensor, Tensor]] = []
    for call in calls:
        if not any(all(torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in zip(call, other, strict=True)) for other in found):
            found.append(call)
    return found


def look(drawn: Drawn) -> Seen:
    """Runs the network in evaluation mode, plainly, with a pre-hook and a hook of one's own on each linear layer."""
    model, now = drawn.model.eval(), {}
    stack: list[tuple[nn.Module, Tensor]] = []
    left, axis = drawn.options.get("num_samples", 10**9), int("time first" in drawn.what)

    def before(module: nn.Module, args: Any, kwargs: Any) -> None:
        given = args[0] if args else kwargs["input"]
        stack.append((module, given.detach().clone()))

    def after(name: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            owner, given = stack.pop()
            assert owner is module
            now.setdefault(name, []).append((given, output.detach().clone()))

        return hook

    for name, module in model.named_modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)) or (name == drawn.head and drawn.head):
            module.register_forward_pre_hook(before, with_kwargs=True)
            module.register_forward_hook(after(name))
    found = Seen([], [], [])
    data = drawn.make()
    with torch.no_grad():
        for item in [data] if isinstance(data, (Tensor, tuple)) else data:
            x, y = item if isinstance(item, (tuple, list)) and len(item) == 2 else (item, None)
            x = x[0] if isinstance(x, list) else x
            y = x.get("labels") if isinstance(x, dict) else y
            try:
                returned = run(model, x)
            except RuntimeError as error:
                if "same dtype" not in str(error) and "should be the same" not in str(error) and "mixed dtype" not in str(error):
                    raise
                now.clear(), stack.clear()
                returned = run(model, cast(x, next(model.parameters()).dtype))  # as mixed-precision trainers cast
            found.calls.append(dict(now))
            found.batches.append((x, y))
            found.returned.append([z.detach().clone() for z in tensors(returned)])
            now.clear()
            left -= x["x"].shape[0] if isinstance(x, dict) else x.shape[axis]
            if left <= 0:
                break
    return found


def run(model: nn.Module, x: Any) -> Any:
    return model(**x) if isinstance(x, dict) else model(x)


def cast(x: Any, dtype: torch.dtype) -> Any:
    if isinstance(x, dict):
        return {key: cast(value, dtype) for key, value in x.items()}
    return x.to(dtype) if x.is_floating_point() else x


def tensors(returned: Any) -> list[Tensor]:
    """The floating-point tensors that a network returned."""
    if isinstance(returned, Tensor):
        return [returned] if returned.is_floating_point() and not returned.is_sparse and returned.ndim else []
    inner = (
        returned.values() if isinstance(returned, dict) else vars(returned).values() if isinstance(returned, Answer) else returned
    )
    return [x for value in inner for x in tensors(value)] if isinstance(returned, (dict, Answer, tuple, list)) else []


def rows_of_head(drawn: Drawn, seen: Seen, head: str) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
    """Features, outputs and labels, a row for each sample or place that counts; and which of all rows those are."""
    conv = isinstance(dict(drawn.model.named_modules())[head], nn.Conv2d)
    features, outputs, labels, kept = [], [], [], []
    left = drawn.options.get("num_samples", 10**9)
    for calls, (x, y), answers in zip(seen.heads(head), seen.batches, seen.returned, strict=True):
        given, returned = calls[0]
        if "shifted" in drawn.what:
            returned = answers[0]  # the head's outputs and a vector are measured as they are returned
        if drawn.reduce == "loop" and len(calls) > 1:
            given, returned = (torch.stack(part, 1) for part in zip(*calls, strict=True))
        if conv:
            given, returned = given.movedim(1, -1), returned.movedim(1, -1)
        if drawn.reduce == "steps":
            given, returned = given.transpose(0, 1), returned.transpose(0, 1)
        n = min(len(returned), left)
        left -= n
        given, returned, y = given[:n], returned[:n], None if y is None else y[:n]
        places = returned[..., 0].numel() // max(n, 1)
        keep = torch.ones(n * max(places, 1), dtype=torch.bool)
        if returned.ndim == 2 or (places <= 1 and n):
            given, returned = given.flatten(0, -2), returned.flatten(0, -2)
            y = y.flatten() if drawn.labels == "places" and y is not None else y
        elif drawn.reduce in ("places", "steps", "loop"):
            given, returned, rows = given.flatten(0, -2), returned.flatten(0, -2), drawn.options.get("rows")
            if isinstance(x, dict):
                keep, y = keep if rows == "all" else x["attention_mask"][:n].flatten() > 0, None
            elif y is not None:
                y = y.flatten()
                keep = keep if rows == "all" else y != -100
        elif drawn.reduce == "mean":
            given, returned, keep = given.flatten(1, -2).mean(1), returned.flatten(1, -2).mean(1), keep[:n]
        elif drawn.reduce == "pick":
            index, keep = drawn.pick(len(x["x"]) if isinstance(x, dict) else len(x), x)[:n], keep[:n]
            given, returned = given[torch.arange(n), index], returned[torch.arange(n), index]
        if y is not None and y.ndim == 1 and not y.is_floating_point() and len(y) == len(given):
            keep = keep & (y != -100) if drawn.options.get("rows") != "all" else keep  # labels that are ignored
        features.append(given[keep])
        outputs.append(returned[keep])
        labels.append(y if y is None or len(y) != len(keep) else y[keep])
        kept.append(keep)
    y = None if labels[0] is None else torch.cat(labels)
    if y is not None and drawn.labels in ("class", "places", "wrong") and bool((y == -100).any()):
        y = None  # not every row that counts has a label
    return torch.cat(features), torch.cat(outputs), y, torch.cat(kept)


def state(model: nn.Module) -> list[Any]:
    """Everything that a measurement could leave changed, bit by bit."""
    found: list[Any] = []
    for name, module in model.named_modules():
        hooks = [tuple((key, id(hook)) for key, hook in getattr(module, attribute, {}).items()) for attribute in HOOKS]
        attributes = sorted((key, content(value)) for key, value in module.__dict__.items())
        found.append((name, id(module), module.training, hooks, attributes, module.__class__))
    for name, x in (*model.named_parameters(), *model.named_buffers()):
        grad = None if x.grad is None else (id(x.grad), bits(x.grad))
        found.append((name, id(x), x.data_ptr(), x._version, x.requires_grad, grad, bits(x)))
    found.append([tuple(getattr(torch_module, name)) for name in GLOBAL_HOOKS])
    rng = np.random.get_state()
    found.append((bits(torch.get_rng_state()), random.getstate(), rng[1].tobytes(), rng[2:]))
    found.append((torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu")))
    found.append((torch.get_default_dtype(), torch.backends.mha.get_fastpath_enabled()))
    return found


def content(value: Any) -> Any:
    """What a plain attribute holds, to be compared."""
    if isinstance(value, Tensor):
        return f"{id(value)} {bits(value)!r}"
    return repr(value) if isinstance(value, (bool, int, str, list, float)) else f"{id(value)}"


def bits(x: Tensor) -> bytes:
    return x.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes() if x.numel() else b""


def trial(seed: Any, kind: str | None = None, around: str | None = None) -> str:
    """Draws, measures and judges; a word on how it ended.

    Raises:
        Finding: an unnamed crash, a hang, a wrong number, something refused that could be measured, something left changed.
    """
    return _trial(seed, draw_network(seed, kind, around), draw_network(seed, kind, around))


def _trial(seed: Any, drawn: Drawn, other: Drawn) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.backends.mha.set_fastpath_enabled(False)  # it skips modules, and answers otherwise where a mask leaves tokens out
        try:
            seen: Seen | Exception = look(other)
        except Exception as error:
            seen = error
        torch.backends.mha.set_fastpath_enabled(True)
        torch.manual_seed(random.Random(f"state {seed}").randrange(2**31))
        before = state(drawn.model)
        data = drawn.make()
        generator = getattr(data, "generator", None)
        loader_state = None if generator is None else bits(generator.get_state())
        result: lazyrich.Richness | Exception
        try:
            result = lazyrich.measure(drawn.model, data, **drawn.options)
        except Exception as error:
            result = error
    options = {key: value if not isinstance(value, Tensor) else "…" for key, value in drawn.options.items()}
    text = f"case {seed} ({', '.join(drawn.what)}; {options})"
    for old, new in zip(before, state(drawn.model), strict=True):
        if old != new:
            raise Finding(f"{text}: left changed: {str(old)[:300]} -> {str(new)[:300]}")
    if generator is not None and bits(generator.get_state()) != loader_state:
        raise Finding(f"{text}: the loader's generator was left changed")
    try:
        return judged(drawn, other, seen, result)
    except Finding as finding:
        raise Finding(f"{text}: {finding}") from (result if isinstance(result, Exception) else None)


def judged(drawn: Drawn, other: Drawn, seen: Seen | Exception, result: lazyrich.Richness | Exception) -> str:
    """How the measurement ended, if it may have."""
    if isinstance(result, Exception):
        passed_on = any(mark in str(result) for mark in MARKS)
        if isinstance(seen, Exception) and (type(result) is type(seen) or isinstance(result, OWN)):
            return "the network's own error"
        if passed_on and getattr(drawn.model, "fail_at", None) and isinstance(result, (drawn.model.error, Refused)):
            return "the network's own error"
        if isinstance(result, ArithmeticError) or not isinstance(result, OWN):
            raise Finding(f"{type(result).__name__}: {str(result)[:300]}")
        if isinstance(seen, Seen) and drawn.certain and not excused(drawn, other, seen, result):
            raise Finding(f"refused: {type(result).__name__}: {str(result)[:300]}")
        return type(result).__name__
    if isinstance(seen, Exception):
        if any(mark in str(seen) for mark in MARKS) or not drawn.certain:
            return "measured"  # more calls went well than were counted
        raise Finding(f"measured, where the network itself raises {type(seen).__name__}: {str(seen)[:200]}")
    head = "" if result.head == "(the model itself)" else result.head
    if drawn.refused and not (head == "other" and shows_little(seen, "head", 1)) and not a_multiple(seen, head):
        raise Finding(f"measured {result.head!r}, though what the network returns is not what a linear layer computes")
    if drawn.head is not None and head != drawn.head:
        raise Finding(f"took {result.head!r} for the head, which is {drawn.head!r}")
    if "largest" in drawn.what:
        if result.num_outputs == 1 or result.num_samples < 9 or nearly_the_mean(seen, head):
            return "measured at the places that were picked"  # the largest of one output is that of one place
        raise Finding(f"measured {result.low_rank}, though what the network returns is no linear function of any features")
    if not all(head in calls for calls in seen.calls):
        return "measured at a layer that is not linear"
    if "the features" in drawn.what and head != list(seen.calls[0])[-2]:
        raise Finding(f"took {result.head!r} for the head, where the layer before the features is {list(seen.calls[0])[-2]!r}")
    if drawn.reduce != "loop" and any(len(calls) != 1 for calls in seen.heads(head)):
        raise Finding(f"measured {result.head!r}, which ran more than once on different inputs")
    return compared(drawn, other, seen, result, head)


def nearly_the_mean(seen: Seen, head: str) -> bool:
    """Whether the largest over the places of an input is its mean, or as good as, or that of one place in all outputs."""
    for calls in seen.calls:
        out = calls[head][0][1].double()
        out = out.flatten(2).transpose(1, 2) if out.ndim == 4 else out
        if bool((out == out.amax(1, keepdim=True)).all(-1).any(1).all()):
            continue
        if len(out) and float((out.amax(1) - out.mean(1)).abs().max()) > 0.02 * float(out.abs().max()):
            return False
    return True


def excused(drawn: Drawn, other: Drawn, seen: Seen, error: Exception) -> bool:
    """Whether what the plain hooks saw calls for this error."""
    options, what = drawn.options, str(error)
    if drawn.reduce == "loop" and any(len(calls) > 2 for calls in seen.heads("head")):
        return True  # a hook of the user's changes the input of some calls alone
    if "has no linear or convolution layer" in what:
        return options.get("layers") == "all" and not any(map(linear_or_convolution, drawn.model.modules()))
    if "on different inputs" in what:
        return drawn.reduce != "loop" and any(len(calls) > 1 for calls in seen.heads(drawn.head or ""))
    features, outputs, labels, _ = rows_of_head(other, seen, drawn.head or "")
    x, f = features.double(), outputs.double()
    if isinstance(error, NonFiniteError):
        return not (bool(x.isfinite().all()) and bool(f.isfinite().all())) or "layers" in options or bad_parameters(drawn)
    if ("something other" in what or "on a later one it does not" in what) and shows_little(seen, drawn.head or ""):
        return True
    if "more than one head" in what:
        if not any(bool(z.isfinite().any()) for z in seen.returned[0]):
            return True
        return "spoilt 1" in drawn.what  # the user's hook hands the head another tensor than the one that is returned beside it
    if "shuffles" in what:
        return "shuffled" in drawn.what
    if "second pass" in what:
        return "iterator" in drawn.what and bool(options.keys() & {"nc4", "check", "class_balanced"})
    w = options.get("sample_weights")
    rows = len(x) if w is None or len(w) != len(x) else int((w > 0).sum())
    if isinstance(error, DegenerateError):
        if "layers" in options:
            return True  # an inner layer may be dead
        return constant(x, features.dtype) or constant(f, outputs.dtype) or rows < 2
    if rows < 2 or len(x) < 2:
        return True
    if w is not None and len(w) != len(x):
        return "sample_weights" in what
    if drawn.labels == "wrong":
        return "label" in what or "not a class" in what or ("blocks" in what and outputs.shape[1] == 1)  # which may be real
    if options.get("class_balanced") and labels is None:
        return "class_balanced" in what
    if drawn.labels == "places" and ("arget" in what or "label" in what):
        outs = [calls[drawn.head or ""][0][1] for calls in seen.calls]
        return all(out.shape[1:-1].numel() == 1 or conv_of_one(out) for out in outs)
    if options.get("class_balanced"):
        return "class_balanced" in what and (labels is None or drawn.labels in ("real", "places") or outputs.shape[1] < 2)
    if "overflow" in what or "underflow" in what:
        return float(x.abs().max()) > 1e50 or float(f.abs().max()) > 1e50 or float(f.var(0).max()) < 1e-110
    return False


def linear_or_convolution(module: nn.Module) -> bool:
    return isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d))


def a_multiple(seen: Seen, head: str) -> bool:
    """Whether what is returned is, to the rounding of its type, the outputs times one number."""
    pairs = [(calls[head][0][1], returned[0]) for calls, returned in zip(seen.calls, seen.returned, strict=True) if head in calls]
    if not pairs or any(out.shape != y.shape for out, y in pairs):
        return False
    out, y = (torch.cat([z.flatten() for z in part]) for part in zip(*pairs, strict=True))
    eps, out, y = torch.finfo(y.dtype).eps, out.double(), y.double()
    return bool(((y - (out @ y) / (out @ out) * out).abs() <= (64 if eps < 1e-6 else 4) * eps * y.abs().max()).all())


def shows_little(seen: Seen, head: str, first_tensors: int | None = None) -> bool:
    """Whether what is returned of the first batch, if not the outputs themselves, is so few or so equal that it shows nothing."""
    calls, first = next(both for both in zip(seen.heads(head), seen.returned, strict=True) if any(x.numel() for x in both[1]))
    first = first[:first_tensors]
    if any(x.shape == calls[0][1].shape and torch.equal(x, calls[0][1]) for x in first):
        return False
    rows = [x[x.isfinite().all(1)] for x in (x.double().reshape(len(x), -1) for x in first)]
    eps = max(torch.finfo(x.dtype).eps for x in (*first, calls[0][1]))
    few = max(3, -40 / np.log(eps))  # numbers, the fewer the more digits they have
    return all(
        len(x) < 3
        or x.numel() < few
        or bool((x - x.mean(0)).abs().max() <= 256 * eps * max(float(x.abs().max()), 1.0))
        or (bool(((x >= 0) & (x <= 1)).all()) and int(((x > 64 * eps) & (x < 1 - 64 * eps)).sum()) < few + len(x))  # saturated
        for x in rows
    )


def conv_of_one(out: Tensor) -> bool:
    """A map of a single place."""
    return out.ndim == 4 and out.shape[2:].numel() == 1


def bad_parameters(drawn: Drawn) -> bool:
    return any(not bool(p.isfinite().all()) for p in drawn.model.parameters())


def constant(x: Tensor, dtype: torch.dtype) -> bool:
    """Within twice the rounding."""
    return bool((x.std(0, correction=0) <= 2 * torch.finfo(dtype).eps * x.mean(0).abs()).all())


def compared(drawn: Drawn, other: Drawn, seen: Seen, result: lazyrich.Richness, head: str) -> str:
    """Whether the numbers are those of the slow reference."""
    twice = any(drawn.options.get(name) for name in ("class_balanced", "nc4", "check"))
    if twice and "shuffled" in drawn.what and any(isinstance(m, BatchStatistics) for m in drawn.model.modules()):
        return "measured, on other batches the second time, by which the network normalises"
    if drawn.head is None and any(calls[head][0][1].ndim != 2 for calls in seen.calls):
        return "measured at another layer than the head"
    features, outputs, labels, kept = rows_of_head(other, seen, head)
    if result.num_samples != len(features) and drawn.options.get("sample_weights") is None:
        raise Finding(f"{result.num_samples} rows where {len(features)} were seen")
    w = weights_of(drawn, labels)
    x, f = features.double().numpy(), outputs.double().numpy()
    if (result.num_features, result.num_outputs) != (x.shape[1], f.shape[1]):
        raise Finding(f"{result.num_features} features, {result.num_outputs} outputs; seen were {x.shape[1]} and {f.shape[1]}")
    eps = torch.finfo(outputs.dtype).eps
    if drawn.reduce == "pick" and eps > 1e-5 and any(len(x) < 5 for x, _ in seen.batches if isinstance(x, Tensor)):
        return "measured, the place may be told from another by rounding alone"
    if rank_is_rounding(f, w, eps):
        return "measured, the rank is a matter of rounding"
    other_rounding = torch.finfo(features.dtype).eps if rounded_otherwise(drawn) else 0.0
    expected, loose = steady(lambda x, f: reference.d_lr(x, f, w, eps=eps), other_rounding, x, f)
    if not abs(result.low_rank - expected) < 1e-5 + loose:
        raise Finding(f"D_LR {result.low_rank} where the reference has {expected}")
    if labels is not None and drawn.labels != "real":
        compare_collapse(drawn, x, f, labels, w, torch.finfo(features.dtype).eps, other_rounding, result)
    for name, layer in result.layers.items():
        compare_layer(drawn, seen, name, head, f, w, eps, kept, layer)
    return "measured"


def weights_of(drawn: Drawn, labels: Tensor | None) -> np.ndarray | None:
    w = drawn.options.get("sample_weights")
    w = None if w is None else w.double().numpy()
    if drawn.options.get("class_balanced"):
        y = classes_of(labels)
        given = np.ones(len(y)) if w is None else w
        total = np.bincount(y, given)[y]
        w = np.divide(given, total, out=np.zeros_like(total), where=total > 0)
    return w


def classes_of(labels: Tensor) -> np.ndarray:
    """The class of every row, of one-hot rows or of numbers, which may stand in a column."""
    return (labels.argmax(1) if labels.ndim == 2 and labels.shape[1] > 1 else labels.flatten()).long().numpy()


def rounded_otherwise(drawn: Drawn) -> bool:
    """Whether the features may differ in their last places from those that the plain hooks saw.

    Attention is fused where nothing inside is hooked, and a mean over places can be summed in another order.
    """
    return drawn.reduce == "mean" or any(isinstance(module, nn.MultiheadAttention) for module in drawn.model.modules())


def steady(number: Callable[..., Any], eps: float, *arrays: np.ndarray) -> tuple[Any, Any]:
    """A number, or several, of some arrays; and four times as far as rounding of the arrays moved it in a few draws."""
    expected = np.asarray(number(*arrays))
    if eps == 0:
        return expected, np.zeros_like(expected)
    rng = np.random.default_rng(0)
    moved = [number(*(a + eps * np.abs(a).max(0) * rng.uniform(-1, 1, a.shape) for a in arrays)) for _ in range(6)]
    return expected, 4 * np.abs(np.asarray(moved) - expected).max(0)


def rank_is_rounding(f: np.ndarray, w: np.ndarray | None, eps: float) -> bool:
    """Whether a singular value of the outputs lies so near the cut that rounding decides on which side."""
    share = np.full(len(f), 1 / len(f)) if w is None else w / w.sum()
    f = np.sqrt(share)[:, None] * f
    s = np.linalg.svd(f, compute_uv=False)
    cut = max((4 if eps > 1e-5 else 50) * eps * np.sqrt((f**2).sum() / f.shape[1]), 1e-7 * s[0])
    return bool(((s > cut / 2) & (s < 2 * cut)).any())


def compare_collapse(
    drawn: Drawn, x: np.ndarray, f: np.ndarray, labels: Tensor, w: np.ndarray | None, eps: float, loose: float, result: Any
) -> None:
    """Neural collapse, sample by sample; ``loose`` as ``eps`` of `steady`."""
    collapse, y = result.neural_collapse, classes_of(labels)
    share = np.ones(len(x)) if w is None else w / w.max()
    number = labels.shape[1] if labels.ndim == 2 and labels.shape[1] > 1 else max(f.shape[1], 2)
    if number < 2 or not np.array_equal(np.unique(y[share > 0]), np.arange(number)):
        if collapse is not None:
            raise Finding(f"neural collapse of {number} classes, of which only {np.unique(y[share > 0])} were seen")
        return
    means, shares = class_means(x, y, share), share @ (y[:, None] == np.arange(number)) / share.sum()
    lengths = np.linalg.norm(means - np.average(x, axis=0, weights=share), axis=1)
    rms, count = np.sqrt(np.average((x**2).sum(1), weights=share)), share.sum() ** 2 / (share**2).sum()
    rounding = eps * rms / np.sqrt(count * shares)
    cut, found = np.sqrt((rounding**2).mean()), reference.nc1(x, y, w)[1]
    if len(found) == 0 or found[0] < cut / 2:
        if collapse is not None:
            raise Finding(f"{collapse}, though the class means are the same up to their rounding, {cut}: {found}")
        return
    if collapse is None:
        if drawn.labels != "wrong" and found[0] > 2 * cut:
            raise Finding(f"no neural collapse, though the class means differ by {found}, and rounding is {cut}")
        return
    if found[-1] < max(1e-3, 8 * eps if eps > 1e-5 else 0) * found[0] or ((found > cut / 2) & (found < 2 * cut)).any():
        return  # a small direction, that rounding turns
    # where one of several tokens is taken, another may have the same rounded outputs and features that differ in the last place
    tolerance = (2e-3 if eps > 1e-5 else 1e-4) + 1e-6 * (found[0] / found[-1]) ** 2
    expected, more = steady(lambda x: reference.nc1(x, y, w, cut)[0], loose, x)
    if not abs(collapse.nc1 - expected) < tolerance * (1 + expected) + more:
        raise Finding(f"NC1 {collapse.nc1} where the reference has {expected}")
    if (lengths > 2 * rounding).all() or (lengths < rounding / 2).any():
        geometry, more = steady(lambda x: class_geometry(x, y, share), loose, x)
        if (lengths < rounding / 2).any():
            geometry[1] = np.nan
        angles = np.nan if collapse.nc2_equiangular is None else collapse.nc2_equiangular
        if not np.allclose([collapse.nc2_equinorm, angles], geometry, rtol=0, atol=tolerance + more.max(), equal_nan=True):
            raise Finding(f"{collapse} where NC2 of plain means is {geometry}")
    if collapse.nc4 is not None:
        distances = ((x[:, None] - means) ** 2).sum(-1)
        nearest, answers = distances.argmin(1), f.argmax(1)
        close = np.sort(distances, axis=1)
        unsure = close[:, 1] - close[:, 0] < 1e-4 * close[:, 1]
        wrong = np.average(answers != nearest, weights=share)
        if abs(collapse.nc4 - wrong) > 1e-6 + np.average(unsure, weights=share):
            raise Finding(f"NC4 {collapse.nc4} where plain counting has {wrong}")


def class_means(x: np.ndarray, y: np.ndarray, share: np.ndarray) -> np.ndarray:
    return np.stack([np.average(x[y == c], axis=0, weights=share[y == c]) for c in range(y.max() + 1)])


def class_geometry(x: np.ndarray, y: np.ndarray, share: np.ndarray) -> tuple[float, float]:
    """How unequal the centred class means are in length, and in angle."""
    means = class_means(x, y, share) - np.average(x, axis=0, weights=share)
    norms, classes = np.linalg.norm(means, axis=1), len(means)
    cosines = (means @ means.T / np.outer(norms, norms))[np.triu_indices(classes, 1)]
    return norms.std() / norms.mean(), np.abs(cosines + 1 / (classes - 1)).mean()


def compare_layer(
    drawn: Drawn, seen: Seen, name: str, head: str, f: np.ndarray, w: np.ndarray | None, eps: float, keep: Tensor,
    layer: lazyrich.LayerRichness,
) -> None:  # fmt: skip
    """An inner layer against its own plain hook, where what it sees is vectors or a map and the head sees one row a sample."""
    if drawn.reduce != "rows" or name == head:
        return
    kept = []
    for calls in seen.calls:
        given = calls[name][0][0]
        if given.ndim == 4:
            given = given.flatten(2).transpose(1, 2)
            how = drawn.options["pooling"] if given.shape[1] > 1 else "first"
            if how == "positions":
                return
            rows = {"average": given.mean(1), "flatten": given.flatten(1), "first": given[:, 0], "last": given[:, -1]}
            given = rows[how]
        elif given.ndim != 2:
            return
        kept.append(given)
    x = torch.cat(kept)[: len(keep)][keep]
    if len(x) != len(f):
        raise Finding(f"layer {name!r} saw {len(x)} rows, the head {len(f)}")
    expected = reference.d_lr(x.double().numpy(), f, w, eps=eps)
    if not abs(layer.low_rank - expected) < 1e-5:
        raise Finding(f"layer {name!r}: D_LR {layer.low_rank} where the reference has {expected}")

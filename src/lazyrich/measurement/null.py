"""What D_LR would be had the features not been learned: distributions in which a measured value has a place."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .._support.processes import Processes
from .._support.progress import progress_bar
from .._support.text import ruled
from ..errors import DataError, DegenerateError
from ..functional import low_rank_measure
from ..functional.low_rank import Reference
from ..model.batches import batches
from ..model.linear import unwrapped
from ..model.redraw import new_norms, redrawn, settle
from ..model.undisturbed import undisturbed
from ..results.notebook import html_table
from .one_pass import Known, OnePass
from .probe import probe_set


@dataclass(frozen=True)
class Null:
    """D_LR under one hypothesis, and where the measured value lies.

    Attributes:
        value: the measured D_LR.
        draws: D_LR of each draw under the hypothesis, on the same samples, ascending.

    Example:
        Below all of 19 draws is as far as 19 draws can tell, one chance in 20:

        >>> null = Null(0.1, tuple(0.5 + k / 100 for k in range(19)))
        >>> null.percentile, null.p_value, null.median, round(null.ratio, 2)
        (0.0, 0.05, 0.59, 0.17)
    """

    value: float
    draws: tuple[float, ...]

    @property
    def median(self) -> float:
        """Median of the draws."""
        return self.quantile(0.5)

    @property
    def ratio(self) -> float:
        """The measured value over the median of the draws: 1 is as under the hypothesis, 0 as rich as can be. NaN over 0."""
        return self.value / self.median if self.median else math.nan

    @property
    def percentile(self) -> float:
        """How many of 100 draws lie below the measured value; those equal to it count half."""
        draws = np.array(self.draws)
        return 100 * float((draws < self.value).mean() + (draws == self.value).mean() / 2)

    @property
    def p_value(self) -> float:
        """The chance, where the hypothesis holds, of a value as low as the measured one.

        (1 + number of draws that are not above it) / (1 + number of draws), never under 1/(draws + 1); Phipson & Smyth (2010).
        """
        return (1 + sum(draw <= self.value for draw in self.draws)) / (1 + len(self.draws))

    def quantile(self, q: float) -> float:
        """The q-quantile of the draws, 0 ≤ q ≤ 1, linear between them."""
        return float(np.quantile(self.draws, q))

    def to_dict(self) -> dict[str, Any]:
        """Plain values: the draws, and all that is read off them; None for a ratio to 0."""
        read = {name: getattr(self, name) for name in ("median", "percentile", "p_value")}
        return {"value": self.value, "draws": list(self.draws), "ratio": self.ratio if self.median else None, **read}


@dataclass(frozen=True)
class NullDistribution:
    """A measured D_LR beside what three hypotheses give on the same samples.

    Attributes:
        low_rank: the measured value, plug-in, on these samples.
        untrained_features: *the features are a draw of the untrained network's, whatever the outputs.* Features of new networks
            against the outputs of the measured one. Lazy training of a wide network is this: its kernel stays and is that of any
            draw. A last layer that was trained alone on few features fits those better than another draw's and may lie below
            all draws: then judge by ``ratio``.
        untrained_networks: *the network is one of those that ``build`` returns*, each with its own outputs. Exact at any width.
            Where nothing in them is trained, training the last layer alone is enough to leave them: low is not rich. None where
            they compute a constant, as with a head that starts at zero.
        isotropic: *the features have no structure.* Gaussian features of covariance ∝ I, and outputs linear in them that have the
            mean and covariance of the measured ones. Inputs have structure before any training: low is not rich.
        reference: which reference kernel.
        num_samples, num_features: n and p, the same in every draw.
        head: name of the layer whose input the features are.
    """

    low_rank: float
    untrained_features: Null
    untrained_networks: Null | None
    isotropic: Null
    reference: str
    num_samples: int
    num_features: int
    head: str

    def _rows(self) -> tuple[str, list[list[str]]]:
        """What is compared, and the table."""
        rows = [["", "5 %", "median", "95 %", "percentile", "p", "D_LR / median"]]
        for name in _NULLS:
            null = getattr(self, name)
            if null is not None:
                spread = [f"{null.quantile(q):.4f}" for q in (0.05, 0.5, 0.95)]
                place = [f"{null.percentile:.0f}", f"{null.p_value:.3g}", f"{null.ratio:.2f}"]
                rows.append([_NULLS[name], *spread, *place])
        about = f"D_LR {self.low_rank:.4f} ({self.reference}, n = {self.num_samples:,}, p = {self.num_features:,})"
        return f"{about} among {len(self.isotropic.draws)} draws each", rows

    def __str__(self) -> str:
        about, rows = self._rows()
        return "\n".join([about, *ruled(rows)])

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        about, rows = self._rows()
        return html_table(rows, about)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        nulls = {name: getattr(self, name) for name in _NULLS}
        return asdict(self) | {name: None if null is None else null.to_dict() for name, null in nulls.items()}


_NULLS = {
    "untrained_features": "untrained features, these outputs",
    "untrained_networks": "untrained networks, their outputs",
    "isotropic": "features without structure",
}


def null_distribution(
    model: nn.Module,
    data: Any,
    *,
    build: Callable[[], nn.Module] | None = None,
    head: nn.Module | str | None = None,
    draws: int = 19,
    num_samples: int = 2048,
    reference: Reference = "projection",
    seed: int = 0,
    device: torch.device | str | None = None,
    progress: bool = False,
) -> NullDistribution:
    """Where a network's D_LR lies among those of networks that were not trained and of features without structure.

    No labels are needed. ``draws`` new networks see the same samples, which are kept in memory: the distributions are over
    starts, not over data, whose part is ``low_rank_stderr`` of :func:`measure`. All values are plug-in: where a hypothesis holds,
    the measured one and the draws have the same bias. The model, its mode and every random state stay as they are. Each process
    measures alone.

    Args:
        model, data, head, device, progress: as for :func:`measure`.
        build: returns a new network, on any device; draw k calls it after ``torch.manual_seed(seed + k)``. Without it a copy is
            drawn anew by the ``reset_parameters`` of its modules, PyTorch's start: give ``build`` where the network started
            otherwise, by He's rule, at another scale, pretrained. It may train the last layer as yours was trained:
            ``untrained_networks`` are then lazy ones. Batch norm that has seen no batch takes its statistics from the samples.
        draws: how many; 19 can tell one chance in 20, 99 one in 100.
        num_samples: the first so many samples of the data.
        reference: as for :func:`lazyrich.functional.low_rank_measure`; "balanced" under cross-entropy.

    Raises:
        ValueError: ``draws`` under 1; without ``build``, parameters that no ``reset_parameters`` draws anew: names them.
        TypeError: ``model`` is no module; ``build`` returns none, or ``model`` itself.
        HeadError: what ``build`` returns has no such head.
        DegenerateError: constant features or outputs of the model, or constant features of a draw.
        DataError, NonFiniteError: as :func:`measure`.

    Example:
        An untrained readout of white inputs is no exception among its like; at rank 4 of 64 their median is 1 - sqrt(4/64):

        >>> _ = torch.manual_seed(100)
        >>> null = null_distribution(nn.Linear(64, 4, bias=False), torch.randn(2048, 64))
        >>> [round(n.median, 2) for n in (null.untrained_networks, null.isotropic)], null.untrained_networks.p_value > 0.05
        ([0.75, 0.75], True)
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    if not isinstance(draws, int) or draws < 1:
        raise ValueError(f"draws must be a whole number of at least 1, got {draws!r}")
    model = unwrapped(model)
    values: dict[str, list[float]] = {name: [] for name in _NULLS}
    with undisturbed(model, data, device) as place, progress_bar(progress, total=draws, text="drawing", unit=" networks") as bar:
        probe = probe_set(OnePass(model, data, place, Processes(False), head), num_samples)
        one_pass = OnePass(model, probe.batches, place, Processes(False), head, num_samples=probe.limit)
        features, outputs, known = _rows(one_pass)
        if (found := known.head) is None:
            raise DataError("no head was found")
        measured = float(low_rank_measure(features, outputs, reference=reference))
        for k in range(draws):
            torch.manual_seed(seed + k)
            drawn = untrained_network(model, build, place)
            settle(drawn, new_norms(drawn), batches(probe.batches, place))
            again = drawn if found.module is model else found.name
            untrained, own, _ = _rows(replace(one_pass, model=drawn, head=again))
            white = torch.randn(features.shape, generator=torch.Generator().manual_seed(seed + k), dtype=torch.float64)
            twins = {
                "untrained_features": (untrained, outputs),
                "untrained_networks": (untrained, own),
                "isotropic": (white, _alike(white, outputs)),
            }
            for name, (rows, answers) in twins.items():
                try:
                    values[name].append(float(low_rank_measure(rows, answers, reference=reference)))
                except DegenerateError as error:
                    if name != "untrained_networks":  # a head that starts at zero
                        raise DegenerateError(f"draw {k} of the untrained network: {error}") from error
            bar.update()
    nulls: dict[str, Any] = {
        name: Null(measured, tuple(sorted(found))) if len(found) == draws else None for name, found in values.items()
    }
    n, p = features.shape
    return NullDistribution(measured, **nulls, reference=reference, num_samples=n, num_features=p, head=found.name)


def _rows(one_pass: OnePass) -> tuple[Tensor, Tensor, Known]:
    """Features (n, p) and outputs (n, C) of all samples, on the CPU, and what the pass has found."""
    parts = [(part.rows.features.cpu(), part.outputs.cpu(), part.known) for part in one_pass.parts("rows")]
    return torch.cat([x for x, _, _ in parts]), torch.cat([f for _, f, _ in parts]), parts[0][2]


def untrained_network(model: nn.Module, build: Callable[[], nn.Module] | None, place: torch.device) -> nn.Module:
    """A new network: what ``build`` returns, or a copy of the model that is drawn again.

    Raises:
        TypeError: ``build`` returns no module, or the model itself.
        ValueError: without ``build``, parameters that no ``reset_parameters`` draws: names them.
    """
    if build is None:
        return redrawn(model)
    with torch.enable_grad():  # it may train
        drawn = build()
    if not isinstance(drawn, nn.Module) or drawn is model:
        what = "the model itself" if drawn is model else type(drawn).__name__
        raise TypeError(f"build must return a new torch.nn.Module, got {what}")
    return unwrapped(drawn).to(place).eval()


def _alike(white: Tensor, outputs: Tensor) -> Tensor:
    """Outputs that are linear in white features, with the mean and covariance of the given ones."""
    mean = outputs.double().mean(0)
    _, singular, directions = torch.linalg.svd(outputs.double() - mean, full_matrices=False)
    rank = min(len(singular), white.shape[1])  # what is linear in p features has no more
    factor = singular[:rank, None] * directions[:rank] / len(outputs) ** 0.5
    return (white[:, :rank] @ factor + mean).to(outputs.dtype)

"""The result: what one measurement found, as a table, a file and a picture."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .._support.files import write_text
from .._support.stored import number, plain_fields, plain_value, read_json, typed
from ..errors import DataError
from ..functional import FeatureSpectrum, NeuralCollapse
from ..functional.influence import Influence
from .answer import answer
from .catalogue import CATALOGUE, LOGGED, cells
from .evidence import Evidence
from .export import Records, Tabular, records_of, table_of
from .names import layer_value, renamed
from .notebook import card
from .parts import Comparison, LayerRichness, numbers_of
from .text import in_groups, one_below_the_other, side_by_side
from .verdict import Verdict, verdict_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SCHEMA = "lazyrich.richness"
SCHEMA_VERSION = 4  # since 4, every number has its name in the catalogue, and there is ``extra``
READABLE = (3, SCHEMA_VERSION)
_LATER = (  # missing in files that were written before they were measured
    "laziness", "laziness_corrected", "laziness_stderr", "laziness_interval", "laziness_balanced", "laziness_source",
    "constant_share",
)  # fmt: skip
_INTERVALS = ("low_rank_interval", "laziness_interval")


@dataclass(frozen=True, eq=False)
class Richness(Tabular):
    """How richly a network was trained, as seen at its last layer.

    Attributes:
        low_rank: D_LR as the paper defines it (plug-in), in [0, 1]; 0 is as rich as can be.
        low_rank_corrected, low_rank_stderr: bias removed, and its standard error; None where they cannot be had.
        low_rank_interval: 95 % confidence interval of the corrected value, or None.
        low_rank_band: {rtol: D_LR with weaker output directions left out}.
        isotropic: D_LR of structureless features of this shape, the mark to hold ``low_rank`` against.
        balanced: the same as ``low_rank`` with the minimum-norm kernel of the outputs as reference; of the outputs less their
            mean where the head has a bias, which is free.
        output_alignment: the same with the kernel of the outputs as reference; 0 is aligned.
        balanced_corrected, balanced_stderr, output_alignment_corrected, output_alignment_stderr: bias removed, and error.
        laziness: λ, the laziness ratio: ``low_rank`` over D_LR of the features of the start against the same outputs. 1 where the
            features did not move, 0 where they are as rich as can be. None without a start, or where that D_LR is under 0.05.
        laziness_corrected, laziness_interval: bias removed, and its 95 % confidence interval, or None.
        laziness_stderr: standard error of the corrected value; with redraws, the standard deviation of λ over them.
        laziness_balanced: the same as ``laziness`` with the balanced reference.
        laziness_source: "start", or "redraws" where new networks take the place of the start; None without either.
        output_rank: dimension of the span of the outputs.
        output_singular_values: of the outputs over √n, descending.
        constant_share: share of the constant function that lies in the span of the outputs, in [0, 1].
        spectrum: the three curves and each feature's contribution.
        neural_collapse: NC1-NC4, or None without class labels.
        num_samples, num_features, num_outputs: n, p, C.
        head: name of the layer whose input the features are.
        comparison: the measures that D_LR is compared with, or None.
        layers: name -> what that layer sees, in the order they ran; empty unless asked for.
        extra: name -> value of what ``measure(extra=...)`` asked for.
        evidence: which head was verified, how it is returned, which rows count.
        notes: sentences that a reader of the numbers must know.
        influences: measure -> how far each retained row moves it, for errors of differences; not saved.
    """

    low_rank: float
    low_rank_corrected: float | None
    low_rank_stderr: float | None
    low_rank_interval: tuple[float, float] | None
    low_rank_band: dict[float, float]
    isotropic: float | None
    balanced: float
    balanced_corrected: float | None
    balanced_stderr: float | None
    output_alignment: float
    output_alignment_corrected: float | None
    output_alignment_stderr: float | None
    output_rank: int
    output_singular_values: tuple[float, ...]
    spectrum: FeatureSpectrum
    neural_collapse: NeuralCollapse | None
    num_samples: int
    num_features: int
    num_outputs: int
    head: str
    laziness: float | None = None
    laziness_corrected: float | None = None
    laziness_stderr: float | None = None
    laziness_interval: tuple[float, float] | None = None
    laziness_balanced: float | None = None
    laziness_source: str | None = None
    constant_share: float | None = None
    comparison: Comparison | None = None
    layers: dict[str, LayerRichness] = field(default_factory=dict)
    extra: dict[str, float] = field(default_factory=dict)
    evidence: Evidence | None = None
    notes: tuple[str, ...] = field(default=())
    influences: dict[str, Influence] = field(default_factory=dict, repr=False)

    def __str__(self) -> str:
        return answer(self)

    def __repr__(self) -> str:
        error = "" if self.low_rank_stderr is None else f" ± {self.low_rank_stderr:.4f}"
        value = self.low_rank if self.low_rank_corrected is None else self.low_rank_corrected
        ratio = "" if self.laziness is None else f", λ {self.laziness:.2f}"
        return f"<Richness {self.verdict.regime}: D_LR {value:.4f}{error}{ratio}, n = {self.num_samples:,}>"

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return card(self)

    @property
    def verdict(self) -> Verdict:
        """Rich or lazy, in one word and one sentence, with evidence and caveats."""
        return verdict_of(self)

    @property
    def _name(self) -> str:
        """What figures call the network; stored features have no head."""
        return f"head {self.head}" if self.head else "features"

    def table(self) -> str:
        """Every number, in groups, and the layers below."""
        text = in_groups(self.cells(), self.notes)
        if not self.layers:
            return text
        rows = [(name or "(the model)", layer.cells()) for name, layer in self.layers.items()]
        projected = any(layer.reduction_stderr is not None for layer in self.layers.values())
        notes = ["* by a random projection; ± is its standard error"] if projected else []
        return f"{text}\n\n{one_below_the_other('layer', rows, notes)}"

    def to_dict(self) -> dict[str, Any]:
        """Everything but the eigenvectors as plain values, with the version of the layout."""
        values: dict[str, Any] = {"schema": SCHEMA, "schema_version": SCHEMA_VERSION}
        for f in fields(self):
            value = getattr(self, f.name)
            values[f.name] = value.to_dict() if hasattr(value, "to_dict") else value
        del values["influences"]
        values["comparison"] = None if self.comparison is None else asdict(self.comparison)
        values["layers"] = {name: asdict(layer) for name, layer in self.layers.items()}
        values["low_rank_band"] = {str(rtol): value for rtol, value in self.low_rank_band.items()}
        for name in _INTERVALS:
            values[name] = None if values[name] is None else list(values[name])
        values["output_singular_values"] = list(self.output_singular_values)
        values["evidence"] = None if self.evidence is None else asdict(self.evidence)
        values["notes"] = list(self.notes)
        return values

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Richness:
        """The inverse of :meth:`to_dict`.

        Raises:
            DataError: not a result of this library, or of a newer layout.
        """
        if not isinstance(values, dict) or values.get("schema") != SCHEMA:
            raise DataError(f"not a lazyrich result: expected a JSON object with schema {SCHEMA!r}")
        if values.get("schema_version") not in READABLE:
            raise DataError(
                f"schema version {values.get('schema_version')!r}, this release reads {' and '.join(map(str, READABLE))}: "
                "read it with the release that wrote it"
            )
        values = {"extra": {}, "evidence": None, "influences": {}} | dict.fromkeys(_LATER) | values
        missing = sorted({f.name for f in fields(cls)} - set(values))
        if missing:
            raise DataError(f"not a whole lazyrich result: {', '.join(missing)} missing")
        try:
            read: dict[str, Any] = {name: plain_value(name, values[name], hint) for name, hint in plain_fields(cls).items()}
            for name in _INTERVALS:
                interval = values[name]
                if interval is not None:
                    low, high = interval
                    interval = (float(low), float(high))
                read[name] = interval
            read["low_rank_band"] = {float(rtol): float(value) for rtol, value in values["low_rank_band"].items()}
            read["output_singular_values"] = singular = tuple(map(float, values["output_singular_values"]))
            if not singular or not singular[min(max(read["output_rank"], 1), len(singular)) - 1] > 0:
                raise ValueError("output_singular_values must be above zero up to output_rank")
            for name, value in values["spectrum"].items():
                if type(value) is int:
                    number(name, value)  # a count too large for a float divides no array
            read["spectrum"] = FeatureSpectrum.from_dict(values["spectrum"])
            for name, kind in (("neural_collapse", NeuralCollapse), ("comparison", Comparison)):
                part = values[name]
                read[name] = None if part is None else typed(kind, renamed(part) if isinstance(part, dict) else part)
            read["layers"] = {str(name): typed(LayerRichness, layer) for name, layer in values["layers"].items()}
            evidence = values["evidence"]
            read["evidence"] = None if evidence is None else Evidence(**evidence)
            read["extra"] = {str(name): number(name, value) for name, value in values["extra"].items()}
            read["notes"] = tuple(map(str, values["notes"]))
        except (TypeError, ValueError, KeyError, AttributeError, OverflowError) as error:
            raise DataError(f"not a whole lazyrich result: {error}") from error
        return cls(**read)

    def numbers(self) -> dict[str, float]:
        """Every single number by its name in the catalogue, as a series keeps it: ``low_rank``, ``nc1``, ``s_init`` …

        D_LR of a layer is ``low_rank of NAME``, its λ ``laziness of NAME``. What was not measured is left out.
        """
        values = numbers_of(self)
        values |= {f"low_rank_at_{rtol:g}": value for rtol, value in self.low_rank_band.items()}
        for part in (self.comparison, self.neural_collapse):
            values |= {} if part is None else numbers_of(part)
        last = min(self.output_rank, len(self.output_singular_values))
        values["output_condition"] = self.output_singular_values[0] / self.output_singular_values[last - 1]
        of_layers = {
            layer_value(measure, name): layer.numbers()[measure]
            for measure in ("low_rank", "laziness")
            for name, layer in self.layers.items()
            if measure in layer.numbers()
        }
        return values | self.extra | of_layers

    def logged(self) -> dict[str, float]:
        """At most eight of :meth:`numbers`, for a logger: those that answer the question. What was not measured is left out."""
        numbers = self.numbers()
        return {name: numbers[name] for name in LOGGED if name in numbers}

    def _records(self) -> Records:
        return records_of(self.numbers())

    def _table(self) -> list[list[str]]:
        return table_of(self.numbers())

    def cells(self) -> dict[str, str]:
        """What a table shows, by the catalogue's names: the numbers, and in words what is not one number."""
        spectrum, shown = self.spectrum, cells(self.numbers())
        laziness: dict[str, str] = {}
        if self.laziness is not None and self.laziness_source == "redraws":  # whose spread is not the error of a corrected value
            laziness["laziness"] = f"{CATALOGUE['laziness'].formatted(self.laziness, self.laziness_stderr)} over redraws"
        return {
            "low_rank_corrected": "-",
            **shown,
            **laziness,
            "alpha_req": _exponent(shown.get("alpha_req", ""), self.comparison),
            "low_rank_band": " / ".join(f"{value:.3f}" for value in self.low_rank_band.values()),
            "output_singular_values": _some(self.output_singular_values),
            "output_rank": f"{self.output_rank} of {self.num_outputs}",
            "feature_rank": f"{'at least ' if spectrum.rank_is_bound else ''}{spectrum.rank} of {self.num_features}",
            "features_for_outputs": _enough(spectrum, spectrum.cumulative_utilization),
            "features_for_targets": _enough(spectrum, spectrum.cumulative_quality),
            "head": self.head,
        }

    def curves(self) -> dict[str, np.ndarray]:
        """(p,) each: ``relative_eigenvalues``, ``quality``, ``utilization`` (both cumulative) and ``contributions``.

        Of a spectrum that is a leading part, (k,).
        """
        given = {
            "relative_eigenvalues": self.spectrum.relative_eigenvalues,
            "quality": self.spectrum.cumulative_quality,
            "utilization": self.spectrum.cumulative_utilization,
            "contributions": self.spectrum.contributions,
        }
        return {name: curve for name, curve in given.items() if curve is not None}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes JSON; a crash leaves the old file or the new one, never half of one."""
        write_text(Path(path), json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n")

    def plot(self, path: str | os.PathLike[str] | None = None, *, ax: Axes | None = None, style: Any = None) -> Figure:
        """One figure: the three curves, with D_LR, rank and isotropic reference marked. Needs ``lazyrich[plot]``.

        With ``ax``, only D_LR on its scale is drawn, in these axes; ``style`` is a style of matplotlib, such as "ggplot".
        """
        return plot({self._name: self}, path, ax=ax, style=style)

    def plot_layers(self, path: str | os.PathLike[str] | None = None, *, ax: Axes | None = None, style: Any = None) -> Figure:
        """D_LR over the depth of the network, in ``ax`` or a new figure. Needs ``layers=`` in the measurement."""
        return plot_layers({self._name: self}, path, ax=ax, style=style)

    def report(self, path: str | os.PathLike[str]) -> None:
        """Writes one HTML page that needs no network: the numbers, the curves, the layers. Needs ``lazyrich[report]``."""
        from ..report import Found, measured, write_report

        name = self._name
        write_report(Found(name, (measured(name, self),)), path)


def table(results: dict[str, Richness]) -> str:
    """Results side by side, one column each, as aligned text.

    Args:
        results: name of the column -> result.
    """
    return side_by_side({name: r.cells() for name, r in results.items()}, {name: r.notes for name, r in results.items()})


def plot(
    results: dict[str, Richness],
    path: str | os.PathLike[str] | None = None,
    *,
    ax: Axes | None = None,
    style: Any = None,
) -> Figure:
    """One figure of up to six results; see :func:`lazyrich.results.figures.plot_richness`."""
    from . import figures

    shown = {name: figures.Shown(r.numbers(), r.low_rank_interval, r.curves(), r.spectrum.rank) for name, r in results.items()}
    return figures.plot_richness(shown, path, ax=ax, style=style)


def plot_layers(
    results: dict[str, Richness],
    path: str | os.PathLike[str] | None = None,
    *,
    ax: Axes | None = None,
    style: Any = None,
) -> Figure:
    """One figure of the layers of up to six results; see :func:`lazyrich.results.figures.plot_layers`."""
    from . import figures

    layers = {name: {layer: of.numbers() for layer, of in r.layers.items()} for name, r in results.items()}
    return figures.plot_layers(layers, path, ax=ax, style=style)


def load(path: str | os.PathLike[str]) -> Richness:
    """Reads a result that :meth:`Richness.save` wrote.

    Raises:
        FileNotFoundError: no such file.
        DataError: not such a file, or of a newer version.
    """
    values = read_json(Path(path))
    try:
        return Richness.from_dict(values)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def _exponent(alpha: str, of: Comparison | None) -> str:
    """The exponent with the ranks and the quality of its fit, where they are known."""
    if of is None or of.alpha_req_r_squared is None:
        return alpha
    return f"{alpha} (ranks {of.alpha_req_first} to {of.alpha_req_last}, R² {of.alpha_req_r_squared:.3f})"


def _enough(spectrum: FeatureSpectrum, curve: np.ndarray | None) -> str:
    """How many features reach 95 % of everything, if they do."""
    if curve is None:
        return ""
    if curve[-1] >= 0.95:
        return str(int((curve < 0.95).sum()) + 1)
    where = f"not in the first {len(curve):,}" if spectrum.rank_is_bound else "never"
    return f"{where} ({curve[-1]:.2f})"


def _some(values: tuple[float, ...]) -> str:
    """The largest, the middle one and the smallest."""
    if len(values) <= 3:
        return " ".join(f"{v:.3g}" for v in values)
    return f"{values[0]:.3g} … {values[len(values) // 2]:.3g} … {values[-1]:.3g}"

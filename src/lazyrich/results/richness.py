"""The result: what one measurement found, as a table, a file and a picture."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .._support.files import write_text
from .._support.stored import number, read_json, typed
from ..errors import DataError
from ..functional import FeatureSpectrum, NeuralCollapse

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SCHEMA = "lazyrich.richness"
SCHEMA_VERSION = 3  # 3: a spectrum may be the leading part; files of 2, whose spectra are whole, are read too
_READABLE = (2, SCHEMA_VERSION)


@dataclass(frozen=True)
class Comparison:
    """What else is used to tell rich from lazy, on the same features; `docs/concepts/measures.md` says when each misleads.

    Attributes:
        participation_ratio, effective_rank: of the centred feature covariance: tr(S_c)²/‖S_c‖², and the exponential of the
            entropy of its eigenvalues.
        rankme, stable_rank: of the raw feature matrix.
        spectral_exponent: α of α-ReQ; None where too few eigenvalues are there to fit.
            Effective rank, RankMe and α-ReQ are None where only the leading part of the spectrum was found.
        target_alignment: kernel-target alignment; None without targets, or where they do not vary.
        initial_alignment: S_init, the centred alignment of the feature kernel with that of the start; None without ``start``.
        squared_parameter_norm, squared_parameter_distance: ‖θ‖² and ‖θ - θ₀‖², the latter None without ``start``.
    """

    participation_ratio: float
    effective_rank: float | None
    rankme: float | None
    stable_rank: float
    spectral_exponent: float | None = None
    target_alignment: float | None = None
    initial_alignment: float | None = None
    squared_parameter_norm: float | None = None
    squared_parameter_distance: float | None = None


@dataclass(frozen=True)
class LayerRichness:
    """The measure of what one layer sees, against the network's outputs.

    Attributes:
        low_rank, low_rank_corrected, low_rank_stderr, isotropic, balanced, output_alignment: as of :class:`Richness`.
        participation_ratio: tr(S_c)²/‖S_c‖² of its features.
        num_features, num_rows: width, and the samples (or places) that were counted.
        reduction: how a layer too wide to measure as it is was made narrow; None where it was not.
        reduction_stderr: standard error of ``low_rank`` from a random projection; None where there was none.
    """

    low_rank: float
    low_rank_corrected: float | None
    low_rank_stderr: float | None
    isotropic: float
    balanced: float
    output_alignment: float
    participation_ratio: float
    num_features: int
    num_rows: int
    reduction: str | None = None
    reduction_stderr: float | None = None


@dataclass(frozen=True, eq=False)
class Richness:
    """How richly a network was trained, as seen at its last layer.

    Attributes:
        low_rank: D_LR as the paper defines it (plug-in), in [0, 1]; 0 is as rich as can be.
        low_rank_corrected, low_rank_stderr: bias removed, and its standard error; None where they cannot be had.
        low_rank_interval: 95 % confidence interval of the corrected value, or None.
        low_rank_band: {rtol: D_LR with weaker output directions left out}.
        output_rank: dimension of the span of the outputs.
        isotropic: D_LR of structureless features of this shape, the mark to hold ``low_rank`` against.
        balanced: the same as ``low_rank`` with the minimum-norm kernel of the outputs as reference.
        output_alignment: the same with the kernel of the outputs as reference; 0 is aligned.
        balanced_corrected, balanced_stderr, output_alignment_corrected, output_alignment_stderr: bias removed, and error.
        output_singular_values: of the outputs over √n, descending.
        spectrum: the three curves and each feature's contribution.
        neural_collapse: NC1-NC4, or None without class labels.
        num_samples, num_features, num_outputs: n, p, C.
        head: name of the layer whose input the features are.
        comparison: the measures that D_LR is compared with, or None.
        layers: name -> what that layer sees, in the order they ran; empty unless asked for.
        notes: sentences that a reader of the numbers must know.
    """

    low_rank: float
    low_rank_corrected: float | None
    low_rank_stderr: float | None
    low_rank_interval: tuple[float, float] | None
    low_rank_band: dict[float, float]
    output_rank: int
    isotropic: float
    balanced: float
    balanced_corrected: float | None
    balanced_stderr: float | None
    output_alignment: float
    output_alignment_corrected: float | None
    output_alignment_stderr: float | None
    output_singular_values: tuple[float, ...]
    spectrum: FeatureSpectrum
    neural_collapse: NeuralCollapse | None
    num_samples: int
    num_features: int
    num_outputs: int
    head: str
    comparison: Comparison | None = None
    layers: dict[str, LayerRichness] = field(default_factory=dict)
    notes: tuple[str, ...] = field(default=())

    def __str__(self) -> str:
        from .text import layer_table, table

        return table({"": self}) + (f"\n\n{layer_table(self.layers)}" if self.layers else "")

    def to_dict(self) -> dict[str, Any]:
        """Everything but the eigenvectors as plain values, with the version of the layout."""
        values: dict[str, Any] = {"schema": SCHEMA, "schema_version": SCHEMA_VERSION}
        for f in fields(self):
            value = getattr(self, f.name)
            values[f.name] = value.to_dict() if hasattr(value, "to_dict") else value
        values["comparison"] = None if self.comparison is None else asdict(self.comparison)
        values["layers"] = {name: asdict(layer) for name, layer in self.layers.items()}
        values["low_rank_band"] = {str(rtol): value for rtol, value in self.low_rank_band.items()}
        values["low_rank_interval"] = None if self.low_rank_interval is None else list(self.low_rank_interval)
        values["output_singular_values"] = list(self.output_singular_values)
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
        if values.get("schema_version") not in _READABLE:
            raise DataError(
                f"schema version {values.get('schema_version')!r}, this release reads {' and '.join(map(str, _READABLE))}: "
                "read it with the release that wrote it"
            )
        known = {f.name for f in fields(cls)}
        missing = sorted(known - set(values))
        if missing:
            raise DataError(f"not a whole lazyrich result: {', '.join(missing)} missing")
        given = {name: values[name] for name in known}
        try:
            for name in _NUMBERS:
                if given[name] is not None or not name.endswith(("_corrected", "_stderr")):
                    given[name] = _NUMBERS[name](number(name, given[name]))
            if given["low_rank_interval"] is not None:
                low, high = given["low_rank_interval"]
                given["low_rank_interval"] = (float(low), float(high))
            given["low_rank_band"] = {float(rtol): float(value) for rtol, value in given["low_rank_band"].items()}
            given["output_singular_values"] = tuple(map(float, given["output_singular_values"]))
            given["notes"] = tuple(map(str, given["notes"]))
            given["head"] = str(given["head"])
            singular = given["output_singular_values"]
            if not singular or not singular[min(max(given["output_rank"], 1), len(singular)) - 1] > 0:
                raise ValueError("output_singular_values must be above zero up to output_rank")
            for name, value in given["spectrum"].items():
                if type(value) is int:
                    number(name, value)  # a count too large for a float divides no array
            given["spectrum"] = FeatureSpectrum.from_dict(given["spectrum"])
            if given["neural_collapse"] is not None:
                given["neural_collapse"] = typed(NeuralCollapse, given["neural_collapse"])
            if given["comparison"] is not None:
                given["comparison"] = typed(Comparison, given["comparison"])
            given["layers"] = {str(name): typed(LayerRichness, layer) for name, layer in given["layers"].items()}
        except (TypeError, ValueError, KeyError, AttributeError, OverflowError) as error:
            raise DataError(f"not a whole lazyrich result: {error}") from error
        return cls(**given)

    def numbers(self) -> dict[str, float]:
        """Every single number by name, as a series keeps it: ``low_rank``, ``low_rank_at_0.01``, ``nc1``, ``s_init`` …

        Of a layer it is ``D_LR of NAME``. What was not measured is left out.
        """
        given: dict[str, Any] = {name: getattr(self, name) for name in _NUMBERS}
        given |= {f"low_rank_at_{rtol:g}": value for rtol, value in self.low_rank_band.items()}
        if self.comparison is not None:
            given |= {short: getattr(self.comparison, name) for name, short in _COMPARISON.items()}
        if self.neural_collapse is not None:
            given |= asdict(self.neural_collapse)
        last = min(self.output_rank, len(self.output_singular_values))
        given["output_condition"] = self.output_singular_values[0] / self.output_singular_values[last - 1]
        given |= {f"D_LR of {name}": layer.low_rank for name, layer in self.layers.items()}
        return {name: float(value) for name, value in given.items() if value is not None}

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

    def plot(self, path: str | os.PathLike[str] | None = None) -> Figure:
        """One figure: the three curves, with D_LR, rank and isotropic reference marked. Needs ``lazyrich[plot]``."""
        from .figures import plot_richness

        return plot_richness({f"head {self.head}": self}, path)

    def plot_layers(self, path: str | os.PathLike[str] | None = None) -> Figure:
        """D_LR over the depth of the network. Needs ``layers=`` in the measurement and ``lazyrich[plot]``."""
        from .figures import plot_layers

        return plot_layers({f"head {self.head}": self}, path)

    def report(self, path: str | os.PathLike[str]) -> None:
        """Writes one HTML page that needs no network: the numbers, the curves, the layers. Needs ``lazyrich[report]``."""
        from ..report import Found, measured, write_report

        name = f"head {self.head}"
        write_report(Found(name, (measured(name, self),)), path)


_NUMBERS = {
    "low_rank": float, "low_rank_corrected": float, "low_rank_stderr": float, "isotropic": float, "balanced": float,
    "balanced_corrected": float, "balanced_stderr": float, "output_alignment": float, "output_alignment_corrected": float,
    "output_alignment_stderr": float, "output_rank": int, "num_samples": int, "num_features": int, "num_outputs": int,
}  # fmt: skip


_COMPARISON = {
    "participation_ratio": "participation_ratio", "effective_rank": "effective_rank", "rankme": "rankme",
    "stable_rank": "stable_rank", "spectral_exponent": "alpha_req", "target_alignment": "target_alignment",
    "initial_alignment": "s_init", "squared_parameter_norm": "parameter_norm",
    "squared_parameter_distance": "parameter_distance",
}  # fmt: skip


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

"""Rich or lazy? Measures in one call whether a neural network trains in the rich or the lazy regime.

>>> import torch, lazyrich
>>> _ = torch.manual_seed(0)
>>> model = torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.Tanh(), torch.nn.Linear(32, 3))
>>> result = lazyrich.measure(model, torch.randn(512, 8))
>>> 0 <= result.low_rank <= 1
True
"""

from __future__ import annotations

from importlib import import_module as _import_module
from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

if _TYPE_CHECKING:
    from . import functional, schedules
    from .errors import (
        CheckpointError,
        ConvergenceWarning,
        DataError,
        DegenerateError,
        HeadError,
        MissingExtraError,
        NondeterminismError,
        NonFiniteError,
        RankWarning,
    )
    from .functional import FeatureSpectrum, LowRankEstimate, ParameterNorm, PowerLaw
    from .gram import Gram
    from .measurement.arrays import measure_arrays
    from .measurement.compare import compare
    from .measurement.cost import MeasurementCost, measurement_cost
    from .measurement.measure import collect, measure
    from .measurement.null import Null, NullDistribution, null_distribution
    from .metrics import (
        AlphaReQ,
        EffectiveRank,
        KernelAlignment,
        LowRankMeasure,
        NeuralCollapse,
        ParticipationRatio,
        RankMe,
        StableRank,
    )
    from .model.rows import Rows
    from .results.comparison import Difference, ModelComparison, compare_runs
    from .results.evidence import Evidence
    from .results.parts import Comparison, LayerRichness
    from .results.richness import Richness, load, table
    from .results.series import Evaluation, Series
    from .results.verdict import Verdict
    from .training.alarms import crosses, falls
    from .training.monitor import Monitor
    from .training.trace import trace

    __version__: str

__all__ = [
    "AlphaReQ",
    "CheckpointError",
    "Comparison",
    "ConvergenceWarning",
    "DataError",
    "DegenerateError",
    "Difference",
    "EffectiveRank",
    "Evaluation",
    "Evidence",
    "FeatureSpectrum",
    "Gram",
    "HeadError",
    "KernelAlignment",
    "LayerRichness",
    "LowRankEstimate",
    "LowRankMeasure",
    "MeasurementCost",
    "MissingExtraError",
    "ModelComparison",
    "Monitor",
    "NeuralCollapse",
    "NonFiniteError",
    "NondeterminismError",
    "Null",
    "NullDistribution",
    "ParameterNorm",
    "ParticipationRatio",
    "PowerLaw",
    "RankMe",
    "RankWarning",
    "Richness",
    "Rows",
    "Series",
    "StableRank",
    "Verdict",
    "collect",
    "compare",
    "compare_runs",
    "crosses",
    "falls",
    "functional",
    "load",
    "measure",
    "measure_arrays",
    "measurement_cost",
    "null_distribution",
    "schedules",
    "table",
    "trace",
]


_MODULES = {  # a module is imported when one of its names is first used, because torch alone takes a second
    ".errors": (
        "CheckpointError", "ConvergenceWarning", "DataError", "DegenerateError", "HeadError", "MissingExtraError",
        "NonFiniteError", "NondeterminismError", "RankWarning",
    ),
    ".functional": ("FeatureSpectrum", "LowRankEstimate", "ParameterNorm", "PowerLaw"),
    ".gram": ("Gram",),
    ".measurement.arrays": ("measure_arrays",),
    ".measurement.compare": ("compare",),
    ".measurement.cost": ("MeasurementCost", "measurement_cost"),
    ".measurement.measure": ("collect", "measure"),
    ".measurement.null": ("Null", "NullDistribution", "null_distribution"),
    ".metrics": (
        "AlphaReQ", "EffectiveRank", "KernelAlignment", "LowRankMeasure", "NeuralCollapse", "ParticipationRatio", "RankMe",
        "StableRank",
    ),
    ".model.rows": ("Rows",),
    ".results.comparison": ("Difference", "ModelComparison", "compare_runs"),
    ".results.evidence": ("Evidence",),
    ".results.parts": ("Comparison", "LayerRichness"),
    ".results.richness": ("Richness", "load", "table"),
    ".results.series": ("Evaluation", "Series"),
    ".results.verdict": ("Verdict",),
    ".training.alarms": ("crosses", "falls"),
    ".training.monitor": ("Monitor",),
    ".training.trace": ("trace",),
}  # fmt: skip
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> _Any:
    """Import a public name when it is first used (PEP 562)."""
    if name == "__version__":
        from importlib.metadata import version

        value: _Any = version("lazyrich")
    elif name in _MODULE_OF:
        value = getattr(_import_module(_MODULE_OF[name], __name__), name)
    elif name in __all__:  # a module
        return _import_module(f".{name}", __name__)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})

"""Rich or lazy? Measures in one call whether a neural network trains in the rich or the lazy regime.

>>> import torch, lazyrich
>>> _ = torch.manual_seed(0)
>>> model = torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.Tanh(), torch.nn.Linear(32, 3))
>>> result = lazyrich.measure(model, torch.randn(512, 8))
>>> 0 <= result.low_rank <= 1
True
"""

from importlib.metadata import version as _version
from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

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
from .measurement.cost import MeasurementCost, measurement_cost
from .measurement.measure import collect, measure
from .measurement.null import Null, NullDistribution, null_distribution
from .model.rows import Rows
from .results.evidence import Evidence
from .results.parts import Comparison, LayerRichness
from .results.richness import Richness, load, table
from .results.series import Evaluation, Series
from .training.alarms import crosses, falls
from .training.monitor import Monitor
from .training.trace import trace

if _TYPE_CHECKING:
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

__version__ = _version("lazyrich")

__all__ = [
    "AlphaReQ",
    "CheckpointError",
    "Comparison",
    "ConvergenceWarning",
    "DataError",
    "DegenerateError",
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
    "collect",
    "crosses",
    "falls",
    "functional",
    "load",
    "measure",
    "measurement_cost",
    "null_distribution",
    "schedules",
    "table",
    "trace",
]


def __getattr__(name: str) -> _Any:
    """Import the metrics when one is asked for, because torchmetrics is an extra and takes longer to import than all the rest."""
    if name in __all__:
        from . import metrics

        return getattr(metrics, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

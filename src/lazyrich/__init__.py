"""Rich or lazy? Measures in one call whether a neural network trains in the rich or the lazy regime.

>>> import torch, lazyrich
>>> _ = torch.manual_seed(0)
>>> model = torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.Tanh(), torch.nn.Linear(32, 3))
>>> result = lazyrich.measure(model, torch.randn(512, 8))
>>> 0 <= result.low_rank <= 1
True
"""

from importlib.metadata import version as _version

from . import functional
from .errors import (
    CheckpointError,
    DataError,
    DegenerateError,
    HeadError,
    MissingExtraError,
    NonFiniteError,
    RankWarning,
)
from .functional import FeatureSpectrum, LowRankEstimate, ParameterNorm, PowerLaw
from .gram import Gram
from .measure import collect, measure
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
from .richness import Comparison, LayerRichness, Richness, load, table

__version__ = _version("lazyrich")

__all__ = [
    "AlphaReQ",
    "CheckpointError",
    "Comparison",
    "DataError",
    "DegenerateError",
    "EffectiveRank",
    "FeatureSpectrum",
    "Gram",
    "HeadError",
    "KernelAlignment",
    "LayerRichness",
    "LowRankEstimate",
    "LowRankMeasure",
    "MissingExtraError",
    "NeuralCollapse",
    "NonFiniteError",
    "ParameterNorm",
    "ParticipationRatio",
    "PowerLaw",
    "RankMe",
    "RankWarning",
    "Richness",
    "StableRank",
    "collect",
    "functional",
    "load",
    "measure",
    "table",
]

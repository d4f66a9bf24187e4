"""Pure functions: tensors, or a :class:`~lazyrich.Gram`, in; numbers or small frozen results out."""

from .low_rank import LowRankEstimate, low_rank_estimate, low_rank_measure
from .neural_collapse import NeuralCollapse, neural_collapse
from .spectrum import FeatureSpectrum, feature_spectrum, held_out_quality

__all__ = [
    "FeatureSpectrum",
    "LowRankEstimate",
    "NeuralCollapse",
    "feature_spectrum",
    "held_out_quality",
    "low_rank_estimate",
    "low_rank_measure",
    "neural_collapse",
]

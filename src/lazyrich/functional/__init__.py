"""Pure functions: tensors, or a :class:`~lazyrich.Gram`, in; numbers or small frozen results out."""

from .compressed_head import compressed_head
from .effective_rank import effective_rank, participation_ratio, rankme, stable_rank
from .held_out import held_out_quality
from .kernel_alignment import kernel_alignment, target_alignment
from .laziness import laziness_ratio
from .low_rank import LowRankEstimate, low_rank_estimate, low_rank_measure
from .neural_collapse import NeuralCollapse, neural_collapse
from .parameter_norm import LayerNorm, ParameterNorm, parameter_norm
from .spectral_exponent import PowerLaw, alpha_req
from .spectrum import FeatureSpectrum, feature_spectrum
from .standard_error import standard_error
from .tangent_kernel import TangentKernelChange, tangent_kernel, tangent_kernel_alignment, tangent_kernel_change

__all__ = [
    "FeatureSpectrum",
    "LayerNorm",
    "LowRankEstimate",
    "NeuralCollapse",
    "ParameterNorm",
    "PowerLaw",
    "TangentKernelChange",
    "alpha_req",
    "compressed_head",
    "effective_rank",
    "feature_spectrum",
    "held_out_quality",
    "kernel_alignment",
    "laziness_ratio",
    "low_rank_estimate",
    "low_rank_measure",
    "neural_collapse",
    "parameter_norm",
    "participation_ratio",
    "rankme",
    "stable_rank",
    "standard_error",
    "tangent_kernel",
    "tangent_kernel_alignment",
    "tangent_kernel_change",
    "target_alignment",
]

"""WeightWatcher's stable rank of a matrix; it takes arrays, so bfloat16, which NumPy lacks, is handed over as float32."""

from __future__ import annotations

import torch
from torch import Tensor
from weightwatcher.RMT_Util import matrix_soft_rank  # pyright: ignore[reportMissingImports]

PACKAGE = "weightwatcher"


def stable_rank(features: Tensor) -> float:
    return float(matrix_soft_rank((features.float() if features.dtype == torch.bfloat16 else features).numpy()))

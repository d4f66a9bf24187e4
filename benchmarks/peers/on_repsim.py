"""repsim's plug-in estimate ("gretton"); it takes arrays, so bfloat16, which NumPy lacks, is handed over as float32."""

from __future__ import annotations

import numpy as np
import repsim  # pyright: ignore[reportMissingImports]
import torch
from torch import Tensor

PACKAGE = "repsim"


def _array(x: Tensor) -> np.ndarray:
    return (x.float() if x.dtype == torch.bfloat16 else x).numpy()


def kernel_alignment(a: Tensor, b: Tensor) -> float:
    return repsim.cka([_array(a), _array(b)], kernel_type="linear", estimator="gretton")[0, 1]

"""Standard, neural-tangent and maximal-update parametrization of any network of linear and convolution layers."""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

Parametrization = Literal["standard", "ntk", "mup"]


class Scale(nn.Module):
    """The weight that a layer uses: a constant times the trained parameter."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, weight: Tensor) -> Tensor:
        """The weight that the layer uses."""
        return weight * self.factor


def parametrized(model: nn.Module, kind: Parametrization, *, width_ratio: float = 1.0, output_scale: float = 1.0) -> nn.Module:
    """Reparametrize the linear and convolution layers of ``model`` in place; the last of them is the head.

    - "standard": as it was built.
    - "ntk" (Jacot et al. 2018): the parameters have unit variance, and the layer multiplies them by the standard deviation that
      its weight was built with. The function at initialisation is the same, and features move by O(1/√width).
    - "mup" (Yang & Hu 2021, table 8 of Yang et al. 2022): the head divides its weight by the width ratio; the learning rates
      follow from :func:`rate_factors`. At width ratio 1 it is the standard parametrization.

    Args:
        width_ratio: width over the width for which the learning rate was chosen; "mup" only.
        output_scale: α, a factor of the weight and the bias of the head.

    Raises:
        ValueError: an unknown parametrization, or a model without such layers.
    """
    if kind not in get_args(Parametrization):
        raise ValueError(f"parametrization must be one of {', '.join(get_args(Parametrization))}, got {kind!r}")
    layers = [layer for layer in model.modules() if isinstance(layer, (nn.Linear, nn.Conv2d))]
    if not layers:
        raise ValueError("the model has no linear or convolution layer")
    for layer in layers:
        factor = output_scale if layer is layers[-1] else 1.0
        if kind == "mup" and layer is layers[-1]:
            factor /= width_ratio
            with torch.no_grad():
                layer.weight.mul_(width_ratio**0.5)  # the variance at ratio 1, for every width
        elif kind == "ntk":
            spread = layer.weight.std().item() if layer.weight.numel() > 1 else 1.0
            factor *= spread
            with torch.no_grad():
                layer.weight.div_(spread)
        if factor != 1.0:
            parametrize.register_parametrization(layer, "weight", Scale(factor))
        if layer is layers[-1] and output_scale != 1.0 and layer.bias is not None:
            parametrize.register_parametrization(layer, "bias", Scale(output_scale))
    return model


def rate_factors(
    model: nn.Module, kind: Parametrization, width_ratio: float, adaptive: bool
) -> list[tuple[list[nn.Parameter], float]]:
    """Groups of parameters with the factor of their learning rate: 1, or for "mup" as in table 8 of Yang et al. (2022).

    Args:
        adaptive: whether the optimizer is Adam (rate of hidden weights / ratio) or SGD (rate of input weights, biases and
            head × ratio).
    """
    if kind != "mup" or width_ratio == 1.0:
        return [([p for p in model.parameters() if p.requires_grad], 1.0)]
    layers = [layer for layer in model.modules() if isinstance(layer, (nn.Linear, nn.Conv2d))]
    first = 0 if any(isinstance(module, nn.Embedding) for module in model.modules()) else 1  # embeddings are the input weights
    hidden = {id(_trained_weight(layer)) for layer in layers[first:-1]}
    groups: dict[float, list[nn.Parameter]] = {}
    for parameter in model.parameters():
        factor = (1 / width_ratio if adaptive else 1.0) if id(parameter) in hidden else (1.0 if adaptive else width_ratio)
        groups.setdefault(factor, []).append(parameter)
    return [(group, factor) for factor, group in groups.items()]


def _trained_weight(layer: Any) -> nn.Parameter:
    return layer.parametrizations.weight.original if parametrize.is_parametrized(layer, "weight") else layer.weight

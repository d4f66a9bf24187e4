"""The norm of the parameters and their distance from the start of training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .._support.names import without_wrappers
from ..errors import DataError, NonFiniteError


@dataclass(frozen=True)
class LayerNorm:
    """‖θ‖² and ‖θ - θ₀‖² of the parameters that one module owns; the second is None without a start."""

    squared_norm: float
    squared_distance: float | None


@dataclass(frozen=True)
class ParameterNorm:
    """‖θ‖²_F and ‖θ - θ₀‖²_F of a network and of each of its layers.

    Attributes:
        squared_norm: ‖θ‖² over all parameters; tied parameters count once.
        squared_distance: ‖θ - θ₀‖²; None without a start.
        layers: the same for each module that owns parameters, by its dotted name.
    """

    squared_norm: float
    squared_distance: float | None
    layers: dict[str, LayerNorm]

    def __str__(self) -> str:
        def row(name: str, norm: float, distance: float | None) -> str:
            return f"{name:<{width}}  {norm:>12.5g}" + ("" if distance is None else f"  {distance:>12.5g}")

        width = max(5, *(len(name) for name in self.layers))
        head = f"{'layer':<{width}}  {'‖θ‖²':>12}" + ("" if self.squared_distance is None else f"  {'‖θ - θ₀‖²':>12}")
        rows = [row(name, layer.squared_norm, layer.squared_distance) for name, layer in self.layers.items()]
        return "\n".join([head, *rows, row("all", self.squared_norm, self.squared_distance)])


def parameter_norm(model: nn.Module, start: nn.Module | Mapping[str, Tensor] | None = None) -> ParameterNorm:
    """Squared Frobenius norm of the parameters, and of their change since the start; buffers do not count.

    Args:
        model: the network. It may be wrapped in DataParallel, DDP, FSDP2 or torch.compile (with FSDP, call this function on all
            processes).
        start: the network at its start, or its ``state_dict()``.

    Raises:
        DataError: no parameters, or names or shapes that differ from those of the start.
        NonFiniteError: NaN or infinity; the error names the parameter.

    Example:
        >>> import torch
        >>> layer = torch.nn.Linear(2, 1)
        >>> _ = torch.nn.init.constant_(layer.weight, 3.0), torch.nn.init.constant_(layer.bias, 1.0)
        >>> norm = parameter_norm(layer, start={"weight": torch.zeros(1, 2), "bias": torch.ones(1)})
        >>> norm.squared_norm, norm.squared_distance
        (19.0, 18.0)
    """
    now = _by_inner_name(dict(model.named_parameters()))
    if not now:
        raise DataError(f"{type(model).__name__} has no parameters")
    then = None
    if start is not None:
        then = _by_inner_name(dict(start.named_parameters()) if isinstance(start, nn.Module) else start)
        differing = [name for name, x in now.items() if name not in then or then[name].shape != x.shape]
        if isinstance(start, nn.Module):
            differing += [name for name in then if name not in now]
        if differing:
            raise DataError(
                f"the start has other parameters than the model: {', '.join(differing[:5])} missing or of another shape"
            )
    sums: dict[str, tuple[float, float | None]] = {}
    for name, x in now.items():
        owner = name.rpartition(".")[0] or "(the model itself)"
        norm, distance = sums.get(owner, (0.0, None if then is None else 0.0))
        squared = _squared_norm(x)
        if not squared < float("inf"):
            raise NonFiniteError(f"parameter {name!r} holds NaN or infinity")
        if then is not None and distance is not None:
            distance += _squared_norm(x.double() - then[name].to(x.device).double())
        sums[owner] = (norm + squared, distance)
    layers = {owner: LayerNorm(*values) for owner, values in sums.items()}
    return ParameterNorm(
        squared_norm=sum(norm for norm, _ in sums.values()),
        squared_distance=None if then is None else sum(distance or 0.0 for _, distance in sums.values()),
        layers=layers,
    )


def _by_inner_name(parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The parameters by their names in the network inside all wrappers."""
    inner = without_wrappers(parameters)
    return {inner[name]: _whole(x) for name, x in parameters.items()}


def _whole(x: Tensor) -> Tensor:
    """A parameter that processes share among them (DTensor), put together."""
    gather = getattr(x, "full_tensor", None)
    return (x if gather is None else gather()).detach()


def _squared_norm(x: Tensor) -> float:
    x = torch.view_as_real(x.to(torch.complex128)) if x.is_complex() else x.double()
    return float(x.square().sum())

"""Neural collapse, NC1 to NC4: the special case of the smallest feature kernel for one-hot outputs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import DataError
from ..gram import Gram
from .inputs import AnyArray, as_gram, as_tensor, one_hot
from .span import default_cut


@dataclass(frozen=True)
class NeuralCollapse:
    """The four measures of Papyan, Han & Donoho (2020); all approach 0 as the network collapses.

    Attributes:
        nc1: Tr(Σ_W Σ_B⁺)/C, the variability within classes relative to that between classes.
        nc2_equinorm: standard deviation of the lengths of the centred class means, divided by their mean.
        nc2_equiangular: mean |cos + 1/(C-1)| over pairs of centred class means; None if one of them is not longer than its
            rounding and therefore has no direction.
        nc3: ‖W/‖W‖_F - M/‖M‖_F‖_F of the head's weight and the centred class means; None without the head's weight.
        nc4: share of samples whose nearest class mean disagrees with the network's answer; None without outputs.
        nc1_stderr: standard error of ``nc1``, in the result of a measurement; :func:`standard_error` computes it.
    """

    nc1: float
    nc2_equinorm: float
    nc2_equiangular: float | None
    nc3: float | None = None
    nc4: float | None = None
    nc1_stderr: float | None = None

    def __str__(self) -> str:
        return "  ".join(f"{name} {value:.4f}" for name, value in asdict(self).items() if value is not None)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)


def neural_collapse(
    features: AnyArray | Gram,
    labels: AnyArray | None = None,
    *,
    num_classes: int | None = None,
    outputs: AnyArray | None = None,
    head_weight: AnyArray | None = None,
    head_bias: AnyArray | None = None,
    weights: AnyArray | None = None,
) -> NeuralCollapse:
    """NC1 to NC3 from class means and covariances, and NC4 from the samples.

    Σ_W is the covariance within classes, averaged over samples. Σ_B is the average of (μ_c - μ_G)(μ_c - μ_G)ᵀ over classes, where
    μ_G is the mean over samples. Σ_B⁺ leaves out the directions in which the class means differ by no more than their rounding.
    Collapse implies D_LR = 0 for balanced classes only.

    Args:
        features: (n, p); or a :class:`~lazyrich.Gram` whose targets are one-hot, which gives no NC4.
        labels: (n,) integers in 0 … num_classes - 1.
        num_classes: C; the highest label + 1 if None.
        outputs: (n, C) outputs of the network, for NC4; by default features @ head_weightᵀ + head_bias.
        head_weight: (C, p), for NC3.
        head_bias: (C,), for NC4, because without it the outputs would be those of another network.
        weights: (n,) not negative.

    Raises:
        DataError: labels out of range, a class without samples (the error names it), fewer than two classes, shapes that do not
            match, or class means that are the same up to their rounding.
        NonFiniteError: NaN or infinity.
        TypeError: a Gram together with labels or outputs.

    Reference:
        Papyan, Han & Donoho, PNAS 117 (2020) 24652.

    Example:
        Two classes at (±1, 0), each with deviations of (0, ±1), have Σ_W Σ_B⁺ = 0:

        >>> import torch
        >>> x = torch.tensor([[1., 1.], [1., -1.], [-1., 1.], [-1., -1.]], dtype=torch.float64)
        >>> neural_collapse(x, torch.tensor([0, 0, 1, 1])).nc1
        0.0
    """
    own_weights = None if weights is None else as_tensor("weights", weights)
    if isinstance(features, Gram):
        if labels is not None or outputs is not None:
            raise TypeError("a Gram already holds the labels: pass the Gram alone, or tensors for NC4, which needs the samples")
        gram = as_gram(features, needs=("targets",))
        if not holds_labels(gram):
            raise DataError("neural collapse is defined for one class per sample, and these targets are multi-label or real")
    else:
        if labels is None:
            raise DataError("neural collapse needs labels, (n,) integers: pass labels=")
        features, labels = as_tensor("features", features), as_tensor("labels", labels)
        if len(labels) != len(features):
            raise DataError(f"labels must have one entry for each of the {len(features)} samples, got {len(labels)} entries")
        gram = as_gram(features, targets=one_hot(labels, num_classes), weights=own_weights)
    share, means, centred = class_means(gram)
    if len(share) < 2:
        raise DataError("neural collapse needs at least two classes, got one")
    rounding = rounding_of_means(gram, share)
    lengths = centred.norm(dim=1)
    nc3 = nc4 = None
    if head_weight is not None:
        head_weight = as_tensor("head_weight", head_weight).detach().to(centred)
        if head_weight.shape != centred.shape:
            raise DataError(f"head_weight must have shape {tuple(centred.shape)}, got {tuple(head_weight.shape)}")
        nc3 = float((head_weight / head_weight.norm() - centred / centred.norm()).norm())
    if not isinstance(features, Gram):
        if outputs is None and head_weight is not None:
            bias = torch.zeros(len(share)) if head_bias is None else as_tensor("head_bias", head_bias).detach()
            outputs = features.detach().to(centred) @ head_weight.T + bias.to(centred)
        nc4 = None if outputs is None else _nc4(features, as_tensor("outputs", outputs), means, own_weights)
    return NeuralCollapse(
        nc1=_nc1(gram, share, centred),
        nc2_equinorm=float(lengths.std(correction=0) / lengths.mean()),
        nc2_equiangular=_nc2_equiangular(centred, lengths) if bool((lengths > rounding).all()) else None,
        nc3=nc3,
        nc4=nc4,
    )


def _nc1(gram: Gram, share: Tensor, centred: Tensor) -> float:
    within, left, singular, _ = scatter_of_classes(gram, share, centred)
    spread = (left.T @ within * left.T).sum(1).clamp_min(0)  # a variance, which only rounding makes negative
    return float((spread / singular.square()).sum() / len(share))


def scatter_of_classes(gram: Gram, share: Tensor, centred: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Σ_W, and the singular value decomposition U s Vᵀ of the (p, C) centred class means over √C, Σ_B = U s² Uᵀ.

    Singular values up to the rounding of the class means are left out.

    Raises:
        DataError: all are.
    """
    covariance = gram.block("features", "features", centered=True)
    within = covariance - (centred.T * share) @ centred  # Σ_W = Σ_T - Σ_c π_c (μ_c - μ_G)(μ_c - μ_G)ᵀ
    left, singular, right = torch.linalg.svd(centred.T / len(share) ** 0.5, full_matrices=False)
    largest, rounding = float(singular[0]), rounding_of_means(gram, share)
    distinct = singular > max(default_cut(gram.eps("features"), largest, largest), float(rounding.square().mean().sqrt()))
    if not bool(distinct.any()):
        raise DataError("all class means are the same, up to their rounding, so neural collapse is undefined")
    return within, left[:, distinct], singular[distinct], right[distinct]


def _nc2_equiangular(centred: Tensor, lengths: Tensor) -> float:
    num_classes = len(centred)
    cosines = (centred @ centred.T) / torch.outer(lengths, lengths)
    pairs = torch.triu_indices(num_classes, num_classes, offset=1, device=cosines.device)
    return float((cosines[pairs[0], pairs[1]] + 1 / (num_classes - 1)).abs().mean())


def _nc4(features: Tensor, outputs: Tensor, means: Tensor, weights: Tensor | None) -> float:
    if outputs.shape != (len(features), len(means)):
        raise DataError(f"outputs must have shape {(len(features), len(means))}, got {tuple(outputs.shape)}")
    disagree = nearest_mean_disagrees(features, outputs, means).double()
    share = torch.ones_like(disagree) if weights is None else weights.detach().to(disagree)
    return float((disagree * share).sum() / share.sum())


def holds_labels(gram: Gram) -> bool:
    """Whether every row of the targets is one-hot: then their second moment is the diagonal matrix of their means."""
    if gram.widths.get("targets", 0) < 2:
        return False
    second, mean = gram.block("targets", "targets"), gram.mean("targets")
    return bool(torch.allclose(second, mean.diag(), rtol=0, atol=1e-9)) and abs(float(mean.sum()) - 1) < 1e-9


def class_means(gram: Gram) -> tuple[Tensor, Tensor, Tensor]:
    """Share of samples (C,), mean (C, p), and mean minus overall mean (C, p) of every class, from a Gram with one-hot targets.

    Raises:
        DataError: a class without samples; the error names it.
    """
    share = gram.mean("targets")
    empty = (share <= 0).nonzero().flatten().tolist()
    if empty:
        listed = ", ".join(map(str, empty[:10])) + (" …" if len(empty) > 10 else "")
        raise DataError(
            f"class {listed} has no samples: its mean is undefined; measure on data that holds every class, "
            "or relabel without the empty classes"
        )
    centred = gram.block("targets", "features", centered=True) / share.unsqueeze(1)
    return share, centred + gram.mean("features"), centred


def rounding_of_means(gram: Gram, share: Tensor) -> Tensor:
    """(C,) estimate of how far rounding of the features has moved the mean of each class.

    Rounding moves a sample by at most eps/2 times its length, and the mean over n different samples by a factor √n less.
    """
    spread = gram.block("features", "features", centered=True).diagonal().sum()
    rms = (spread.clamp_min(0) + gram.mean("features").square().sum()).sqrt()
    return gram.eps("features") * rms / (gram.effective_count * share).sqrt()


def nearest_mean_disagrees(features: Tensor, outputs: Tensor, means: Tensor) -> Tensor:
    """(n,) True where the class mean nearest to the features is not the class with the largest output."""
    nearest = torch.cdist(features.detach().to(means), means).argmin(dim=1)
    return nearest != outputs.detach().argmax(dim=1).to(nearest.device)

"""Neural collapse, NC1-NC4: the special case of a least feature kernel with one-hot outputs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import DataError
from ..gram import Gram
from .inputs import as_gram, one_hot
from .span import default_cut


@dataclass(frozen=True)
class NeuralCollapse:
    """The four measures of Papyan, Han & Donoho (2020); all go to 0 as the network collapses.

    Attributes:
        nc1: Tr(Σ_W Σ_B⁺)/C, variability within classes.
        nc2_equinorm: standard deviation over mean of the centred class means' lengths.
        nc2_equiangular: mean |cos + 1/(C-1)| over pairs of centred class means; None where one of them is no longer than its
            rounding, and so has no direction.
        nc3: ‖W/‖W‖_F - M/‖M‖_F‖_F of head weight and centred class means; None without the head's weight.
        nc4: share of samples whose nearest class mean disagrees with the network; None without its answers.
    """

    nc1: float
    nc2_equinorm: float
    nc2_equiangular: float | None
    nc3: float | None = None
    nc4: float | None = None

    def __str__(self) -> str:
        return "  ".join(f"{name} {value:.4f}" for name, value in asdict(self).items() if value is not None)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)


def neural_collapse(
    features: Tensor | Gram,
    labels: Tensor | None = None,
    *,
    num_classes: int | None = None,
    outputs: Tensor | None = None,
    head_weight: Tensor | None = None,
    head_bias: Tensor | None = None,
    weights: Tensor | None = None,
) -> NeuralCollapse:
    """NC1-NC3 from class means and covariances, NC4 from a second look at the samples.

    Σ_W is the average over samples of the covariance within the class, Σ_B the average over classes of
    (μ_c - μ_G)(μ_c - μ_G)ᵀ, and μ_G the mean over samples. The statement that collapse means D_LR = 0 is for balanced classes.
    Σ_B⁺ leaves out the directions in which the class means differ by no more than their rounding.

    Args:
        features: (n, p); or a :class:`~lazyrich.Gram` whose targets are one-hot (then no NC4).
        labels: (n,) integers in 0 … num_classes - 1.
        num_classes: highest label + 1 if None.
        outputs: (n, C) outputs of the network, for NC4; by default features @ head_weightᵀ + head_bias.
        head_weight: (C, p), for NC3.
        head_bias: (C,), for NC4; without it the network's answer would be another.
        weights: (n,) not negative.

    Raises:
        DataError: labels out of range, a class without samples (named), fewer than two classes, shapes that do not match; class
            means that are the same up to their rounding.
        NonFiniteError: NaN or infinity.

    Reference:
        Papyan, Han & Donoho, PNAS 117 (2020) 24652.

    Example:
        Two classes at (±1, 0), each with deviations of (0, ±1), have Σ_W Σ_B⁺ = 0:

        >>> import torch
        >>> x = torch.tensor([[1., 1.], [1., -1.], [-1., 1.], [-1., -1.]], dtype=torch.float64)
        >>> neural_collapse(x, torch.tensor([0, 0, 1, 1])).nc1
        0.0
    """
    if isinstance(features, Gram):
        if labels is not None or outputs is not None:
            raise TypeError("a Gram already holds the labels; NC4 needs the samples, so pass tensors for it")
        gram = as_gram(features, needs=("targets",))
        if not holds_labels(gram):
            raise DataError("neural collapse is defined for one class a sample; these targets are multi-label or real")
    else:
        if labels is None:
            raise DataError("neural collapse needs labels, (n,) integers")
        if len(labels) != len(features):
            raise DataError(f"labels must have one entry for each of the {len(features)} samples, got {len(labels)}")
        gram = as_gram(features, targets=one_hot(labels, num_classes), weights=weights)
    share, means, centred = class_means(gram)
    num_classes = len(share)
    if num_classes < 2:
        raise DataError("neural collapse compares classes: at least two are needed, got one")
    second = gram.block("features", "features", centered=True)
    within = second - (centred.T * share) @ centred  # Σ_W = Σ_T - Σ_c π_c (μ_c - μ_G)(μ_c - μ_G)ᵀ
    left, singular, _ = torch.linalg.svd(centred.T / num_classes**0.5, full_matrices=False)
    rounding = rounding_of_means(gram, share)
    largest = float(singular[0])
    kept = singular > max(default_cut(gram.eps("features"), largest, largest), float(rounding.square().mean().sqrt()))
    if not bool(kept.any()):
        raise DataError("all class means are the same, up to their rounding: neural collapse is undefined")
    left, singular = left[:, kept], singular[kept]
    spread = (left.T @ within * left.T).sum(1).clamp_min(0)  # a variance; under zero by rounding alone
    nc1 = (spread / singular.square()).sum() / num_classes

    norms = centred.norm(dim=1)
    directed = bool((norms > rounding).all())
    cosines = (centred @ centred.T) / torch.outer(norms, norms)
    pairs = torch.triu_indices(num_classes, num_classes, offset=1, device=cosines.device)
    angles = cosines[pairs[0], pairs[1]] + 1 / (num_classes - 1)

    nc3 = nc4 = None
    if head_weight is not None:
        head_weight = head_weight.detach().to(centred)
        if head_weight.shape != centred.shape:
            raise DataError(f"head_weight must have shape {tuple(centred.shape)}, got {tuple(head_weight.shape)}")
        nc3 = float((head_weight / head_weight.norm() - centred / centred.norm()).norm())
    if not isinstance(features, Gram):
        if outputs is None and head_weight is not None:
            bias = torch.zeros(num_classes) if head_bias is None else head_bias.detach()
            outputs = features.detach().to(centred) @ head_weight.T + bias.to(centred)
        if outputs is not None:
            if outputs.shape != (len(features), num_classes):
                raise DataError(f"outputs must have shape {(len(features), num_classes)}, got {tuple(outputs.shape)}")
            disagree = nearest_mean_disagrees(features, outputs, means).double()
            share_of = torch.ones_like(disagree) if weights is None else weights.detach().to(disagree)
            nc4 = float((disagree * share_of).sum() / share_of.sum())
    return NeuralCollapse(
        nc1=float(nc1),
        nc2_equinorm=float(norms.std(correction=0) / norms.mean()),
        nc2_equiangular=float(angles.abs().mean()) if directed else None,
        nc3=nc3,
        nc4=nc4,
    )


def holds_labels(gram: Gram) -> bool:
    """Whether the targets have exactly one entry of one in every row: squares that sum to the same, and no products."""
    if gram.widths.get("targets", 0) < 2:
        return False
    second, mean = gram.block("targets", "targets"), gram.mean("targets")
    return bool(torch.allclose(second, mean.diag(), rtol=0, atol=1e-9)) and abs(float(mean.sum()) - 1) < 1e-9


def class_means(gram: Gram) -> tuple[Tensor, Tensor, Tensor]:
    """Share (C,), mean (C, p) and mean minus overall mean (C, p) of every class, from a Gram with one-hot targets.

    Raises:
        DataError: a class without samples, named.
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
    """(C,) how far rounding of the features may have moved the mean of each class.

    A sample is moved by at most eps/2 times its length, and in a mean over samples that differ this averages out.
    """
    spread = gram.block("features", "features", centered=True).diagonal().sum()
    rms = (spread.clamp_min(0) + gram.mean("features").square().sum()).sqrt()
    return gram.eps("features") * rms / (gram.effective_count * share).sqrt()


def nearest_mean_disagrees(features: Tensor, outputs: Tensor, means: Tensor) -> Tensor:
    """(n,) True where the class mean nearest to the features is not the class with the largest output."""
    nearest = torch.cdist(features.detach().to(means), means).argmin(dim=1)
    return nearest != outputs.detach().argmax(dim=1).to(nearest.device)

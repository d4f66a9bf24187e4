"""Neural collapse as it is published: means in a first pass, covariance within the classes in a second, NC4 in a third.

In our own words, after Papyan, Han & Donoho (PNAS 2020) and the package neural-collapse, which is on no index that every
machine reaches. As there, everything is float32 and Σ_B is inverted by `torch.linalg.pinv`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

Batches = Callable[[], Iterator[tuple[Tensor, Tensor]]]  # features and labels


def two_passes(batches: Batches, head: Tensor, *, pseudo_inverse: bool = True) -> dict[str, float]:
    """NC1-NC3; without ``pseudo_inverse`` only the C singular vectors that Σ_B has are computed."""
    return _collapse(batches, head, pseudo_inverse)[0]


def three_passes(batches: Batches, head: Tensor) -> dict[str, float]:
    """NC1-NC4: the share of samples whose nearest class mean disagrees with the network comes from another pass."""
    found, means = _collapse(batches, head, pseudo_inverse=True)
    wrong = total = 0
    for x, _ in batches():
        nearest = (means.square().sum(1) - 2 * x @ means.T).argmin(1)
        wrong, total = wrong + int((nearest != (x @ head.T).argmax(1)).sum()), total + len(x)
    return found | {"NC4": wrong / total}


def _collapse(batches: Batches, head: Tensor, pseudo_inverse: bool) -> tuple[dict[str, float], Tensor]:
    classes, p = head.shape
    counts, sums = torch.zeros(classes), torch.zeros(classes, p)
    for x, labels in batches():
        member = torch.nn.functional.one_hot(labels, classes).to(x.dtype)
        counts, sums = counts + member.sum(0), sums + member.T @ x
    means = sums / counts.unsqueeze(1)
    within = torch.zeros(p, p)
    for x, labels in batches():
        deviation = x - means[labels]
        within += deviation.T @ deviation
    within /= counts.sum()
    m = means - counts @ means / counts.sum()
    if pseudo_inverse:
        nc1 = float(torch.trace(torch.linalg.pinv(m.T @ m / classes) @ within) / classes)
    else:
        _, values, right = torch.linalg.svd(m / classes**0.5, full_matrices=False)
        kept = values > 1e-5 * values[0]
        right, values = right[kept], values[kept]
        nc1 = float(((right @ within * right).sum(1) / values.square()).sum() / classes)
    norms = m.norm(dim=1)
    cosines = (m @ m.T / torch.outer(norms, norms))[torch.triu_indices(classes, classes, 1).unbind()]
    return {
        "NC1": nc1,
        "NC2 norms": float(norms.std(correction=0) / norms.mean()),
        "NC2 angles": float((cosines + 1 / (classes - 1)).abs().mean()),
        "NC3": float((head / head.norm() - m / m.norm()).norm()),
    }, means

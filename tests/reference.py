"""Slow and independent: n×n kernels, explicit centring, float64 NumPy. Shares no code with the package."""

import numpy as np


def d_lr(features, outputs, weights=None, *, eps=2.0**-52, rtol=None, power=1.0, ridge=False, head_bias=True):
    """1 - Tr(HKH·HK'H)/(‖HKH‖‖HK'H‖) with K = ΦΦᵀ and K' the reference kernel of the outputs, in weighted L².

    With a head bias the minimum-norm kernel (γ = ½) is that of the outputs less their mean.
    """
    x, f = np.asarray(features, dtype=np.float64), np.asarray(outputs, dtype=np.float64)
    f = f.reshape(len(f), -1)
    n = len(x)
    w = (
        np.full(n, 1 / n)
        if weights is None
        else np.asarray(weights, dtype=np.float64) / np.asarray(weights, dtype=np.float64).sum()
    )
    root = np.sqrt(w)
    size = np.sqrt((w @ f**2).sum() / f.shape[1])
    if head_bias and power == 0.5:
        f = f - w @ f
    x, f = root[:, None] * x, root[:, None] * f
    u, s, _ = np.linalg.svd(f, full_matrices=False)
    rounding = max((4 if eps > 1e-5 else 50) * eps * size, 1e-7 * s[0])
    cut = rounding if rtol is None or ridge else max(rtol, 1e-7) * s[0]
    u, s = u[:, s > cut], s[s > cut]
    strength = s**2 * (s**2 + ((rtol * s[0]) ** 2 if ridge else 0.0)) ** -power  # f B^{-γ} f in the basis u
    centring = np.eye(n) - np.outer(root, root)  # the constant function is the vector of root weights
    k, u = centring @ x, centring @ u  # before the kernels are formed, or a large mean drowns what varies
    k = k @ k.T
    reference = (u * strength) @ u.T
    return 1 - np.sum(k * reference) / (np.linalg.norm(k) * np.linalg.norm(reference))


def neural_collapse(features, labels, head_weight=None, head_bias=None):
    """NC1-NC4 in two passes over the samples, class by class, with NumPy's pseudo-inverse."""
    x, y = np.asarray(features, dtype=np.float64), np.asarray(labels)
    classes = int(y.max()) + 1
    overall = x.mean(0)
    means = np.stack([x[y == c].mean(0) for c in range(classes)])
    within = np.zeros((x.shape[1], x.shape[1]))
    for row, c in zip(x, y, strict=True):
        within += np.outer(row - means[c], row - means[c]) / len(x)
    m = means - overall
    between = m.T @ m / classes
    nc1 = np.trace(within @ np.linalg.pinv(between, rcond=1e-12, hermitian=True)) / classes
    norms = np.linalg.norm(m, axis=1)
    angles = [abs(m[a] @ m[b] / norms[a] / norms[b] + 1 / (classes - 1)) for a in range(classes) for b in range(a + 1, classes)]
    result = {"nc1": nc1, "nc2_equinorm": norms.std() / norms.mean(), "nc2_equiangular": np.mean(angles)}
    if head_weight is not None:
        w = np.asarray(head_weight, dtype=np.float64)
        result["nc3"] = np.linalg.norm(w / np.linalg.norm(w) - m / np.linalg.norm(m))
        answers = (x @ w.T + (0 if head_bias is None else np.asarray(head_bias))).argmax(1)
        nearest = ((x[:, None] - means) ** 2).sum(-1).argmin(1)
        result["nc4"] = np.mean(answers != nearest)
    return result


def nc1(features, labels, weights=None, cut=0.0):
    """Tr(Σ_W Σ_B⁺)/C of weighted samples, sample by sample, and the singular values over the cut, which Σ_B is inverted on."""
    x, y = np.asarray(features, dtype=np.float64), np.asarray(labels)
    w = np.ones(len(x)) if weights is None else np.asarray(weights, dtype=np.float64)
    w, classes = w / w.sum(), int(y.max()) + 1
    means = np.stack([np.average(x[y == c], axis=0, weights=w[y == c]) for c in range(classes)])
    _, s, vt = np.linalg.svd((means - w @ x) / np.sqrt(classes), full_matrices=False)
    kept = s > max(1e-6 * s[0], cut)
    s, vt = s[kept], vt[kept]
    deviations = (x - means[y]) @ vt.T / s
    return float((w[:, None] * deviations**2).sum() / classes), s


def held_out_quality(train, test, targets):
    """Share of the target space in the span of the first k training eigenfunctions on the test samples, by QR."""
    _, s, vt = np.linalg.svd(train / np.sqrt(len(train)), full_matrices=False)
    functions = test @ vt.T / s / np.sqrt(len(test))
    basis, _ = np.linalg.qr(functions)
    u, t, _ = np.linalg.svd(targets / np.sqrt(len(test)), full_matrices=False)
    u = u[:, t > 1e-7 * t[0]]
    return np.cumsum(((basis.T @ u) ** 2).sum(1)) / u.shape[1]


def cka(a, b):
    """Centred linear CKA from n×n kernels."""
    n = len(a)
    h = np.eye(n) - 1 / n
    k, l = h @ a @ a.T @ h, h @ b @ b.T @ h  # noqa: E741
    return np.sum(k * l) / (np.linalg.norm(k) * np.linalg.norm(l))


def ranks(x):
    """Effective ranks by singular value decomposition of the samples."""
    raw = np.linalg.svd(x, compute_uv=False)
    centred = np.linalg.svd(x - x.mean(0), compute_uv=False) ** 2
    p = centred[centred > 1e-25 * centred[0]] / centred.sum()
    q = raw / raw.sum() + 1e-7
    return {
        "effective_rank": np.exp(-(p * np.log(p)).sum()),
        "participation_ratio": centred.sum() ** 2 / (centred**2).sum(),
        "stable_rank": (raw**2).sum() / raw[0] ** 2,
        "rankme": np.exp(-(q * np.log(q)).sum()),
    }


def exponent(x, first, last):
    """Weighted line through log eigenvalue over log rank, by NumPy."""
    values = np.linalg.svd(x - x.mean(0), compute_uv=False)[first - 1 : last] ** 2
    i = np.arange(first, last + 1)
    return -np.polyfit(np.log(i), np.log(values), 1, w=i**-0.5)[0]


def splitmix(number):
    """The 64-bit hash splitmix64 of a number, in Python's integers."""
    x = (number + 1) * 0x9E3779B97F4A7C15 & (2**64 - 1)
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & (2**64 - 1)
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & (2**64 - 1)
    return x ^ (x >> 31)

"""The empirical neural tangent kernel on a subset of inputs, its change in training, and its alignment with the targets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..errors import DataError, DegenerateError
from ..model.undisturbed import undisturbed
from .inputs import AnyArray, as_tensor, target_matrix

_Block = tuple[slice, slice]  # of samples and of outputs


@dataclass(frozen=True)
class TangentKernelChange:
    """The change of the tangent kernel since the start; both numbers are 0 in the lazy limit.

    Attributes:
        alignment_change: 1 - CKA(K₀, K_t), centred over samples for each output; independent of scale.
        relative_distance: ‖K_t - K₀‖_F / ‖K₀‖_F; depends on scale.
    """

    alignment_change: float
    relative_distance: float

    def __str__(self) -> str:
        return f"tangent kernel: 1 - CKA = {self.alignment_change:.4f}, relative distance {self.relative_distance:.4f}"


def tangent_kernel(
    model: nn.Module, inputs: Tensor, *, parameters: Sequence[str] | None = None, max_bytes: int = 2**30
) -> Tensor:
    """The exact tangent kernel K[(i,c), (j,d)] = ⟨∂f_c(x_i)/∂θ, ∂f_d(x_j)/∂θ⟩, with a block for every pair of outputs.

    The model runs in evaluation mode and is restored afterwards. Jacobians are formed for groups of parameters, or for blocks of
    samples and outputs if one parameter alone is too large, so that they never take more than ``max_bytes``.

    Args:
        model: maps (m, …) to (m, C) or (m,); the outputs of a sample must not depend on the other samples.
        inputs: (m, …), a subset of the data; the kernel has (m·C)² entries.
        parameters: dotted names or prefixes of the parameters to differentiate by; None for all that require gradients.
        max_bytes: bound on the memory of the Jacobians at any time, including temporary copies. The kernel and the activations of
            one sample's C backward passes are not included.

    Returns:
        (m·C, m·C) float64; the index of sample i and output c is i·C + c.

    Raises:
        TypeError: inputs that are not a tensor.
        DataError: outputs of another shape, no such parameters.
        ValueError: ``max_bytes`` is too small for two gradients of the largest parameter; the error names the number of bytes.

    Reference:
        Jacot, Gabriel & Hongler, NeurIPS 2018.

    Example:
        A linear model with bias has δ_cd (x_i·x_j + 1):

        >>> import torch
        >>> tangent_kernel(torch.nn.Linear(2, 2), torch.tensor([[1.0, 2.0], [0.0, 1.0]]))
        tensor([[6., 0., 3., 0.],
                [0., 6., 0., 3.],
                [3., 0., 2., 0.],
                [0., 3., 0., 2.]], dtype=torch.float64)
    """
    if not isinstance(inputs, Tensor):
        raise TypeError(f"inputs must be a tensor (m, …), got {type(inputs).__name__}")
    chosen = {name: x.detach() for name, x in model.named_parameters() if _is_chosen(name, x, parameters)}
    if not chosen:
        raise DataError(
            f"no parameters to differentiate by: parameters={parameters} selects none of those that require gradients"
        )
    fastpath = torch.backends.mha.get_fastpath_enabled()
    with undisturbed(model, None, None), sdpa_kernel(SDPBackend.MATH):
        torch.backends.mha.set_fastpath_enabled(False)  # the fused transformer layer has no derivative
        try:
            outputs = model(inputs[:2].clone())
            if not isinstance(outputs, Tensor) or outputs.ndim not in (1, 2) or len(outputs) != len(inputs[:2]):
                shape = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
                raise DataError(
                    f"the model must return one row per sample, (m, C) or (m,), got {shape} for {len(inputs[:2])} samples"
                )
            jacobian = _Jacobian(model, inputs, 1 if outputs.ndim == 1 else outputs.shape[1], max_bytes)
            size = len(inputs) * jacobian.outputs
            device = torch.device("cpu") if inputs.device.type == "mps" else inputs.device
            kernel = torch.zeros(size, size, dtype=torch.float64, device=device)
            for group in _groups(chosen, size, max_bytes):
                _add_products(kernel, jacobian, group)
        finally:
            torch.backends.mha.set_fastpath_enabled(fastpath)
    return kernel


def tangent_kernel_change(before: AnyArray, after: AnyArray, *, num_outputs: int) -> TangentKernelChange:
    """Compare two tangent kernels on the same inputs: 1 - CKA(K₀, K_t) and ‖K_t - K₀‖_F/‖K₀‖_F.

    Args:
        before, after: (m·C, m·C) each, from :func:`tangent_kernel`.
        num_outputs: C; the alignment is centred over samples for each output, (I - 11ᵀ/m) ⊗ I_C.

    Raises:
        DataError: shapes that do not match or are not a multiple of C.
        DegenerateError: a kernel that does not vary over the samples.

    Reference:
        Fort et al., NeurIPS 2020; their kernel distance is not centred.

    Example:
        >>> import torch
        >>> kernel = torch.tensor([[2.0, 1.0, 0.0], [1.0, 2.0, 0.0], [0.0, 0.0, 1.0]])
        >>> tangent_kernel_change(kernel, 3 * kernel, num_outputs=1)
        TangentKernelChange(alignment_change=0.0, relative_distance=2.0)
    """
    before, after = as_tensor("before", before).double(), as_tensor("after", after).double()
    if before.shape != after.shape:
        raise DataError(f"the kernels must have the same shape, got {tuple(before.shape)} and {tuple(after.shape)}")
    alignment = _alignment(_centred(before, num_outputs), _centred(after, num_outputs))
    distance = torch.linalg.matrix_norm(after - before) / torch.linalg.matrix_norm(before)
    return TangentKernelChange(abs(round(1 - alignment, 15)), float(distance))


def tangent_kernel_alignment(kernel: AnyArray, targets: AnyArray) -> float:
    """CKA of a tangent kernel with the target kernel y yᵀ, both centred over samples for each output.

    Args:
        kernel: (m·C, m·C) from :func:`tangent_kernel`.
        targets: (m, C) real, (m,) real where C = 1, or (m,) integer class labels.

    Raises:
        DataError: shapes that do not match.
        DegenerateError: constant kernel or targets.

    Example:
        The target kernel is fully aligned with the targets:

        >>> import torch
        >>> y = torch.tensor([1.0, -1.0, 3.0])
        >>> round(tangent_kernel_alignment(torch.outer(y, y), y), 12)
        1.0
    """
    kernel, targets = as_tensor("kernel", kernel), as_tensor("targets", targets)
    targets = target_matrix(targets, len(kernel) // max(len(targets), 1))
    if targets.ndim != 2 or targets.numel() != len(kernel):
        raise DataError(
            f"the kernel has {len(kernel)} rows, targets of shape {tuple(targets.shape)} have another number of entries"
        )
    y = targets.to(kernel.device, torch.float64)
    y = (y - y.mean(0)).flatten()
    centred = _centred(kernel.double(), targets.shape[1])
    norms = torch.linalg.matrix_norm(centred) * y.square().sum()
    if not norms > 0:
        raise DegenerateError("kernel or targets do not vary over the samples: their alignment is undefined")
    return float(y @ centred @ y / norms)


def _is_chosen(name: str, x: Tensor, chosen: Sequence[str] | None) -> bool:
    if chosen is None:
        return x.requires_grad
    return any(name == prefix or name.startswith(prefix + ".") for prefix in chosen)


class _Jacobian:
    """The Jacobian of a model's outputs, in blocks."""

    def __init__(self, model: nn.Module, inputs: Tensor, outputs: int, max_bytes: int) -> None:
        self.model, self.inputs, self.outputs, self.max_bytes = model, inputs, outputs, max_bytes
        self.rest = {name: x.detach() for name, x in (*model.named_parameters(), *model.named_buffers())}

    def rows(self, group: dict[str, Tensor], block: _Block) -> Tensor:
        """(samples · outputs of the block, parameters of the group)."""
        samples, outputs = block
        fixed = {name: x for name, x in self.rest.items() if name not in group}
        inputs = self.inputs[samples]
        columns = sum(x.numel() for x in group.values())
        height = outputs.stop - outputs.start
        item = next(iter(group.values())).element_size()
        result = torch.empty(len(inputs), height, columns, dtype=next(iter(group.values())).dtype, device=inputs.device)
        step = max(1, min(64, self.max_bytes // (8 * height * columns * item)))

        def answer(parameters: dict[str, Tensor], x: Tensor) -> Tensor:
            return torch.func.functional_call(self.model, {**fixed, **parameters}, (x.unsqueeze(0),)).reshape(-1)[outputs]

        of_each = torch.func.vmap(torch.func.jacrev(answer), in_dims=(None, 0), randomness="same")
        for start in range(0, len(inputs), step):
            rows = result[start : start + step]
            gradients = of_each(group, inputs[start : start + step].clone())  # a copy, because layers may write into it
            column = 0
            for name, x in group.items():
                rows[:, :, column : column + x.numel()] = gradients[name].detach().reshape(*rows.shape[:2], -1)
                column += x.numel()
        return result.flatten(0, 1)


def _groups(parameters: dict[str, Tensor], rows: int, max_bytes: int) -> Iterator[dict[str, Tensor]]:
    """Group parameters such that twice the Jacobian of all rows stays within the bound; the second half is for copies."""
    group: dict[str, Tensor] = {}
    size = 0
    for name, x in parameters.items():
        needed = 2 * rows * x.numel() * x.element_size()
        if group and (size + needed > max_bytes or x.dtype != next(iter(group.values())).dtype):
            yield group
            group, size = {}, 0
        group[name] = x
        size += needed
    yield group


def _add_products(kernel: Tensor, jacobian: _Jacobian, group: dict[str, Tensor]) -> None:
    blocks = _blocks(jacobian, sum(x.numel() * x.element_size() for x in group.values()))
    for first, a in enumerate(blocks):
        rows = jacobian.rows(group, a)
        index = _index(a, jacobian.outputs, kernel.device)
        kernel[index.unsqueeze(1), index] += (rows @ rows.T).to(kernel)
        for b in blocks[first + 1 :]:
            other = _index(b, jacobian.outputs, kernel.device)
            product = (rows @ jacobian.rows(group, b).T).to(kernel)
            kernel[index.unsqueeze(1), other] += product
            kernel[other.unsqueeze(1), index] += product.T


def _blocks(jacobian: _Jacobian, row_bytes: int) -> list[_Block]:
    """Put all rows in one block if they fit in half the bound, else in blocks of which two fit."""
    samples, outputs = len(jacobian.inputs), jacobian.outputs
    if 2 * samples * outputs * row_bytes <= jacobian.max_bytes:
        return [(slice(0, samples), slice(0, outputs))]
    rows = jacobian.max_bytes // (4 * row_bytes)  # of a block
    if rows < 1:
        raise ValueError(
            f"max_bytes={jacobian.max_bytes:,} is too little: two gradients of the largest parameter and their copies take "
            f"{4 * row_bytes:,} bytes"
        )
    high, wide = max(1, rows // outputs), min(rows, outputs)
    return [
        (slice(i, min(i + high, samples)), slice(c, min(c + wide, outputs)))
        for i in range(0, samples, high)
        for c in range(0, outputs, wide)
    ]


def _index(block: _Block, outputs: int, device: torch.device) -> Tensor:
    i = torch.arange(block[0].start, block[0].stop, device=device)
    c = torch.arange(block[1].start, block[1].stop, device=device)
    return (i.unsqueeze(1) * outputs + c).flatten()


def _centred(kernel: Tensor, num_outputs: int) -> Tensor:
    """H K H with H = (I - 11ᵀ/m) ⊗ I_C."""
    size = len(kernel)
    if kernel.shape != (size, size) or num_outputs < 1 or size % num_outputs:
        raise DataError(f"a tangent kernel of {num_outputs} outputs is (m·C, m·C), got shape {tuple(kernel.shape)}")
    blocks = kernel.reshape(size // num_outputs, num_outputs, size // num_outputs, num_outputs)
    blocks = blocks - blocks.mean(0, keepdim=True)
    return (blocks - blocks.mean(2, keepdim=True)).reshape(size, size)


def _alignment(a: Tensor, b: Tensor) -> float:
    norms = torch.linalg.matrix_norm(a) * torch.linalg.matrix_norm(b)
    if not norms > 0:
        raise DegenerateError("a kernel does not vary over the samples: its alignment is undefined")
    return float((a * b).sum() / norms)

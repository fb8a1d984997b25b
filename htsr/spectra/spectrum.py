"""The eigenvalues of W^T W: the empirical spectral density (ESD) of a weight matrix.

Shapes: N and M are the larger and the smaller side of W, R = prod(kernel) the number of slices of a convolution.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from htsr.spectra.lapack import eigvalsh
from htsr.spectra.threads import blas_threads
from htsr.weights.arrays import as_tensor
from htsr.weights.sides import Sides

# Rows that are turned to float64 at a time, so that a vocabulary needs no float64 copy; 1024 to 4096 rows were the fastest, a
# fifth faster than one piece at 30522 x 384.
BLOCK_ROWS = 4096
# Columns up to which one BLAS thread is faster than two or as fast, for the Gram matrix and for its eigenvalues. Those come from
# another library with threads of its own, and the two get in each other's way: both with two threads took 0.13 s for 1024 x 1024
# against 0.075 with one for the eigenvalues, 0.31 against 0.24 for 1536 x 1536, but 0.50 against 0.63 for 2048 x 2048 (AMD EPYC,
# two cores).
ONE_THREAD_UP_TO, ONE_EIGENVALUE_THREAD_UP_TO = 768, 1536


@dataclass(frozen=True, eq=False)
class Spectrum(Sides):
    """The ESD of one weight matrix, and the shape it came from.

    Args:
        eigenvalues: Eigenvalues of W^T W (squared singular values, no 1/N), in any order; kept ascending in float64.
            Values that arithmetic cannot tell from zero are expected to be exactly 0, as ``esd`` returns them.
        shape: Shape of the weight, ``(out, in)`` or ``(out, in, *kernel)``.

    Raises:
        ValueError: If the eigenvalues are not one finite, non-negative row, or the shape has fewer than two sides.

    Example:
        >>> Spectrum([4.0, 1.0, 0.0], shape=(5, 3))
        Spectrum(5 x 3, 3 eigenvalues in [0, 4], 1 zero)
    """

    eigenvalues: np.ndarray
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        evals = np.sort(np.asarray(self.eigenvalues, dtype=np.float64))
        shape = tuple(int(side) for side in self.shape)
        if evals.ndim != 1 or not np.isfinite(evals).all() or (evals < 0).any():
            raise ValueError(
                f"expected a row of finite eigenvalues >= 0, got shape {evals.shape} with "
                f"{int((~np.isfinite(evals)).sum())} non-finite and {int((evals < 0).sum())} negative values"
            )
        if len(shape) < 2:
            raise ValueError(f"expected the shape of a weight, (out, in) or (out, in, *kernel), got {shape}")
        evals.flags.writeable = False
        object.__setattr__(self, "eigenvalues", evals)
        object.__setattr__(self, "shape", shape)

    @classmethod
    def from_weight(cls, weight: "torch.Tensor | np.ndarray", floor: float = 0.0) -> "Spectrum":
        """The spectrum of a weight; see ``esd``."""
        return cls(esd(weight, floor), shape=tuple(weight.shape))

    @property
    def Q(self) -> float:
        """The aspect ratio N / M >= 1."""
        return self.N / self.M

    @property
    def nonzero(self) -> np.ndarray:
        """The eigenvalues that are not zero, ascending: what is fitted."""
        return self.eigenvalues[self.eigenvalues > 0]

    def __len__(self) -> int:
        return len(self.eigenvalues)

    def __array__(self, dtype: object = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.eigenvalues, dtype=dtype, copy=copy)  # type: ignore[call-overload]

    def __repr__(self) -> str:
        sides = " x ".join(map(str, self.shape))
        if not len(self):
            return f"Spectrum({sides}, no eigenvalues)"
        zeros = len(self) - len(self.nonzero)
        tail = f", {zeros} zero" if zeros else ""
        low, high = self.eigenvalues[[0, -1]]
        return f"Spectrum({sides}, {len(self)} eigenvalues in [{low:.4g}, {high:.4g}]{tail})"


def rounding_edge(eps: float, mean_square: float, N: int, M: int) -> float:
    """The largest eigenvalue that the rounding of a stored matrix can make: its Marchenko-Pastur edge.

    Args:
        eps: Relative spacing of the stored type.
        mean_square: Mean of the squared entries.
        N: The larger side.
        M: The smaller side.

    Returns:
        ``eps^2 mean_square / 12 (sqrt(N) + sqrt(M))^2``.
    """
    return eps**2 / 12 * mean_square * (math.sqrt(N) + math.sqrt(M)) ** 2


def esd(weight: "torch.Tensor | np.ndarray", floor: float = 0.0) -> np.ndarray:
    """Eigenvalues of W^T W.

    Args:
        weight: ``(out, in)``, or ``(out, in, *kernel)`` for a convolution, floating point, on any device.
        floor: Eigenvalues up to here are zero too: noise that the caller knows of, for instance in the difference of two
            rounded matrices.

    Returns:
        Ascending float64 eigenvalues, not divided by N, shape ``(min(out, in) * prod(kernel),)``. Values that cannot
        be told from zero (see Notes) are exactly 0.

    Raises:
        TypeError: If the weight is a module, a state dict, a path or anything else that is not one array.
        ValueError: If the weight has fewer than two dimensions, holds no element, is not real floating point, or is
            not finite.

    Notes:
        A convolution is decomposed slice by slice, one ``(out, in)`` matrix for each position in the kernel, and the
        eigenvalues are pooled. WeightWatcher pools likewise and multiplies by 1/2; here there is no hidden factor.

        Path: ``eigvalsh`` of the smaller Gram matrix, accumulated in float64, never an SVD. On the 39 matrices of a trained
        Transformer alpha agrees with that of the float64 SVD to better than 1e-8 (``benchmarks/audit_minilm.py``).

        Zero: the larger of two floors. Gram arithmetic loses everything below ``eps(float64) * N * lambda_max``. The
        weight itself was rounded when it was stored: entries of root mean square ``r`` carry rounding noise of at
        most ``eps(dtype) * r / sqrt(12)``, and a noise matrix of that size has no eigenvalue above that squared times
        ``(sqrt(N) + sqrt(M))**2``, the Marchenko-Pastur edge. Both scale with W, so alpha does not move when W does.
        (``eps * max(N, M) * lambda_max`` with the eps of the stored type, the rule for singular values, would call
        every eigenvalue of a bfloat16 matrix zero.)

    Example:
        >>> esd(np.array([[3.0, 0.0], [0.0, 2.0], [0.0, 0.0]]))
        array([4., 9.])
    """
    if not isinstance(weight, torch.Tensor) and np.asarray(weight).dtype.kind in "OSU":
        raise TypeError(
            f"expected one weight, a tensor or an array, got {type(weight).__name__}: htsr.analyze takes modules, state dicts "
            "and paths"
        )
    return esds([Gram.of(weight)], floor)[0]


@dataclass(frozen=True, eq=False)
class Gram:
    """W^T W of each slice of a weight, which is all that its eigenvalues need.

    Attributes:
        stack: Shape ``(R, M, M)``, float64, where the weight is.
        N: The larger side of W.
        eps: Relative spacing of the type that the weight is stored in.
    """

    stack: torch.Tensor
    N: int
    eps: float

    @classmethod
    def of(cls, weight: "torch.Tensor | np.ndarray") -> "Gram":
        """The Gram matrices of a weight, as ``esd`` takes it, with the errors that it raises."""
        W = as_tensor(weight)
        if W.ndim < 2 or W.numel() == 0:
            raise ValueError(f"expected a weight of shape (out, in) or (out, in, *kernel), got shape {tuple(W.shape)}")
        if not W.is_floating_point():
            raise ValueError(f"expected a real floating-point weight, got dtype {W.dtype}")
        eps = torch.finfo(W.dtype).eps
        if W.device.type == "mps":  # Apple's GPUs have no float64
            W = W.cpu()
        W_RNM = W.flatten(2).permute(2, 0, 1) if W.ndim > 2 else W[None]
        if W_RNM.shape[1] < W_RNM.shape[2]:
            W_RNM = W_RNM.mT
        N, M = W_RNM.shape[1:]
        with blas_threads(1 if M <= ONE_THREAD_UP_TO else None):
            grams = [_gram(W_NM) for W_NM in W_RNM]
        stack_RMM = _stacked([gram_MM[None] for gram_MM in grams])
        if not torch.isfinite(stack_RMM.diagonal(dim1=-2, dim2=-1)).all():  # sums of squares: they show any bad entry
            non_finite = W.numel() - int(torch.isfinite(W.to(torch.float32) if W.itemsize == 1 else W).sum())
            raise ValueError(
                f"non-finite ({non_finite} of {W.numel()})" if non_finite else "squares of the entries overflow float64"
            )
        return cls(stack_RMM, N, eps)


def esds(grams: Sequence[Gram], floor: float = 0.0) -> list[np.ndarray]:
    """The ESD of several weights of one shape: their eigenvalues come from one call, which is what a GPU is fast at.

    Args:
        grams: Their Gram matrices, on one device; the shapes may be transposed. On a CPU they are overwritten.
        floor: As in ``esd``.

    Returns:
        For each what ``esd`` returns.
    """
    stack_RMM = _stacked([gram.stack for gram in grams])
    N, M, R = grams[0].N, stack_RMM.shape[-1], len(grams[0].stack)
    mean_square_R = stack_RMM.diagonal(dim1=-2, dim2=-1).sum(-1) / (N * M)
    if stack_RMM.device.type == "cpu":
        with blas_threads(1 if M <= ONE_EIGENVALUE_THREAD_UP_TO else None):
            evals_RM = torch.from_numpy(eigvalsh(stack_RMM.numpy()))
    else:
        evals_RM = torch.linalg.eigvalsh(stack_RMM)
    gram_floor_R = torch.finfo(torch.float64).eps * N * evals_RM[:, -1]
    eps_R = torch.tensor([gram.eps for gram in grams], dtype=torch.float64, device=evals_RM.device).repeat_interleave(R)
    stored_floor_R = eps_R**2 * rounding_edge(1.0, 1.0, N, M) * mean_square_R
    floor_R1 = torch.maximum(stored_floor_R, gram_floor_R).clamp(min=floor)[:, None]
    evals_RM = torch.where(evals_RM > floor_R1, evals_RM, 0.0)
    return [evals.flatten().sort().values.cpu().numpy() for evals in evals_RM.split(R)]


def _stacked(stacks: Sequence[torch.Tensor]) -> torch.Tensor:
    """The stacks as one; a copy of a single large one would be the peak of memory."""
    return stacks[0] if len(stacks) == 1 else torch.cat(list(stacks))


def _gram(W_NM: torch.Tensor) -> torch.Tensor:
    """W^T W in float64; only a block of rows at a time is turned to it, not the whole weight."""
    gram_MM = None
    for block_BM in W_NM.split(BLOCK_ROWS):
        block_BM = block_BM.to(torch.float64)
        if block_BM.device.type == "cpu":  # numpy sees the symmetry and computes half; its eigvalsh is faster, too
            with np.errstate(over="ignore", invalid="ignore"):  # the caller looks at the diagonal
                product_MM = torch.from_numpy(block_BM.numpy().T @ block_BM.numpy())
        else:
            product_MM = block_BM.mT @ block_BM
        gram_MM = product_MM if gram_MM is None else gram_MM.add_(product_MM)
    assert gram_MM is not None
    return gram_MM

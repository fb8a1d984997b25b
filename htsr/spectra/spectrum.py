"""The eigenvalues of W^T W: the empirical spectral density (ESD) of a weight matrix.

Shapes: N and M are the larger and the smaller side of W, R = prod(kernel) the number of slices of a convolution.
"""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import torch

from htsr.errors import InputError
from htsr.spectra.lapack import eigenvalues_and_leading_vectors, eigvalsh
from htsr.spectra.threads import blas_threads
from htsr.weights.arrays import as_tensor
from htsr.weights.sides import Sides

# A Gram matrix is accumulated from blocks of this many rows, so that a vocabulary needs no float64 copy. Blocks of 1024 to 4096
# rows were fastest: a fifth faster than one piece at 30522 x 384.
BLOCK_ROWS = 4096
# Up to these numbers of columns one BLAS thread is at least as fast as two, for the Gram matrix and for its eigenvalues. numpy
# computes the first and scipy's LAPACK the second, each with a thread pool of its own, and the two pools compete for the cores:
# Gram matrix and eigenvalues took 0.13 s for 1024 x 1024 with two threads each and 0.075 s with one for the eigenvalues; 0.31
# and 0.24 s for 1536 x 1536; 0.50 and 0.63 s for 2048 x 2048 (AMD EPYC, two cores).
ONE_THREAD_UP_TO, ONE_EIGENVALUE_THREAD_UP_TO = 768, 1536
# If the largest column has a squared norm outside these bounds, squares may over- or underflow float64 and LAPACK would rescale
# the matrix by a factor that rounds. No weight of 32 bits or fewer is that large or small: its squares lie in 2^-298 to 2^256.
LEAST_SQUARE, LARGEST_SQUARE = 2.0**-400, 2.0**400


@dataclass(frozen=True, eq=False)
class Spectrum(Sides):
    """The ESD of one weight matrix, and the shape it came from.

    Args:
        eigenvalues: Eigenvalues of W^T W (squared singular values, no 1/N), in any order; kept ascending in float64.
            Set values that arithmetic cannot tell from zero to exactly 0, as ``esd`` does.
        shape: Shape of the weight, ``(out, in)`` or ``(out, in, *kernel)``.

    Raises:
        InputError: If the eigenvalues are not one row of finite values >= 0, or the shape has fewer than two sides.

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
            raise InputError(
                f"expected a row of finite eigenvalues >= 0, got shape {evals.shape} with "
                f"{int((~np.isfinite(evals)).sum())} non-finite and {int((evals < 0).sum())} negative values"
            )
        if len(shape) < 2:
            raise InputError(f"expected the shape of a weight, (out, in) or (out, in, *kernel), got {shape}")
        evals.flags.writeable = False
        object.__setattr__(self, "eigenvalues", evals)
        object.__setattr__(self, "shape", shape)

    @classmethod
    def from_weight(cls, weight: "torch.Tensor | np.ndarray", floor: float = 0.0) -> "Spectrum":
        """Return the spectrum of a weight.

        Args:
            weight: As in ``esd``.
            floor: As in ``esd``.

        Returns:
            The spectrum.

        Raises:
            TypeError: As ``esd``.
            InputError: As ``esd``.
        """
        return cls(esd(weight, floor), shape=np.shape(weight))

    @property
    def Q(self) -> float:
        """The aspect ratio N / M >= 1."""
        return self.N / self.M

    @property
    def nonzero(self) -> np.ndarray:
        """The eigenvalues that are not zero, ascending: the ones that fits use."""
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
    """Return the Marchenko-Pastur edge of the rounding noise in an N x M matrix stored with relative spacing ``eps``.

    ``mean_square`` is the mean of the squared entries. Rounding makes no eigenvalue above this edge.
    """
    return eps**2 / 12 * mean_square * (math.sqrt(N) + math.sqrt(M)) ** 2


def esd(weight: "torch.Tensor | np.ndarray", floor: float = 0.0) -> np.ndarray:
    """Compute the eigenvalues of W^T W.

    Args:
        weight: One weight of shape ``(out, in)``, or ``(out, in, *kernel)`` for a convolution; floating point, on any device.
            ``htsr.analyze`` takes whole models.
        floor: Eigenvalues up to this value count as zero, too: pass the size of any other noise in the weight, for instance in
            the difference of two rounded matrices.

    Returns:
        Ascending float64 eigenvalues, not divided by N, shape ``(min(out, in) * prod(kernel),)``. Values that cannot be told
        from zero (see Notes) are exactly 0.

    Raises:
        TypeError: If ``weight`` is not one tensor or array: a module, a dict, a list of matrices, a path.
        InputError: If the weight has fewer than two dimensions, no element or an entry that is not finite, or is not real
            floating point; or if its eigenvalues over- or underflow float64, as for entries around 1e-165 or 1e160.

    Notes:
        A convolution is decomposed slice by slice, one ``(out, in)`` matrix for each position in the kernel, and the
        eigenvalues of all slices are pooled. WeightWatcher pools them, too, and multiplies by 1/2; ``esd`` has no such factor.

        Path: ``eigvalsh`` of the smaller Gram matrix, accumulated in float64, never an SVD. On the 39 matrices of a trained
        Transformer, alpha agrees with that of the float64 SVD to better than 1e-8 (``benchmarks/audit_minilm.py``).

        Zero: the larger of two floors. First, Gram arithmetic loses everything below ``eps(float64) * N * lambda_max``.
        Second, storing the weight rounded it: entries of root mean square ``r`` carry rounding noise of at most
        ``eps(dtype) * r / sqrt(12)``, and a noise matrix of that size has no eigenvalue above that squared times
        ``(sqrt(N) + sqrt(M))**2``, the Marchenko-Pastur edge. Both floors scale with W, so alpha does not depend on the scale.
        (The usual rule for singular values, ``eps * max(N, M) * lambda_max`` with the eps of the stored type, would call every
        eigenvalue of a bfloat16 matrix zero.)

    Example:
        >>> esd(np.array([[3.0, 0.0], [0.0, 2.0], [0.0, 0.0]]))
        array([4., 9.])
    """
    return esds([Gram.of(weight_as_tensor(weight))], floor)[0]


def weight_as_tensor(weight: "torch.Tensor | np.ndarray") -> torch.Tensor:
    """Return one weight as a tensor, or raise a TypeError that points whoever passes a model to ``htsr.analyze``."""
    if isinstance(weight, list | tuple) and not any(np.ndim(row) > 1 for row in weight):
        weight = np.asarray(weight)
    if isinstance(weight, torch.Tensor):
        return as_tensor(weight)
    if hasattr(weight, "__array__") and np.asarray(weight).dtype.kind not in "OSU":
        return as_tensor(weight)
    raise TypeError(
        "expected one weight, a tensor or array of shape (out, in) or (out, in, *kernel), got an object of type "
        f"{type(weight).__name__}; use htsr.analyze(...) for a module, a state dict, several matrices or a path"
    )


@dataclass(frozen=True, eq=False)
class Gram:
    """W^T W of each slice of a weight: all that its eigenvalues depend on.

    Attributes:
        stack: Shape ``(R, M, M)``, float64, on the weight's device.
        N: The larger side of W.
        eps: Relative spacing of the type that the weight is stored in.
        exponent: The weight was divided by ``2**exponent`` before it was squared: 0 unless squares could over- or underflow.
    """

    stack: torch.Tensor
    N: int
    eps: float
    exponent: int = 0

    @classmethod
    def of(cls, weight: "torch.Tensor | np.ndarray") -> "Gram":
        """Return the Gram matrices of a weight; takes the weights and raises the InputErrors of ``esd``."""
        W = as_tensor(weight)
        if W.ndim < 2 or W.numel() == 0:
            raise InputError(f"expected a weight of shape (out, in) or (out, in, *kernel), got shape {tuple(W.shape)}")
        if not W.is_floating_point():
            raise InputError(f"expected a real floating-point weight, got dtype {W.dtype}")
        eps = torch.finfo(W.dtype).eps
        if W.device.type == "mps":  # Apple's GPUs have no float64
            W = W.cpu()
        W_RNM = W.flatten(2).permute(2, 0, 1) if W.ndim > 2 else W[None]
        if W_RNM.shape[1] < W_RNM.shape[2]:
            W_RNM = W_RNM.mT
        N = W_RNM.shape[1]
        stack_RMM = _grams(W_RNM)
        largest = float(stack_RMM.diagonal(dim1=-2, dim2=-1).max())  # a sum of squares shows any bad entry
        if LEAST_SQUARE <= largest <= LARGEST_SQUARE:
            return cls(stack_RMM, N, eps)
        non_finite = W.numel() - int(torch.isfinite(W.to(torch.float32) if W.itemsize == 1 else W).sum())
        if non_finite:
            raise InputError(f"non-finite ({non_finite} of {W.numel()})")
        exponent = binary_exponent(W)
        return cls(_grams(W_RNM, exponent) if exponent else stack_RMM, N, eps, exponent)


def binary_exponent(weight: torch.Tensor) -> int:
    """Return the e for which the largest entry of a finite weight lies in [2^(e-1), 2^e), in size; 0 for a zero weight."""
    W = weight.to(torch.float32) if weight.itemsize == 1 else weight  # 8-bit types cannot be compared
    return math.frexp(max(abs(float(end)) for end in W.detach().aminmax()))[1]


def times_power_of_two(block: torch.Tensor, exponent: int) -> torch.Tensor:
    """Return float64 entries times ``2**exponent``, exactly, though the power itself may not fit into float64."""
    while exponent:
        step = max(-1000, min(exponent, 1000))
        block = block * 2.0**step
        exponent -= step
    return block


def esds(grams: Sequence[Gram], floor: float = 0.0) -> list[np.ndarray]:
    """Return what ``esd`` returns for each of several weights of one shape, in the order of ``grams``.

    Their eigenvalues come from one call, which is what a GPU is fast at. The Gram matrices are on one device; their weights may
    be transposes of each other. On a CPU the Gram matrices are overwritten.
    """
    stack_RMM = _stacked([gram.stack for gram in grams])
    M = stack_RMM.shape[-1]
    trace_R = stack_RMM.diagonal(dim1=-2, dim2=-1).sum(-1)
    if stack_RMM.device.type == "cpu":
        with _eigenvalue_threads(M):
            evals_RM = torch.from_numpy(eigvalsh(stack_RMM.numpy()))
    else:
        evals_RM = torch.linalg.eigvalsh(stack_RMM)
    return _without_rounding(grams, trace_R, evals_RM, floor)


def esd_and_leading_vectors(gram: Gram, count: int, floor: float = 0.0) -> tuple[np.ndarray, np.ndarray | None]:
    """Return what ``esds`` returns for one weight, and leading eigenvectors of its only Gram matrix if they cost little.

    The vectors have shape ``(M, K)``, the one of the largest eigenvalue first: ``count`` of them, or as many as there are
    eigenvalues that are not zero. On a CPU the Gram matrix is overwritten.
    """
    if gram.stack.device.type != "cpu" or len(gram.stack) > 1:
        return esds([gram], floor)[0], None
    trace_R = gram.stack.diagonal(dim1=-2, dim2=-1).sum(-1)
    with _eigenvalue_threads(gram.stack.shape[-1]):
        found, vectors = eigenvalues_and_leading_vectors(gram.stack[0].numpy(), count)
    (evals,) = _without_rounding([gram], trace_R, torch.from_numpy(found)[None], floor)
    return evals, None if vectors is None else vectors[:, : np.count_nonzero(evals)]


def _eigenvalue_threads(M: int) -> AbstractContextManager[object]:
    """Return a context within which LAPACK takes as many threads for the eigenvalues of M rows as pay off."""
    return blas_threads(1 if M <= ONE_EIGENVALUE_THREAD_UP_TO else None)


def _without_rounding(
    grams: Sequence[Gram], trace_R: torch.Tensor, evals_RM: torch.Tensor, floor: float
) -> list[np.ndarray]:
    """Return the eigenvalues of each weight, ascending, with 0 for those up to ``floor`` or to what rounding may have made."""
    N, M, R = grams[0].N, evals_RM.shape[-1], len(grams[0].stack)
    mean_square_R = trace_R / (N * M)
    gram_floor_R = torch.finfo(torch.float64).eps * N * evals_RM[:, -1]
    eps_R = torch.tensor([gram.eps for gram in grams], dtype=torch.float64, device=evals_RM.device).repeat_interleave(R)
    stored_floor_R = eps_R**2 * rounding_edge(1.0, 1.0, N, M) * mean_square_R
    exponents = [gram.exponent for gram in grams]
    floors = [times_power_of_two(torch.tensor(floor, dtype=torch.float64), -2 * exponent) for exponent in exponents]
    given_floor_R = torch.stack(floors).to(evals_RM.device).repeat_interleave(R)
    floor_R1 = torch.maximum(torch.maximum(stored_floor_R, gram_floor_R), given_floor_R)[:, None]
    evals_RM = torch.where(evals_RM > floor_R1, evals_RM, 0.0)
    ascending = [evals.flatten().sort().values.cpu() for evals in evals_RM.split(R)]
    return [_scaled_back(evals, exponent) for evals, exponent in zip(ascending, exponents, strict=True)]


def _scaled_back(evals: torch.Tensor, exponent: int) -> np.ndarray:
    """Return the eigenvalues of the weight from those of the weight divided by ``2**exponent``, or refuse them."""
    scaled = times_power_of_two(evals, 2 * exponent)
    if exponent and (scaled.sum().isinf() or ((evals > 0) & (scaled < torch.finfo(torch.float64).tiny)).any()):
        raise InputError(
            f"eigenvalues over- or underflow float64, since entries reach 2**{exponent}: multiply the weight by "
            f"2.0**{max(-1000, min(-exponent, 1000))}"
        )
    return scaled.numpy()


def _stacked(stacks: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return the stacks as one, without a copy if there is only one: the copy of a large one would set the peak of memory."""
    return stacks[0] if len(stacks) == 1 else torch.cat(list(stacks))


def _grams(W_RNM: torch.Tensor, exponent: int = 0) -> torch.Tensor:
    """Return W^T W of each matrix divided by ``2**exponent``."""
    with blas_threads(1 if W_RNM.shape[-1] <= ONE_THREAD_UP_TO else None):
        return _stacked([_gram(W_NM, exponent)[None] for W_NM in W_RNM])


def _gram(W_NM: torch.Tensor, exponent: int) -> torch.Tensor:
    """Return W^T W of the matrix divided by ``2**exponent``, a float64 sum over blocks of rows, so W is never copied whole."""
    gram_MM = None
    for block_BM in W_NM.split(BLOCK_ROWS):
        block_BM = times_power_of_two(block_BM.to(torch.float64), -exponent)
        if block_BM.device.type == "cpu":  # numpy sees the symmetry and computes only half
            with np.errstate(over="ignore", invalid="ignore"):  # the caller looks at the diagonal
                product_MM = torch.from_numpy(block_BM.numpy().T @ block_BM.numpy())
        else:
            product_MM = block_BM.mT @ block_BM
        gram_MM = product_MM if gram_MM is None else gram_MM.add_(product_MM)
    assert gram_MM is not None
    return gram_MM

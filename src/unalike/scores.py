"""Diversity scores of a set of samples, alone or given their prompts, from features or from Gram matrices.

All rest on one quantity: the Rényi entropy of order `q` of a normalised kernel matrix `K` (n, n),

    H_q(K) = log(Σ λ^q) / (1 - q),    H_1 = -Σ λ log λ,    H_∞ = -log max λ,    λ: the eigenvalues of K / n,

which is 0 for identical samples and `log n` for samples with nothing in common. Scores are its exponentials: effective numbers of samples.

Every score takes features (n, …), with rows flattened, and a kernel, or finished Gram matrices. The kernel is `Cosine()` unless another one
is passed: the Vendi score's own choice, and free of a bandwidth, so that figures of different sets can be compared. With `Gaussian`,
which the RKE papers use, only figures of the same bandwidth can. Everything is computed in float64.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from unalike.errors import OptionError
from unalike.kernels import Cosine, Kernel

_TOLERANCE = 1e-5  # how far a Gram matrix of float32 features may be off by rounding; beyond it, it is another kind of matrix


def vendi(X: Tensor | None = None, order: float = 1.0, *, kernel: Kernel | None = None, gram: Tensor | None = None) -> float:
    """Vendi score `exp(H_q(K))`: the effective number of different samples, from 1 (all alike) to n (nothing in common).

    A larger order weighs frequent kinds of samples more and rare ones less; `math.inf` sees the most frequent kind only.

    Source: Friedman and Dieng 2023, "The Vendi Score" (arXiv:2210.02410); orders other than 1 from Pasarkar and Dieng 2024
    (arXiv:2310.12952). Departure: order 0 counts eigenvalues above the rounding error.

    Args:
        X: features (n, …), one row a sample.
        order: `q`, at least 0, `math.inf` included.
        kernel: on the features; `Cosine()` where none is given.
        gram: in place of `X`, a kernel matrix (n, n), symmetric with a unit diagonal.

    Raises:
        OptionError: for a negative order, or features or a Gram matrix that are empty, not finite, or of the wrong form.

    Cost: O(n² d) for the Gram matrix and O(n³) for its eigenvalues; O(n²) memory.

    Example:
        >>> import torch
        >>> round(vendi(torch.eye(3)), 6)
        3.0
        >>> round(vendi(gram=torch.ones(3, 3), order=math.inf), 6)
        1.0
    """
    return math.exp(entropy(_gram("X", X, kernel, gram), order))


def rke(X: Tensor | None = None, *, kernel: Kernel | None = None, gram: Tensor | None = None) -> float:
    """RKE score `exp(H_2(K)) = 1 / ||K / n||_F²`, from 1 to n: the Vendi score of order 2, without eigenvalues.

    Source: Jalali, Li and Farnia 2023, "An Information-Theoretic Evaluation of Generative Models in Learning Multi-modal Distributions"
    (NeurIPS 36).

    Args and Raises: as for `vendi`. Cost: O(n² d) from features, O(n²) from a Gram matrix.

    Example:
        >>> import torch
        >>> rke(torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]))
        2.0
    """
    return 1 / _purity(_gram("X", X, kernel, gram))


def conditional_vendi(
    X: Tensor | None = None,
    Y: Tensor | None = None,
    order: float = 1.0,
    *,
    kernel: Kernel | None = None,
    prompt_kernel: Kernel | None = None,
    gram: Tensor | None = None,
    prompt_gram: Tensor | None = None,
) -> float:
    """Conditional Vendi score `exp(H_q(K_X ∘ K_Y) - H_q(K_Y))`: the diversity of samples that their prompts do not explain.

    1 where a prompt determines its sample; larger where samples of the same prompt differ.

    Source: Jalali, Ospanov, Gohari and Farnia 2024, "Conditional Vendi Score" (arXiv:2411.02817).

    Args:
        X: features of the samples (n, …).
        Y: features of their prompts (n, …), in the same order.
        order: as for `vendi`.
        kernel, prompt_kernel: on `X` and on `Y`; `Cosine()` where none is given.
        gram, prompt_gram: in place of `X` and of `Y`.

    Raises:
        OptionError: as for `vendi`, and where the numbers of samples and prompts differ.

    Cost: that of two Vendi scores.

    Example:
        >>> import torch
        >>> prompts = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
        >>> round(conditional_vendi(torch.eye(4), prompts), 6)  # four different samples, two for each prompt
        2.0
    """
    joint, given = _pair(_gram("X", X, kernel, gram), _gram("Y", Y, prompt_kernel, prompt_gram))
    return math.exp(entropy(joint, order) - entropy(given, order))


def conditional_rke(
    X: Tensor | None = None,
    Y: Tensor | None = None,
    *,
    kernel: Kernel | None = None,
    prompt_kernel: Kernel | None = None,
    gram: Tensor | None = None,
    prompt_gram: Tensor | None = None,
) -> float:
    """Conditional RKE score `||K_Y||_F² / ||K_X ∘ K_Y||_F²`: `conditional_vendi` of order 2, without eigenvalues.

    Source: Jalali, Lei, Gohari and Farnia 2025, "SPARKE" (arXiv:2506.10173); SPARKE descends its inverse.

    Args and Raises: as for `conditional_vendi`. Cost: O(n² d) from features, O(n²) from Gram matrices.

    Example:
        >>> import torch
        >>> prompts = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
        >>> conditional_rke(torch.eye(4), prompts)
        2.0
    """
    joint, given = _pair(_gram("X", X, kernel, gram), _gram("Y", Y, prompt_kernel, prompt_gram))
    return _purity(given) / _purity(joint)


def information_vendi(
    X: Tensor | None = None,
    Y: Tensor | None = None,
    order: float = 1.0,
    *,
    kernel: Kernel | None = None,
    prompt_kernel: Kernel | None = None,
    gram: Tensor | None = None,
    prompt_gram: Tensor | None = None,
) -> float:
    """Information part of the Vendi score, `exp(I_q(X; Y))` with `I_q = H_q(K_X) + H_q(K_Y) - H_q(K_X ∘ K_Y)`.

    What the prompts explain of the diversity: `vendi(X) = conditional_vendi(X, Y) · information_vendi(X, Y)` at every order. 1 where
    samples have nothing to do with their prompts.

    Source: Jalali, Ospanov, Gohari and Farnia 2024, "Conditional Vendi Score" (arXiv:2411.02817).

    Args and Raises: as for `conditional_vendi`. Cost: that of three Vendi scores.

    Example:
        >>> import torch
        >>> prompts = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
        >>> round(information_vendi(torch.eye(4), prompts), 6)
        2.0
    """
    samples = _gram("X", X, kernel, gram)
    joint, given = _pair(samples, _gram("Y", Y, prompt_kernel, prompt_gram))
    return math.exp(entropy(samples, order) + entropy(given, order) - entropy(joint, order))


def entropy(gram: Tensor, order: float = 1.0) -> float:
    """Rényi entropy `H_q(K)` in nats of a normalised kernel matrix, from 0 (all samples alike) to log n; it falls as the order grows.

    Source: Sánchez Giraldo, Rao and Príncipe 2014, "Measures of Entropy from Data Using Infinitely Divisible Kernels" (arXiv:1211.2459).

    Args:
        gram: `K` (n, n), symmetric with a unit diagonal, positive semi-definite.
        order: `q`, at least 0, `math.inf` included.

    Raises:
        OptionError: for a negative order or a matrix of another form.

    Cost: O(n³) for the eigenvalues; O(n²) at order 2, which needs none.

    Example:
        >>> import torch
        >>> entropy(torch.eye(4)) == math.log(4)
        True
    """
    if not order >= 0:
        raise OptionError(f"order is {order}; it must be a number of at least 0, math.inf included, as in order=1")
    K = _normalised("gram", gram)
    if order == 2:
        return -math.log(_purity(K))
    eigenvalues = _support(K)
    if order == math.inf:
        return -math.log(eigenvalues.max().item())
    logs = eigenvalues.log()
    if abs(order - 1) < 1e-9:  # log Σ λ^q and 1 - q both vanish; the limit is Shannon's entropy
        return max(0.0, -(eigenvalues * logs).sum().item())
    return max(0.0, torch.logsumexp(order * logs, dim=0).item() / (1 - order))


def _support(K: Tensor) -> Tensor:
    """The eigenvalues of `K / n` above the rounding error of its entries, scaled to sum 1, in float64."""
    n = len(K)
    eigenvalues = torch.linalg.eigvalsh(K.double() / n)
    if eigenvalues[0] < -_TOLERANCE:
        raise OptionError(
            f"the Gram matrix has the eigenvalue {n * eigenvalues[0].item():.3g}; a kernel's matrix has none below 0: "
            "compute it with a positive definite kernel, such as unalike.kernels.Gaussian(0.8)"
        )
    # entries off by eps move an eigenvalue of K / n by eps at most (Weyl); the solver adds its own error
    rounding = torch.finfo(K.dtype).eps + n * torch.finfo(torch.float64).eps * eigenvalues[-1]
    kept = eigenvalues[eigenvalues > rounding]
    return kept / kept.sum()


def _purity(K: Tensor) -> float:
    """`||K / n||_F²`, the sum of the squared eigenvalues of `K / n`."""
    return (K.double().square().sum() / len(K) ** 2).item()


def _pair(samples: Tensor, prompts: Tensor) -> tuple[Tensor, Tensor]:
    """`K_X ∘ K_Y` and `K_Y`, the product in the lower precision of the two, which is what its entries are good for."""
    if samples.shape != prompts.shape:
        raise OptionError(
            f"X has {len(samples)} samples and Y has {len(prompts)} prompts; there must be one prompt a sample, in the same order"
        )
    lower = max(samples.dtype, prompts.dtype, key=lambda dtype: torch.finfo(dtype).eps)
    return (samples * prompts).to(lower), prompts


def _gram(name: str, features: Tensor | None, kernel: Kernel | None, gram: Tensor | None) -> Tensor:
    """The checked Gram matrix, from one of the two ways to give it."""
    other = "gram" if name == "X" else "prompt_gram"
    if gram is not None:
        if features is not None or kernel is not None:
            raise OptionError(f"{other} is a kernel matrix already; leave out the features {name} and their kernel, or leave out {other}")
        return _normalised(other, gram)
    if features is None:
        raise OptionError(f"there is nothing to score: pass features {name} of the shape (n, …), or a kernel matrix {other}=")
    rows = _finite(name, features).double()
    if rows.ndim < 2 or rows.numel() == 0:
        raise OptionError(f"{name} has the shape {tuple(rows.shape)}; it must be (n, …) with at least one sample and one feature a sample")
    rows = rows.flatten(1)
    kernel = Cosine() if kernel is None else kernel
    if isinstance(kernel, Cosine) and (zeros := (rows == 0).all(dim=1)).any():
        raise OptionError(
            f"row {zeros.nonzero()[0].item()} of {name} is all zeros and has no direction for the cosine kernel; remove it, as in "
            f"{name}[{name}.any(dim=1)], or pass a kernel such as unalike.kernels.Gaussian(0.8)"
        )
    return _normalised(f"the kernel's matrix of {name}", kernel(rows, rows))


def _normalised(name: str, gram: Tensor) -> Tensor:
    """The matrix made exactly symmetric and its diagonal exactly 1, after checking that it nearly was."""
    K = _finite(name, gram)
    if K.dtype not in (torch.float32, torch.float64):
        raise OptionError(
            f"{name} has the dtype {K.dtype}; a kernel matrix must be float32 or float64: compute it as kernel(X.float(), X.float())"
        )
    if K.ndim != 2 or K.shape[0] != K.shape[1] or len(K) == 0:
        raise OptionError(f"{name} has the shape {tuple(K.shape)}; a kernel matrix is square, (n, n) with n of at least 1")
    skew = (K - K.T).abs().max().item()
    if skew > _TOLERANCE:
        raise OptionError(
            f"{name} is not symmetric: entries differ from their mirror image by up to {skew:.3g}; symmetrise it, as in (K + K.T) / 2"
        )
    off = (K.diagonal() - 1).abs().max().item()
    if off > _TOLERANCE:
        raise OptionError(
            f"the diagonal of {name} is off 1 by up to {off:.3g}; normalise it, as in K / torch.outer(K.diagonal(), K.diagonal()).sqrt()"
        )
    largest = K.abs().max().item()
    if largest > 1 + _TOLERANCE:
        raise OptionError(f"{name} has an entry of size {largest:.3g}; with a unit diagonal a kernel has none beyond 1: pass kernel values")
    return ((K + K.T) / 2).fill_diagonal_(1)


def _finite(name: str, values: Tensor) -> Tensor:
    values = torch.as_tensor(values).detach()
    if not torch.isfinite(values).all():
        raise OptionError(f"{name} has NaN or infinite values; remove those samples, as in X[X.isfinite().all(dim=1)]")
    return values.cpu() if values.device.type == "mps" else values  # that backend has no float64

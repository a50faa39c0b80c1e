"""Check features and kernel matrices that are to be scored."""

from __future__ import annotations

import torch
from torch import Tensor

from unalike.errors import OptionError
from unalike.kernels import Cosine, Kernel
from unalike.tensors import real_numbers

TOLERANCE = 1e-5
"""Largest deviation from a Gram matrix that the rounding of float32 features explains."""


def joint_and_given(samples: Tensor, prompts: Tensor) -> tuple[Tensor, Tensor]:
    """`K_X ∘ K_Y`, in the lower precision of the two, and `K_Y`."""
    check_pairs(samples, prompts)
    lower = max(samples.dtype, prompts.dtype, key=lambda dtype: torch.finfo(dtype).eps)
    return (samples * prompts).to(lower), prompts


def check_pairs(X: Tensor, Y: Tensor) -> None:
    """Refuse samples and prompts of different numbers."""
    if len(X) != len(Y):
        raise OptionError(
            f"X has {len(X)} samples and Y has {len(Y)} prompts; there must be one prompt a "
            "sample, in the same order"
        )


def checked_gram(
    name: str, features: Tensor | None, kernel: Kernel | None, gram: Tensor | None
) -> Tensor:
    """Check a Gram matrix, given or computed from features."""
    other = "gram" if name == "X" else "prompt_gram"
    if gram is not None:
        if features is not None or kernel is not None:
            raise OptionError(
                f"{other} is a kernel matrix already; leave out the features {name} and their "
                f"kernel, or leave out {other}"
            )
        return normalised(other, gram)
    if features is None:
        raise OptionError(
            f"there is nothing to score: pass features {name} of the shape (n, …), or a kernel "
            f"matrix {other}="
        )
    kernel = Cosine() if kernel is None else kernel
    rows = checked_rows(name, features, kernel)
    return normalised(f"the kernel's matrix of {name}", kernel(rows, rows))


def checked_rows(name: str, features: Tensor, kernel: Kernel | None = None) -> Tensor:
    """Convert features to float64 rows (n, d) after checking them.

    A row of zeros is refused where the kernel needs a direction.
    """
    rows = finite(name, features).double()
    if rows.ndim < 2 or rows.numel() == 0:
        raise OptionError(
            f"{name} has the shape {tuple(rows.shape)}; it must be (n, …) with at least one sample "
            "and one feature a sample"
        )
    rows = rows.flatten(1)
    if isinstance(kernel, Cosine) and (zeros := (rows == 0).all(dim=1)).any():
        raise OptionError(
            f"row {zeros.nonzero()[0].item()} of {name} is all zeros and has no direction for the "
            f"cosine kernel; remove it, as in {name}[{name}.any(dim=1)], or pass a kernel such as "
            "unalike.kernels.Gaussian(0.8)"
        )
    return rows


def normalised(name: str, gram: Tensor) -> Tensor:
    """Make a Gram matrix exactly symmetric with a unit diagonal, if it nearly is."""
    K = finite(name, gram)
    if K.dtype not in (torch.float32, torch.float64):
        raise OptionError(
            f"{name} has the dtype {K.dtype}; a kernel matrix must be float32 or float64: compute "
            "it as kernel(X.float(), X.float())"
        )
    if K.ndim != 2 or K.shape[0] != K.shape[1] or len(K) == 0:
        raise OptionError(
            f"{name} has the shape {tuple(K.shape)}; a kernel matrix is square, (n, n) with n of "
            "at least 1"
        )
    skew = (K - K.T).abs().max().item()
    if skew > TOLERANCE:
        raise OptionError(
            f"{name} is not symmetric: entries differ from their mirror image by up to {skew:.3g}; "
            "symmetrise it, as in (K + K.T) / 2"
        )
    off = (K.diagonal() - 1).abs().max().item()
    if off > TOLERANCE:
        raise OptionError(
            f"the diagonal of {name} is off 1 by up to {off:.3g}; normalise it, as in K / "
            "torch.outer(K.diagonal(), K.diagonal()).sqrt()"
        )
    largest = K.abs().max().item()
    if largest > 1 + TOLERANCE:
        raise OptionError(
            f"{name} has an entry of size {largest:.3g}; with a unit diagonal a kernel has none "
            "beyond 1: pass kernel values"
        )
    return ((K + K.T) / 2).fill_diagonal_(1)


def finite(name: str, values: Tensor) -> Tensor:
    """Detach values after checking that all are finite."""
    values = real_numbers(name, values)
    if not torch.isfinite(values).all():
        raise OptionError(
            f"{name} has NaN or infinite values; remove those samples, as in "
            "X[X.isfinite().all(dim=1)]"
        )
    return values.cpu() if values.device.type == "mps" else values  # that backend has no float64

"""Exact scores from the whole kernel matrix; quadratic in memory."""

from __future__ import annotations

import math

from torch import Tensor

from unalike.kernels import Kernel
from unalike.scores.entropies import entropy, purity
from unalike.scores.grams import checked_gram, joint_and_given


def vendi(
    X: Tensor | None = None,
    order: float = 1.0,
    *,
    kernel: Kernel | None = None,
    gram: Tensor | None = None,
) -> float:
    """Vendi score `exp(H_q(K))`: the effective number of different samples, from 1 to n.

    1 where all are alike, n where they have nothing in common.

    A larger order weighs frequent kinds of samples more and rare ones less; `math.inf` sees the
    most frequent kind only.

    Source: Friedman and Dieng 2023, "The Vendi Score" (arXiv:2210.02410); orders other than 1 from
    Pasarkar and Dieng 2024 (arXiv:2310.12952). Departure: order 0 counts eigenvalues above the
    rounding error.

    Args:
        X: features (n, …), one row a sample.
        order: `q`, at least 0, `math.inf` included.
        kernel: on the features; `Cosine()` where none is given.
        gram: in place of `X`, a kernel matrix (n, n), symmetric with a unit diagonal.

    Raises:
        OptionError: for a negative order, or features or a Gram matrix that are empty, not finite,
            or of the wrong form.

    Cost: O(n² d) for the Gram matrix and O(n³) for its eigenvalues; O(n²) memory.

    Example:
        >>> import torch
        >>> round(vendi(torch.eye(3)), 6)
        3.0
        >>> round(vendi(gram=torch.ones(3, 3), order=math.inf), 6)
        1.0
    """
    return math.exp(entropy(checked_gram("X", X, kernel, gram), order))


def rke(
    X: Tensor | None = None, *, kernel: Kernel | None = None, gram: Tensor | None = None
) -> float:
    """RKE score `exp(H_2(K)) = 1 / ||K / n||_F²`, from 1 to n.

    The Vendi score of order 2, without eigenvalues.

    Source: Jalali, Li and Farnia 2023, "An Information-Theoretic Evaluation of Generative Models in
    Learning Multi-modal Distributions" (NeurIPS 36).

    Args and Raises: as for `vendi`. Cost: O(n² d) from features, O(n²) from a Gram matrix.

    Example:
        >>> import torch
        >>> rke(torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]]))
        2.0
    """
    return 1 / purity(checked_gram("X", X, kernel, gram))


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
    """Conditional Vendi score `exp(H_q(K_X ∘ K_Y) - H_q(K_Y))`.

    The diversity of samples that their prompts do not explain.

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
        >>> four_samples = torch.eye(4)  # two for each prompt
        >>> round(conditional_vendi(four_samples, prompts), 6)
        2.0
    """
    joint, given = joint_and_given(
        checked_gram("X", X, kernel, gram), checked_gram("Y", Y, prompt_kernel, prompt_gram)
    )
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
    """Conditional RKE score `||K_Y||_F² / ||K_X ∘ K_Y||_F²`.

    `conditional_vendi` of order 2, without eigenvalues.

    Source: Jalali, Lei, Gohari and Farnia 2025, "SPARKE" (arXiv:2506.10173); SPARKE descends its
    inverse.

    Args and Raises: as for `conditional_vendi`. Cost: O(n² d) from features, O(n²) from Gram
    matrices.

    Example:
        >>> import torch
        >>> prompts = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
        >>> conditional_rke(torch.eye(4), prompts)
        2.0
    """
    joint, given = joint_and_given(
        checked_gram("X", X, kernel, gram), checked_gram("Y", Y, prompt_kernel, prompt_gram)
    )
    return purity(given) / purity(joint)


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
    """Information part of the Vendi score, `exp(I_q(X; Y))`.

    `I_q = H_q(K_X) + H_q(K_Y) - H_q(K_X ∘ K_Y)`.

    What the prompts explain of the diversity: `vendi(X) = conditional_vendi(X, Y) ·
    information_vendi(X, Y)` at every order. 1 where samples have nothing to do with their prompts.

    Source: Jalali, Ospanov, Gohari and Farnia 2024, "Conditional Vendi Score" (arXiv:2411.02817).

    Args and Raises: as for `conditional_vendi`. Cost: that of three Vendi scores.

    Example:
        >>> import torch
        >>> prompts = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
        >>> round(information_vendi(torch.eye(4), prompts), 6)
        2.0
    """
    samples = checked_gram("X", X, kernel, gram)
    joint, given = joint_and_given(samples, checked_gram("Y", Y, prompt_kernel, prompt_gram))
    return math.exp(entropy(samples, order) + entropy(given, order) - entropy(joint, order))

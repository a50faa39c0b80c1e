"""Kernel values between candidates, and between candidates and earlier samples, in blocks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from unalike.kernels import Gaussian, squared_distances, unit_rows

_BLOCK_VALUES = 1 << 24  # 64 MiB of float32


@dataclass(frozen=True)
class Rows:
    """Samples with their prompts.

    Attributes:
        features: (n, d).
        prompts: embeddings (n, p) of their prompts; None where all have the same one.
    """

    features: Tensor
    prompts: Tensor | None = None

    def __len__(self) -> int:
        return len(self.features)

    def taken(self, index: Tensor | slice) -> Rows:
        """Some of the rows."""
        return Rows(self.features[index], None if self.prompts is None else self.prompts[index])


@dataclass(frozen=True)
class JointKernel:
    """`k = exp(-‖a - b‖² / (2 bandwidth²)) · k_Y`, with the Gaussian kernel
    `k_Y = exp(-‖y_a - y_b‖² / (2 prompt_bandwidth²))` on prompts.

    The factor of the prompts, on
    embeddings of norm 1, is 1 for equal prompts and where there are no embeddings. A product of
    kernels, so that samples of unlike prompts are unlike whatever they look like.

    Args:
        bandwidth: in the units of the features.
        prompt_bandwidth: of prompt embeddings scaled to norm 1.
    """

    bandwidth: float
    prompt_bandwidth: float

    def __call__(self, a: Rows, b: Rows) -> Tensor:
        """The kernel values (n, m) in float64. O(n m d), with blocks of 64 MiB beside them."""
        squared = blocked_squares(a.features, b.features)
        return squared.div_(-2 * self.bandwidth**2).exp_() * self.of_prompts(a, b)

    def of_prompts(self, a: Rows, b: Rows) -> Tensor:
        """The factor of the prompts: (n, m), or (1, 1) where there are no embeddings."""
        if a.prompts is None or b.prompts is None:
            return torch.ones(1, 1, dtype=torch.float64)
        u, v = (unit_rows(rows.double()) for rows in (a.prompts, b.prompts))
        return Gaussian(self.prompt_bandwidth)(u, v)


def blocked_squares(a: Tensor, b: Tensor) -> Tensor:
    """Squared distances (n, m) between rows (n, d) and (m, d), in float64 on the CPU.

    The products are those of float32 rows, block by block, and exactly 0 on the diagonal of `a, a`.

    Example:
        >>> blocked_squares(torch.tensor([[0.0], [2.0]]), torch.tensor([[3.0]]))
        tensor([[9.],
                [1.]], dtype=torch.float64)
    """
    result = torch.empty(len(a), len(b), dtype=torch.float64)
    centre = a.mean(dim=0, dtype=torch.float32) if len(a) else 0.0
    for rows in blocks(a):
        own = a[rows].float() - centre
        for columns in blocks(b):
            others = b[columns].float() - centre
            result[rows, columns] = squared_distances(own, others).double().cpu()
    return result.fill_diagonal_(0) if a is b else result


def blocks(rows: Tensor) -> Iterator[slice]:
    """Slices of rows (n, d) that hold at most 64 MiB of float32 each."""
    size = max(1, _BLOCK_VALUES // max(1, rows.shape[1]))
    for start in range(0, len(rows), size):
        yield slice(start, start + size)

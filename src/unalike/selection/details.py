"""Finished samples, without the details that predictions lack."""

from __future__ import annotations

import torch
from torch import Tensor

from unalike.selection.similarity import blocks

_RANK = 1e-6  # share of the largest eigenvalue below which a direction is rounding


def comparable(
    predictions: Tensor, finished: Tensor, like: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Coordinates in which finished samples can be compared with predictions: (M, r) and (n, r).

    A prediction of an early evaluation is a mean of the samples that the noise may still lead to:
    `z = x0 + details` for a finished sample, so that all of them are far from all predictions, and
    which prediction is whose is hidden. The details outside of the span of the predictions are left
    out, since they are the same for all predictions. Inside of it `s (z - mean)` estimates
    `x0 - mean`, with `s = 1 - N / E‖z - mean‖²` and the variance of details `N`, which is the
    smaller one of two estimates: `E‖z - mean‖² - E‖x0 - mean‖²`, and as much for each dimension as
    outside of the span.

    Distances between predictions are the same in these coordinates.

    Args:
        predictions: (M, d).
        finished: samples (n, d).
        like: (n,) bool, the samples of the same kind as the predictions, on which the expectations
            are measured; None for all.

    Cost: O(M (M + n) d), the samples in blocks of 64 MiB.

    Example:
        >>> x0 = torch.tensor([[-1.0, 0.0], [1.0, 0.0]])
        >>> comparable(x0, torch.tensor([[-1.0, 3.0], [1.0, 2.0]]))[1].abs()
        tensor([[1.],
                [1.]], dtype=torch.float64)
    """
    centre = predictions.mean(dim=0, dtype=torch.float32)
    x0 = predictions.float() - centre
    values, vectors = torch.linalg.eigh((x0 @ x0.T).double().cpu())
    kept = values > _RANK * values[-1].clamp_min(0)
    values, vectors = values[kept], vectors[:, kept]
    norms, coordinates = [torch.zeros(0, dtype=torch.float64)], []
    for block in blocks(finished):
        z = finished[block].to(x0.device).float() - centre
        norms.append(z.square().sum(dim=1).double().cpu())
        coordinates.append((z @ x0.T).double().cpu() @ vectors / values.sqrt())
    inside, own = torch.cat(coordinates), vectors * values.sqrt()
    kind = torch.ones(len(inside), dtype=torch.bool) if like is None or not like.any() else like
    spread = inside[kind].square().sum(dim=1).mean()
    outside = (torch.cat(norms)[kind].mean() - spread).clamp_min(0)
    left = max(1, x0.shape[1] - len(values))
    details = min(float(spread - values.sum() / len(x0)), float(outside) * len(values) / left)
    share = 1 - max(0.0, details) / float(spread) if spread > 0 else 1.0
    return own, share * inside

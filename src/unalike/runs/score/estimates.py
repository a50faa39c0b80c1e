"""Scores of sets of features with their influence functions, from which intervals follow.

Every value equals that of the function of `unalike.scores` or `unalike.metrics` with the same name
on the same features.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from unalike.kernels import Kernel, unit_rows
from unalike.metrics import kernel_distance, nearest_distances
from unalike.metrics.copying import authentic
from unalike.metrics.features import BLOCK
from unalike.metrics.manifold import membership
from unalike.runs.score.bootstrap import Estimate
from unalike.runs.score.spectrum import Spectrum, of_features, of_gram, of_groups, within_groups

ORDERS = {"vendi": 1.0, "rke": 2.0, "vendi_inf": math.inf}


def diversity(features: Tensor, kernel: Kernel) -> dict[str, Estimate]:
    """Vendi scores of order 1, 2 and ∞ of features (n, d)."""
    spectrum = of_features(features, kernel)
    return {name: _exponential(*spectrum.entropy(order)) for name, order in ORDERS.items()}


def similarity(features: Tensor) -> Estimate:
    """Mean cosine between different samples of features (n, d), n at least 2. O(n d)."""
    units = unit_rows(features.double())
    others = (units @ units.sum(dim=0) - units.square().sum(dim=1)) / (len(units) - 1)
    value = others.mean()
    return Estimate(value.item(), 2 * (others - value))


def given_prompts(
    features: Tensor, kernel: Kernel, groups: Tensor, prompt_gram: Tensor | None
) -> dict[str, Estimate]:
    """Conditional-Vendi score and information part, of order 1.

    Args:
        features: (n, d).
        kernel: on them.
        groups: (n,) integers, equal for samples of the same prompt.
        prompt_gram: (n, n) kernel values of their prompts; None for 1 where the prompt is the same
            and 0 elsewhere.
    """
    samples = of_features(features, kernel)
    joint: Spectrum
    if prompt_gram is None:
        joint, given = within_groups(features, kernel, groups), of_groups(groups)
    else:
        rows = features.double()
        joint, given = of_gram(kernel(rows, rows) * prompt_gram), of_gram(prompt_gram)
    (h_x, of_x), (h_xy, of_xy), (h_y, of_y) = (s.entropy(1.0) for s in (samples, joint, given))
    return {
        "conditional_vendi": _exponential(h_xy - h_y, of_xy - of_y),
        "information_vendi": _exponential(h_x + h_y - h_xy, of_x + of_y - of_xy),
    }


def clip_fit(images: Tensor, prompts: Tensor) -> Estimate:
    """CLIPScore of image embeddings (n, d) and those of their prompts."""
    return Estimate.mean(
        100 * (unit_rows(images.double()) * unit_rows(prompts.double())).sum(dim=1).clamp_min(0)
    )


def neighbourhood(real: Tensor, generated: Tensor, k: int) -> dict[str, Estimate]:
    """Precision, recall, density and coverage; balls end at the k-th neighbour, k below both
    numbers of samples.

    Precision and density are means over generated samples, the real ones given; recall and coverage
    are means over real samples, the balls given.
    """
    found = membership(real, generated, k)
    return {
        "precision": Estimate.mean(found.balls > 0),
        "recall": Estimate.mean(found.recalled, of_reference=True),
        "density": Estimate.mean(found.balls.double() / k),
        "coverage": Estimate.mean(found.covered, of_reference=True),
    }


def copying(
    real: Tensor, generated: Tensor, *, unit: float, radius: float | None
) -> dict[str, Estimate]:
    """Nearest distances divided by `unit`, AuthPct where there are two real samples, and the share
    inside the radius if there is one.
    """
    distances = nearest_distances(generated, real)[0] / unit
    found = {
        "nearest_distance": Estimate.mean(distances),
        "smallest_distance": Estimate(distances.min().item(), None),
    }
    if len(real) >= 2:
        found["auth_pct"] = Estimate.mean(100 * authentic(generated, real).double())
    if radius is not None:
        found["share_inside"] = Estimate.mean(distances < radius)
    return found


def kernel(real: Tensor, generated: Tensor) -> Estimate:
    """Kernel distance, at least 2 samples each; redraws take the real samples as given.

    Cost: O((n + m)² d).
    """
    g, x = generated.double(), real.double()
    own, cross = _kernel_means(g, g), _kernel_means(g, x)
    diagonal = (g.square().sum(dim=1) / g.shape[1] + 1) ** 3
    own = (own * len(g) - diagonal) / (len(g) - 1)
    projection = 2 * (own - cross)
    return Estimate(kernel_distance(real, generated), projection - projection.mean())


def _kernel_means(a: Tensor, b: Tensor) -> Tensor:
    """The mean of `k(a_i, b_j) = (<a_i, b_j> / d + 1)³` over `j`, (n,)."""
    return torch.cat(
        [
            ((rows @ b.T / a.shape[1] + 1) ** 3).mean(dim=1)
            for rows in a.split(max(1, BLOCK // len(b)))
        ]
    )


def frechet(real: Tensor, generated: Tensor) -> Estimate:
    """Fréchet distance, at least 2 samples each; redraws take the real samples as given.

    Features are turned into the space that the samples span where that is smaller, which changes no
    distance. With `S = C_r^½` the distance moves with the generated covariance by `tr dC_g - tr T
    dC_g`, `T = S (S C_g S)^-½ S`.

    Cost: O((n + m) r² + r³), r the smaller of n + m and d.
    """
    x, g = _spanned(real.double(), generated.double())
    mean_x, mean_g = x.mean(dim=0), g.mean(dim=0)
    centred = g - mean_g
    covariance = centred.T @ centred / (len(g) - 1)
    values, vectors = torch.linalg.eigh((x - mean_x).T @ (x - mean_x) / (len(x) - 1))
    root = (vectors * values.clamp_min(0).sqrt()) @ vectors.T
    roots, directions = torch.linalg.eigh(root @ covariance @ root)
    roots = roots.clamp_min(0).sqrt()
    cross = roots.sum()
    shift = mean_g - mean_x
    value = shift.square().sum() + values.clamp_min(0).sum() + covariance.trace() - 2 * cross
    kept = roots > roots.max() * (len(roots) * torch.finfo(torch.float64).eps) ** 0.5
    bent = ((centred @ root @ directions[:, kept]).square() / roots[kept]).sum(dim=1)
    influence = 2 * centred @ shift + centred.square().sum(dim=1) - bent
    return Estimate(max(0.0, value.item()), influence - influence.mean())


def _spanned(real: Tensor, generated: Tensor) -> tuple[Tensor, Tensor]:
    rows = torch.cat([real, generated])
    rows = rows - rows.mean(dim=0)
    if len(rows) < rows.shape[1]:
        basis, _ = torch.linalg.qr(rows.T)
        rows = rows @ basis
    return rows[: len(real)], rows[len(real) :]


def _exponential(entropy: float, influence: Tensor) -> Estimate:
    return Estimate(math.exp(entropy), influence, log=True)

"""Images to show: the most alike pairs, those nearest to the reference, and some of each prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unalike.kernels import Kernel
from unalike.metrics import nearest_distances
from unalike.metrics.features import BLOCK
from unalike.runs.score.images import ImageSet

PAIRS_SHOWN = 12
PAIR_LIMIT = 10_000
"""Most images that are compared for the most alike pairs; of larger sets a random sample is."""
GRID_SHOWN = 60
PROMPTS_SHOWN, IMAGES_OF_PROMPT = 12, 8


@dataclass(frozen=True)
class Pair:
    """Two images and their similarity or distance.

    Attributes:
        first: number in the set.
        second: number in the set or in the reference.
        value: similarity or distance.
    """

    first: int
    second: int
    value: float


def alike_pairs(
    features: Tensor, kernel: Kernel, *, seed: int, count: int = PAIRS_SHOWN
) -> list[Pair]:
    """The pairs of largest kernel value, the most alike first, no image in two of them; at least 2
    images.

    Cost: O(n² d) in blocks, n at most `PAIR_LIMIT`.

    Example:
        >>> from unalike.kernels import Cosine
        >>> alike_pairs(torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 0.0]]), Cosine(), seed=0)
        [Pair(first=0, second=2, value=1.0)]
    """
    chosen = torch.arange(len(features))
    if len(features) > PAIR_LIMIT:
        chosen = (
            torch.randperm(len(features), generator=torch.Generator().manual_seed(seed))[
                :PAIR_LIMIT
            ]
            .sort()
            .values
        )
    rows = features[chosen].double()
    values, others = (
        torch.empty(len(rows), dtype=torch.float64),
        torch.empty(len(rows), dtype=torch.int64),
    )
    step = max(1, BLOCK // len(rows))
    for start in range(0, len(rows), step):
        gram = kernel(rows[start : start + step], rows)
        gram.diagonal(start).fill_(-torch.inf)
        values[start : start + step], others[start : start + step] = gram.max(dim=1)
    pairs: list[Pair] = []
    used: set[int] = set()
    for i in values.argsort(descending=True, stable=True).tolist():
        j = int(others[i])
        if not {i, j} & used:
            used |= {i, j}
            pairs.append(Pair(int(chosen[min(i, j)]), int(chosen[max(i, j)]), values[i].item()))
        if len(pairs) == count:
            break
    return pairs


def nearest_pairs(
    generated: Tensor, reference: Tensor, *, unit: float, count: int = PAIRS_SHOWN
) -> list[Pair]:
    """The images closest to the reference, each with the reference image that it is closest to, the
    closest first.
    """
    distances, others = nearest_distances(generated, reference)
    return [
        Pair(i, int(others[i]), distances[i].item() / unit)
        for i in distances.argsort(stable=True)[:count].tolist()
    ]


def chosen_for_grid(images: ImageSet, prompts: Sequence[str] | None) -> dict[str, list[int]]:
    """Heading → numbers of images: the first of each prompt, or some at even steps where there are
    no prompts.
    """
    if prompts is None:
        step = max(1, -(-len(images) // GRID_SHOWN))
        return {"": list(range(0, len(images), step))}
    groups: dict[str, list[int]] = {}
    for i, prompt in enumerate(prompts):
        groups.setdefault(prompt, []).append(i)
    return {prompt: own[:IMAGES_OF_PROMPT] for prompt, own in list(groups.items())[:PROMPTS_SHOWN]}

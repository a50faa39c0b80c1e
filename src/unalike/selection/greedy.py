"""Choose the rows of each group that are unlike each other and unlike earlier samples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unalike.errors import OptionError, did_you_mean, named, shown
from unalike.selection.details import comparable
from unalike.selection.objectives import Earlier, Facility, Farthest, LogDeterminant, Vendi
from unalike.selection.quality import standardised, typicality
from unalike.selection.similarity import JointKernel, Rows, blocked_squares, blocks
from unalike.tensors import real_numbers

OBJECTIVES: dict[str, Any] = {
    "farthest": Farthest,
    "log-determinant": LogDeterminant,
    "vendi": Vendi,
    "facility": Facility,
}
"""Name → greedy objective."""

MOST = 10_000
"""Candidates at most, whose kernel matrix takes 800 MB."""
PROMPT_BANDWIDTH = 0.35
_LIKE = 0.5  # kernel value above which prompts count as alike
_REMEMBERED = {"log-determinant": 512, "vendi": 64}


@dataclass(frozen=True)
class Selection:
    """The chosen candidates.

    Attributes:
        chosen: for each group the numbers of its chosen candidates, in the order of choice.
        gains: the objective's gain of each, quality included.
        distances: from each to the nearest other chosen one of its group, in the units of the
            features; infinite where it is the only one.
    """

    chosen: list[list[int]]
    gains: list[list[float]]
    distances: list[list[float]]


def select(
    features: Tensor,
    num: int | Sequence[int],
    *,
    objective: str = "farthest",
    groups: Tensor | None = None,
    prompts: Tensor | None = None,
    memory: Tensor | None = None,
    memory_prompts: Tensor | None = None,
    finished: bool = False,
    quality: Tensor | None = None,
    weight: float = 0.0,
    bandwidth: float | None = None,
    prompt_bandwidth: float = PROMPT_BANDWIDTH,
) -> Selection:
    """Choose `num` candidates of each group, greedily.

    Candidates are compared by `k(i, j) = exp(-‖x_i - x_j‖² / (2 bandwidth²)) · k_Y(y_i, y_j)`,
    with a Gaussian kernel on prompt embeddings of norm 1 as `k_Y`: candidates of unlike prompts do
    not repel each other. The groups take turns; each choice has the largest
    `gain + weight · quality`, and of equal ones the most typical candidate is chosen, which is how
    the first choice is made.

    Args:
        features: of the candidates, (M, …).
        num: how many of each group, or a number for each group in the order of their numbers.
        objective: "farthest", the distance to the nearest chosen sample; "log-determinant", of the
            kernel matrix; "vendi", the entropy of its eigenvalues; "facility", how near every
            candidate is to a chosen one.
        groups: (M,) whole numbers, equal for candidates of one prompt; None for one group.
        prompts: embeddings (M, p) of the candidates' prompts; None to compare by features alone.
        memory: earlier samples (n, …), which count as chosen. Of those, "log-determinant" takes
            into account the 512 and "vendi" the 64 that are most like a candidate.
        memory_prompts: embeddings (n, p) of their prompts.
        finished: whether the memory holds finished samples and the candidates are predictions,
            which lack details: then both are compared as `unalike.selection.details.comparable`
            has them.
        quality: (M,) larger for better candidates; in units of its standard deviation within the
            group.
        weight: of the quality; at least 0.
        bandwidth: of the kernel, in the units of the features; None for the median distance within
            the groups.
        prompt_bandwidth: of the kernel on prompts.

    Raises:
        OptionError: for an unknown objective, more to choose than there are candidates, features
            that are not finite, or sizes that do not fit.

    Cost: O(M (M + n) d); the memory is read in blocks of 64 MiB.

    Example:
        >>> rows = torch.tensor([[0.0], [0.1], [5.0], [9.0]])
        >>> select(rows, 2).chosen
        [[1, 3]]
        >>> select(rows, 2, memory=torch.tensor([[9.0]])).chosen
        [[0, 2]]
    """
    rows = _rows("features", features, prompts)
    groups = torch.zeros(len(rows), dtype=torch.int64) if groups is None else groups.cpu()
    quality = None if quality is None else real_numbers("quality", quality).cpu()
    _require(objective, rows, groups, quality, weight)
    numbers = groups.unique().tolist()
    counts = [num] * len(numbers) if isinstance(num, int) else list(num)
    _require_counts(counts, numbers, groups)
    same = groups[:, None] == groups
    squared = blocked_squares(rows.features, rows.features)
    kernel = JointKernel(_bandwidth(squared, same, bandwidth), prompt_bandwidth)
    K = (squared / (-2 * kernel.bandwidth**2)).exp() * kernel.of_prompts(rows, rows)
    earlier = Earlier.none(len(rows))
    if memory is not None and len(memory):
        known = _rows("memory", memory, memory_prompts)
        if known.features.shape[1] != rows.features.shape[1]:
            raise OptionError(
                f"memory has {known.features.shape[1]} values a sample and features has "
                f"{rows.features.shape[1]}; they must be of one space"
            )
        own, known = _comparable(rows, known, prompt_bandwidth) if finished else (rows, known)
        earlier = _earlier(own, known, kernel, _REMEMBERED.get(objective, 0))
    extra = torch.zeros(len(rows), dtype=torch.float64)
    if quality is not None and weight > 0:
        extra = weight * standardised(quality, groups)
    typical = typicality(rows.features, groups)
    state = OBJECTIVES[objective](K, earlier, same)
    chosen: list[list[int]] = [[] for _ in numbers]
    gains: list[list[float]] = [[] for _ in numbers]
    for turn in range(max(counts, default=0)):
        for g, number in enumerate(numbers):
            if turn >= counts[g]:
                continue
            free = [
                i for i in (groups == number).nonzero().flatten().tolist() if i not in chosen[g]
            ]
            left = torch.tensor(free)
            total = state.gains(left) + extra[left]
            best = total == total.max()
            pick = int(torch.where(best, typical[left], -math.inf).argmax())
            chosen[g].append(free[pick])
            gains[g].append(float(total[pick]))
            state.add(free[pick])
    return Selection(chosen, gains, [_nearest(squared, rows) for rows in chosen])


def _earlier(rows: Rows, memory: Rows, kernel: JointKernel, most: int) -> Earlier:
    near = torch.zeros(len(rows), dtype=torch.float64)
    likest = torch.zeros(len(memory), dtype=torch.float64)
    for block in blocks(memory.features):
        values = kernel(rows, memory.taken(block))
        near = torch.maximum(near, values.amax(dim=1))
        likest[block] = values.amax(dim=0)
    index = likest.topk(min(most, len(memory))).indices
    some = memory.taken(index)
    return Earlier(near, kernel(some, some), kernel(rows, some))


def _comparable(rows: Rows, memory: Rows, prompt_bandwidth: float) -> tuple[Rows, Rows]:
    """Candidates and earlier samples without the details that only those have."""
    values = JointKernel(1.0, prompt_bandwidth).of_prompts(rows, memory)
    like = (values >= _LIKE).any(dim=0)
    own, others = comparable(
        rows.features, memory.features, like if len(like) == len(memory) else None
    )
    return Rows(own, rows.prompts), Rows(others, memory.prompts)


def _bandwidth(squared: Tensor, same: Tensor, given: float | None) -> float:
    if given is not None:
        if not 0 < given < math.inf:
            raise OptionError(named("{bandwidth} is {}; allowed: a number above 0, or None", given))
        return float(given)
    pairs = squared[same.triu(1)]
    pairs = pairs[pairs > 0]
    return math.sqrt(float(pairs.median())) if len(pairs) else 1.0


def _nearest(squared: Tensor, chosen: list[int]) -> list[float]:
    own = squared[chosen][:, chosen].clone().fill_diagonal_(math.inf)
    return own.amin(dim=1).sqrt().tolist() if chosen else []


def _rows(name: str, features: Tensor, prompts: Tensor | None) -> Rows:
    values = real_numbers(name, features)
    if values.ndim < 2 or len(values) == 0:
        raise OptionError(
            f"{name} has the shape {tuple(values.shape)}; allowed: (n, …) with a row for each "
            "sample"
        )
    values = values.flatten(1)
    if not all(bool(values[block].isfinite().all()) for block in blocks(values)):
        raise OptionError(f"{name} has NaN or infinite values; leave those samples out")
    if prompts is not None and len(prompts) != len(values):
        raise OptionError(
            f"{name} has {len(values)} rows and {len(prompts)} prompts; give one for each, or None"
        )
    return Rows(values, None if prompts is None else real_numbers("prompts", prompts).cpu())


def _require(
    objective: str, rows: Rows, groups: Tensor, quality: Tensor | None, weight: float
) -> None:
    require_objective(objective)
    if len(rows) > MOST:
        raise OptionError(named("there are {} candidates; allowed: at most {}", len(rows), MOST))
    for name, values in (("groups", groups), ("quality", quality)):
        if values is not None and values.shape != (len(rows),):
            raise OptionError(
                f"{name} has the shape {tuple(values.shape)}; allowed: ({len(rows)},), a number "
                "for each candidate"
            )
    if quality is not None and not bool(quality.isfinite().all()):
        raise OptionError("quality has NaN or infinite values; give a finite number for each")
    if not 0 <= weight < math.inf:
        raise OptionError(named("{weight} is {}; allowed: a number of at least 0", weight))


def require_objective(objective: Any) -> None:
    """Refuse an objective that there is not.

    Raises:
        OptionError: naming those that there are.
    """
    if objective not in OBJECTIVES:
        raise OptionError(
            named(
                "{objective} is {}; {}allowed: {}",
                shown(objective),
                did_you_mean(objective, OBJECTIVES),
                ", ".join(map(repr, OBJECTIVES)),
            )
        )


def _require_counts(counts: list[int], numbers: list[int], groups: Tensor) -> None:
    if len(counts) != len(numbers):
        raise OptionError(
            f"num has {len(counts)} numbers for {len(numbers)} groups; give one for each"
        )
    for count, number in zip(counts, numbers, strict=True):
        there = int((groups == number).sum())
        if not 0 <= count <= there:
            raise OptionError(
                named(
                    "{num} is {} and there are {} candidates to choose from; allowed: at least 0, "
                    "and not more than there are",
                    count,
                    there,
                )
            )

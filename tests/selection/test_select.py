"""The greedy objectives against brute force, and what does not change a choice."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from unalike.errors import OptionError
from unalike.scores import vendi
from unalike.selection import OBJECTIVES, agreement, select, typicality
from unalike.selection.details import comparable
from unalike.selection.quality import standardised

every_objective = pytest.mark.parametrize("objective", OBJECTIVES)


def rows(count: int, seed: int = 0, d: int = 5) -> Tensor:
    return torch.randn(count, d, generator=torch.Generator().manual_seed(seed))


def gram(a: Tensor, b: Tensor, bandwidth: float) -> Tensor:
    """An independent kernel matrix, pair by pair."""
    return torch.tensor(
        [
            [math.exp(-float((x - y).double().square().sum()) / (2 * bandwidth**2)) for y in b]
            for x in a
        ],
        dtype=torch.float64,
    )


def value(objective: str, features: Tensor, chosen: list[int], bandwidth: float) -> float:
    """What a greedy choice adds to, computed from its definition."""
    own = gram(features[chosen], features[chosen], bandwidth)
    if objective == "log-determinant":
        return float(torch.logdet(own))
    if objective == "vendi":
        return math.log(vendi(gram=own))
    return float(gram(features, features[chosen], bandwidth).amax(dim=1).mean())


@pytest.mark.parametrize("objective", ["log-determinant", "vendi", "facility"])
@pytest.mark.parametrize("seed", range(4))
def test_each_choice_is_the_best_by_brute_force(objective: str, seed: int):
    features = rows(9, seed)
    chosen = select(features, 5, objective=objective, bandwidth=1.5).chosen[0]
    for size in range(2, 6):
        before = chosen[: size - 1]
        values = {
            i: value(objective, features, [*before, i], 1.5) for i in range(9) if i not in before
        }
        assert values[chosen[size - 1]] == pytest.approx(max(values.values()), abs=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_farthest_choice_has_the_largest_distance_to_the_chosen(seed: int):
    features = rows(12, seed)
    found = select(features, 5)
    chosen, distances = found.chosen[0], torch.cdist(features, features)
    centrality = typicality(features)
    assert chosen[0] == int(centrality.argmax())
    for size in range(1, 5):
        near = distances[:, chosen[:size]].amin(dim=1)
        near[chosen[:size]] = -1
        assert chosen[size] == int(near.argmax())
    own = distances[chosen][:, chosen].fill_diagonal_(math.inf).amin(dim=1)
    assert found.distances[0] == pytest.approx(own.tolist(), rel=1e-5)


@every_objective
def test_choice_is_the_same_when_candidates_are_moved_turned_scaled_or_permuted(objective: str):
    features, generator = rows(14), torch.Generator().manual_seed(1)
    turn = torch.linalg.qr(torch.randn(5, 5, generator=generator))[0]
    order = torch.randperm(14, generator=generator)
    plain = select(features, 5, objective=objective).chosen[0]
    assert select(3 * features @ turn + 7, 5, objective=objective).chosen[0] == plain
    permuted = select(features[order], 5, objective=objective).chosen[0]
    assert [int(order[i]) for i in permuted] == plain


@every_objective
def test_copies_are_chosen_last(objective: str):
    features = rows(4).repeat(3, 1)
    chosen = select(features, 5, objective=objective).chosen[0]
    assert {i % 4 for i in chosen[:4]} == {0, 1, 2, 3}


@every_objective
def test_remembered_candidate_is_not_chosen(objective: str):
    features = rows(6)
    for i in range(6):
        chosen = select(features, 3, objective=objective, memory=features[i : i + 1]).chosen[0]
        assert i not in chosen


@every_objective
def test_memory_counts_as_chosen(objective: str):
    """Candidates after the first two, given these, and given a memory of these."""
    features = rows(10, 3)
    chosen = select(features, 5, objective=objective, bandwidth=1.5).chosen[0]
    left = [i for i in range(10) if i not in chosen[:2]]
    if objective == "facility":  # whose own candidates are what is to be covered
        return
    after = select(
        features[left], 3, objective=objective, bandwidth=1.5, memory=features[chosen[:2]]
    )
    assert [left[i] for i in after.chosen[0]] == chosen[2:]


@every_objective
def test_large_memory_is_searched_in_blocks_and_in_any_order(
    objective: str, monkeypatch: pytest.MonkeyPatch
):
    features, memory = rows(8, d=3), rows(3000, 5, d=3)
    whole = select(features, 4, objective=objective, memory=memory).chosen
    monkeypatch.setattr("unalike.selection.similarity._BLOCK_VALUES", 300)
    order = torch.randperm(3000, generator=torch.Generator().manual_seed(0))
    assert select(features, 4, objective=objective, memory=memory[order]).chosen == whole
    assert select(features.half(), 4, objective=objective, memory=memory.half()).chosen


@every_objective
def test_groups_of_unlike_prompts_do_not_repel_each_other(objective: str):
    features, groups = rows(16), torch.arange(2).repeat_interleave(8)
    apart = torch.eye(2)[groups]
    together = select(
        features, 3, objective=objective, groups=groups, prompts=apart, prompt_bandwidth=0.01,
        bandwidth=1.5,
    ).chosen  # fmt: skip
    for g in (0, 1):
        alone = select(features[groups == g], 3, objective=objective, bandwidth=1.5).chosen[0]
        if objective != "facility" or g == 0:  # a mean over all candidates, half of them 0
            assert together[g] == [i + 8 * g for i in alone]


def test_groups_of_one_prompt_repel_each_other():
    features = torch.tensor([[0.0], [0.1], [9.0], [0.05], [0.15], [9.1]])
    groups = torch.tensor([0, 0, 0, 1, 1, 1])
    same, apart = torch.ones(6, 2), torch.eye(2)[groups]
    common: dict[str, Any] = {"groups": groups, "prompt_bandwidth": 0.1}
    first, second = select(features, 1, prompts=same, **common).chosen
    assert {first[0] == 2, second[0] == 5} == {True, False}
    first, second = select(features, 1, prompts=apart, **common).chosen
    assert (first[0] == 2, second[0] == 5) == (False, False)


def test_numbers_may_differ_between_groups():
    found = select(rows(6), [1, 3], groups=torch.tensor([0, 1, 1, 0, 1, 0]))
    assert [len(chosen) for chosen in found.chosen] == [1, 3]
    assert set(found.chosen[0]) <= {0, 3, 5}
    assert set(found.chosen[1]) == {1, 2, 4}
    assert found.distances[0] == [math.inf]


@every_objective
def test_quality_decides_when_it_weighs_enough_and_only_up_to_scale(objective: str):
    features, quality = rows(10), rows(10, 4)[:, 0]
    best = quality.argsort(descending=True)[:4].tolist()
    heavy = select(features, 4, objective=objective, quality=quality, weight=1e6).chosen[0]
    assert heavy == best
    light = select(features, 4, objective=objective, quality=quality, weight=0.3)
    again = select(features, 4, objective=objective, quality=5 * quality - 2, weight=0.3)
    assert again.chosen == light.chosen
    none = select(features, 4, objective=objective, quality=quality, weight=0.0)
    assert none.chosen == select(features, 4, objective=objective).chosen


def test_outliers_are_avoided_when_typicality_counts():
    features = torch.cat([rows(12), torch.full((1, 5), 40.0)])
    assert 12 in select(features, 3).chosen[0]
    quality = typicality(features)
    assert int(quality.argmin()) == 12
    assert 12 not in select(features, 3, quality=quality, weight=0.5).chosen[0]


def with_details(seed: int) -> tuple[Tensor, Tensor]:
    """20 predictions that vary in 8 of 400 dimensions, and 12 of them with details in all."""
    generator = torch.Generator().manual_seed(seed)
    mean = torch.randn(20, 400, generator=generator) * torch.tensor([1.0] * 8 + [0.0] * 392)
    return mean, mean[:12] + torch.randn(12, 400, generator=generator)


def test_finished_samples_are_near_their_own_predictions_when_details_are_left_out():
    predictions, finished = with_details(2)
    own, others = comparable(predictions, finished)
    between = torch.cdist(predictions, predictions).double()
    torch.testing.assert_close(torch.cdist(own, own), between, atol=1e-4, rtol=1e-4)
    to_own = torch.cdist(own[:12], others).diagonal().mean()
    assert to_own < 0.75 * between[between > 0].mean()  # and by itself
    assert torch.cdist(predictions[:12], finished).diagonal().mean() > 4 * between.mean()
    exact = comparable(predictions, predictions[:5])[1]
    torch.testing.assert_close(exact, own[:5], atol=1e-4, rtol=1e-4)


@every_objective
def test_candidates_are_new_when_others_are_remembered_with_details(objective: str):
    new = [0, 0]
    for seed in range(6):
        predictions, memory = with_details(seed)
        for i, finished in enumerate((True, False)):
            chosen = select(
                predictions, 6, objective=objective, memory=memory, finished=finished
            ).chosen[0]
            new[i] += len(set(chosen) - set(range(12)))
    assert new[0] > new[1]
    assert new[0] > 6 * 6 * 8 / 20  # what chance would give


def test_agreement_is_minus_the_distance_and_quality_is_standardised_in_groups():
    a, b = rows(4), rows(4, 1)
    torch.testing.assert_close(agreement(a, b), -(a - b).norm(dim=1).double())
    groups = torch.tensor([0, 0, 1, 1])
    scaled = standardised(torch.tensor([1.0, 2.0, 100.0, 300.0]), groups)
    assert scaled.tolist() == [-1.0, 1.0, -1.0, 1.0]


def test_all_candidates_can_be_chosen_and_none():
    assert sorted(select(rows(3), 3).chosen[0]) == [0, 1, 2]
    assert select(rows(3), 0).chosen == [[]]
    assert select(torch.zeros(3, 2), 2).chosen == [[0, 1]]


BAD: list[tuple[dict[str, Any], str]] = [
    ({"objective": "dpp"}, "objective is 'dpp'; allowed: 'farthest', 'log-determinant'"),
    ({"num": 5}, "num is 5 and there are 4 candidates to choose from"),
    ({"num": -1}, "num is -1 and there are 4 candidates"),
    ({"num": [1, 1]}, "num has 2 numbers for 1 groups; give one for each"),
    ({"features": torch.full((4, 2), math.nan)}, "features has NaN or infinite values"),
    ({"features": torch.zeros(4)}, r"features has the shape \(4,\); allowed: \(n, …\)"),
    ({"memory": torch.full((4, 2), math.inf)}, "memory has NaN or infinite values"),
    ({"groups": torch.zeros(3)}, r"groups has the shape \(3,\); allowed: \(4,\)"),
    ({"quality": torch.zeros(3)}, r"quality has the shape \(3,\); allowed: \(4,\)"),
    ({"quality": torch.full((4,), math.nan)}, "quality has NaN or infinite values"),
    ({"weight": -0.5}, r"weight is -0\.5; allowed: a number of at least 0"),
    ({"bandwidth": 0.0}, r"bandwidth is 0\.0; allowed: a number above 0, or None"),
    ({"prompts": torch.zeros(3, 2)}, "features has 4 rows and 3 prompts; give one for each"),
    ({"memory": torch.zeros(2, 3)}, "memory has 3 values a sample and features has 2"),
]


@pytest.mark.parametrize(("bad", "message"), BAD, ids=[message[:25] for _, message in BAD])
def test_bad_input_is_refused(bad: dict[str, Any], message: str):
    with pytest.raises(OptionError, match=message):
        select(**{"features": rows(4, d=2), "num": 2, **bad})

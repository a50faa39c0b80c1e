from collections import Counter
from pathlib import Path

import torch

from unalike.kernels import Cosine, Gaussian
from unalike.runs.score import selection
from unalike.runs.score.images import ImageSet
from unalike.runs.score.selection import Pair, alike_pairs, chosen_for_grid, nearest_pairs


def points(n, d, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def test_first_pair_is_the_most_alike_of_all_when_searched_in_blocks(monkeypatch):
    X = points(40, 3)
    for kernel in (Cosine(), Gaussian(1.0)):
        gram = kernel(X, X).fill_diagonal_(-1)
        best = divmod(int(gram.argmax()), 40)
        whole = alike_pairs(X, kernel, seed=0)
        assert {whole[0].first, whole[0].second} == set(best)
        monkeypatch.setattr(selection, "BLOCK", 100)
        assert [(p.first, p.second) for p in alike_pairs(X, kernel, seed=0)] == [
            (p.first, p.second) for p in whole
        ]
        values = [p.value for p in whole]
        assert values == sorted(values, reverse=True)
        assert len({i for p in whole for i in (p.first, p.second)}) == 2 * len(whole)


def test_pairs_are_looked_for_among_a_sample_when_there_are_too_many(monkeypatch):
    monkeypatch.setattr(selection, "PAIR_LIMIT", 4)
    chosen = set(torch.randperm(30, generator=torch.Generator().manual_seed(7))[:4].tolist())
    assert {
        i for p in alike_pairs(points(30, 2), Cosine(), seed=7) for i in (p.first, p.second)
    } <= chosen


def test_nearest_pairs_are_in_order_and_in_the_unit_when_listed():
    generated, reference = torch.tensor([[0.0], [10.0], [4.0]]), torch.tensor([[5.0], [10.5]])
    assert nearest_pairs(generated, reference, unit=2.0, count=2) == [
        Pair(1, 1, 0.25),
        Pair(2, 0, 0.5),
    ]


def test_grid_shows_some_of_each_prompt_or_even_steps():
    files = [f"{i:03}.png" for i in range(130)]
    images = ImageSet(Path("x"), files, torch.zeros(130, 1), Counter(), [])
    plain = chosen_for_grid(images, None)
    assert plain == {"": list(range(0, 130, 3))}
    grouped = chosen_for_grid(images, [f"prompt {i % 13}" for i in range(130)])
    assert list(grouped) == [f"prompt {i}" for i in range(12)]
    assert grouped["prompt 1"] == [1 + 13 * j for j in range(8)]

import builtins
import sys

import numpy as np
import pytest
import torch

from unalike.errors import OptionError
from unalike.shields.faiss import FaissFlat, FaissIVF, share_found
from unalike.shields.vectors import Resident

pytest.importorskip("faiss")

ROWS = torch.randn(400, 6, generator=torch.Generator().manual_seed(3)).numpy()
QUERIES = torch.randn(9, 6, generator=torch.Generator().manual_seed(4), dtype=torch.float64).numpy()


class Brute:
    """What is within a radius by definition."""

    exact = True

    def within(self, x: np.ndarray, radius: float) -> list[np.ndarray]:
        return [
            np.flatnonzero(np.linalg.norm(ROWS.astype(np.float64) - row, axis=1) < radius)
            for row in x
        ]


def same(found: list[np.ndarray], there: list[np.ndarray]) -> bool:
    return len(found) == len(there) and all(
        np.array_equal(a, b) for a, b in zip(found, there, strict=True)
    )


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_everything_is_found_when_all_cells_are_probed(dtype: str):
    rows = ROWS.astype(np.float16).astype(dtype)
    vectors = Resident(rows)
    distance = np.linalg.norm(rows.astype(np.float64)[None] - QUERIES[:, None], axis=2)
    there = [np.flatnonzero(row < 2.0) for row in distance]
    assert sum(len(t) for t in there) > 50
    for search in (FaissIVF(vectors, cells=7, nprobe=7), FaissFlat(vectors)):
        assert same(search.within(QUERIES, 2.0), there)
        index, nearest = search.nearest(QUERIES)
        assert index.tolist() == distance.argmin(axis=1).tolist()
        assert nearest == pytest.approx(distance.min(axis=1), rel=1e-5)
        assert not search.exact


def test_recall_counts_the_missing_and_grows_when_more_cells_are_probed():
    search, shares = FaissIVF(Resident(ROWS), seed=1), []
    assert (search.cells, search.nprobe, search.count) == (20, 2, 400)
    for nprobe in (1, 2, 5, 20):
        search.nprobe = nprobe
        found, there = search.within(QUERIES, 2.5), Brute().within(QUERIES, 2.5)
        shares.append(search.recall(QUERIES, 2.5, Brute()))
        assert shares[-1] == sum(map(len, found)) / sum(
            map(len, there)
        )  # which holds because nothing is found that is not there
        assert all(set(own) <= set(true) for own, true in zip(found, there, strict=True))
    assert shares == sorted(shares)
    assert 0 < shares[0] < shares[-1] == 1
    assert search.recall(QUERIES, 1e-3, Brute()) == 1


def test_same_seed_gives_the_same_cells_when_built_twice_and_another_others():
    def built(seed: int) -> list[list[int]]:
        return [
            found.tolist()
            for found in FaissIVF(Resident(ROWS), cells=12, nprobe=1, seed=seed).within(
                QUERIES, 9.0
            )
        ]

    assert built(5) == built(5) != built(6)


def test_nearest_says_so_when_the_probed_cells_are_empty():
    search = FaissIVF(Resident(np.array([[0.0], [10.0]], dtype=np.float32)), cells=2, nprobe=1)
    search._index.reset()
    assert [a.tolist() for a in search.nearest(np.array([[1.0]]))] == [[-1], [np.inf]]


def test_resident_bytes_count_vectors_numbers_and_centres():
    assert FaissIVF(Resident(ROWS), cells=5).resident_bytes == 400 * (6 * 4 + 8) + 5 * 6 * 4
    assert FaissFlat(Resident(ROWS)).resident_bytes == 400 * 6 * 4


def test_faiss_and_torch_agree_when_both_compute_in_one_process():
    def torch_sum() -> float:
        return float((torch.ones(300, 300) @ torch.ones(300, 300)).sum())

    before = torch_sum()
    search = FaissFlat(Resident(ROWS))
    many = np.repeat(QUERIES, 40, axis=0)  # enough for threads and for a matrix product in faiss
    assert len(search.within(many, 1.5)) == 360
    assert torch_sum() == before == 300.0**3
    assert same(search.within(many, 1.5)[::40], search.within(QUERIES, 1.5))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cells": 0}, r"cells is 0.*1 to the number of vectors, 400"),
        ({"cells": 401}, "cells is 401"),
        ({"cells": 2.0}, "cells is 2.0"),
        ({"nprobe": 0}, r"nprobe is 0.*1 to the number of cells, 20"),
        ({"nprobe": 21}, "nprobe is 21"),
    ],
)
def test_option_is_refused_when_it_is_outside_the_allowed(options: dict, message: str):
    with pytest.raises(OptionError, match=message):
        FaissIVF(Resident(ROWS), **options)


def test_search_is_refused_when_the_vectors_are_none_or_the_query_is_of_another_size():
    for search in (FaissIVF, FaissFlat):
        with pytest.raises(OptionError, match="vectors is empty"):
            search(Resident(np.empty((0, 6), dtype=np.float32)))
    with pytest.raises(OptionError, match=r"shape \(9, 5\).*\(B, 6\)"):
        FaissFlat(Resident(ROWS)).within(QUERIES[:, :5], 1.0)


def test_recall_is_refused_when_the_other_search_may_miss_something():
    with pytest.raises(OptionError, match="FaissFlat, which may miss"):
        FaissIVF(Resident(ROWS)).recall(QUERIES, 1.0, FaissFlat(Resident(ROWS)))


def test_what_to_install_is_said_when_faiss_is_missing(monkeypatch: pytest.MonkeyPatch):
    own = builtins.__import__

    def without(name: str, *args, **kwargs):
        if name == "faiss":
            raise ImportError(name)
        return own(name, *args, **kwargs)

    monkeypatch.delitem(sys.modules, "faiss", raising=False)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(OptionError, match=r"pip install 'unalike\[faiss\]'"):
        FaissIVF(Resident(ROWS))


def test_share_is_one_when_nothing_is_there():
    assert share_found([np.array([3])], [np.array([], dtype=np.int64)]) == 1

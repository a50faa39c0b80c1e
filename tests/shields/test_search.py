import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from unalike.shields.search import nearest


def brute(queries: Tensor, rows: Tensor) -> Tensor:
    return torch.stack(
        [torch.stack([(q.double() - r.double()).norm() for r in rows]) for q in queries]
    )


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    d=st.integers(1, 40),
    n=st.integers(1, 30),
    scale=st.sampled_from([1e-3, 1.0, 1e4]),
)
def test_nearest_is_that_of_brute_force_when_rows_are_random_or_repeated(
    seed: int, d: int, n: int, scale: float
) -> None:
    g = torch.Generator().manual_seed(seed)
    rows = torch.randn(n, d, generator=g) * scale + 50
    rows = rows[torch.randint(n, (2 * n,), generator=g)]
    queries = torch.cat([rows[:2], rows[:2] + 1e-4 * scale, torch.randn(2, d, generator=g)])
    index, distance = nearest(queries, rows)
    expected = brute(queries, rows).min(dim=1)
    assert torch.equal(distance, expected.values)
    assert torch.equal(index, brute(queries, rows).argmin(dim=1))


def test_distance_keeps_its_digits_when_two_are_almost_the_same() -> None:
    row = torch.full((1, 1000), 1000.0, dtype=torch.float64)
    query = row.clone()
    query[0, 0] += 1e-9
    _, distance = nearest(query, row)
    assert distance.item() == (query[0, 0] - 1000.0).item()


def test_own_row_is_left_out_when_asked() -> None:
    rows = torch.tensor([[0.0], [1.0], [5.0]])
    index, distance = nearest(rows, rows, skip_own=True)
    assert index.tolist() == [1, 0, 1]
    assert distance.tolist() == [1, 1, 4]


def test_blocks_do_not_matter_when_there_are_many_rows() -> None:
    rows = torch.randn(5000, 3, generator=torch.Generator().manual_seed(0))
    index, distance = nearest(rows[[17, 2048, 4999]] + 1e-3, rows)
    assert index.tolist() == [17, 2048, 4999]
    assert torch.allclose(distance, torch.full((3,), 1e-3 * 3**0.5, dtype=torch.float64), rtol=1e-3)


def test_result_is_empty_when_there_are_no_queries() -> None:
    index, distance = nearest(torch.zeros(0, 2), torch.zeros(3, 2))
    assert (len(index), len(distance)) == (0, 0)

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unalike.bench.fronts import hypervolume, undominated

POINTS = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), min_size=1, max_size=6)


@given(POINTS)
def test_hypervolume_is_the_number_of_cells_below_some_point_when_points_are_whole(points):
    cells = sum(any(i < a and j < b for a, b in points) for i in range(12) for j in range(12))
    assert hypervolume(torch.tensor(points, dtype=torch.float64)).item() == cells


@given(POINTS)
def test_point_is_kept_when_none_is_at_least_as_good_and_better_in_one(points):
    expected = [not any(c >= a and d >= b and (c, d) != (a, b) for c, d in points) for a, b in points]
    assert undominated(torch.tensor(points, dtype=torch.float64)).tolist() == expected


def test_hypervolume_is_that_of_each_set_when_several_are_given():
    points = torch.rand(3, 4, 5, 2, generator=torch.Generator().manual_seed(0))
    each = torch.stack([hypervolume(p) for p in points.flatten(0, 1)]).view(3, 4)
    torch.testing.assert_close(hypervolume(points), each)


def test_hypervolume_does_not_change_when_a_dominated_point_is_added():
    points = torch.tensor([[0.2, 0.9], [0.8, 0.3]])
    more = torch.cat([points, torch.tensor([[0.1, 0.2]])])
    assert hypervolume(more).item() == pytest.approx(hypervolume(points).item()) == pytest.approx(0.2 * 0.9 + 0.6 * 0.3)

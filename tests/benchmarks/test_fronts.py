import random

import pytest
import torch

from benchmarks.fronts import hypervolume, undominated


def sets():
    """Two hundred sets of up to six points with small whole coordinates, so that many are equal in
    one or both.
    """
    chance = random.Random(0)
    return [
        [(chance.randint(0, 6), chance.randint(0, 6)) for _ in range(chance.randint(1, 6))]
        for _ in range(200)
    ]


def test_hypervolume_is_the_number_of_cells_below_some_point_when_points_are_whole():
    for points in sets():
        cells = sum(any(i < a and j < b for a, b in points) for i in range(6) for j in range(6))
        assert hypervolume(torch.tensor(points, dtype=torch.float64)).item() == cells


def test_point_is_kept_when_none_is_at_least_as_good_and_better_in_one():
    for points in sets():
        expected = [
            not any(c >= a and d >= b and (c, d) != (a, b) for c, d in points) for a, b in points
        ]
        assert undominated(torch.tensor(points, dtype=torch.float64)).tolist() == expected


def test_hypervolume_is_that_of_each_set_when_several_are_given():
    points = torch.rand(3, 4, 5, 2, generator=torch.Generator().manual_seed(0))
    each = torch.stack([hypervolume(p) for p in points.flatten(0, 1)]).view(3, 4)
    torch.testing.assert_close(hypervolume(points), each)


def test_hypervolume_does_not_change_when_a_dominated_point_is_added():
    points = torch.tensor([[0.2, 0.9], [0.8, 0.3]])
    more = torch.cat([points, torch.tensor([[0.1, 0.2]])])
    assert (
        hypervolume(more).item()
        == pytest.approx(hypervolume(points).item())
        == pytest.approx(0.2 * 0.9 + 0.6 * 0.3)
    )

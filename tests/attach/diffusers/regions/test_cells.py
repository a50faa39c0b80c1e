import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from unalike.attach.diffusers.regions.cells import box_cells, mask_cells, separated

SIDES = st.integers(1, 9)


@pytest.mark.parametrize(
    ("box", "rows", "columns"),
    [
        ((0.0, 0.0, 1.0, 1.0), range(4), range(8)),
        ((0.0, 0.0, 0.5, 1.0), range(4), range(4)),
        ((0.25, 0.5, 0.75, 1.0), range(2, 4), range(2, 6)),
        ((0.06, 0.0, 0.94, 0.6), range(2), range(8)),  # to the nearest edges
        ((0.5, 0.3, 0.51, 0.31), range(1, 2), range(4, 5)),  # at least the cell that it lies in
        ((0.99, 0.99, 1.0, 1.0), range(3, 4), range(7, 8)),
    ],
)
def test_cells_of_a_box_are_those_between_its_edges(
    box: tuple[float, ...], rows: range, columns: range
):
    expected = torch.zeros(1, 4, 8, dtype=torch.bool)
    expected[:, rows.start : rows.stop, columns.start : columns.stop] = True
    assert torch.equal(box_cells(box, 4, 8), expected)


@given(
    st.tuples(st.floats(0, 0.98), st.floats(0, 0.98)),
    st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)),
    st.integers(1, 12),
    st.integers(1, 12),
)
@settings(max_examples=60, deadline=None)
def test_a_box_has_a_cell_wherever_it_is(
    corner: tuple[float, float], size: tuple[float, float], height: int, width: int
):
    left, top = corner
    right, bottom = min(1.0, left + size[0]), min(1.0, top + size[1])
    cells = box_cells((left, top, right, bottom), height, width)
    assert cells.any()
    rows, columns = cells[0].any(1).nonzero().flatten(), cells[0].any(0).nonzero().flatten()
    for found, low, high, side in ((rows, top, bottom, height), (columns, left, right, width)):
        assert found[0] / side <= low + 0.5 / side + 1e-9 or len(found) == 1
        assert len(found) <= max(1, math.ceil((high - low) * side + 1))


def by_counting(pixels: Tensor, height: int, width: int) -> Tensor:
    """The share of each cell that is inside, by so many dots that every pixel and every cell has a
    whole number of them.
    """
    down, across = math.lcm(pixels.shape[1], height), math.lcm(pixels.shape[2], width)
    dots = pixels.repeat_interleave(down // pixels.shape[1], 1).repeat_interleave(
        across // pixels.shape[2], 2
    )
    return dots.double().unflatten(2, (width, -1)).unflatten(1, (height, -1)).mean((2, 4))


@given(SIDES, SIDES, SIDES, SIDES, st.integers(0, 2**31))
@settings(max_examples=60, deadline=None)
def test_a_cell_is_inside_when_half_of_it_is(
    tall: int, wide: int, height: int, width: int, seed: int
):
    pixels = torch.rand(2, tall, wide, generator=torch.Generator().manual_seed(seed)) > 0.5
    share, cells = by_counting(pixels, height, width), mask_cells(pixels, height, width)
    for one, own, found in zip(pixels, share, cells, strict=True):
        half = own >= 0.5 - 1e-9
        assert torch.equal(
            found,
            half
            if half.any()
            else own >= own.max() - 1e-9
            if one.any()
            else torch.zeros_like(half),
        )


def test_cells_are_the_mask_itself_when_it_has_their_size():
    mask = torch.rand(3, 4, 6, generator=torch.Generator().manual_seed(0)) > 0.5
    assert torch.equal(mask_cells(mask, 4, 6), mask)


def test_largest_shares_are_inside_when_no_cell_is_to_a_half():
    mask = torch.zeros(1, 8, 8, dtype=torch.bool)
    mask[0, 0, 0] = mask[0, 1, 1] = mask[0, 7, 7] = True
    assert mask_cells(mask, 2, 2).tolist() == [[[True, False], [False, False]]]


def by_trying(map_: Tensor) -> float:
    """The largest difference between two groups for their size, over all thresholds."""
    values = map_.flatten().double()
    gains = [0.0]
    for threshold in values.unique()[1:]:
        high, low = values[values >= threshold], values[values < threshold]
        gains.append((len(high) * len(low) * (high.mean() - low.mean()) ** 2).item())
    return max(gains)


@given(st.integers(0, 2**31), st.floats(0.01, 100), st.floats(-3, 3))
@settings(max_examples=40, deadline=None)
def test_groups_differ_most_when_a_map_is_separated(seed: int, scale: float, shift: float):
    maps = torch.rand(3, 5, 4, generator=torch.Generator().manual_seed(seed)).double() ** 3
    cells = separated(maps)
    for one, inside in zip(maps, cells, strict=True):
        assert 0 < inside.sum() < 20
        assert one[inside].min() > one[~inside].max()
        gain = inside.sum() * (~inside).sum() * (one[inside].mean() - one[~inside].mean()) ** 2
        assert gain.item() == pytest.approx(by_trying(one))
    assert torch.equal(separated(scale * maps + shift), cells)


def test_everything_is_inside_when_a_map_is_flat():
    flat = torch.full((2, 3, 3), 0.1)
    flat[1] += torch.linspace(0, 1e-8, 9).view(3, 3)
    assert separated(flat).all()


def test_equal_values_go_together_when_a_map_has_many():
    assert separated(torch.tensor([[0.0, 1.0, 1.0, 0.0], [1.0, 0.0, 0.0, 0.0]])).tolist() == [
        [False, True, True, False],
        [True, False, False, False],
    ]

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from unalike.shields.exit import directions_out, ray_exit


def inside(point: Tensor, centres: Tensor, radius: float) -> bool:
    return bool(((point - centres).norm(dim=1) < radius).any())


def balls(seed: int, d: int, m: int, spread: float) -> tuple[Tensor, Tensor]:
    """Overlapping balls of radius 1 with duplicates among them, and a point near the first."""
    g = torch.Generator().manual_seed(seed)
    centres = torch.randn(m, d, generator=g, dtype=torch.float64) * spread / math.sqrt(d)
    centres = torch.cat([centres, centres[: m // 2]])
    return centres[0] + 0.5 * torch.randn(d, generator=g, dtype=torch.float64) / math.sqrt(
        d
    ), centres


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    d=st.sampled_from([2, 3, 8, 64]),
    m=st.integers(1, 25),
    spread=st.floats(0.1, 3),
)
def test_exit_is_the_first_way_out_when_the_ray_is_scanned(
    seed: int, d: int, m: int, spread: float
) -> None:
    x, centres = balls(seed, d, m, spread)
    u = torch.nn.functional.normalize(
        torch.randn(d, generator=torch.Generator().manual_seed(seed + 1), dtype=torch.float64),
        dim=0,
    )
    exit = ray_exit(x, u[None], [centres], 1.0).item()
    assert not inside(x + (exit + 1e-9) * u, centres, 1.0) or exit_is_a_touch(x, u, exit, centres)
    if exit == 0:
        assert not inside(x, centres, 1.0)
    for t in torch.linspace(0, 1, 60, dtype=torch.float64)[1:-1]:
        if exit > 1e-6:
            assert inside(x + t * exit * u, centres, 1.0 + 1e-9)


def exit_is_a_touch(x: Tensor, u: Tensor, exit: float, centres: Tensor) -> bool:
    """Whether another ball begins right where the exit is, so that only the very point is
    outside.
    """
    return not inside(x + exit * u, centres, 1.0 - 1e-12)


def test_exit_is_beyond_the_chain_when_balls_overlap_along_the_ray() -> None:
    chain = torch.tensor([[0.0, 0.0], [1.5, 0.0], [3.0, 0.0], [10.0, 0.0]])
    out = ray_exit(torch.zeros(2).double(), torch.eye(2).double(), [chain[:2], chain[2:]], 1.0)
    assert out.tolist() == [4.0, 1.0]


def test_exit_is_zero_when_the_point_is_on_the_boundary() -> None:
    assert (
        ray_exit(
            torch.tensor([1.0]).double(), torch.tensor([[1.0]]).double(), [torch.zeros(1, 1)], 1.0
        ).item()
        == 0
    )


def test_exit_is_the_same_when_balls_are_repeated() -> None:
    x, centres = balls(3, 4, 6, 0.5)
    u = torch.nn.functional.normalize(torch.ones(1, 4, dtype=torch.float64))
    assert torch.equal(ray_exit(x, u, [centres], 1.0), ray_exit(x, u, [centres] * 40, 1.0))


@pytest.mark.parametrize("case", ["one", "many", "centre", "opposite"])
def test_directions_have_norm_one_when_there_is_something_to_leave(case: str) -> None:
    x = torch.zeros(3, dtype=torch.float64)
    around = {
        "one": torch.tensor([[0.5, 0.0, 0.0]]),
        "many": torch.randn(40, 3, generator=torch.Generator().manual_seed(0)) * 0.2,
        "centre": torch.zeros(2, 3),
        "opposite": torch.tensor([[0.5, 0.0, 0.0], [-0.5, 0.0, 0.0]]),
    }[case]
    directions = directions_out(x, around, 1.0)
    torch.testing.assert_close(
        directions.norm(dim=1), torch.ones(len(directions), dtype=torch.float64)
    )
    assert 1 <= len(directions) <= 18
    if case == "one":
        assert torch.equal(directions[0], torch.tensor([-1.0, 0.0, 0.0], dtype=torch.float64))

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from unalike.errors import OptionError
from unalike.guidance import balls
from unalike.guidance.balls import Balls
from unalike.guidance.context import Context
from unalike.guidance.level import Level
from unalike.guidance.protocols import References
from unalike.guidance.spell import SPELL


def at(
    x_t: Tensor,
    *,
    prompts: Tensor | None = None,
    memory: References | None = None,
    shield: Balls | None = None,
    groups: Tensor | None = None,
    alpha: float = 0.6,
) -> Context:
    groups = torch.zeros(len(x_t), dtype=torch.int64) if groups is None else groups
    return Context(
        step=0,
        steps=1,
        level=Level(alpha, 0.8, 1.0, 0.0),
        x_t=x_t,
        groups=groups,
        prompts=prompts,
        memory=memory,
        shield=shield,
    )


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def by_hand(x0: Tensor, centres: Tensor, radius: float) -> Tensor:
    """The published sum for one image `x0` (d,), term by term."""
    total = torch.zeros_like(x0)
    for z in centres:
        total = total + max(0.0, radius / (x0 - z).norm().item() - 1) * (x0 - z)
    return total


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10_000),
    depth=st.floats(0, 0.999),
    radius=st.floats(1e-3, 1e3),
    size=st.integers(1, 40),
)
def test_image_lands_on_the_surface_when_inside_one_ball(seed, depth, radius, size):
    centre, out = normal(1, size, seed=seed), normal(1, size, seed=seed + 1)
    x0 = centre + depth * radius * out / out.norm()
    delta = SPELL(radius=1.0).x0_delta(
        x0, at(normal(1, size, seed=seed + 2), shield=Balls(centre, radius))
    )
    assert delta is not None
    assert (x0 + delta - centre).norm().item() == pytest.approx(radius, rel=1e-9)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10_000),
    radius=st.floats(0.1, 6),
    stored=st.integers(1, 12),
    batch=st.integers(1, 4),
)
def test_correction_is_the_published_sum_and_none_where_no_ball_is_touched(
    seed, radius, stored, batch
):
    x0, centres = normal(batch, 6, seed=seed), normal(stored, 6, seed=seed + 1)
    expected = torch.stack([by_hand(x, centres, radius) for x in x0])
    delta = SPELL(radius=radius, batch=False, overcompensation=1.6).x0_delta(
        x0, at(x0, memory=References(centres))
    )
    if (torch.cdist(x0, centres) >= radius).all():
        assert delta is None
    else:
        assert delta is not None
        torch.testing.assert_close(delta, 1.6 * expected)


def test_every_other_image_counts_when_the_batch_repels():
    x0 = normal(4, 6)
    delta = SPELL(radius=4.0).x0_delta(x0, at(x0))
    expected = torch.stack(
        [by_hand(x0[i], x0[[j for j in range(4) if j != i]], 4.0) for i in range(4)]
    )
    torch.testing.assert_close(delta, expected)


def test_pair_ends_as_far_beyond_the_radius_as_it_was_inside_when_both_move():
    x0 = torch.tensor([[0.0, 0.0], [3.0, 0.0]])
    delta = SPELL(radius=4.0).x0_delta(x0, at(x0))
    torch.testing.assert_close(delta, torch.tensor([[-1.0, 0.0], [1.0, 0.0]]))


def test_other_prompts_repel_only_when_same_prompt_is_false():
    x0, groups = normal(4, 6), torch.tensor([0, 1, 0, 1])
    own = SPELL(radius=9.0).x0_delta(x0, at(x0, groups=groups))
    torch.testing.assert_close(
        own, torch.stack([by_hand(x0[i], x0[[(i + 2) % 4]], 9.0) for i in range(4)])
    )
    everyone = SPELL(radius=9.0, same_prompt=False).x0_delta(x0, at(x0, groups=groups))
    torch.testing.assert_close(everyone, SPELL(radius=9.0).x0_delta(x0, at(x0)))


def test_only_memories_of_the_same_prompt_repel_when_embeddings_are_known():
    x0, memory, y = normal(2, 6), normal(4, 6, seed=1), torch.eye(2)
    similar = torch.tensor([0.99, 0.14])  # another prompt close to the first: cosine 0.990
    stored = References(
        memory, 3.0 * torch.stack([y[0], y[1], y[0], similar]) + 1e-3
    )  # scaled, and rounded by storage
    delta = SPELL(radius=9.0, batch=False).x0_delta(
        x0, at(x0, memory=stored, prompts=y, groups=torch.arange(2))
    )
    torch.testing.assert_close(
        delta, torch.stack([by_hand(x0[0], memory[[0, 2]], 9.0), by_hand(x0[1], memory[[1]], 9.0)])
    )
    everything = torch.stack([by_hand(x, memory, 9.0) for x in x0])
    for method, references, known in (
        (SPELL(radius=9.0, batch=False, same_prompt=False), stored, y),
        (SPELL(radius=9.0, batch=False), References(memory), y),
        (SPELL(radius=9.0, batch=False), stored, None),
    ):
        torch.testing.assert_close(
            method.x0_delta(x0, at(x0, memory=references, prompts=known, groups=torch.arange(2))),
            everything,
        )


def test_sources_add_up_when_several_repel_and_the_shield_has_its_own_radius():
    x0, memory, shield = (
        normal(3, 6),
        References(normal(4, 6, seed=1)),
        Balls(normal(5, 6, seed=2), 5.0),
    )
    parts = [
        SPELL(radius=4.0, batch=b, memory=m, shield=s).x0_delta(
            x0, at(x0, memory=memory, shield=shield)
        )
        for b, m, s in ((True, False, False), (False, True, False), (False, False, True))
    ]
    parts = [part for part in parts if part is not None]
    assert len(parts) == 3
    torch.testing.assert_close(parts[2], torch.stack([by_hand(x, shield.centres, 5.0) for x in x0]))
    torch.testing.assert_close(
        SPELL(radius=4.0).x0_delta(x0, at(x0, memory=memory, shield=shield)),
        torch.stack(parts).sum(0),
    )


def test_shield_repels_every_prompt_when_same_prompt_is_true():
    x0 = normal(2, 6)
    delta = SPELL(radius=0.01).x0_delta(
        x0, at(x0, shield=Balls(normal(1, 6, seed=1), 9.0), groups=torch.arange(2))
    )
    assert delta is not None
    assert (delta.norm(dim=1) > 0).all()


def test_images_leave_along_their_noise_when_they_are_at_the_centre():
    x0, x_t = torch.full((2, 3), 2.0), torch.tensor([[1.2, 1.2, 6.2], [1.2, -3.8, 1.2]])
    delta = SPELL(radius=0.5).x0_delta(
        x0, at(x_t, shield=Balls(x0[:1], 3.0), groups=torch.arange(2))
    )
    torch.testing.assert_close(delta, torch.tensor([[0.0, 0.0, 3.0], [0.0, -3.0, 0.0]]))


def test_images_of_a_batch_part_when_they_coincide():
    x0, x_t = torch.ones(2, 3), torch.tensor([[0.6, 0.6, 1.6], [0.6, 1.6, 0.6]])
    delta = SPELL(radius=2.0).x0_delta(x0, at(x_t))
    torch.testing.assert_close(delta, torch.tensor([[0.0, 0.0, 2.0], [0.0, 2.0, 0.0]]))


def test_image_leaves_along_the_diagonal_when_at_the_centre_without_noise():
    x0 = torch.ones(1, 4)
    delta = SPELL(radius=0.5).x0_delta(x0, at(x0, alpha=1.0, shield=Balls(x0, 3.0)))
    torch.testing.assert_close(delta, torch.full((1, 4), 1.5))


def test_balls_are_told_apart_when_latents_lie_far_from_the_origin():
    offset, step = (
        1000.0,
        2**-10,
    )  # one matrix product in float32 cannot see distances of this size here
    x0 = torch.full((1, 64), offset)
    centres = x0 + torch.tensor([[4 * step], [16 * step]])
    delta = SPELL(radius=0.05).x0_delta(x0, at(x0, shield=Balls(centres, 8 * step * 8)))
    assert delta is not None
    torch.testing.assert_close(x0 + delta, centres[:1] - 8 * step, rtol=0, atol=6e-5)


def test_result_is_the_same_when_centres_are_read_in_blocks(monkeypatch):
    x0, memory = normal(2, 6), References(normal(9, 6, seed=1))
    whole = SPELL(radius=6.0).x0_delta(x0, at(x0, memory=memory))
    monkeypatch.setattr(balls, "_BLOCK", 12)
    torch.testing.assert_close(SPELL(radius=6.0).x0_delta(x0, at(x0, memory=memory)), whole)


def test_untouched_images_are_not_moved_when_others_are():
    x0 = torch.tensor([[0.1, 0.0], [50.0, 0.0]])
    delta = SPELL(radius=1.0).x0_delta(x0, at(x0, shield=Balls(torch.zeros(1, 2), 1.0)))
    assert delta is not None
    assert delta[0].norm() > 0
    assert torch.equal(delta[1], torch.zeros(2))


def test_memory_is_not_copied_when_a_run_goes_on():
    x0, memory = torch.zeros(1, 6), References(torch.ones(3, 6))
    context = at(x0, memory=memory)
    SPELL(radius=9.0).x0_delta(x0, context)
    assert context.state["memory"].centres is memory.latents


# The radius


def test_radius_is_the_median_distance_within_prompts_when_calibrated():
    latents = torch.tensor([[0.0], [1.0], [3.0], [100.0], [107.0]]).view(5, 1, 1)
    groups = torch.tensor([4, 4, 4, 2, 2])
    method = SPELL(factor=0.5, overcompensation=1.6, every=2)
    assert method.needs_calibration
    calibrated = method.calibrated(latents, groups)
    assert calibrated.radius == pytest.approx(0.5 * 2.5)  # of 1, 2, 3 and 7
    assert calibrated == SPELL(radius=calibrated.radius, factor=0.5, overcompensation=1.6, every=2)
    assert not calibrated.needs_calibration


def test_radius_is_measured_on_all_pairs_when_each_image_has_its_own_prompt():
    assert SPELL().calibrated(
        torch.tensor([[0.0], [1.0], [5.0]]), torch.arange(3)
    ).radius == pytest.approx(4.0)


def test_radius_stays_when_it_is_a_number():
    method = SPELL(radius=3)
    assert not method.needs_calibration
    assert method.calibrated(torch.zeros(1, 2), torch.zeros(1)) is method


def test_nothing_is_to_be_measured_when_only_the_shield_repels():
    method, x0 = SPELL(batch=False, memory=False), torch.ones(2, 3)
    assert not method.needs_calibration
    assert method.x0_delta(x0, at(x0, shield=Balls(torch.zeros(1, 3), 9.0))) is not None


def test_error_says_how_to_measure_when_the_radius_is_still_auto():
    with pytest.raises(
        OptionError, match=r"radius is 'auto' and was not measured; use method\.calibrated"
    ):
        SPELL().x0_delta(torch.ones(2, 3), at(torch.ones(2, 3)))


@pytest.mark.parametrize(
    ("latents", "message"),
    [(torch.ones(1, 3), "there is 1; make at least two"), (torch.ones(3, 3), "identical")],
)
def test_error_says_why_when_the_radius_cannot_be_measured(latents, message):
    with pytest.raises(OptionError, match=message):
        SPELL().calibrated(latents, torch.zeros(len(latents)))


@pytest.mark.parametrize("radius", [0, -1.0, math.inf, "median", None])
def test_error_names_what_is_allowed_when_the_radius_is_not(radius):
    with pytest.raises(
        OptionError,
        match=r"radius is .*; allowed: a number above 0 and at most 1,000,000,000 or 'auto'",
    ):
        SPELL(radius=radius)


def test_error_names_both_sizes_when_something_stored_is_of_another_model():
    x0 = torch.ones(2, 3)
    with pytest.raises(
        OptionError, match=r"the shield holds latents of shape \(5,\) and this generation has 3"
    ):
        SPELL(radius=1.0).x0_delta(x0, at(x0, shield=Balls(torch.zeros(1, 5), 9.0)))
    with pytest.raises(OptionError, match=r"size 7 and those of this generation 2"):
        SPELL(radius=1.0).x0_delta(
            x0, at(x0, prompts=torch.ones(2, 2), memory=References(x0, torch.ones(2, 7)))
        )


# Regions


def by_hand_inside(x0: Tensor, centres: Tensor, radius: float, mask: Tensor) -> Tensor:
    """The sum for one image `x0` (d,) that moves inside of a mask (d,) only, each length found by
    bisection along the way.
    """
    total = torch.zeros_like(x0)
    for z in centres:
        a = torch.where(mask, x0 - z, 0)
        low, high = 0.0, 1e6
        while (x0 - z).norm() < radius and high - low > 1e-13 * high:
            middle = (low + high) / 2
            low, high = (middle, high) if (x0 + middle * a - z).norm() < radius else (low, middle)
        total = total + low * a
    return total


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10_000),
    radius=st.floats(0.5, 6),
    stored=st.integers(1, 8),
    batch=st.integers(1, 3),
    per_image=st.booleans(),
)
def test_correction_leads_to_each_surface_inside_the_region(seed, radius, stored, batch, per_image):
    x0, centres = normal(batch, 6, seed=seed), normal(stored, 6, seed=seed + 1)
    mask = normal(batch if per_image else 1, 6, seed=seed + 2) > -0.3
    context = at(x0, memory=References(centres))
    context.masks = lambda region: mask
    delta = SPELL(radius=radius, batch=False, overcompensation=1.6, region="cat").x0_delta(
        x0, context
    )
    expected = torch.stack(
        [by_hand_inside(x, centres, radius, m) for x, m in zip(x0, mask.expand_as(x0), strict=True)]
    )
    if delta is None:
        assert (expected == 0).all()
    else:
        torch.testing.assert_close(delta, 1.6 * expected, rtol=1e-9, atol=1e-9)
        assert (delta[~mask.expand_as(x0)] == 0).all()


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10_000),
    depth=st.floats(0, 0.999),
    radius=st.floats(1e-3, 1e3),
    size=st.integers(2, 40),
)
def test_image_lands_on_the_surface_when_inside_one_ball_and_moved_in_a_region(
    seed, depth, radius, size
):
    centre, out = normal(1, size, seed=seed), normal(1, size, seed=seed + 1)
    x0, mask = centre + depth * radius * out / out.norm(), torch.arange(size) % 2 == 0
    context = at(normal(1, size, seed=seed + 2), shield=Balls(centre, radius))
    context.masks = lambda region: mask[None]
    delta = SPELL(radius=1.0, region="cat").x0_delta(x0, context)
    assert delta is not None
    assert (delta[:, ~mask] == 0).all()
    assert (x0 + delta - centre).norm().item() == pytest.approx(radius, rel=1e-9)


@pytest.mark.parametrize("shape", [(1, 6), (4, 6)])
def test_correction_is_the_published_one_when_everything_is_inside(shape):
    x0 = normal(4, 6)
    context = at(x0, memory=References(normal(5, 6, seed=1)))
    plain = SPELL(radius=4.0).x0_delta(x0, context)
    context.masks, context.state = lambda region: torch.ones(shape, dtype=torch.bool), {}
    torch.testing.assert_close(SPELL(radius=4.0, region="cat").x0_delta(x0, context), plain)


def test_image_stays_when_it_is_outside_of_the_ball_by_what_the_region_leaves():
    x0, z = torch.tensor([[0.1, 3.0], [0.1, 0.0]]), torch.zeros(1, 2)
    context = at(x0, shield=Balls(z, 2.0), groups=torch.arange(2))
    context.masks = lambda region: torch.tensor([[True, False]])
    delta = SPELL(radius=1e-3, region="cat").x0_delta(x0, context)
    torch.testing.assert_close(delta, torch.tensor([[0.0, 0.0], [1.9, 0.0]]))


def test_images_leave_along_their_noise_inside_when_they_are_at_the_centre_there():
    x0, x_t = torch.tensor([[2.0, 2.0, 4.0]]), torch.tensor([[1.2, 6.2, -3.0]])
    context = at(x_t, shield=Balls(torch.full((1, 3), 2.0), 2.5))
    context.masks = lambda region: torch.tensor([[True, True, False]])
    delta = SPELL(radius=0.5, region="cat").x0_delta(
        x0, context
    )  # 2 of the radius 2.5 are used up outside
    torch.testing.assert_close(delta, torch.tensor([[0.0, 1.5, 0.0]]))
    context.x_t = 0.6 * torch.full((1, 3), 2.0)
    delta = SPELL(radius=0.5, region="cat").x0_delta(x0, context)
    torch.testing.assert_close(delta, torch.tensor([[1.5, 1.5, 0.0]]) / math.sqrt(2))


def test_nothing_moves_when_nothing_is_inside():
    x0 = normal(2, 6)
    context = at(x0, memory=References(x0 + 0.1))
    context.masks = lambda region: torch.zeros(1, 6, dtype=torch.bool)
    assert SPELL(radius=4.0, region="cat").x0_delta(x0, context) is None
    context.masks = lambda region: torch.tensor([[True], [False]]).expand(2, 6)
    delta = SPELL(radius=4.0, region="cat").x0_delta(x0, context)
    assert delta is not None
    assert delta[0].norm() > 0
    assert torch.equal(delta[1], torch.zeros_like(delta[1]))


class Upward:
    """A protected set in another space, whose way out is along all numbers."""

    def __len__(self) -> int:
        return 1

    def way_out(self, x0: Tensor, context: Context) -> Tensor | None:
        return torch.ones_like(x0)


def test_way_out_of_another_space_is_cut_off_at_the_region():
    x0 = normal(2, 3, 2).float()
    context = at(x0)
    context.shield = Upward()
    context.masks = lambda region: torch.tensor([[[True, False]]])
    delta = SPELL(radius=1e-3, region="cat").x0_delta(x0, context)
    assert delta is not None
    assert torch.equal(delta, torch.tensor([1.0, 0.0]).expand(2, 3, 2))

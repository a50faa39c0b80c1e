"""The kinds of damage, on pictures whose damaged form can be written down."""

import torch

from training.digits import damage
from unalike.models.digits.judge import shifted


def dot() -> torch.Tensor:
    """White paper with one black pixel in row 8, column 5."""
    images = torch.ones(1, 1, 16, 16)
    images[0, 0, 8, 5] = 0
    return images


def place(images: torch.Tensor) -> tuple[int, int]:
    """Row and column of the darkest pixel."""
    return divmod(int(images[0, 0].argmin()), 16)


def test_picture_moves_down_and_right_when_shifted():
    assert place(shifted(dot(), 2, -3)) == (10, 2)
    assert torch.equal(shifted(dot(), 0, 0), dot())
    assert shifted(dot(), 0, 6).min() == 0
    assert shifted(dot(), 0, 11).min() == 1  # over the edge


def test_ink_is_spread_and_none_is_lost_when_blurred():
    blurred = damage.blurred(dot(), 1.0)
    ink = 1 - blurred[0, 0]
    torch.testing.assert_close(ink.sum(), torch.tensor(1.0), atol=1e-3, rtol=0)
    offsets = torch.arange(16.0) - 8
    torch.testing.assert_close(
        (ink.sum(1) * offsets.square()).sum(), torch.tensor(1.0), atol=0.03, rtol=0
    )  # its variance is sigma²


def test_picture_comes_back_when_turned_four_times_by_a_quarter():
    picture = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    turned = picture
    for _ in range(4):
        turned = damage.turned(turned, 90.0)
    torch.testing.assert_close(turned, picture, atol=1e-3, rtol=0)
    torch.testing.assert_close(damage.turned(picture, 180.0), picture.flip(2, 3), atol=1e-3, rtol=0)


def test_each_picture_has_its_own_turn_and_shift_when_several_are_given():
    both = dot().expand(2, -1, -1, -1)
    turned = damage.turned(
        both, torch.tensor([0.0, 0.0]), 1.0, torch.tensor([[0.0, 0.0], [2.0, 3.0]])
    )
    assert place(turned[:1]) == (8, 5)
    assert place(turned[1:]) == (11, 7)


def test_mixture_is_the_weighted_mean_when_blended():
    ones, zeros = torch.ones(1, 1, 16, 16), torch.zeros(1, 1, 16, 16)
    assert torch.allclose(damage.blended(ones, zeros, 0.25), 0.75 * ones)
    assert torch.equal(damage.overlaid(ones, zeros), zeros)
    assert torch.allclose(damage.paler(zeros, 0.3), 0.3 * ones)


def test_halves_come_from_both_when_halved():
    ones, zeros = torch.ones(1, 1, 16, 16), torch.zeros(1, 1, 16, 16)
    side, across = damage.halved(ones, zeros), damage.halved(ones, zeros, across=True)
    assert side[..., :8].min() == 1
    assert side[..., 8:].max() == 0
    assert across[..., :8, :].min() == 1
    assert across[..., 8:, :].max() == 0


def test_noise_has_the_asked_size_and_the_seed_decides_it_when_drawn():
    grey = torch.full((200, 3, 16, 16), 0.5)
    for kind in (damage.noisy, damage.smudged):
        noise = kind(grey, 0.1, torch.Generator().manual_seed(0)) - grey
        assert abs(float(noise.std()) - 0.1) < 0.005
        assert torch.equal(noise[:, 0], noise[:, 2])
        assert torch.equal(noise, kind(grey, 0.1, torch.Generator().manual_seed(0)) - grey)
    rough, smooth = (
        kind(grey, 0.1, torch.Generator().manual_seed(0))[:, 0].diff(dim=2).std()
        for kind in (damage.noisy, damage.smudged)
    )
    assert smooth < 0.6 * rough

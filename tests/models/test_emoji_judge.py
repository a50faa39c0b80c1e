"""The judge on renderings whose right verdict is known: degraded pictures are to be recognised,
blends and mixtures refused.
"""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from unalike.errors import OptionError
from unalike.models.emoji import entries, load_images, nearest


def sample(count: int = 150) -> tuple[Tensor, Tensor]:
    chosen = torch.randperm(len(load_images()), generator=torch.Generator().manual_seed(3))[:count]
    return chosen, load_images()[chosen] / 255


def blurred(images: Tensor, sigma: float) -> Tensor:
    reach = int(3 * sigma) + 1
    kernel = torch.exp(-torch.arange(-reach, reach + 1.0).square() / (2 * sigma**2))
    kernel = (kernel / kernel.sum()).repeat(3, 1, 1, 1)
    padded = F.pad(images, (reach,) * 4, mode="replicate")
    return F.conv2d(F.conv2d(padded, kernel, groups=3), kernel.transpose(2, 3), groups=3)


def shifted(images: Tensor, dy: int, dx: int) -> Tensor:
    return F.pad(images, (2, 2, 2, 2), value=1.0)[..., 2 - dy : 66 - dy, 2 - dx : 66 - dx]


def noisy(images: Tensor, amount: float) -> Tensor:
    return (
        images + amount * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    ).clamp(0, 1)


def test_every_picture_is_recognised_as_itself() -> None:
    chosen, images = sample()
    match = nearest(images)
    assert torch.equal(match.index, chosen)
    assert match.shown.all()
    assert match.error.max() < 1e-6


@pytest.mark.parametrize(
    ("degraded", "share"),
    [
        (lambda x: noisy(x, 0.05), 1.0),
        (lambda x: noisy(x, 0.1), 1.0),
        (lambda x: shifted(x, 1, -1), 0.97),
        (lambda x: shifted(x, 2, 0), 0.97),
        (lambda x: 0.9 * x + 0.05, 1.0),
        (lambda x: blurred(x, 1.0).clamp(0, 1), 0.95),
        (lambda x: blurred(x, 1.5).clamp(0, 1), 0.75),
        (lambda x: 0.8 * x + 0.2 * x.roll(1, dims=0), 0.8),
    ],
    ids=[
        "noise 0.05",
        "noise 0.1",
        "shift 1",
        "shift 2",
        "paler",
        "blur 1",
        "blur 1.5",
        "a fifth of another",
    ],
)
def test_degraded_pictures_are_recognised(degraded, share: float) -> None:
    chosen, images = sample()
    match = nearest(degraded(images))
    assert ((match.index == chosen) & match.shown).float().mean() >= share


def test_blends_and_halves_of_unrelated_pictures_are_refused() -> None:
    _, images = sample()
    others = images.roll(1, dims=0)
    assert nearest(0.5 * images + 0.5 * others).shown.float().mean() <= 0.05
    assert nearest(0.6 * images + 0.4 * others).shown.float().mean() <= 0.1
    assert (
        nearest(torch.cat([images[..., :32], others[..., 32:]], dim=-1)).shown.float().mean()
        <= 0.02
    )


def test_blends_of_flags_are_refused() -> None:
    flags = [entry.image for entry in entries() if entry.subgroup == "country-flag"]
    a, b = load_images()[flags[0:120:2]] / 255, load_images()[flags[1:120:2]] / 255
    assert nearest(0.5 * a + 0.5 * b).shown.float().mean() <= 0.1


def test_hours_of_the_clock_are_told_apart() -> None:
    clocks = [
        entry.image
        for entry in entries()
        if entry.subgroup == "time" and ("o'clock" in entry.name or "thirty" in entry.name)
    ]
    match = nearest(noisy(load_images()[clocks] / 255, 0.05))
    assert match.index.tolist() == clocks


def test_wrong_shape_and_range_are_named() -> None:
    with pytest.raises(OptionError, match=r"shape \(1, 3, 32, 32\)"):
        nearest(torch.zeros(1, 3, 32, 32))
    with pytest.raises(OptionError, match="outside"):
        nearest(torch.full((1, 3, 64, 64), 255.0))


def test_no_images_give_no_matches() -> None:
    assert len(nearest(torch.zeros(0, 3, 64, 64)).index) == 0

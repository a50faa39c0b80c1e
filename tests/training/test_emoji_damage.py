"""Edits that the copy-detection encoder of emoji learns to see through."""

import pytest
import torch
from torch import Tensor

from training.emoji import damage
from training.emoji.copies import EDITS, edited, families, held_back
from unalike.models.emoji.data import entries, load_images


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="module")
def images() -> Tensor:
    return load_images()[::400].float() / 255


def test_an_image_moves_down_and_right_by_its_shift() -> None:
    dot = torch.ones(1, 3, 64, 64)
    dot[..., 20:24, 10:14] = 0
    moved = damage.placed(dot, shift=torch.tensor([[3.0, 5.0]]))
    assert torch.allclose(moved[..., 23:27, 15:19], torch.zeros(1, 3, 4, 4), atol=1e-4)
    assert moved.mean() == pytest.approx(float(dot.mean()), abs=1e-4)
    turned = damage.placed(dot, degrees=90)
    assert not torch.allclose(turned, dot, atol=0.5)
    assert torch.allclose(damage.placed(turned, degrees=-90), dot, atol=1e-3)
    larger = damage.placed(dot, scale=1.4)
    assert (1 - larger).sum() == pytest.approx(1.4**2 * float((1 - dot).sum()), rel=0.1)


def test_a_crop_shows_its_part_alone() -> None:
    halves = torch.zeros(1, 3, 64, 64)
    halves[..., 32:] = 1
    assert damage.cropped(halves, 0.5, (0.0, 0.0)).max() < 0.2
    assert damage.cropped(halves, 0.5, (0.0, 1.0)).min() > 0.8


def test_colours_change_as_asked(images: Tensor) -> None:
    assert torch.allclose(damage.recoloured(images), images, atol=1e-5)
    grey = damage.recoloured(images, saturation=0.0)
    assert torch.allclose(grey[:, 0], grey[:, 2], atol=1e-5)
    red = torch.tensor([0.8, 0.2, 0.2]).view(1, 3, 1, 1).expand(1, 3, 4, 4)
    assert torch.allclose(
        damage.recoloured(red, hue=1 / 3)[0, :, 0, 0], torch.tensor([0.2, 0.8, 0.2]), atol=1e-4
    )
    tinted = damage.tinted(images, torch.tensor([[1.0, 0.0, 1.0]]).expand(len(images), 3))
    assert torch.allclose(tinted[:, [0, 2]], images[:, [0, 2]], atol=1e-6)
    assert (tinted[:, 1] == 1).all()


def test_blur_and_compression_keep_the_brightness(images: Tensor) -> None:
    for changed in (damage.blurred(images, 1.5), damage.compressed(images, 60)):
        assert changed.shape == images.shape
        assert not torch.equal(changed, images)
        assert torch.allclose(changed.mean(dim=(2, 3)), images.mean(dim=(2, 3)), atol=0.03)


@pytest.mark.parametrize("name", EDITS)
def test_every_edit_keeps_shape_and_range(images: Tensor, name: str) -> None:
    changed = EDITS[name](images, generator())
    assert changed.shape == images.shape
    assert 0 <= float(changed.min()) <= float(changed.max()) <= 1
    assert torch.equal(changed, images) == (name == "none")


def test_random_edits_follow_from_their_generator(images: Tensor) -> None:
    batch = torch.cat([images, images])
    first, second = (edited(batch, batch.roll(1, 0), generator()) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first[: len(images)], first[len(images) :])


def test_whole_families_are_held_back() -> None:
    held, family = held_back(), families()
    assert 0.05 < held.float().mean() < 0.15
    assert not set(family[held].tolist()) & set(family[~held].tolist())
    names = {entry.base: int(family[entry.image]) for entry in entries()}
    assert len(set(names.values())) > 1000

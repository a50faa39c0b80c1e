"""The copy-detection encoder that comes with the package."""

import json
from pathlib import Path

import pytest
import torch

from training.emoji.copies import EDITS, families, held_back
from unalike.extractors import extractor
from unalike.models.emoji.copies import COPY, ERRORS, CopyEncoder, shipped
from unalike.models.emoji.data import load_images, truth

RECORD = json.loads(
    (Path(__file__).parents[2] / "training" / "emoji" / "copies.json").read_text("utf-8")
)


def test_descriptors_are_unit_vectors_of_any_size() -> None:
    own = extractor("emoji-copies", device="cpu")
    assert own.copy_distance == COPY == RECORD["copy"]
    found = own.features(torch.rand(2, 3, 40, 90, generator=torch.Generator().manual_seed(0)))
    assert found.shape == (2, 64)
    assert torch.allclose(found.norm(dim=1), torch.ones(2), atol=1e-5)


def test_the_network_is_small() -> None:
    numbers = sum(p.numel() for p in shipped().parameters())
    assert numbers == sum(p.numel() for p in CopyEncoder().parameters()) < 250_000


@pytest.mark.parametrize("edit", ["JPEG, quality 80", "half the size and back", "10% cropped"])
def test_copies_of_images_that_it_was_not_trained_on_are_known(edit: str) -> None:
    own = load_images()[held_back()].float() / 255
    with torch.no_grad():
        edited = EDITS[edit](own, torch.Generator().manual_seed(0))
        distance = (shipped()(edited) - shipped()(own)).norm(dim=1)
    assert (distance < COPY).float().mean() >= 0.99
    assert RECORD["missed"][edit] <= 0.01


def test_images_of_other_names_are_told_apart() -> None:
    rows = held_back().nonzero().flatten()
    with torch.no_grad():
        own = shipped()(load_images()[rows].float() / 255)
        every = torch.cat([shipped()(p.float() / 255) for p in load_images().split(256)])
    apart = torch.cdist(own, every)[families()[rows][:, None] != families()]
    share = float((apart < COPY).float().mean())
    assert share == pytest.approx(RECORD["mistaken_pairs"], abs=1e-5)
    assert share < 1e-3


def test_the_stated_errors_are_those_that_were_measured() -> None:
    missed = RECORD["missed"]
    assert [missed[name] for name in ("JPEG, quality 80", "half the size and back")] == [0, 0]
    assert missed["10% cropped"] == 0
    for share in (
        missed["a sticker of 18×18"],
        missed["25% of another image"],
        missed["25% cropped, at a corner"],
        RECORD["mistaken_pairs"],
    ):
        assert f"{share:.1%}" in ERRORS or f"{share:.3%}" in ERRORS


def test_descriptors_have_gradients_for_steering() -> None:
    images = (load_images()[truth("red heart")].float() / 255).requires_grad_()
    extractor("emoji-copies", device="cpu").embed(images).sum().backward()
    assert images.grad is not None
    assert images.grad.abs().max() > 0

from typing import Any

import pytest
import torch
from tests.guidance.places import at, masks_of, normal

from unalike.errors import OptionError
from unalike.guidance import SPARKE, SPELL, VendiGuidance
from unalike.guidance.region import checked, inside, restricted, shown

METHODS = pytest.mark.parametrize("method", [SPARKE, SPELL, VendiGuidance])


@METHODS
@pytest.mark.parametrize(
    ("region", "kept"),
    [
        (None, None),
        ("a cat", "a cat"),
        (["cat", "hat"], ("cat", "hat")),
        (("cat",), ("cat",)),
        ((0, 0.25, 1, 0.75), (0.0, 0.25, 1.0, 0.75)),
        ([0.0, 0.0, 0.5, 1.0], (0.0, 0.0, 0.5, 1.0)),
    ],
)
def test_region_is_kept_as_words_or_a_box_when_given_so(method, region, kept):
    assert method(region=region).region == kept
    assert hash(method(region=region)) == hash(method(region=kept))


@METHODS
@pytest.mark.parametrize(
    ("mask", "kept"),
    [
        (torch.tensor([[True, False]]), [[True, False]]),
        (torch.tensor([[0.5, 0.51]]), [[False, True]]),
        (torch.tensor([[0, 1]]), [[False, True]]),
        (torch.tensor([[0, 1]], dtype=torch.uint8), [[False, True]]),
        (torch.tensor([[127, 128, 255]], dtype=torch.uint8), [[False, True, True]]),
        (torch.tensor([[[0.0]], [[1.0]]], dtype=torch.float16), [[[False]], [[True]]]),
    ],
)
def test_mask_is_kept_as_bool_when_it_has_numbers(method, mask, kept):
    assert method(region=mask).region.tolist() == kept


@pytest.mark.parametrize("mode", ["1", "L", "RGB"])
def test_mask_is_the_bright_part_when_it_is_an_image(mode):
    image = pytest.importorskip("PIL.Image").new(mode, (3, 2))
    image.putpixel((2, 1), {"1": 1, "L": 128, "RGB": (200, 200, 200)}[mode])
    image.putpixel((0, 0), {"1": 0, "L": 127, "RGB": (90, 90, 90)}[mode])
    kept = SPARKE(region=image).region
    assert isinstance(kept, torch.Tensor)
    assert kept.tolist() == [[False, False, False], [False, False, True]]


def test_mask_stays_when_the_users_one_changes():
    mask = torch.ones(2, 2, dtype=torch.bool)
    method = SPARKE(region=mask)
    mask[0, 0] = False
    assert isinstance(method.region, torch.Tensor)
    assert method.region.all()


@METHODS
@pytest.mark.parametrize(
    ("region", "message"),
    [
        ("", "region has an empty word"),
        (["cat", " "], "region has an empty word"),
        (
            (0.5, 0, 0.5, 1),
            r"region is \(0\.5, 0, 0\.5, 1\); allowed of a box: 0 <= left < right <= 1",
        ),
        ((0, 0.6, 1, 0.5), "allowed of a box"),
        ((-0.1, 0, 1, 1), "allowed of a box"),
        ((0, 0, 1, 1.01), "allowed of a box"),
        ((0, 0, float("nan"), 1), "allowed of a box"),
        ((0, 0, 1), r"region is \(0, 0, 1\); allowed: a box"),
        ((0, 0, True, 1), "allowed: a box"),
        ([], r"region is \[\]; allowed: a box"),
        (["cat", 1], "allowed: a box"),
        (7, "region is 7; allowed: a box"),
        (object(), "region is a object; allowed: a box"),
        (
            torch.ones(4),
            r"region is a mask of shape \(4,\) and torch.float32; allowed of a mask: \(h, w\)",
        ),
        (torch.ones(1, 1, 2, 2), r"shape \(1, 1, 2, 2\)"),
        (torch.ones(0, 4), r"shape \(0, 4\) .* at least one"),
        (torch.ones(2, 2, dtype=torch.complex64), "real numbers"),
        (torch.tensor([[1.0, torch.nan]]), "with NaN or infinite values"),
    ],
)
def test_error_says_what_is_allowed_when_a_region_is_not(method, region, message):
    with pytest.raises(
        OptionError,
        match=f"{method.__name__}: {message}" if message.startswith("region") else message,
    ):
        method(region=region)


def test_error_names_the_size_when_an_image_has_no_pixels():
    image = pytest.importorskip("PIL.Image").new("L", (0, 3))
    with pytest.raises(OptionError, match="region is an image of 0 × 3 pixels"):
        checked(image, "SPARKE")


@METHODS
def test_error_says_what_to_do_when_the_host_knows_no_places(method):
    x0 = normal(2, 6)
    settings: dict[str, Any] = {"radius": 9.0} if method is SPELL else {}
    with pytest.raises(
        OptionError,
        match=rf"{method.__name__}: region is 'cat', and .* masks= .* or set {method.__name__}",
    ):
        method(region="cat", **settings).x0_delta(x0, at(x0))


def test_mask_is_flattened_as_the_latents_are_when_it_broadcasts():
    x0, mask = normal(2, 3, 2, 2), torch.tensor([[True, False], [False, False]])
    found = inside("cat", x0, at(x0, masks=masks_of(mask[None, None])), "SPARKE")
    assert found is not None
    assert found.shape == (1, 12)
    assert torch.equal(found[0].view(3, 2, 2), mask.expand(3, 2, 2))
    assert inside(None, x0, at(x0), "SPARKE") is None


def test_host_is_asked_for_the_region_itself_at_every_step():
    asked = []

    def masks(region):
        asked.append(region)
        return torch.ones(1, 6, dtype=torch.bool)

    x0 = normal(2, 6)
    context = at(x0, masks=masks)
    for _ in range(2):
        SPARKE(region=["cat"]).x0_delta(x0, context)
    assert asked == [("cat",)] * 2


def test_rows_are_exactly_zero_outside_when_restricted():
    x = torch.tensor([[torch.inf, -1.0]])
    assert torch.equal(restricted(x, torch.tensor([[False, True]])), torch.tensor([[0.0, -1.0]]))
    assert restricted(x, None) is x


def test_region_is_shown_in_a_few_words_when_it_is_large():
    assert shown(torch.ones(64, 64)) == "a mask of shape (64, 64)"
    assert shown(object()) == "a object"

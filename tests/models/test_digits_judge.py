"""The judge and the classifier on pictures whose right verdict is known: held-out pictures, damaged
in ways that a person sees.
"""

import pytest
import torch
from torch import Tensor

from training.digits import damage
from training.digits.measure import classifier_accuracy, damaged, partners
from unalike.errors import OptionError
from unalike.models.digits import (
    Match,
    classify,
    count,
    features,
    held_out,
    load_images,
    load_labels,
    nearest,
    truth,
)
from unalike.models.digits.classifier import shipped
from unalike.models.digits.judge import DISTANCE, shifted


@pytest.fixture(scope="module")
def unseen() -> tuple[Tensor, Tensor]:
    """The held-out pictures in [0, 1] and their digits."""
    chosen = held_out()
    return load_images()[chosen] / 255, load_labels()[chosen]


@pytest.fixture(scope="module")
def verdicts(unseen: tuple[Tensor, Tensor]) -> dict[str, tuple[Match, Tensor]]:
    """Damage → what the judge makes of every third held-out picture damaged so, and their
    digits.
    """
    images, labels = unseen[0][::3], unseen[1][::3]
    return {
        what: (nearest(changed.clamp(0, 1)), labels)
        for what, changed in damaged(images, labels).items()
    }


def test_classifier_names_pictures_that_it_has_not_seen():
    assert classifier_accuracy()["pictures"] == 355
    assert classifier_accuracy()["accuracy"] >= 0.99


def test_probabilities_are_those_of_ten_digits_and_leave_room_for_none(unseen):
    probability = classify(unseen[0][:50])
    assert probability.shape == (50, 10)
    assert (probability >= 0).all()
    assert (probability.sum(1) <= 1 + 1e-6).all()
    assert classify(torch.ones(1, 3, 16, 16)).sum() < 0.1  # blank paper
    assert features(unseen[0][:50]).shape == (50, 64)


def test_every_picture_is_its_own_nearest_one():
    match = nearest(load_images()[::7] / 255, confidence=0)
    own = (
        match.label == load_labels()[::7]
    )  # the others are compared with pictures of another digit
    assert own.float().mean() >= 0.99
    assert torch.equal(match.index[own], torch.arange(1797)[::7][own])
    assert match.distance[own].max() < 1e-3
    assert torch.equal(load_labels()[match.index], match.label)


def test_distance_is_the_root_mean_square_when_the_image_is_not_shifted():
    three = load_images()[truth(3)[:1]] / 255
    lighter = damage.paler(three, 0.1)
    by_hand = ((lighter - three)[0, 0].square().sum() / 256).sqrt()
    assert abs(float(nearest(lighter).distance) - float(by_hand)) < 1e-4


@pytest.mark.parametrize(
    ("what", "least"),
    [
        ("as they are", 0.95),
        ("noise of 0.05", 0.92),
        ("smudged by 0.1", 0.75),
        ("shifted by one pixel", 0.95),
        ("turned by 10°", 0.93),
        ("paler by 0.3", 0.95),
        ("blurred by 0.7 pixels", 0.94),
    ],
)
def test_digit_is_recognised_when_the_damage_is_slight(verdicts, what, least):
    match, labels = verdicts[what]
    assert (match.shown & (match.label == labels)).float().mean() >= least
    assert (match.shown & (match.label != labels)).float().mean() <= 0.02


@pytest.mark.parametrize(
    ("what", "most"),
    [
        ("noise of 0.2", 0.02),
        ("noise of 0.3", 0.0),
        ("smudged by 0.2", 0.2),
        ("smudged by 0.3", 0.03),
        ("blurred by 1.5 pixels", 0.08),
        ("blurred by 2 pixels", 0.0),
        ("with a third of another digit", 0.2),
        ("half of each of two digits", 0.02),
        ("two digits over each other", 0.04),
        ("left half of one digit, right half of another", 0.05),
        ("upper half of one digit, lower half of another", 0.07),
    ],
)
def test_image_is_refused_when_it_is_no_digit_any_more(verdicts, what, most):
    assert verdicts[what][0].shown.float().mean() <= most


def test_image_is_refused_when_it_is_far_from_every_real_one(unseen):
    match = nearest(1 - unseen[0][:64])  # white on black
    assert match.distance.min() > DISTANCE
    assert not match.shown.any()


def test_threshold_of_distance_lets_real_pictures_stand_for_each_other():
    images, far = load_images() / 255, 0
    for label in range(10):
        own = truth(label)
        flat = images[own, 0].flatten(1)
        shifts = [
            shifted(images[own, :1], dy, dx).flatten(1) for dy in (-1, 0, 1) for dx in (-1, 0, 1)
        ]
        distance = torch.stack([torch.cdist(s, flat) for s in shifts]).amin(0) / 16
        distance.fill_diagonal_(torch.inf)
        far += int((distance.amin(1) > DISTANCE).sum())
    assert 0 < far <= 0.006 * len(images)


def test_counts_are_those_of_the_real_pictures_when_these_are_judged():
    own = truth("seven")[:20]
    images = load_images()[torch.cat([own, own[:5], truth("two")[:3]])] / 255
    right = int(nearest(images[:20]).shown.sum())
    counts = count(images, "seven")
    assert right >= 18
    assert (counts.samples, counts.distinct, counts.possible) == (28, right, 28)
    assert counts.right == right + int(nearest(images[20:25]).shown.sum())
    assert count(images[-3:], 7).right == 0


def test_partners_are_of_the_asked_class_and_never_the_picture_itself():
    labels = torch.tensor([0, 0, 1, 1, 2, 2, 2])
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        alike, other = (partners(labels, generator, alike=alike) for alike in (True, False))
        assert (labels[alike] == labels).all()
        assert (alike != torch.arange(7)).all()
        assert (labels[other] != labels).all()


@pytest.mark.parametrize("function", [nearest, classify, features])
def test_wrong_shape_and_range_are_named(function):
    with pytest.raises(OptionError, match=r"shape \(1, 3, 64, 64\)"):
        function(torch.zeros(1, 3, 64, 64))
    with pytest.raises(OptionError, match="outside"):
        function(torch.full((1, 3, 16, 16), 255.0))


def test_no_images_give_no_matches():
    assert len(nearest(torch.zeros(0, 3, 16, 16)).index) == 0


def test_global_random_numbers_are_untouched_when_the_classifier_is_loaded():
    shipped.cache_clear()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    shipped()
    assert torch.equal(torch.rand(3), expected)

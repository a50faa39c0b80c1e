"""The digits data set: what is in it, what is held out, and which pictures are right for a
class.
"""

from pathlib import Path

import pytest
import torch

from unalike.errors import OptionError
from unalike.models import digits
from unalike.models.digits import held_out, load_images, load_labels, truth
from unalike.models.digits.data import class_index

FOLDER = Path(str(digits.__file__)).parent
COUNTS = [
    178,
    182,
    177,
    183,
    181,
    182,
    181,
    179,
    174,
    180,
]  # of the classes in the published description of the data set


def test_every_picture_is_there_when_loaded():
    images = load_images()
    assert images.shape == (1797, 3, 16, 16)
    assert images.dtype == torch.uint8
    assert len(torch.unique(images[:, 0].flatten(1), dim=0)) == len(images)
    assert torch.bincount(load_labels()).tolist() == COUNTS


def test_pictures_are_grey_and_dark_on_white_when_loaded():
    images = load_images().float()
    assert torch.equal(images[:, 0], images[:, 1])
    assert torch.equal(images[:, 0], images[:, 2])
    assert images[..., :, 0].mean() > 240  # the left edge is paper nearly everywhere
    assert images.flatten(1).amin(1).max() < 60  # and ink is somewhere in each


def test_a_fifth_of_each_class_is_held_out_when_asked():
    chosen = held_out()
    assert chosen.shape == (1797,)
    for label, count in enumerate(COUNTS):
        assert int(chosen[load_labels() == label].sum()) == count // 5


@pytest.mark.parametrize("label", [3, "3", "three", " Three "])
def test_truth_is_every_picture_of_the_class_when_it_is_named_in_any_way(label):
    right = truth(label)
    assert len(right) == COUNTS[3]
    assert (load_labels()[right] == 3).all()
    assert torch.equal(right, right.sort().values)


@pytest.mark.parametrize("label", [10, -1, "ten", "", True, "3.0"])
def test_message_lists_the_classes_when_the_label_is_none(label):
    with pytest.raises(
        OptionError, match=r"is no class of the digits; .*allowed: 0 to 9, or zero, one"
    ):
        class_index(label)


def test_closest_name_is_suggested_when_the_label_is_nearly_right():
    with pytest.raises(OptionError, match="did you mean 'three'"):
        truth("tree")

import numpy as np
import pytest
from PIL import Image

from unalike.runs.scoring import BANDWIDTH, SIDE, change, diversity, pixel_features


def noise(seed, side=SIDE):
    return Image.fromarray(
        np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    )


def test_feature_distance_is_the_root_mean_square_difference_when_images_have_the_scored_size():
    a, b = noise(0), noise(1)
    assert (pixel_features(a) - pixel_features(b)).norm().item() == pytest.approx(
        change(a, b), rel=1e-5
    )


def test_change_is_exact_when_one_pixel_differs():
    image, other = Image.new("RGB", (2, 2)), Image.new("RGB", (2, 2))
    other.putpixel((0, 0), (255, 255, 255))
    assert change(image, other) == pytest.approx(0.5)
    assert change(image, image) == 0


def test_scores_are_those_of_two_samples_when_there_are_two():
    a, b = noise(0), noise(1)
    k = np.exp(-(change(a, b) ** 2) / (2 * BANDWIDTH**2))
    eigenvalues = np.array([(1 + k) / 2, (1 - k) / 2])
    score = diversity([pixel_features(a), pixel_features(b)])
    assert score.vendi == pytest.approx(
        np.exp(-(eigenvalues * np.log(eigenvalues)).sum()), rel=1e-4
    )
    assert score.rke == pytest.approx(1 / (eigenvalues**2).sum(), rel=1e-4)
    assert score.images == 2


def test_scores_are_one_when_there_is_a_single_image():
    score = diversity([pixel_features(noise(0))])
    assert (score.vendi, score.rke) == (1, 1)


def test_features_have_the_scored_size_when_images_are_of_any_size_and_mode():
    assert pixel_features(Image.new("L", (100, 37))).shape == (3 * SIDE * SIDE,)

"""Copying, alignment, truth and groups: small sets whose figures follow by hand."""

import pytest
import torch

from unalike.errors import OptionError
from unalike.metrics import (
    auth_pct,
    by_group,
    clip_score,
    in_batch_similarity,
    mode_coverage,
    nearest_distances,
    prompt_precision,
    share_inside,
)


def drawn(n: int, d: int = 4, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("block", [1, 20, 2**24])
def test_nearest_distances_are_exact_when_blocks_are_of_any_size(block: int) -> None:
    generated, protected = drawn(11), drawn(9, seed=1)
    distance, index = nearest_distances(generated, protected, block=block)
    every = (generated.double()[:, None] - protected.double()).norm(dim=2)
    torch.testing.assert_close(distance, every.min(dim=1).values)
    assert torch.equal(index, every.argmin(dim=1))


def test_share_inside_counts_copies_and_leaves_the_boundary_out() -> None:
    protected = torch.tensor([[0.0], [10.0]])
    assert share_inside(torch.tensor([[0.0], [1.0], [2.0], [9.5]]), protected, 2.0) == 0.75


def test_authenticity_is_0_when_all_are_copies_and_100_when_none_is_near() -> None:
    training = drawn(20)
    assert auth_pct(training[:5], training) == 0
    assert auth_pct(drawn(6, seed=1) + 100, training) == 100


@pytest.mark.parametrize("block", [1, 2**24])
def test_authenticity_is_that_of_the_definition(block: int) -> None:
    training, generated = drawn(15), drawn(40, seed=1)
    authentic = 0
    for g in generated:
        distances = (training - g).norm(dim=1)
        nearest = int(distances.argmin())
        others = torch.cat([training[:nearest], training[nearest + 1 :]])
        authentic += bool(distances[nearest] >= (others - training[nearest]).norm(dim=1).min())
    assert 0 < authentic < 40
    assert auth_pct(generated, training, block=block) == pytest.approx(100 * authentic / 40)


def test_clip_score_is_100_when_embeddings_point_the_same_way() -> None:
    x = drawn(5)
    assert clip_score(x, 3 * x) == pytest.approx(100)
    assert clip_score(x, -x) == 0


def test_similarity_is_the_mean_over_pairs_within_groups() -> None:
    x, groups = drawn(7), torch.tensor([1, 0, 1, 1, 0, 2, 1])
    means = []
    for g in (0, 1):
        own = x[groups == g]
        pairs = [
            torch.cosine_similarity(a, b, dim=0).item()
            for i, a in enumerate(own)
            for b in own[i + 1 :]
        ]
        means.append(sum(pairs) / len(pairs))
    assert in_batch_similarity(x, groups) == pytest.approx(sum(means) / 2, abs=1e-6)
    assert in_batch_similarity(x[:1].expand(4, -1)) == pytest.approx(1)


def test_truth_counts_each_right_image_once_when_samples_repeat_it() -> None:
    shown, right = torch.tensor([3, 3, 5, -1, 8]), torch.tensor([3, 5, 6])
    assert prompt_precision(shown, right) == 0.6
    assert mode_coverage(shown, right) == pytest.approx(2 / 3)
    assert mode_coverage(shown[:1], right) == 1  # one sample can show one image at most
    assert prompt_precision(torch.tensor([-1]), torch.tensor([-1])) == 0


def test_groups_are_scored_apart_when_an_array_has_groups_of_its_own() -> None:
    x, own = torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([0, 1, 1])
    real, of_real = torch.tensor([[5.0], [6.0]]), torch.tensor([1, 0])
    assert by_group(lambda a, b: (a.sum().item(), b.sum().item()), own, x, (real, of_real)) == {
        0: (1.0, 6.0),
        1: (5.0, 5.0),
    }


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: share_inside(drawn(3), drawn(3), 0.0),
            r"radius is 0\.0; it must be a number above 0",
        ),
        (lambda: auth_pct(drawn(3), drawn(1)), "training has 1 samples; at least 2"),
        (lambda: clip_score(drawn(3), drawn(2)), "images has 3 rows and prompts 2"),
        (lambda: in_batch_similarity(drawn(3), torch.tensor([0, 1, 2])), "no group has two images"),
        (lambda: in_batch_similarity(drawn(3), torch.tensor([0])), r"groups has the shape \(1,\)"),
        (lambda: mode_coverage(torch.tensor([]), torch.tensor([1])), r"shown has the shape \(0,\)"),
        (
            lambda: prompt_precision(torch.tensor([1]), torch.tensor([])),
            r"right has the shape \(0,\)",
        ),
        (
            lambda: by_group(len, torch.tensor([0]), drawn(2)),
            "an array has 2 rows and its groups 1",
        ),
        (
            lambda: by_group(len, torch.tensor([4]), (drawn(1), torch.tensor([3]))),
            "group 4 has no rows",
        ),
        (
            lambda: nearest_distances(torch.zeros(0, 3), drawn(3)),
            r"generated has the shape \(0, 3\)",
        ),
    ],
)
def test_error_says_what_is_wrong_when_input_is_bad(call, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        call()

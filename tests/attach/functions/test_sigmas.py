import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unalike.attach.functions.sigmas import Sigmas, karras_sigmas, one_sigma
from unalike.errors import OptionError, UnsupportedError

LEVELS = [8.0, 4.0, 2.0, 1.0]


@pytest.mark.parametrize("end", [[], [0.0]], ids=["without 0", "with 0"])
def test_step_is_the_level_s_own_when_asked_at_a_level(end: list[float]) -> None:
    sigmas = Sigmas(LEVELS + end)
    assert len(sigmas) == 4
    assert [sigmas.place(s) for s in LEVELS] == [(0, 4.0), (1, 2.0), (2, 1.0), (3, 0.0)]


@pytest.mark.parametrize("off", [1 - 1e-6, 1 + 1e-6])
def test_step_is_the_level_s_own_when_asked_at_a_rounded_level(off: float) -> None:
    sigmas = Sigmas(LEVELS)
    assert [sigmas.place(s * off)[0] for s in LEVELS] == [0, 1, 2, 3]


def test_step_is_the_one_around_when_asked_between_levels() -> None:
    sigmas = Sigmas(LEVELS)
    assert sigmas.place(math.sqrt(8 * 4)) == (0, 4.0)
    assert sigmas.place(2 * 2**0.3) == (1, 2.0)
    assert sigmas.place(2 * 2**0.2) == (
        2,
        1.0,
    )  # so that the step it begins is not nearly of length 0
    assert sigmas.place(11.0) == (0, 4.0)
    assert sigmas.place(0.1) == (3, 0.0)


@given(st.floats(0.01, 11.3))
def test_step_ends_well_below_when_asked_anywhere(sigma: float) -> None:
    step, after = Sigmas(LEVELS).place(sigma)
    assert after <= sigma * 2**-0.24 if sigma < 8 else after == 4
    assert 0 <= step < 4


def test_call_is_refused_when_it_is_far_above_the_first_level() -> None:
    with pytest.raises(
        UnsupportedError, match=r"at sigma 80, above the first of sigmas, 8; .*churn="
    ):
        Sigmas(LEVELS).place(80.0)


def test_step_is_its_own_when_its_level_was_raised_by_churn() -> None:
    levels = karras_sigmas(40).tolist()[:-1]
    churned = Sigmas(levels, churn=20, churn_range=(0.05, 50.0))
    gamma = min(20 / 40, math.sqrt(2) - 1)
    for i, level in enumerate(levels):
        raised = level * (1 + gamma) if 0.05 <= level <= 50 else level
        assert churned.place(raised)[0] == i
        assert churned.place(level)[0] == i
    assert any(Sigmas(levels).place(level * (1 + gamma))[0] != i for i, level in enumerate(levels))


@pytest.mark.parametrize(
    "sigmas",
    [
        [],
        [0.0],
        [1.0, 2.0],
        [2.0, 2.0],
        [2.0, -1.0],
        [math.inf, 1.0],
        [math.nan],
        torch.tensor([1.0, 0.0, 0.0]),
    ],
)
def test_levels_are_refused_when_they_do_not_fall(sigmas: list[float]) -> None:
    with pytest.raises(OptionError, match="falling noise levels above 0"):
        Sigmas(sigmas)


@pytest.mark.parametrize("churn", [-1, math.nan, math.inf, True, "40"])
def test_churn_is_refused_when_it_is_no_amount(churn: float) -> None:
    with pytest.raises(OptionError, match=r"churn is .*; allowed"):
        Sigmas(LEVELS, churn=churn)


@pytest.mark.parametrize(
    "sigma",
    [
        3.0,
        torch.tensor(3.0),
        torch.full((4,), 3.0),
        torch.full((4, 1, 1, 1), 3.0, dtype=torch.float64),
    ],
)
def test_sigma_is_one_number_when_it_is_that_of_the_batch(sigma: torch.Tensor | float) -> None:
    assert one_sigma(sigma) == 3.0


def test_sigma_is_refused_when_images_differ() -> None:
    with pytest.raises(UnsupportedError, match="noise levels from 1 to 2 in one batch"):
        one_sigma(torch.tensor([1.0, 2.0]))


@pytest.mark.parametrize("sigma", [0.0, -1.0, math.nan, math.inf])
def test_sigma_is_refused_when_it_is_no_noise_level(sigma: float) -> None:
    with pytest.raises(UnsupportedError, match="finite noise level above 0"):
        one_sigma(torch.full((2,), sigma))


def test_karras_levels_are_the_published_ones() -> None:
    """At the ends, and evenly spaced after the root that the formula is even in."""
    sigmas = karras_sigmas(18)
    assert sigmas[0].item() == pytest.approx(80)
    assert sigmas[-2].item() == pytest.approx(0.002)
    assert sigmas[-1] == 0
    roots = sigmas[:-1] ** (1 / 7)
    torch.testing.assert_close(roots.diff(), roots.diff()[:1].expand(17))
    assert karras_sigmas(1).tolist() == pytest.approx([80.0, 0.0])


@pytest.mark.parametrize(
    "options",
    [
        {"steps": 0},
        {"steps": 1.5},
        {"steps": 2, "sigma_min": 0},
        {"steps": 2, "sigma_max": 0.001},
        {"steps": 2, "rho": 0},
    ],
)
def test_karras_levels_are_refused_when_they_would_not_fall(options: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match="as in karras_sigmas"):
        karras_sigmas(**options)

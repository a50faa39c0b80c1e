from typing import Any

import pytest
import torch

from unalike.errors import OptionError
from unalike.guidance.context import Context
from unalike.guidance.interval import IntervalGuidance
from unalike.guidance.level import Level


def enabled(alpha: float, sigma: float) -> bool:
    context = Context(
        step=0,
        steps=4,
        level=Level(alpha, sigma, 1.0, 0.0),
        x_t=torch.zeros(1, 2),
        groups=torch.zeros(1),
    )
    return IntervalGuidance(sigma_low=0.5, sigma_high=2.0).cfg_enabled(context)


@pytest.mark.parametrize(
    ("sigma", "wanted"), [(0.2, False), (0.5, False), (0.51, True), (2.0, True), (2.01, False)]
)
def test_guidance_is_on_when_the_noise_is_in_the_interval(sigma: float, wanted: bool) -> None:
    assert enabled(1.0, sigma) is wanted
    assert enabled(0.25, 0.25 * sigma) is wanted  # the same noise level in another parametrisation


def test_guidance_is_off_when_there_is_no_signal() -> None:
    assert enabled(0.0, 1.0) is False


@pytest.mark.parametrize(
    ("sigma", "wanted"), [(0.28, False), (0.29, True), (5.42, True), (5.43, False)]
)
def test_interval_is_the_published_one_when_none_is_given(sigma: float, wanted: bool) -> None:
    context = Context(
        step=0,
        steps=4,
        level=Level(1.0, sigma, 1.0, 0.0),
        x_t=torch.zeros(1, 2),
        groups=torch.zeros(1),
    )
    assert IntervalGuidance().cfg_enabled(context) is wanted


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"sigma_low": 3.0, "sigma_high": 2.0},
            "sigma_low is 3 and sigma_high is 2; sigma_low must be below",
        ),
        ({"limit": 0.5}, r"limit is 0\.5, and x0 is not corrected"),
    ],
)
def test_error_names_the_options_when_they_do_not_go_together(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(OptionError, match=message):
        IntervalGuidance(**options)

"""Methods that change the starting noise or the features of the denoiser, with every family."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.hosts.families import FAMILIES
from tests.hosts.family import WARNINGS, Family

from unalike import DAVE, CoupledNoise
from unalike.attach import guide
from unalike.errors import UnsupportedError

pytestmark = [pytest.mark.filterwarnings(warning) for warning in WARNINGS]
Read = Callable[[Family], Any]

NO_NOISE = {"DeepFloyd IF", "modular Stable Diffusion XL"}
"""Families that draw their noise elsewhere than in `prepare_latents` or their call."""
NO_FEATURES = {"AnimateDiff", "Latte", "Stable Video Diffusion", "Z-Image"}
"""Families whose frames are rows of their own, or whose denoiser takes a list."""

every_family = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.id)


@every_family
def test_every_image_changes_when_noise_is_coupled_or_that_is_refused(family: Family, read: Read):
    pipe = read(family)
    if family.name in NO_NOISE:
        with pytest.raises(UnsupportedError, match=r"^CoupledNoise: .* starting noise in"):
            family.call(guide(pipe, CoupledNoise()), ["cat"], 2)
        return
    plain, guided = family.call(pipe, ["cat"], 2), guide(pipe, CoupledNoise())
    changed = (family.call(guided, ["cat"], 2) - plain).flatten(1).abs().amax(dim=1)
    assert len(changed) == 2
    assert changed.min() > 1e-2
    still = guide(pipe, CoupledNoise(strength=0))
    assert torch.equal(family.call(still, ["cat"], 2), plain)


@every_family
def test_every_image_changes_when_features_do_or_that_is_refused(family: Family, read: Read):
    pipe = read(family)
    if family.name in NO_FEATURES:
        with pytest.raises(UnsupportedError, match=r"^DAVE.*leave the method out"):
            family.call(guide(pipe, DAVE()), ["cat"], 2)
        return
    plain, guided = family.call(pipe, ["cat"], 2), guide(pipe, DAVE(strength=1.0))
    changed = (family.call(guided, ["cat"], 2) - plain).flatten(1).abs().amax(dim=1)
    assert len(changed) == 2
    assert changed.min() > 1e-3
    still = guide(pipe, DAVE(strength=0))
    assert torch.equal(family.call(still, ["cat"], 2), plain)

"""Distributions of coupled and pink noise."""

import math

import pytest
import torch
from torch import Tensor

from unalike.errors import UnsupportedError
from unalike.guidance.context import Context
from unalike.guidance.coupled_noise import CoupledNoise
from unalike.guidance.level import Level
from unalike.guidance.method import Method
from unalike.guidance.pink_noise import PinkNoise

DRAWS = 20_000


def started(method: Method, noise: Tensor, stream: dict | None = None, groups=None) -> Tensor:
    context = Context(
        step=0,
        steps=1,
        level=Level(0.0, 1.0, 0.0, 1.0),
        x_t=noise,
        groups=torch.zeros(len(noise), dtype=torch.int64) if groups is None else groups,
        prompts=None if groups is None else torch.eye(4)[groups],
        stream={} if stream is None else stream,
    )
    changed = method.initial_noise(noise, context)
    return noise if changed is None else changed


def white(images: int, numbers: int = DRAWS, seed: int = 0) -> Tensor:
    return torch.randn(images, numbers, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("images", [2, 4, 7])
@pytest.mark.parametrize("streamed", [False, True])
def test_noises_are_standard_normal_and_correlated_as_asked(
    strength: float, images: int, streamed: bool
) -> None:
    """Over 20,000 draws; the standard error of a correlation is 0.007."""
    method = CoupledNoise(strength=strength, size=images if streamed else None)
    z = started(method, white(images))
    expected = torch.full((images, images), -strength / (images - 1)).fill_diagonal_(1.0)
    torch.testing.assert_close(z @ z.T / DRAWS, expected, atol=0.04, rtol=0)
    assert z.mean(dim=1).abs().max() < 0.04
    kurtosis = z.pow(4).mean(dim=1)
    torch.testing.assert_close(kurtosis, torch.full((images,), 3.0), atol=0.3, rtol=0)


@pytest.mark.parametrize("streamed", [False, True])
def test_noises_sum_to_0_at_strength_1(streamed: bool) -> None:
    z = started(CoupledNoise(size=5 if streamed else None), white(5, 50))
    torch.testing.assert_close(z.sum(dim=0), torch.zeros(50), atol=1e-4, rtol=0)


@pytest.mark.parametrize("parts", [[6], [1] * 6, [2, 4], [4, 2]])
def test_images_are_the_same_however_calls_divide_them(parts: list[int]) -> None:
    """A size of 4: the fifth image begins anew, and is the plain one of its seed."""
    noise, stream, made = white(6, 30), {}, []
    for part in noise.split(parts):
        before = stream
        stream = dict(before)
        made.append(started(CoupledNoise(size=4), part, stream))
    whole = started(CoupledNoise(size=4), noise, {})
    torch.testing.assert_close(torch.cat(made), whole)
    assert torch.equal(whole[0], noise[0])
    assert torch.equal(whole[4], noise[4])
    torch.testing.assert_close(whole[:4].sum(dim=0), torch.zeros(30), atol=1e-4, rtol=0)


def test_prompts_are_coupled_apart() -> None:
    noise, groups = white(4, 30), torch.tensor([0, 1, 0, 1])
    for size in (None, 2):
        z = started(CoupledNoise(size=size), noise, {}, groups)
        torch.testing.assert_close(z[0], -z[2])
        torch.testing.assert_close(z[1], -z[3])


def test_prompt_goes_on_where_an_earlier_call_ended() -> None:
    noise, groups, stream = white(4, 30), torch.tensor([0, 1]), {}
    first = started(CoupledNoise(size=2), noise[:2], stream, groups)
    second = started(CoupledNoise(size=2), noise[2:], stream, groups.flip(0))
    torch.testing.assert_close(second, -first.flip(0))


@pytest.mark.parametrize("alpha", [0.2, 1.0, 2.0])
@pytest.mark.parametrize("shape", [(3, 2, 32, 32), (1, 2, 3, 16, 24)])
def test_power_falls_with_frequency_and_the_variance_is_1(
    alpha: float, shape: tuple[int, ...]
) -> None:
    noise = torch.stack([white(1, math.prod(shape), seed).view(shape) for seed in range(200)])
    pink = torch.stack([started(PinkNoise(alpha=alpha), each) for each in noise])
    power = torch.fft.fft2(pink).abs().square().flatten(0, -3).mean(dim=0)
    rows, columns = (torch.fft.fftfreq(n) for n in shape[-2:])
    squared = rows[:, None].square() + columns[None].square()
    low, high = (squared > 0) & (squared < 0.01), squared > 0.2
    expected = (squared[low] ** (-alpha / 2)).mean() / (squared[high] ** (-alpha / 2)).mean()
    assert float(power[low].mean() / power[high].mean()) == pytest.approx(float(expected), rel=0.1)
    assert float(pink.square().mean()) == pytest.approx(1, abs=0.05)


def test_error_says_what_to_leave_out_when_the_noise_has_no_rows_and_columns() -> None:
    with pytest.raises(UnsupportedError, match=r"PinkNoise: .*\(2, 16, 4\).*leave latents out"):
        started(PinkNoise(), torch.zeros(2, 16, 4))

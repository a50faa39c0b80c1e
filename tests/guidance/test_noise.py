import math

import torch

from unalike.guidance.context import Context
from unalike.guidance.level import Level
from unalike.guidance.noise import denoiser_step, limited


def at(x_t: torch.Tensor, alpha: float = 0.5) -> Context:
    return Context(
        step=0,
        steps=1,
        level=Level(alpha, 1, 1, 0),
        x_t=x_t,
        groups=torch.zeros(len(x_t)),
    )


def test_denoiser_step_is_the_distance_of_the_prediction_from_the_rescaled_latent():
    x0, x_t = torch.tensor([[3.0, 4.0], [1.0, 1.0]]), torch.tensor([[0.0, 0.0], [0.5, 0.5]])
    torch.testing.assert_close(denoiser_step(x0, at(x_t)), torch.tensor([5.0, 0.0]))
    torch.testing.assert_close(
        denoiser_step(x0, at(x_t, alpha=0.0)), torch.tensor([5.0, math.sqrt(2)])
    )


def test_each_image_is_scaled_down_when_its_correction_is_over_the_limit():
    x0, delta = torch.tensor([[3.0, 4.0], [3.0, 4.0]]), torch.tensor([[0.0, 5.0], [0.0, 0.1]])
    torch.testing.assert_close(
        limited(delta, x0, at(torch.zeros(2, 2)), 0.2), torch.tensor([[0.0, 1.0], [0.0, 0.1]])
    )
    assert limited(delta, x0, at(torch.zeros(2, 2)), None) is delta

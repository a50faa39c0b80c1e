"""Pink noise: starting noise with more of its power at low spatial frequencies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from unalike.errors import UnsupportedError
from unalike.guidance.context import Context
from unalike.guidance.method import Method
from unalike.options import option


@dataclass(frozen=True, kw_only=True)
class PinkNoise(Method):
    """Filters the starting noise in space, so that its amplitude falls with the frequency `f`.

        z = F⁻¹(g(f) F(ε)),    g(f) = f^(-alpha / 2) / √(mean of f^(-alpha))

    `f` is the distance from the origin of the plane of frequencies, in cycles a latent cell; that
    of the mean value is taken as the lowest other one. The variance of each number stays 1 and its
    neighbours become correlated, so the noise is not what the model was trained on: layouts differ
    more between seeds, and fidelity falls as `alpha` rises. Each image is filtered by itself.

    Source: arXiv:2601.00090 (2026), which gives amplitude `f^(-alpha / 2)`, unit variance and
    `alpha` 0.2. The place of the mean value is ours. Frames of a video are filtered one by one.

    Cost: two Fourier transforms of the noise, once a call.

    Args:
        alpha: exponent of the power; 0 leaves white noise.

    Raises:
        OptionError: for an option outside its allowed values, and for start, stop, every or limit,
            for it acts once, before the first step.
        UnsupportedError: for `latents` that the caller gives as packed tokens.

    Example:
        >>> import torch
        >>> from unalike.guidance.context import Context
        >>> from unalike.guidance.level import Level
        >>> noise = torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
        >>> pure = Level(alpha=0.0, sigma=1.0, next_alpha=0.0, next_sigma=1.0)
        >>> context = Context(step=0, steps=1, level=pure, x_t=noise, groups=torch.zeros(1))
        >>> pink = PinkNoise(alpha=1.0).initial_noise(noise, context)
        >>> neighbours = (pink[..., 1:] * pink[..., :-1]).mean()
        >>> f"variance {pink.var():.1f}, correlation of neighbours {neighbours:.1f}"
        'variance 1.0, correlation of neighbours 0.3'
    """

    name: ClassVar[str] = "pink"
    summary: ClassVar[str] = "gives the starting noise more power at low spatial frequencies"
    citation: ClassVar[str] = """@misc{pinknoise2026,
  title = {arXiv:2601.00090},
  year = {2026},
  eprint = {2601.00090},
  archivePrefix = {arXiv}
}"""

    alpha: float = option(
        0.2, "exponent by which power falls with frequency; 0: white noise", low=0, high=4
    )

    def initial_noise(self, noise: Tensor, context: Context) -> Tensor | None:
        """The filtered noise (B, …, H, W); None for `alpha` 0."""
        if self.alpha == 0:
            return None
        if noise.ndim < 4:
            raise UnsupportedError(
                f"PinkNoise: the starting noise has shape {tuple(noise.shape)}, without rows and "
                "columns of an image; leave latents out, so that the pipeline draws it, or leave "
                "PinkNoise out"
            )
        own = noise.to(torch.promote_types(noise.dtype, torch.float32))
        height, width = noise.shape[-2:]
        rows = torch.fft.fftfreq(height, device=own.device)[:, None]
        columns = torch.fft.fftfreq(width, device=own.device)[None]
        squared = rows.square() + columns.square()
        if height * width == 1:
            return None
        squared[0, 0] = squared.flatten()[1:].min()
        power = squared ** (-self.alpha / 2)
        gain = (power / power.mean()).sqrt()
        return torch.fft.ifft2(torch.fft.fft2(own) * gain).real.contiguous()

"""Guidance for samplers outside diffusers: of denoisers, or of predicted clean samples.

`guide_denoiser` is for `D(x, sigma) -> x0` as k-diffusion, EDM and EDM2 have it; `denoised_fn` for
the argument of that name of guided-diffusion and what came of it (GLIDE, DiT, MDT). Models of
pixels need nothing else, for there the sample is the image. Nothing here imports diffusers.

Published settings of `SPELL` for such models, with the radius between 0 and 2 times the median
distance of unguided samples:

| model | steps | images in a batch | overcompensation |
|---|---|---|---|
| EDMv2 (`guide_denoiser`), class to image, latents | 50 | 8 | 1 |
| MDTv2 (`denoised_fn`), class to image, latents | 50 | 2 | 1 |
| Simple Diffusion, text to image, pixels | 50 | 16 | 1.6 |

Source: Kirchhof et al. 2025, Appendix D (arXiv:2410.06025). The radii are in the units of each
model's space: `SPELL(radius="auto", factor=…).calibrated(samples, groups)` measures that median on
samples of your own.
"""

from unalike.attach.functions.denoiser import GuidedDenoiser, guide_denoiser
from unalike.attach.functions.predictions import GuidedPrediction, denoised_fn
from unalike.attach.functions.sigmas import karras_sigmas

__all__ = ["GuidedDenoiser", "GuidedPrediction", "denoised_fn", "guide_denoiser", "karras_sigmas"]

"""Samplers that are not diffusers': EDM's, written from the paper; loops of guided-diffusion's
structure; k-diffusion's own.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

Denoiser = Callable[..., Tensor]


def edm(
    denoiser: Denoiser,
    noise: Tensor,
    sigmas: Tensor,
    *extra: Any,
    churn: float = 0.0,
    low: float = 0.0,
    high: float = math.inf,
) -> Tensor:
    """Algorithm 2 of Karras et al. 2022 (arXiv:2206.00364) with s(t) = 1, σ(t) = t and S_noise = 1;
    noise of its own from a fixed seed.
    """
    generator, steps = torch.Generator().manual_seed(9), len(sigmas) - 1
    x = noise * sigmas[0]
    for i in range(steps):
        t, after = sigmas[i], sigmas[i + 1]
        gamma = min(churn / steps, math.sqrt(2) - 1) if low <= t <= high else 0.0
        fresh = torch.randn(x.shape, generator=generator, dtype=x.dtype)
        raised = t + gamma * t
        if gamma > 0:
            x = x + (raised**2 - t**2).sqrt() * fresh
        slope = (x - denoiser(x, raised, *extra)) / raised
        there = x + (after - raised) * slope
        if after != 0:
            slope = (slope + (there - denoiser(there, after, *extra)) / after) / 2
            there = x + (after - raised) * slope
        x = there
    return x


def euler(denoiser: Denoiser, x: Tensor, sigmas: Sequence[float] | Tensor, *extra: Any) -> Tensor:
    """Euler's method, with the noise level given once for each image."""
    for i in range(len(sigmas) - 1):
        here, there = sigmas[i], sigmas[i + 1]
        x = x + (x - denoiser(x, here * x.new_ones(len(x)), *extra)) / here * (there - here)
    return x


class Diffusion:
    """A diffusion with the arguments and the order of things of guided-diffusion, of `steps` of
    1,000 steps, for a model of the noise.

    Args:
        steps: how many.
        rescale: whether the model is given timesteps on the scale of 1,000 as numbers with a point,
            as `rescale_timesteps` does.
    """

    original_num_steps = 1000

    def __init__(self, steps: int, rescale: bool = False) -> None:
        betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
        self.timestep_map = [round(i * 999 / (steps - 1)) for i in range(steps)]
        self.alphas_cumprod = torch.cumprod(1 - betas, 0)[self.timestep_map].numpy()
        self.rescale_timesteps = rescale

    def p_sample_loop(
        self, model: Any, shape: Sequence[int], noise: Tensor, **options: Any
    ) -> Tensor:
        """Ancestral sampling: the posterior of the chain, with its own variance."""
        return self._loop(model, shape, noise, 1.0, **options)

    def ddim_sample_loop(
        self, model: Any, shape: Sequence[int], noise: Tensor, eta: float = 0.0, **options: Any
    ) -> Tensor:
        """DDIM's."""
        return self._loop(model, shape, noise, eta, **options)

    def _loop(
        self,
        model: Any,
        shape: Sequence[int],
        noise: Tensor,
        eta: float,
        clip_denoised: bool = True,
        denoised_fn: Callable[..., Tensor] | None = None,
        model_kwargs: dict[str, Any] | None = None,
        hand_over: bool = False,
    ) -> Tensor:
        generator, x = torch.Generator().manual_seed(9), noise
        assert tuple(x.shape) == tuple(shape)
        assert next(model.parameters()).ndim
        for i in reversed(range(len(self.alphas_cumprod))):
            here, there = (
                float(a) for a in (self.alphas_cumprod[i], self.alphas_cumprod[i - 1] if i else 1.0)
            )
            t = torch.full((len(x),), self.timestep_map[i])
            noise = model(x, t.float() if self.rescale_timesteps else t, **(model_kwargs or {}))
            x0 = (x - math.sqrt(1 - here) * noise) / math.sqrt(here)
            if denoised_fn is not None:
                x0 = denoised_fn(x0, torch.full((len(x),), i)) if hand_over else denoised_fn(x0)
            if clip_denoised:
                x0 = x0.clamp(-1, 1)
            noise = (x - math.sqrt(here) * x0) / math.sqrt(1 - here)
            spread = eta * math.sqrt((1 - there) / (1 - here) * (1 - here / there))
            x = math.sqrt(there) * x0 + math.sqrt(1 - there - spread**2) * noise
            x = x + spread * torch.randn(x.shape, generator=generator)
        return x


def k_diffusion_sampling() -> ModuleType | None:
    """The module `k_diffusion.sampling` of PyPI's k-diffusion, or None where it is not installed.

    The package's own `__init__` imports what trains and measures models, with torchvision and more,
    none of which sampling uses; one function for pictures in a module beside it names torchvision
    too. So the module is read without the package's `__init__`, and an empty torchvision stands in
    while it is read, where there is none.
    """
    spec = importlib.util.find_spec("k_diffusion")
    if spec is None or spec.submodule_search_locations is None:
        return None
    package = ModuleType("k_diffusion")
    package.__path__ = list(spec.submodule_search_locations)
    standing_in = {"k_diffusion": package}
    if importlib.util.find_spec("torchvision") is None:
        functional = ModuleType("torchvision.transforms.functional")
        transforms = ModuleType("torchvision.transforms")
        vars(transforms)["functional"] = functional
        names = ("torchvision", "torchvision.transforms", "torchvision.transforms.functional")
        standing_in |= dict(
            zip(names, (ModuleType("torchvision"), transforms, functional), strict=True)
        )
    sys.modules.update(standing_in)
    try:
        return importlib.import_module("k_diffusion.sampling")
    finally:
        for name in [
            name for name in sys.modules if name in standing_in or name.startswith("k_diffusion.")
        ]:
            del sys.modules[name]

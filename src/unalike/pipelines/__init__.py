"""Pipelines: the model catalogue, loading by name, and the papers' own interface.

Nothing here imports torch or diffusers until a pipeline or one of the papers' classes is asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from unalike.pipelines.catalogue import MODELS, Model
from unalike.pipelines.loading import load

if TYPE_CHECKING:
    from unalike.pipelines.guided import get_diffusion_pipeline

_PAPERS = tuple(
    f"{paper}Guided{host}Pipeline"
    for paper in ("SPARKE", "SPALE")
    for host in (
        "StableDiffusion",
        "StableDiffusionXL",
        "StableDiffusionControlNet",
        "StableDiffusionXLControlNet",
        "PixArtSigma",
        "Kandinsky3",
        "DiT",
    )
)
_GUIDED = ("get_diffusion_pipeline", "guided_class", *_PAPERS)

__all__ = ["MODELS", "Model", "get_diffusion_pipeline", "load"]


def __getattr__(name: str) -> Any:
    if name in _GUIDED:
        return getattr(import_module("unalike.pipelines.guided"), name)
    raise AttributeError(
        f"module 'unalike.pipelines' has no attribute {name!r}; it has {', '.join(dir())}"
    )


def __dir__() -> list[str]:
    return sorted([*__all__, "guided_class", *_PAPERS])

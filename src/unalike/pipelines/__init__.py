"""Pipelines: the model catalogue, loading by name, and the papers' own interface.

Nothing here imports torch or diffusers until a pipeline or one of the papers' classes is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from unalike.lazy import lazy_names
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
_HOMES = {
    "MODELS": "unalike.pipelines.catalogue",
    "Model": "unalike.pipelines.catalogue",
    "load": "unalike.pipelines.loading",
    **dict.fromkeys(
        ("get_diffusion_pipeline", "guided_class", *_PAPERS), "unalike.pipelines.guided"
    ),
}

__all__ = ["MODELS", "Model", "get_diffusion_pipeline", "load"]
__getattr__, __dir__ = lazy_names(__name__, lambda: _HOMES)

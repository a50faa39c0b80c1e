"""Guidance for diffusers pipelines and for code without diffusers: attach it, and read what it did
from the report.

Names are imported when they are first used, so that `guide_denoiser` and `denoised_fn` work where
there is no diffusers.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unalike.attach.diffusers import levels
    from unalike.attach.diffusers.pipeline import GuidedPipeline, guide
    from unalike.attach.diffusers.vae import encode_images, shield_from_images
    from unalike.attach.functions import (
        GuidedDenoiser,
        GuidedPrediction,
        denoised_fn,
        guide_denoiser,
        karras_sigmas,
    )
    from unalike.attach.run.report import Certificate, Decoded, ImageReport, Nearest, Report

__all__ = [
    "Certificate",
    "Decoded",
    "GuidedDenoiser",
    "GuidedPipeline",
    "GuidedPrediction",
    "ImageReport",
    "Nearest",
    "Report",
    "denoised_fn",
    "encode_images",
    "guide",
    "guide_denoiser",
    "karras_sigmas",
    "levels",
    "shield_from_images",
]

_HOMES = {
    "Certificate": "run.report",
    "Decoded": "run.report",
    "GuidedDenoiser": "functions",
    "GuidedPipeline": "diffusers.pipeline",
    "GuidedPrediction": "functions",
    "ImageReport": "run.report",
    "Nearest": "run.report",
    "Report": "run.report",
    "denoised_fn": "functions",
    "encode_images": "diffusers.vae",
    "guide": "diffusers.pipeline",
    "guide_denoiser": "functions",
    "karras_sigmas": "functions",
    "shield_from_images": "diffusers.vae",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        found = globals()[name] = getattr(import_module(f"unalike.attach.{_HOMES[name]}"), name)
        return found
    if name == "levels":
        return import_module("unalike.attach.diffusers.levels")
    raise AttributeError(
        f"module 'unalike.attach' has no attribute {name!r}; it has {', '.join(__all__)}"
    )


def __dir__() -> list[str]:
    return sorted(__all__)

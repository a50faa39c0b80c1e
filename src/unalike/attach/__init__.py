"""Guidance for diffusers pipelines and for code without diffusers: attach it, and read what it did
from the report.

Names are imported when they are first used, so that `guide_denoiser` and `denoised_fn` work where
there is no diffusers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from unalike.lazy import lazy_names

if TYPE_CHECKING:
    from unalike.attach.diffusers import levels
    from unalike.attach.diffusers.pipeline import GuidedPipeline, guide
    from unalike.attach.diffusers.seeds import choose
    from unalike.attach.diffusers.vae import encode_images, shield_from_images
    from unalike.attach.functions import (
        GuidedDenoiser,
        GuidedPrediction,
        denoised_fn,
        guide_denoiser,
        karras_sigmas,
    )
    from unalike.attach.run.candidates import Candidates
    from unalike.attach.run.choice import Choice, Chosen
    from unalike.attach.run.memorisation import Memorisation
    from unalike.attach.run.report import Certificate, Decoded, ImageReport, Nearest, Report
    from unalike.attach.run.stability import StabilityRegion, memorisation, stability_region

__all__ = [
    "Candidates",
    "Certificate",
    "Choice",
    "Chosen",
    "Decoded",
    "GuidedDenoiser",
    "GuidedPipeline",
    "GuidedPrediction",
    "ImageReport",
    "Memorisation",
    "Nearest",
    "Report",
    "StabilityRegion",
    "choose",
    "denoised_fn",
    "encode_images",
    "guide",
    "guide_denoiser",
    "karras_sigmas",
    "levels",
    "memorisation",
    "shield_from_images",
    "stability_region",
]

_HOMES = {
    "Candidates": "unalike.attach.run.candidates",
    "Choice": "unalike.attach.run.choice",
    "Chosen": "unalike.attach.run.choice",
    "choose": "unalike.attach.diffusers.seeds",
    "Certificate": "unalike.attach.run.report",
    "Decoded": "unalike.attach.run.report",
    "GuidedDenoiser": "unalike.attach.functions",
    "GuidedPipeline": "unalike.attach.diffusers.pipeline",
    "GuidedPrediction": "unalike.attach.functions",
    "ImageReport": "unalike.attach.run.report",
    "Memorisation": "unalike.attach.run.memorisation",
    "Nearest": "unalike.attach.run.report",
    "Report": "unalike.attach.run.report",
    "StabilityRegion": "unalike.attach.run.stability",
    "denoised_fn": "unalike.attach.functions",
    "encode_images": "unalike.attach.diffusers.vae",
    "guide": "unalike.attach.diffusers.pipeline",
    "guide_denoiser": "unalike.attach.functions",
    "karras_sigmas": "unalike.attach.functions",
    "levels": "unalike.attach.diffusers.levels",
    "memorisation": "unalike.attach.run.stability",
    "shield_from_images": "unalike.attach.diffusers.vae",
    "stability_region": "unalike.attach.run.stability",
}

__getattr__, __dir__ = lazy_names(__name__, lambda: _HOMES)

"""Guidance for diffusers pipelines: attach with `guide`, read what it did from the report."""

from unalike.attach.guide import GuidedPipeline, guide
from unalike.attach.latents import encode_images, shield_from_images
from unalike.attach.report import Certificate, Decoded, ImageReport, Nearest, Report

__all__ = [
    "Certificate",
    "Decoded",
    "GuidedPipeline",
    "ImageReport",
    "Nearest",
    "Report",
    "encode_images",
    "guide",
    "shield_from_images",
]

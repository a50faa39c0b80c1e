"""Finished images that stay out of balls around protected ones, with the proof."""

from pathlib import Path

import torch

import unalike
from unalike.attach import shield_from_images
from unalike.errors import RefusedError

pipe = unalike.load("emoji")
settings = {
    "num_inference_steps": 25,
    "guidance_scale": 3.0,
    "generator": torch.Generator().manual_seed(0),
}

if not Path("protected").exists():
    protected = pipe(prompt=["red heart", "cat face"], **settings).images
    shield_from_images(pipe, protected, radius=12.0, ids=["red heart", "cat face"]).save(
        "protected"
    )

shield = unalike.Shield.open("protected")
guided = unalike.guide(pipe, shield=shield)
try:
    images = guided(prompt=["heart", "cat face", "house"], **settings).images
except RefusedError as refused:
    images = refused.output.images  # those that are inside are blank

for image in guided.report.images:
    proof = image.certificate.decoded
    print(
        f"{image.prompt}: {proof.distance:.1f} from {proof.nearest_id!r}, radius {shield.radius:g}"
        + (", refused" if image.refused else "")
    )

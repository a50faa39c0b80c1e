"""Images that stay out of balls around protected ones, with the proof."""

from pathlib import Path

import torch

import unalike
from unalike.attach import shield_from_images

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
guided = unalike.guide(pipe, unalike.SPELL(batch=False, memory=False), shield=shield)
images = guided(prompt=["red heart", "cat face", "house"], **settings).images

for image in guided.report.images:
    proof = image.certificate
    print(
        f"{image.prompt}: {proof.distance:.1f} from {proof.nearest_id!r}, radius {proof.radius:g}"
    )

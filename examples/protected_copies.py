"""Finished images that are no copies of protected ones: by their latents, and by descriptors that
know an image again when it is edited.
"""

import torch

import unalike
from unalike.attach import shield_from_images
from unalike.errors import RefusedError
from unalike.extractors import extractor as extractor_of
from unalike.models import emoji

pipe = unalike.load("emoji-turbo")
names = ["red heart", "blue heart", "green heart"]
images = torch.cat([emoji.load_images()[emoji.truth(name)] for name in names]) / 255

latents = shield_from_images(pipe, images, radius=9.0, ids=names)
extractor = extractor_of("emoji-copies")
copies = shield_from_images(extractor, images, radius="auto", ids=names)
guided = unalike.guide(pipe, shield=[latents, copies], embed=extractor)

settings = {"num_inference_steps": 4, "guidance_scale": 1.0}
generators = [torch.Generator().manual_seed(i) for i in range(6)]
try:
    drawn = guided(["heart", "red heart", "house"] * 2, generator=generators, **settings).images
except RefusedError as refused:
    drawn = refused.output.images  # those that are inside are blank

for image in guided.report.images:
    far = ", ".join(f"{c.distance:.2f} of {c.radius:g}" for c in image.certificates)
    again = f", {image.restarts} restarts, {image.attempts} draws"
    print(f"{image.prompt}: {far}{again}" + (", refused" if image.refused else ""))

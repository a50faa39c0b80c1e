"""Draw four FLUX.1-dev images of one prompt that differ from each other."""

import unalike

pipe = unalike.load("flux-dev").to("cuda")
guided = unalike.guide(pipe, unalike.Auto())
images = guided(prompt="portrait of a doctor", num_images_per_prompt=4).images

for number, image in enumerate(images):
    image.save(f"doctor-{number}.png")

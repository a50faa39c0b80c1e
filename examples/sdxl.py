"""Draw four SDXL images of one prompt that differ from each other and from earlier calls."""

import unalike

pipe = unalike.load("sdxl").to("cuda")  # or your own diffusers pipeline
guided = unalike.guide(pipe, unalike.Auto(), memory=unalike.Memory())
images = guided(prompt="portrait of a doctor", num_images_per_prompt=4).images

for number, image in enumerate(images):
    image.save(f"doctor-{number}.png")

choice = unalike.choose(pipe, "portrait of a doctor", num=8, candidates=32)
print(choice.seeds)

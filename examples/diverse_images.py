"""Images of one prompt that differ from each other, and from those of an earlier call."""

from pathlib import Path

import unalike

pipe = unalike.load("emoji")
memory = unalike.Memory(capacity=10_000)
guided = unalike.guide(pipe, unalike.Auto(), memory=memory)

out = guided(prompt="cat", num_images_per_prompt=8, num_inference_steps=25, guidance_scale=2.0)
for number, image in enumerate(out.images):
    image.save(f"cat-{number}.png")

for image in guided.report.images:
    print(
        image.index, f"acted in {image.active['auto']:.0%} of the steps, nearest: {image.nearest}"
    )

memory.save(Path("memory.safetensors"))  # unalike.Memory.open brings it back in the next session

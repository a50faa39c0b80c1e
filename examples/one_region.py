"""Images of one prompt that are made to differ in one region: in a box, or where a word of the
prompt is.
"""

import torch

import unalike

pipe = unalike.load("emoji")
box = (0.0, 0.0, 0.5, 1.0)  # left, top, right, bottom, as shares of width and height: the left half


def drawn(guided, prompt):
    """Final latents and pixels of four images, from the same noise whatever guides them."""
    noise, settings = (
        [torch.Generator().manual_seed(i) for i in range(4)],
        {"num_inference_steps": 15, "guidance_scale": 3.0},
    )
    out = guided(
        prompt=prompt,
        num_images_per_prompt=4,
        generator=noise,
        output_type="pt",
        return_dict=False,
        **settings,
    )
    return guided.latents, out[0]


plain = drawn(unalike.guide(pipe), "house")
for region in (box, None):
    moved = drawn(unalike.guide(pipe, unalike.SPARKE(strength=0.2, region=region)), "house")
    for name, before, after in zip(("latents", "pixels"), plain, moved, strict=True):
        change, middle = (after - before).abs(), before.shape[-1] // 2
        left, right = change[..., :middle].mean(), change[..., middle:].mean()
        print(f"region={region}: {name} changed by {left:.3f} (left half) and {right:.3f} (right)")

guided = unalike.guide(pipe, unalike.SPARKE(strength=0.2, region="mask"))
drawn(guided, "face with medical mask")
for image in guided.report.images:
    print(f"image {image.index}: the mask is {image.regions['sparke']:.0%} of it")

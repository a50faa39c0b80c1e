"""The interface of the published SPARKE pipelines, on a shipped model: series of calls whose images
are unlike all before.
"""

import torch

from unalike.pipelines import get_diffusion_pipeline

pipe = get_diffusion_pipeline(
    name="emoji"
)  # or "sdxl", "flux-schnell", …: `unalike models` lists them; or a folder, or a hub id

for call in range(3):
    images = pipe(
        prompt=["heart", "bird"],
        algorithm="cond-rke",
        criteria_guidance_scale=0.02,
        guidance_freq=5,
        generator=[torch.Generator().manual_seed(2 * call + i) for i in range(2)],
    ).images

pipe.memory.save(
    "earlier.safetensors"
)  # and in another program: pipe.open_memory("earlier.safetensors")
print(
    f"{len(pipe.memory)} images remembered; the last was corrected at {pipe.report.images[1].active['sparke']:.0%} of its steps"
)

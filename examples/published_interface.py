"""The interface of the published SPARKE pipelines, on a shipped model: series of calls whose images
are unlike all before.
"""

import torch

from unalike.pipelines import get_diffusion_pipeline

# or "sdxl", "flux-schnell", … (`unalike models` lists them), a folder, or a hub id
pipe = get_diffusion_pipeline(name="emoji")

for call in range(3):
    images = pipe(
        prompt=["heart", "bird"],
        algorithm="cond-rke",
        criteria_guidance_scale=0.02,
        guidance_freq=5,
        generator=[torch.Generator().manual_seed(2 * call + i) for i in range(2)],
    ).images

# in another program: pipe.open_memory("earlier.safetensors")
pipe.memory.save("earlier.safetensors")
share = pipe.report.images[1].active["sparke"]
print(f"{len(pipe.memory)} images remembered; the last was corrected at {share:.0%} of its steps")

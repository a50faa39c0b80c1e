"""Every family of pipelines that is tested end to end."""

from tests import tiny
from tests.hosts import videos
from tests.hosts.family import Family

SMALL = {"height": 16, "width": 16, "output_type": "latent"}

FAMILIES = (
    Family(name="Stable Diffusion", build=tiny.sd, sample="(B, C, H, W)", arguments={**SMALL, "guidance_scale": 3.0}),
    Family(name="Stable Diffusion XL", build=tiny.sdxl, sample="(B, C, H, W)", arguments={**SMALL, "guidance_scale": 3.0}),
    Family(
        name="Stable Diffusion 3",
        build=tiny.sd3,
        sample="(B, C, H, W)",
        arguments={**SMALL, "guidance_scale": 3.0, "max_sequence_length": 12},
    ),
    Family(name="Flux", build=tiny.flux, sample="(B, S, C), packed", arguments={**SMALL, "max_sequence_length": 12}, guidance=False),
    *videos.FAMILIES,
)

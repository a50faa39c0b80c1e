"""A guided pipeline looks like the pipeline to people and to diffusers."""

import inspect
import pydoc
from typing import Any

import diffusers
import pytest
import torch
from tests.attach.conftest import prompted, seeded
from torch import Tensor

from unalike import SPARKE, Auto, Memory, load
from unalike.attach import GuidedPipeline, guide
from unalike.pipelines.guided import SPARKEGuidedDiTPipeline, SPARKEGuidedStableDiffusionPipeline
from unalike.pipelines.published import Settings

IMAGE = torch.linspace(0, 1, 16).expand(1, 3, 16, 16).clone()


@pytest.mark.parametrize("name", ["sd", "flux", "dit"])
def test_signature_is_that_of_the_pipeline(pipelines: Any, name: str) -> None:
    pipe = pipelines(name)
    own = inspect.signature(type(pipe).__call__).parameters
    shown = inspect.signature(guide(pipe)).parameters
    assert list(shown) == [n for n in list(own)[1:] if n != "kwargs"]
    assert all(shown[n].default == own[n].default for n in shown)
    assert inspect.signature(guide(pipe).__call__).parameters == shown


def test_signature_has_the_defaults_of_the_model_when_it_was_loaded_by_its_name() -> None:
    shown = inspect.signature(guide(load("emoji"))).parameters
    assert shown["num_inference_steps"].default == 25
    assert shown["guidance_scale"].default == 2.0
    assert shown["num_images_per_prompt"].default == 1


def test_report_is_a_line_for_each_image_when_printed(tiny_sd: Any) -> None:
    guided = guide(tiny_sd, Auto())
    guided(["cat", "dog"], num_inference_steps=2, output_type="latent")
    assert guided.report is not None
    first, *lines = str(guided.report).splitlines()
    assert first == "2 images in 2 steps"
    assert [line.split(":")[0] for line in lines] == ["0 'cat'", "1 'dog'"]
    for line, image in zip(lines, guided.report.images, strict=True):
        assert f"auto acted in {image.active['auto']:.0%} of the steps; nearest batch" in line


def test_signature_has_both_kinds_of_arguments_in_the_papers_interface() -> None:
    shown = inspect.signature(SPARKEGuidedStableDiffusionPipeline.__call__).parameters
    own = inspect.signature(diffusers.StableDiffusionPipeline.__call__).parameters
    assert list(shown) == [n for n in own if n != "kwargs"] + list(Settings.__dataclass_fields__)
    assert shown["criteria_guidance_scale"].default == 0.03
    assert shown["guidance_scale"].default == 7.5
    assert "prompt" in inspect.signature(SPARKEGuidedDiTPipeline.__call__).parameters


def test_help_is_short_and_names_the_arguments(sd: Any) -> None:
    for thing in (guide(sd), guide(sd).__call__, SPARKEGuidedStableDiffusionPipeline.__call__):
        text = pydoc.plain(pydoc.render_doc(thing))
        assert "num_images_per_prompt=1" in text
        assert "Optional[" not in text
        assert len(text.splitlines()) < 120
    assert "sigma_image=0.6" in pydoc.plain(
        pydoc.render_doc(SPARKEGuidedStableDiffusionPipeline.__call__)
    )


def test_attributes_of_the_pipeline_are_listed(sd: Any) -> None:
    guided = guide(sd)
    assert {"vae", "unet", "enable_attention_slicing", "report", "latents", "memory"} <= set(
        dir(guided)
    )
    assert [name for name in dir(sd) if name not in dir(guided)] == []


def test_diffusers_takes_the_models_of_a_guided_pipeline(sd: Any) -> None:
    guided = guide(sd, SPARKE(), memory=Memory())
    assert isinstance(guided, GuidedPipeline)
    assert isinstance(guided, diffusers.StableDiffusionPipeline)
    others = [
        diffusers.AutoPipelineForImage2Image.from_pipe(guided),
        diffusers.AutoPipelineForInpainting.from_pipe(guided),
        diffusers.StableDiffusionImg2ImgPipeline.from_pipe(guided),
        diffusers.StableDiffusionImg2ImgPipeline(
            **guided.components, requires_safety_checker=False
        ),
    ]
    for other in others:
        assert other.unet is sd.unet
        assert not isinstance(other, GuidedPipeline)
    others[0].set_progress_bar_config(disable=True)
    again = guide(others[0], memory=Memory())
    again(prompt="cat", image=IMAGE, num_inference_steps=2, strength=1.0, generator=seeded(1))
    assert again.report is not None


class Checker(torch.nn.Module):
    """Withholds the second image, as diffusers' checker does with what it finds unsafe."""

    def forward(self, images: Any, clip_input: Tensor) -> tuple[Any, list[bool]]:
        for i, image in enumerate(images):
            if i == 1:
                images[i] = image * 0
        return images, [i == 1 for i in range(len(images))]


@pytest.mark.parametrize("as_tuple", [False, True])
@pytest.mark.parametrize("output_type", ["pil", "np", "pt"])
def test_withheld_images_are_not_remembered(
    sd: Any, monkeypatch: pytest.MonkeyPatch, output_type: str, as_tuple: bool
) -> None:
    def run_safety_checker(
        self: Any, image: Tensor, device: Any, dtype: Any
    ) -> tuple[Tensor, list[bool]]:
        return Checker()(image, image)

    monkeypatch.setattr(type(sd), "run_safety_checker", run_safety_checker)
    arguments = {**prompted("sd", ["cat"], 3), "output_type": output_type}
    memory = Memory()
    guided = guide(sd, memory=memory)
    guided(**arguments, return_dict=not as_tuple, generator=seeded(3))
    assert guided.report is not None
    assert [image.flagged for image in guided.report.images] == [False, True, False]
    assert memory.seeds(guided.report.space) == [0, 2]
    assert guided.report.images[1].nearest is None
    for i in (0, 2):
        nearest = guided.report.images[i].nearest
        assert nearest is not None
        assert nearest.index == 2 - i

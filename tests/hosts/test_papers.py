"""The papers' interface and the ambient variant, with every family that can have them."""

from typing import Any

import diffusers
import pytest
import torch
from tests.hosts.conftest import Pipelines
from tests.hosts.families import FAMILIES
from tests.hosts.family import WARNINGS, Family
from torch import Tensor

from unalike.attach import guide
from unalike.errors import UnsupportedError
from unalike.guidance.sparke import SPARKE
from unalike.memory import Memory
from unalike.pipelines import MODELS, get_diffusion_pipeline
from unalike.pipelines.guided import SPARKEGuided

pytestmark = [pytest.mark.filterwarnings(warning) for warning in WARNINGS]


def those(families: Any) -> Any:
    return pytest.mark.parametrize("family", list(families), ids=lambda family: family.id)


def colours(images: Tensor) -> Tensor:
    return torch.nn.functional.adaptive_avg_pool2d(images, 2).flatten(1)


def test_every_pipeline_of_the_catalogue_is_among_the_families():
    assert {model.pipeline for model in MODELS.values()} <= {family.pipeline for family in FAMILIES}


@those(
    f
    for f in FAMILIES
    if f.prompted
    and issubclass(getattr(diffusers, f.pipeline, object), diffusers.DiffusionPipeline)
)
def test_pipeline_remembers_its_own_images_when_it_is_opened_with_the_papers_interface(
    family: Family, read: Pipelines
):
    pipe = get_diffusion_pipeline(read.folder(family), device="cpu")
    pipe.set_progress_bar_config(disable=True)
    assert isinstance(pipe, SPARKEGuided)
    plain = family.call(read(family), ["cat", "dog"], 1)
    assert torch.equal(family.call(pipe, ["cat", "dog"], 1, criteria=None), plain)
    guided = family.call(pipe, ["cat", "dog"], 1, criteria_guidance_scale=0.4, guidance_freq=1)
    assert (guided - plain).abs().amax() > 1e-3
    assert len(pipe.memory) == 2


@those(f for f in FAMILIES if f.decodes)
def test_images_are_compared_by_an_embedding_when_they_can_be_decoded(
    family: Family, read: Pipelines
):
    pipe, memory = read(family), Memory()
    plain = family.call(pipe, ["cat"], 2)
    guided = guide(pipe, SPARKE(strength=0.3, objective="rke", embed=colours), memory=memory)
    assert (family.call(guided, ["cat"], 2) - plain).flatten(1).abs().amax(dim=1).min() > 1e-4
    assert torch.isfinite(
        family.call(guided, ["cat"], 1, seed=5)
    ).all()  # unlike the two that are remembered
    assert len(memory) == 3


@those(
    f for f in FAMILIES if not f.decodes and f.pipeline != "StableDiffusionInpaintPipeline"
)  # which decodes, and pastes over it
def test_embeddings_are_refused_when_images_cannot_be_decoded(family: Family, read: Pipelines):
    with pytest.raises(
        UnsupportedError,
        match=r"latents .* can be decoded here|in a way that is not known here|decoded in a way",
    ):
        family.call(guide(read(family), SPARKE(embed=colours, objective="rke")), ["cat"], 2)

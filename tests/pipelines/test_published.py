from pathlib import Path
from typing import Any

import pytest
import torch

from unalike.errors import OptionError
from unalike.guidance.sparke import SPARKE
from unalike.guidance.vendi import VendiGuidance
from unalike.pipelines.published import Settings, settings


@pytest.mark.parametrize("algorithm", ["rke", "cond-rke"])
def test_arguments_have_the_meaning_of_the_paper_when_it_is_sparke(algorithm: str):
    method = Settings(
        algorithm=algorithm,
        criteria_guidance_scale=0.4,
        kernel="cosine",
        sigma_image=0.8,
        sigma_text=0.35,
        guidance_freq=7,
        regularize=True,
        regularize_weight=0.01,
    ).method()
    assert isinstance(method, SPARKE)
    assert (method.objective, method.strength, method.kernel, method.every) == (
        algorithm,
        0.4,
        "cosine",
        7,
    )
    assert (method.bandwidth, method.prompt_bandwidth, method.target, method.regularizer) == (
        0.8,
        0.35,
        "x_t",
        0.01,
    )


@pytest.mark.parametrize(("algorithm", "conditional"), [("vendi", False), ("cond-vendi", True)])
def test_arguments_have_the_meaning_of_the_paper_when_it_is_vendi_guidance(
    algorithm: str, conditional: bool
):
    method = Settings(
        algorithm=algorithm,
        criteria_guidance_scale=0.4,
        sigma_image=0.8,
        sigma_text=0.35,
        guidance_freq=7,
    ).method()
    assert isinstance(method, VendiGuidance)
    assert (method.conditional, method.strength, method.every) == (conditional, 0.4, 7)
    assert (method.bandwidth, method.prompt_bandwidth, method.target, method.regularizer) == (
        0.8,
        0.35,
        "x_t",
        0.0,
    )


def test_a_reference_set_attracts_when_beta_is_above_0():
    method = Settings(beta=0.5, reference=torch.eye(3), reference_prompts=torch.eye(3)).method()
    assert isinstance(method, SPARKE)
    assert method.reference_weight == -0.5
    assert method.reference is not None


@pytest.mark.parametrize(
    ("given", "region"),
    [
        (None, None),
        ([], None),
        (["face"], ("face",)),
        ("face", ("face",)),
        (["face", "hair"], ("face", "hair")),
        ([(0, 0, 0.5, 1)], (0, 0, 0.5, 1)),
    ],
)
def test_regions_are_words_or_one_box(given: Any, region: Any):
    method = Settings(regions_list=given).method()
    assert isinstance(method, SPARKE)
    assert method.region == region


@pytest.mark.parametrize(
    ("argument", "value", "message"),
    [
        (
            "criteria",
            "vscore",
            "criteria is 'vscore'; did you mean 'vscore_clip'. allowed: 'vscore_clip'",
        ),
        ("algorithm", "cond_rke", "algorithm is 'cond_rke'; did you mean 'cond-rke'. allowed: "),
        ("kernel", "rbf", "kernel is 'rbf'; allowed: 'gaussian', 'cosine'"),
        (
            "criteria_guidance_scale",
            -0.1,
            "criteria_guidance_scale is -0.1; allowed: a number of at least 0",
        ),
        ("criteria_guidance_scale", float("nan"), "criteria_guidance_scale is nan"),
        ("sigma_image", 0, "sigma_image is 0; allowed: a number above 0"),
        ("sigma_text", -1.0, "sigma_text is -1.0; allowed: a number above 0"),
        ("guidance_freq", 0, "guidance_freq is 0; allowed: a whole number of at least 1"),
        ("guidance_freq", 2.5, "guidance_freq is 2.5"),
        ("max_bank_size", 0, "max_bank_size is 0"),
        (
            "use_latents_for_guidance",
            "False",
            "use_latents_for_guidance is 'False'; allowed: True or False",
        ),
        ("regularize", 1, "regularize is 1; allowed: True or False"),
        ("beta", 0.5, "beta is given without reference"),
        ("reference", torch.eye(2), "reference is given without beta"),
        (
            "regions_list",
            [(0, 0, 1, 1), "face"],
            "regions_list has 2 entries that are not all words",
        ),
    ],
)
def test_message_names_the_papers_argument_when_it_is_not_allowed(
    argument: str, value: Any, message: str
):
    with pytest.raises(OptionError, match=message):
        Settings(**{argument: value})


@pytest.mark.parametrize(
    "name", ["F_M", "F_M_real", "rke_guided_sampler", "return_kernels", "logger_"]
)
def test_message_says_where_it_is_when_an_argument_has_another_place(name: str):
    with pytest.raises(OptionError, match=f"{name} is not taken here: "):
        settings({name: torch.ones(2)}, {})
    arguments = {name: None}
    settings(arguments, {})  # which asks for nothing
    assert arguments == {}


def test_own_arguments_are_taken_out_over_the_defaults_of_a_model():
    arguments = {"prompt": "cat", "sigma_image": 0.7}
    chosen = settings(arguments, {"sigma_image": 0.6, "guidance_freq": 5})
    assert arguments == {"prompt": "cat"}
    assert (chosen.sigma_image, chosen.guidance_freq, chosen.sigma_text) == (0.7, 5, 0.3)


def test_documentation_has_every_argument():
    page = (Path(__file__).parents[2] / "docs" / "papers.md").read_text("utf-8")
    assert all(f"`{name}`" in page for name in Settings.__dataclass_fields__)

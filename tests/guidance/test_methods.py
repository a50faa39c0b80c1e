import json

import pytest

from unalike.errors import OptionError
from unalike.guidance import (
    CADS,
    DAVE,
    SPARKE,
    SPELL,
    TSR,
    Auto,
    ContextualRepulsion,
    ContrastiveNoise,
    CoupledNoise,
    FirstStepBase,
    IntervalGuidance,
    ParticleGuidance,
    PinkNoise,
    SeedVariance,
    VendiGuidance,
)
from unalike.guidance.method import Method
from unalike.guidance.methods import METHODS, build, described, options


def test_table_names_each_class_by_its_own_name():
    assert list(METHODS.values()) == [
        Auto,
        SPARKE,
        VendiGuidance,
        SPELL,
        ParticleGuidance,
        CADS,
        IntervalGuidance,
        CoupledNoise,
        PinkNoise,
        ContrastiveNoise,
        DAVE,
        ContextualRepulsion,
        FirstStepBase,
        SeedVariance,
        TSR,
    ]
    assert all(name == method.name for name, method in METHODS.items())


@pytest.mark.parametrize("name", METHODS)
def test_method_has_its_defaults_when_built_by_name(name):
    assert build(name) == METHODS[name]()


@pytest.mark.parametrize("name", METHODS)
def test_options_end_with_those_of_every_method(name):
    assert (
        [f.name for f in options(METHODS[name])][-4:]
        == [f.name for f in options(Method)]
        == ["start", "stop", "every", "limit"]
    )


def test_options_leave_out_tensors_and_build_takes_them():
    import torch

    assert not {"reference", "reference_prompts"} & {f.name for f in options(SPARKE)}
    method = build("sparke", reference=torch.ones(2, 4), reference_weight=-0.5)
    assert isinstance(method, SPARKE)
    assert method.reference is not None


@pytest.mark.parametrize("given", ["sparks", "Sparke", "spark"])
def test_error_lists_methods_and_suggests_the_closest_when_the_name_is_unknown(given):
    with pytest.raises(
        OptionError,
        match=f"method is '{given}'; did you mean 'sparke'. allowed: auto, sparke, vendi, ",
    ):
        build(given)


def test_error_suggests_nothing_when_no_name_is_close():
    with pytest.raises(
        OptionError,
        match="method is 'qqq'; allowed: auto, sparke, vendi, ",
    ):
        build("qqq")


def test_error_lists_options_and_suggests_the_closest_when_one_is_unknown():
    with pytest.raises(
        OptionError,
        match=r"option of spell is 'radios'; did you mean 'radius'. allowed: radius, .*, region$",
    ):
        build("spell", radios=3.0)


def test_error_names_the_option_when_its_value_is_refused():
    with pytest.raises(
        OptionError,
        match=r"SPARKE: strength is -1; allowed: .* at most 100, as in SPARKE\(strength=0\.05",
    ):
        build("sparke", strength=-1)


def test_record_says_what_only_python_can_give():
    import torch

    class Extractor:
        fingerprint = "clip/CLIPModel-0123456789"

        def embed(self, images: torch.Tensor) -> torch.Tensor:
            return images.flatten(1)

    def brightness(images: torch.Tensor) -> torch.Tensor:
        return images.mean(dim=(2, 3))

    reference = {"reference": torch.ones(2, 4, 1), "reference_weight": 0.5}
    found = [
        described(method)["options"]
        for method in (
            SPARKE(region=["cat", "hat"], embed=Extractor().embed, **reference),
            VendiGuidance(region=(0, 0, 0.5, 1), embed=brightness),
            SPELL(region=torch.ones(8, 8)),
            SPARKE(region="cat"),
            ParticleGuidance(features=torch.nn.Flatten()),
            SPARKE(),
        )
    ]
    assert [o.get("region") for o in found] == [
        ["cat", "hat"],
        [0.0, 0.0, 0.5, 1.0],
        "mask",
        "cat",
        None,
        None,
    ]
    assert found[0]["embed"] == "clip/CLIPModel-0123456789"
    assert found[1]["embed"].endswith("brightness")
    assert (found[0]["reference"], found[0]["reference_prompts"], found[5]["reference"]) == (
        [2, 4, 1],
        None,
        None,
    )
    assert (found[4]["features"], found[5]["embed"]) == ("Flatten", None)
    assert json.loads(json.dumps(found)) == found


@pytest.mark.parametrize("region", [None, "cat", ["cat", "hat"], (0, 0.5, 1, 1)])
def test_method_is_built_again_from_its_record_when_its_region_is_words_or_a_box(region):
    method = SPARKE(region=region, objective="rke", strength=0.2)
    record = json.loads(json.dumps(described(method)))
    assert build(record["name"], **record["options"]) == method

from pathlib import Path

import pytest

from unalike.errors import OptionError, UnsupportedError
from unalike.guidance.auto import Auto
from unalike.guidance.sparke import SPARKE
from unalike.guidance.spell import SPELL
from unalike.pipelines.catalogue import MODELS
from unalike.runs.pipeline import RunPipeline
from unalike.runs.settings import GenerateSettings, build_methods, parse_assignment


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompts": ()}, "there is no prompt"),
        ({"prompts": ("cat", " ")}, "prompts number 2 is .*, which is empty"),
        ({"prompts": ("cat", "cat")}, "given twice"),
        ({"num": 0}, "num is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"steps": 0}, "steps is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 2**63}, "seed is 9223372036854775808"),
        ({"guidance_scale": -1.0}, r"guidance_scale is -1\.0"),
        ({"guidance_scale": float("nan")}, "guidance_scale is nan"),
        ({"dtype": "int8"}, "allowed: .auto. or .float32. or .float16. or .bfloat16."),
        ({"method": ("spell", "spell")}, "given twice"),
        (
            {"shield_space": "clip:folder"},
            "shield_space is .clip:folder., and there is no protected set",
        ),
    ],
)
def test_setting_is_refused_when_outside_what_is_allowed(changes, message):
    with pytest.raises(OptionError, match=message):
        GenerateSettings(**{"prompts": ("cat",), **changes})


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.5", 0.5),
        ("3", 3),
        ("-1e-3", -1e-3),
        ("true", True),
        ("False", False),
        ("none", None),
        ("auto", "auto"),
        ("a=b", "a=b"),
    ],
)
def test_value_is_read_as_what_it_looks_like_when_assigned(text, value):
    assert parse_assignment(f"spell.radius={text}") == ("spell", "radius", value)
    assert type(parse_assignment(f"spell.radius={text}")[2]) is type(value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "strength",
        "strength=1",
        "sparke.=1",
        ".strength=1",
        "sparke.strength=",
        "sparke.strength",
    ],
)
def test_assignment_is_refused_when_a_part_is_missing(text):
    with pytest.raises(OptionError, match=r"METHOD\.OPTION=VALUE"):
        parse_assignment(text)


def methods(**settings):
    return build_methods(GenerateSettings(**{"prompts": ("cat",), **settings}))


def test_methods_are_those_of_the_catalogue_when_none_is_named():
    row = MODELS["emoji"]
    chosen = methods(model="emoji")
    assert [m.name for m in chosen] == list(row.methods)
    for method in chosen:
        for option, value in row.methods[method.name].items():
            assert getattr(method, option) == value


def test_method_has_its_own_defaults_when_the_model_is_not_in_the_catalogue():
    assert methods(model="owner/name") == (Auto(),)


def test_methods_keep_their_order_when_several_are_named():
    assert [m.name for m in methods(method=("spell", "sparke"))] == ["spell", "sparke"]


def test_strength_goes_to_every_method_that_has_it_when_given():
    assert methods(method=("sparke", "spell"), strength=0.3) == (SPARKE(strength=0.3), SPELL())


def test_assigned_option_wins_when_strength_is_given_too():
    assert methods(method=("sparke",), strength=0.3, set=("sparke.strength=0.4",)) == (
        SPARKE(strength=0.4),
    )


def test_shield_brings_spell_for_the_shield_alone_when_no_method_is_named():
    assert methods(shield=Path("protected"))[-1] == SPELL(batch=False, memory=False, stop=0.7)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": ("sparks",)}, "did you mean 'sparke'"),
        ({"method": ("spell",), "strength": 0.1}, "spell has no such option"),
        ({"method": ("sparke",), "strength": -0.1}, r"strength is -0\.1"),
        ({"method": ("sparke",), "set": ("sparke.bandwidth=0",)}, "bandwidth is 0"),
        ({"method": ("sparke",), "set": ("sparke.strenght=1",)}, "did you mean 'strength'"),
        (
            {"method": ("sparke",), "set": ("spell.radius=1",)},
            "spell is not among the methods used",
        ),
        ({"method": ("sparke",), "set": ("spall.radius=1",)}, "did you mean 'spell'"),
        ({"method": ("spell",), "set": ("spell.radius=0",)}, "radius is 0"),
        ({"method": ("spell",), "set": ("spell.radius=big",)}, "radius is 'big'"),
        (
            {"method": ("spell",), "set": ("spell.start=0.8", "spell.stop=0.2")},
            "start must be below stop",
        ),
        ({"method": ("sparke",), "set": ("sparke.reference=x",)}, "reference is a str"),
    ],
)
def test_method_is_refused_when_it_cannot_be_built(settings, message):
    with pytest.raises(OptionError, match=message):
        methods(**settings)


@pytest.mark.parametrize("model", ["controlnet_pose_sdxl", "wan2.2"])
def test_model_is_refused_before_it_is_loaded_when_it_draws_no_images_from_prompts_alone(model):
    with pytest.raises(
        UnsupportedError, match="does not draw images from prompts or class labels alone"
    ):
        RunPipeline.open(GenerateSettings(prompts=("cat",), model=model))


def test_method_has_its_published_options_when_the_model_has_some():
    (method,) = build_methods(GenerateSettings(prompts=("cat",), model="ldm", method=("spell",)))
    assert isinstance(method, SPELL)
    assert (method.radius, method.overcompensation) == (20.0, 1.6)
    (method,) = build_methods(
        GenerateSettings(prompts=("cat",), model="sdxl", method=("sparke",), strength=0.1)
    )
    assert isinstance(method, SPARKE)
    assert (method.strength, method.every, method.target) == (0.1, 10, "x_t")

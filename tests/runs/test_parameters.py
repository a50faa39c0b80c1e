import json
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from unalike.errors import OptionError, StoreError
from unalike.guidance.methods import METHODS, described
from unalike.pipelines import MODELS
from unalike.runs.generate import generate
from unalike.runs.parameters import ImageInfo, parameters_text, settings_like
from unalike.runs.settings import GenerateSettings, build_methods

PLAIN = {
    "prompt": "red heart",
    "seed": 7,
    "steps": 4,
    "guidance_scale": 7.5,
    "scheduler": "EulerAncestralDiscreteScheduler",
    "width": 64,
    "height": 96,
    "model": "emoji",
}
NASTY = [
    "a cat, a dog: two",
    'say "hi", \\ and \\" too',
    "first line\nsecond line\n\nlast",
    "Steps: 3, Sampler: Heun, CFG scale: 1, Seed: 9",
    "cat\nSteps: 3, Sampler: Heun, CFG scale: 1, Seed: 9",
    "no Negative prompt: here",
    "日本の旗 ♥ 😀 é",
    "x" * 5000,
]
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)
VALUE = re.compile(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')


def info(**changes):
    return ImageInfo(**{**PLAIN, **changes})


def parsed(text):
    """Prompt, negative prompt and values, by the rules of Automatic1111's reader: the last line
    holds the values if it has three of them, and the first line that begins with "Negative prompt:"
    ends the prompt.
    """
    *lines, last = text.strip().split("\n")
    found = VALUE.findall(last)
    assert len(found) >= 3
    texts, heading = {"": [], "negative": []}, ""
    for line in map(str.strip, lines):
        if line.startswith("Negative prompt:"):
            heading, line = "negative", line.removeprefix("Negative prompt:").strip()
        texts[heading].append(line)
    values = {
        name: json.loads(value) if value[:1] == '"' == value[-1:] else value
        for name, value in found
    }
    return "\n".join(texts[""]), "\n".join(texts["negative"]), values


def test_text_is_in_the_order_of_automatic1111_when_written():
    text = parameters_text(info(negative_prompt="blurry", version="1.2"))
    assert text == (
        "red heart\nNegative prompt: blurry\n"
        "Steps: 4, Sampler: Euler a, CFG scale: 7.5, Seed: 7, Size: 64x96, Model: emoji, "
        "Version: unalike 1.2"
    )


@pytest.mark.parametrize("prompt", NASTY)
@pytest.mark.parametrize("negative", ["", *NASTY[:4]])
def test_values_come_back_when_a_prompt_looks_like_the_format(prompt, negative):
    methods = [{"name": "sparke", "options": {"strength": 0.1}}, {"name": "cads", "options": {}}]
    text = parameters_text(info(prompt=prompt, negative_prompt=negative, methods=methods))
    found, avoided, values = parsed(text)
    assert (found, avoided) == (prompt, negative)
    assert values == {
        "Steps": "4",
        "Sampler": "Euler a",
        "CFG scale": "7.5",
        "Seed": "7",
        "Size": "64x96",
        "Model": "emoji",
        "unalike methods": "sparke: 0.1, cads",
        "Version": f"unalike {info().version}",
    }


@pytest.mark.parametrize(
    ("prompt", "read"),
    [
        ("Negative prompt: cat", "Negative prompt : cat"),
        ("cat\n  Negative prompt: dog", "cat\nNegative prompt : dog"),
    ],
)
def test_prompt_stays_one_when_its_line_begins_like_a_negative_prompt(prompt, read):
    assert parsed(parameters_text(info(prompt=prompt)))[:2] == (read, "")


@given(prompt=TEXT, negative=st.just("") | TEXT, model=TEXT.filter(str.strip))
def test_values_come_back_when_texts_are_of_any_characters(prompt, negative, model):
    written = info(prompt=prompt, negative_prompt=negative, model=model)
    _, _, values = parsed(parameters_text(written))
    assert (values["Seed"], values["Size"], values["Model"]) == ("7", "64x96", written.model)
    assert ImageInfo.from_dict(json.loads(json.dumps(written.to_dict()))) == written


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("/home/me/models/mine", "mine"),
        ("stabilityai/sdxl-turbo", "stabilityai/sdxl-turbo"),
        ("emoji", "emoji"),
    ],
)
def test_folders_of_the_machine_are_left_out_when_a_model_is_a_path(given, kept):
    assert info(model=given).model == kept


def test_folders_of_the_machine_are_left_out_when_settings_have_paths(tmp_path):
    settings = {
        "lora": (f"{tmp_path}/style.safetensors:0.8", "mine/other.safetensors"),
        "shield_space": f"clip:{tmp_path}/clip",
        "image": tmp_path / "first.png",
    }
    found = info(settings=settings)
    assert found.settings == {
        "lora": ["style.safetensors:0.8", "mine/other.safetensors"],
        "shield_space": "clip:clip",
        "image": "first.png",
    }
    assert str(tmp_path) not in json.dumps(found.to_dict())


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"format": 2}, "a later release wrote it"),
        ({"format": True}, "number of a format"),
        ({"seed": "7"}, "'seed' is '7'"),
        ({"seed": True}, "'seed' is True"),
        ({"prompt": None}, "'prompt' is None"),
        ({"guidance_scale": "x"}, "'guidance_scale' is 'x'"),
        ({"methods": [{"name": 1, "options": {}}]}, "'methods' is"),
        ({"methods": {}}, "'methods' is"),
        ({"settings": []}, "'settings' is"),
        ({"more": 1}, "'more' is not known"),
    ],
)
def test_record_is_refused_when_a_value_is_of_another_kind(changes, reason):
    with pytest.raises(ValueError, match=reason):
        ImageInfo.from_dict({**info().to_dict(), **changes})


def test_record_is_refused_when_something_is_missing_or_it_is_no_object():
    record = info().to_dict()
    del record["seed"]
    with pytest.raises(ValueError, match="'seed' is missing"):
        ImageInfo.from_dict(record)
    with pytest.raises(ValueError, match="it is not a JSON object"):
        ImageInfo.from_dict([record])


@pytest.mark.parametrize("model", ["emoji", "emoji-turbo", "sdxl", "no/such-model"])
@pytest.mark.parametrize("name", METHODS)
def test_methods_are_the_same_when_built_from_the_settings_of_an_image(name, model):
    changed = {"sparke": ["sparke.region=0,0,0.5,1"], "spell": ["spell.memory=false"]}
    window = [] if name in ("coupled", "pink", "contrastive") else [f"{name}.stop=0.75"]
    options = (*window, *changed.get(name, []))
    drawn = build_methods(
        GenerateSettings(prompts=("cat",), model=model, method=(name,), set=options)
    )
    stored = info(model=model, methods=[described(m) for m in drawn]).to_dict()
    again = settings_like(ImageInfo.from_dict(json.loads(json.dumps(stored))))
    assert build_methods(GenerateSettings(**again)) == drawn
    assert model in MODELS or model == "no/such-model"


def test_settings_are_those_of_the_run_when_taken_from_an_image():
    found = settings_like(info(negative_prompt="blurry", settings={"dtype": "float16"}))
    assert found == {
        "prompts": ("red heart",),
        "negative_prompt": "blurry",
        "num": 1,
        "seed": 7,
        "steps": 4,
        "guidance_scale": 7.5,
        "model": "emoji",
        "method": (),
        "set": (),
        "candidates": 1,
        "dtype": "float16",
    }


def test_settings_are_refused_when_this_release_does_not_know_one():
    with pytest.raises(StoreError, match="setting 'sharpness', which this release does not know"):
        settings_like(info(settings={"sharpness": 1}))
    with pytest.raises(OptionError, match="'sparkle'; did you mean 'sparke'"):
        settings_like(info(methods=[{"name": "sparkle", "options": {}}]))


def test_same_image_comes_out_when_its_settings_are_drawn_again(tiny_sd_folder, tmp_path):
    model = str(tiny_sd_folder)
    plain = {"prompts": ("cat",), "num": 1, "model": model, "seed": 11, "steps": 3}
    plain |= {"guidance_scale": 3.0, "method": ("cads",), "set": ("cads.noise_scale=0.2",)}
    drawn = generate(GenerateSettings(**plain, out=tmp_path / "a"))
    found = ImageInfo(
        prompt="cat",
        seed=drawn.samples[0].planned.seed,
        steps=drawn.record["steps"],
        guidance_scale=drawn.record["guidance_scale"],
        scheduler=drawn.record["model"]["scheduler"],
        width=64,
        height=64,
        model=drawn.record["model"]["name"],
        methods=drawn.record["methods"],
    )
    again = {**settings_like(found), "model": model}
    generate(GenerateSettings(**again, out=tmp_path / "b"))
    first, second = (
        np.asarray(Image.open(tmp_path / name / "images" / "00000.png")) for name in "ab"
    )
    assert np.array_equal(first, second)
    assert found.model == tiny_sd_folder.name

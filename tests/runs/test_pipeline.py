"""The pipeline of a run: what it is asked for, what it refuses, and what it is."""

import shutil
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests import tiny

from unalike import guide
from unalike.errors import OptionError, StoreError, UnsupportedError
from unalike.guidance import SPARKE
from unalike.memory import Memory
from unalike.runs.pipeline import RunPipeline
from unalike.runs.samples import Planned
from unalike.runs.settings import GenerateSettings


@pytest.fixture
def opened(tiny_sd_folder):
    """The pipeline of a run of the tiny model, with changes."""

    def run(**changes: Any) -> RunPipeline:
        plain = {"prompts": ("cat",), "model": str(tiny_sd_folder), "steps": 3}
        return RunPipeline.open(GenerateSettings(**{**plain, **changes}))

    return run


@pytest.fixture
def start(tmp_path):
    """An image file of a size."""

    def write(width: int = 16, height: int = 16):
        noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / "start.png")
        return tmp_path / "start.png"

    return write


def planned(seed: int, **own: Any) -> Planned:
    return Planned(seed, "cat", 0, seed, **own)


def drawn(pipeline: RunPipeline, *batch: Planned) -> list[np.ndarray]:
    images = pipeline.draw(pipeline.pipe, batch, lambda: None)
    return [np.asarray(image, dtype=np.int16) for image in images]


def by_hand(pipe: Any, seed: int = 0, **arguments: Any) -> np.ndarray:
    generator = torch.Generator().manual_seed(seed)
    usual = {"prompt": "cat", "num_inference_steps": 3, "generator": generator}
    return np.asarray(pipe(**usual | arguments).images[0], dtype=np.int16)


def close(first: np.ndarray, second: np.ndarray) -> bool:
    return first.shape == second.shape and int(np.abs(first - second).max()) <= 1


def test_images_are_those_of_the_pipeline_when_settings_are_given(opened, tiny_sd):
    pipeline = opened(negative_prompt="dog", height=24, width=8, guidance_scale=5.0)
    (image,) = drawn(pipeline, planned(3))
    sizes = {"height": 24, "width": 8}
    asked = {**sizes, "negative_prompt": "dog", "guidance_scale": 5.0}
    assert image.shape == (24, 8, 3)
    assert close(image, by_hand(tiny_sd, 3, **asked))
    assert not close(image, by_hand(tiny_sd, 3, **sizes, guidance_scale=5.0))


def test_rows_have_their_own_arguments_when_they_are_planned(opened, tiny_sd):
    pipeline = opened(guidance_scale=5.0)
    own = {"num_inference_steps": 2, "guidance_scale": 2.0, "height": 8}
    (image,) = drawn(pipeline, planned(1, arguments=own))
    assert close(image, by_hand(tiny_sd, 1, **own))


def test_each_image_has_its_negative_prompt_when_they_are_planned(opened, tiny_sd):
    batch = [planned(0, negative_prompt="dog"), planned(1, negative_prompt="owl")]
    images = drawn(opened(), *batch)
    for image, p in zip(images, batch, strict=True):
        assert close(image, by_hand(tiny_sd, p.seed, negative_prompt=p.negative_prompt))


def test_negative_prompt_of_the_run_is_used_when_a_row_has_none(opened, tiny_sd):
    first, second = drawn(
        opened(negative_prompt="dog"), planned(0), planned(1, negative_prompt="owl")
    )
    assert close(first, by_hand(tiny_sd, 0, negative_prompt="dog"))
    assert close(second, by_hand(tiny_sd, 1, negative_prompt="owl"))


@pytest.mark.parametrize("own", [{"negative_prompt": "dog"}, {"arguments": {"height": 8}}])
def test_images_are_refused_when_one_call_cannot_draw_them(opened, own):
    pipeline = opened()
    batch = [planned(0), planned(1, **own)]
    assert not pipeline.same_call(*batch)
    assert pipeline.same_call(batch[1], planned(2, **own))
    with pytest.raises(OptionError, match="in batches of their own"):
        drawn(pipeline, *batch)


def test_images_start_from_the_image_when_it_is_given(opened, tiny_sd, start):
    path = start()
    pipeline = opened(image=path, image_strength=0.7)
    assert type(pipeline.pipe).__name__ == "StableDiffusionImg2ImgPipeline"
    images = drawn(pipeline, planned(0), planned(1))
    with Image.open(path) as image:
        for seed, found in enumerate(images):
            assert close(found, by_hand(pipeline.pipe, seed, image=image, strength=0.7))


def test_image_is_resized_when_height_and_width_are_given(opened, start):
    pipeline = opened(image=start(17, 33), height=16, width=24)
    assert pipeline.image.size == (24, 16)
    assert drawn(pipeline, planned(0))[0].shape == (16, 24, 3)


@pytest.mark.parametrize(("name", "sized"), [("sdxl", False), ("sd3", True), ("flux", True)])
def test_images_have_the_size_of_the_image_when_models_of_other_families_start_from_it(
    tmp_path, start, name, sized
):
    settings = GenerateSettings(
        prompts=("cat",),
        model=str(tiny.write(name, tmp_path)),
        steps=4,
        image=start(32, 20),
        image_strength=0.5,
    )
    pipeline = RunPipeline.open(settings)
    sizes = {"height": 20, "width": 32} if sized else {}
    assert pipeline.options == {"strength": 0.5, **sizes}
    batch = planned(0), planned(1)
    plain = drawn(pipeline, *batch)
    assert [image.shape for image in plain] == [(20, 32, 3)] * 2
    guided = guide(pipeline.pipe, SPARKE(strength=0.3), memory=Memory())
    moved = pipeline.draw(guided, batch, lambda: None)
    assert all((np.asarray(m) != p).any() for m, p in zip(moved, plain, strict=True))
    nothing = guide(pipeline.pipe, SPARKE(strength=0.0), memory=Memory())
    same = pipeline.draw(nothing, batch, lambda: None)
    assert all((np.asarray(s) == p).all() for s, p in zip(same, plain, strict=True))


REFUSED = {
    "height": ({"height": 15}, r"height is 15; allowed with .*multiples of 2, as in height=1"),
    "image of an odd size": ({"image": (15, 16)}, r"width is that of image, 15; allowed with"),
    "no step left": ({"image": (16, 16), "image_strength": 0.2}, r"no step is left; .* steps=5"),
    "no image": ({"image": "missing.png"}, "image is 'missing.png', which cannot be read"),
    "negative prompt": (
        {"negative_prompt": "dog", "guidance_scale": 1.0},
        "does nothing with guidance_scale 1",
    ),
    "scheduler": ({"scheduler": "flow_euler"}, "StableDiffusionPipeline cannot use"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_setting_is_refused_when_the_pipeline_cannot_have_it(opened, start, case):
    given, reason = REFUSED[case]
    size = given.get("image")
    with pytest.raises(OptionError, match=reason):
        opened(**{**given, **({"image": start(*size)} if isinstance(size, tuple) else {})})


DIT = {
    "negative_prompt": "dog",
    "height": 16,
    "lora": (__file__,),
    "image": "start",
}


@pytest.mark.parametrize("name", DIT)
def test_setting_is_refused_when_the_pipeline_has_no_such_argument(tmp_path, start, name, request):
    value = DIT[name]
    if name == "lora":
        from tests.pipelines.test_loras import write_lora

        value = (str(write_lora(tmp_path, request.getfixturevalue("tiny_sd"), 0)),)
    value = start() if name == "image" else value
    given: Any = {name: value}
    settings = GenerateSettings(prompts=("3",), model="digits", steps=1, **given)
    with pytest.raises(
        (OptionError, UnsupportedError), match=f"{name} is given, and .*DiTPipeline"
    ):
        RunPipeline.open(settings)


def test_arguments_of_the_call_are_known_when_it_is_open(opened):
    parameters = opened().parameters
    assert "self" not in parameters
    assert parameters["guidance_scale"].default == 7.5


def test_fingerprint_is_of_the_model_and_not_of_the_call_when_settings_change(
    opened, tiny_sd_folder, tmp_path
):
    own = opened().fingerprint()
    shutil.copytree(tiny_sd_folder, tmp_path / "copy")
    same = opened(model=str(tmp_path / "copy"), steps=5, height=8, negative_prompt="dog")
    assert same.fingerprint() == own
    others = {opened(scheduler=s).fingerprint() for s in ("euler", "dpmpp_2m", "dpmpp_2m_karras")}
    assert len({*others, own}) == 4
    shutil.rmtree(tmp_path / "copy")
    with pytest.raises(StoreError, match="cannot be read"):
        same.fingerprint()


def test_fingerprint_counts_the_lora_and_its_scale_when_there_is_one(opened, tiny_sd, tmp_path):
    from tests.pipelines.test_loras import write_lora

    file = write_lora(tmp_path, tiny_sd, 0)
    prints = {opened(lora=lora).fingerprint() for lora in ((), (f"{file}:1",), (f"{file}:0.5",))}
    assert len(prints) == 3


def test_fingerprints_of_shipped_models_differ_when_only_their_lora_does():
    settings: Any = {"prompts": ("cat",), "model": "emoji-turbo"}
    turbo = RunPipeline.open(GenerateSettings(**settings)).fingerprint()
    assert turbo == RunPipeline.open(GenerateSettings(**settings)).fingerprint()
    two = RunPipeline.open(GenerateSettings(**settings | {"model": "emoji-turbo-2"}))
    assert turbo != two.fingerprint()
    flow = RunPipeline.open(GenerateSettings(**settings | {"model": "emoji-flow"}))
    assert len({turbo, two.fingerprint(), flow.fingerprint()}) == 3


def test_fingerprint_is_refused_when_the_pipeline_was_not_loaded_from_files(tiny_sd):
    with pytest.raises(UnsupportedError, match="loaded from files"):
        RunPipeline(tiny_sd, 3, 1.0).fingerprint()

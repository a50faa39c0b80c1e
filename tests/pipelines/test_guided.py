import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from tests import tiny

from unalike import pipelines
from unalike.attach import guide
from unalike.errors import OptionError, StoreError
from unalike.guidance.sparke import SPARKE
from unalike.memory import Memory
from unalike.pipelines import MODELS, get_diffusion_pipeline
from unalike.pipelines.guided import SPARKEGuided, guided_class

PUBLISHED = """\
from unalike.pipelines import get_diffusion_pipeline

pipe = get_diffusion_pipeline(name='sdxl')

image = pipe(
    prompt="a photorealistic portrait of a man with freckles",
    guidance_scale=7.5,
    criteria='vscore_clip',
    algorithm='cond-rke',
    criteria_guidance_scale=0.4,
    num_inference_steps=50,
    kernel='gaussian',
    sigma_image=0.8,
    sigma_text=0.35,
    guidance_freq=10,
    use_latents_for_guidance=True,
    regularize=False,
    regions_list=['face'],
).images[0]

image.save("output.jpg")
"""
HOSTS = (
    "StableDiffusion",
    "StableDiffusionXL",
    "StableDiffusionControlNet",
    "StableDiffusionXLControlNet",
    "PixArtSigma",
    "Kandinsky3",
    "DiT",
)
QUICK = {"num_inference_steps": 4, "output_type": "latent", "height": 16, "width": 16}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a tiny pipeline by its name, written once."""
    base, written = tmp_path_factory.mktemp("guided"), {}

    def path(name: str) -> Path:
        if name not in written:
            written[name] = tiny.write(name, base)
        return written[name]

    return path


@pytest.fixture
def pipe(folder: Callable[[str], Path]) -> Any:
    return quiet(get_diffusion_pipeline(folder("sdxl"), device="cpu"))


def quiet(pipe: Any) -> Any:
    pipe.set_progress_bar_config(disable=True)
    return pipe


def seeded(count: int = 2, first: int = 0) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(first + i) for i in range(count)]


def drawn(pipe: Any, prompts: list[str], first: int = 0, **arguments: Any) -> torch.Tensor:
    return pipe(prompts, generator=seeded(len(prompts), first), **{**QUICK, **arguments}).images


@pytest.mark.parametrize("host", HOSTS)
def test_both_names_of_the_papers_are_subclasses_of_the_pipeline(host: str):
    kind = getattr(pipelines, f"SPARKEGuided{host}Pipeline")
    assert issubclass(kind, getattr(diffusers, f"{host}Pipeline"))
    assert kind is getattr(pipelines, f"SPALEGuided{host}Pipeline")
    assert kind.__name__ == f"SPARKEGuided{host}Pipeline"


def test_images_are_those_of_guide_when_the_arguments_mean_the_same(
    pipe: Any, folder: Callable[[str], Path]
):
    memory = Memory()
    method = SPARKE(strength=0.2, target="x_t", bandwidth=0.8, prompt_bandwidth=0.4, every=2)
    guided = guide(tiny.load(folder("sdxl")), method, memory=memory)
    arguments = {
        "criteria_guidance_scale": 0.2,
        "guidance_freq": 2,
        "sigma_image": 0.8,
        "sigma_text": 0.4,
    }
    for first in (0, 5):  # the second call is unlike the first
        assert torch.equal(
            drawn(pipe, ["cat", "dog"], first, **arguments), drawn(guided, ["cat", "dog"], first)
        )
    assert len(pipe.memory) == len(memory) == 4
    assert pipe.report is not None
    assert pipe.report.images[0].active == {"sparke": 0.5}


def test_it_is_the_plain_pipeline_when_there_is_no_criterion(
    pipe: Any, folder: Callable[[str], Path]
):
    plain = drawn(tiny.load(folder("sdxl")), ["cat", "dog"])
    assert torch.equal(drawn(pipe, ["cat", "dog"], criteria=None), plain)
    assert len(pipe.memory) == 0
    assert torch.equal(drawn(pipe, ["cat", "dog"], criteria_guidance_scale=0.0), plain)
    assert not torch.equal(drawn(pipe, ["cat", "dog"], criteria_guidance_scale=0.2), plain)


@pytest.mark.parametrize("algorithm", ["rke", "cond-rke", "vendi", "cond-vendi"])
@pytest.mark.parametrize("kernel", ["gaussian", "cosine"])
def test_every_algorithm_and_kernel_draws_with_every_argument(
    pipe: Any, algorithm: str, kernel: str
):
    plain = drawn(pipe, ["cat", "dog"], criteria=None)
    arguments: dict[str, Any] = {
        "criteria": "vscore_clip",
        "algorithm": algorithm,
        "kernel": kernel,
        "criteria_guidance_scale": 0.4,
        "guidance_freq": 2,
        "regularize": True,
        "regularize_weight": 0.01,
        "regions_list": [(0.0, 0.0, 0.5, 1.0)],
        "max_bank_size": 3,
        "beta": 0.5,
        "reference": torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(9)),
    }
    for first in (0, 7):
        images = drawn(pipe, ["cat", "dog"], first, **arguments)
    assert torch.isfinite(images).all()
    assert len(pipe.memory) == pipe.memory.capacity == 3
    first_images = drawn(quiet_copy(pipe), ["cat", "dog"], **arguments)
    assert (first_images - plain).abs().amax() > 1e-3


def quiet_copy(pipe: Any) -> Any:
    return quiet(type(pipe)(**pipe.components, add_watermarker=False))


def test_each_argument_changes_the_images(pipe: Any):
    drawn(pipe, ["cow"], 40)  # something to be unlike
    reference = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(9))

    def of(**arguments: Any) -> torch.Tensor:
        saved = Memory()
        for space in pipe.memory.spaces():
            view = pipe.memory.view(space)
            saved.add(space, view.latents.view(-1, 4, 8, 8), prompts=view.prompts)
        images = drawn(pipe, ["cat", "dog"], criteria_guidance_scale=0.2, **arguments)
        pipe.memory = saved
        return images

    usual = of()
    for change in (
        {"algorithm": "rke"},
        {"algorithm": "vendi"},
        {"kernel": "cosine"},
        {"sigma_image": 0.3},
        {"sigma_text": 0.05},
        {"guidance_freq": 1},
        {"regularize": True, "regularize_weight": 1.0},
        {"regions_list": [(0.0, 0.0, 0.5, 0.5)]},
        {"beta": 2.0, "reference": reference},
    ):
        assert not torch.equal(of(**change), usual), change
    assert torch.equal(of(), usual)


def test_memory_goes_on_when_it_was_saved_and_opened(
    pipe: Any, tmp_path: Path, folder: Callable[[str], Path]
):
    drawn(pipe, ["cat", "dog"])
    pipe.memory.save(tmp_path / "bank.safetensors")
    again = quiet(get_diffusion_pipeline(folder("sdxl"), device="cpu"))
    again.open_memory(tmp_path / "bank.safetensors")
    assert torch.equal(drawn(again, ["cat"], 9), drawn(pipe, ["cat"], 9))
    pipe.reset_memory()
    assert len(pipe.memory) == 0
    with pytest.raises(OptionError, match="memory is a dict"):
        pipe.memory = {}


def test_a_memory_of_another_model_is_refused_before_any_denoising(
    pipe: Any, folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
):
    other = quiet(get_diffusion_pipeline(folder("sd3"), device="cpu"))
    other("cat", max_sequence_length=12, **QUICK)
    pipe.memory = other.memory
    monkeypatch.setattr(type(pipe.unet), "forward", lambda *_, **__: pytest.fail("denoised"))
    with pytest.raises(StoreError, match="the memory holds samples of another model"):
        drawn(pipe, ["cat"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"algorithm": "rk"}, "algorithm is 'rk'"),
        ({"kernel": "rbf"}, "kernel is 'rbf'"),
        ({"criteria": "clip_loss"}, "criteria is 'clip_loss'"),
        ({"criteria_guidance_scale": -1}, "criteria_guidance_scale is -1"),
        ({"sigma_image": 0}, "sigma_image is 0"),
        ({"regions_list": [torch.ones(5, 5)]}, "5×5"),
        ({"F_M": torch.ones(2)}, "F_M is not taken here"),
        (
            {"sigma_imgae": 0.5},
            "sigma_imgae is no argument of SPARKEGuided.*; did you mean 'sigma_image'",
        ),
        ({"clip_for_guidance": 3, "use_latents_for_guidance": False}, "clip_for_guidance is a int"),
    ],
)
def test_bad_arguments_are_refused_before_any_denoising(
    pipe: Any, monkeypatch: pytest.MonkeyPatch, arguments: dict[str, Any], message: str
):
    monkeypatch.setattr(type(pipe.unet), "forward", lambda *_, **__: pytest.fail("denoised"))
    with pytest.raises(OptionError, match=message):
        drawn(pipe, ["cat"], **arguments)


def test_images_are_compared_by_clip_when_latents_are_not_used(pipe: Any, clip_folder: Path):
    arguments = {
        "use_latents_for_guidance": False,
        "clip_for_guidance": str(clip_folder),
        "criteria_guidance_scale": 0.3,
        "guidance_freq": 1,
    }
    plain = drawn(pipe, ["cat", "dog"], criteria=None)
    ambient = drawn(pipe, ["cat", "dog"], **arguments)
    pipe.reset_memory()
    latent = drawn(pipe, ["cat", "dog"], **{**arguments, "use_latents_for_guidance": True})
    assert (ambient - plain).abs().amax() > 1e-3
    assert not torch.allclose(ambient, latent)


def test_prompts_are_compared_by_clip_when_it_is_named(pipe: Any, clip_folder: Path):
    drawn(pipe, ["cat", "dog"], prompt_encoder="clip", clip_for_guidance=str(clip_folder))
    (space,) = pipe.memory.spaces()
    assert "clip/CLIPModel-" in space
    drawn(pipe, ["cat"], 5, clip_for_guidance=str(clip_folder))  # as published
    assert pipe.memory.spaces() == {space: 3}


def test_saved_folder_is_that_of_the_plain_class(pipe: Any, tmp_path: Path):
    pipe.save_pretrained(tmp_path)
    assert (
        json.loads((tmp_path / "model_index.json").read_text())["_class_name"]
        == "StableDiffusionXLPipeline"
    )
    plain = diffusers.DiffusionPipeline.from_pretrained(tmp_path, dtype=torch.float32)
    assert type(plain) is diffusers.StableDiffusionXLPipeline
    again = pipelines.SPARKEGuidedStableDiffusionXLPipeline.from_pretrained(
        tmp_path, dtype=torch.float32
    )
    assert isinstance(again, SPARKEGuided)


def test_classes_are_named_by_prompts_when_the_pipeline_draws_classes(
    folder: Callable[[str], Path],
):
    index = folder("dit") / "model_index.json"
    index.write_text(
        json.dumps({**json.loads(index.read_text()), "id2label": {"0": "tench", "1": "goldfish"}})
    )
    pipe = quiet(get_diffusion_pipeline(folder("dit"), device="cpu"))
    arguments = {"num_inference_steps": 4, "output_type": "pt", "criteria_guidance_scale": 0.2}
    images = pipe(prompt=["goldfish", "tench"], generator=seeded(), **arguments)[0]
    pipe.reset_memory()
    assert (images == pipe(class_labels=[1, 0], generator=seeded(), **arguments)[0]).all()
    with pytest.raises(OptionError, match="prompt 'shark' is no class"):
        pipe(prompt="shark", **arguments)


@pytest.mark.parametrize("name", ["emoji", "digits"])
def test_call_has_the_models_own_settings_when_it_is_named(name: str):
    pipe = quiet(get_diffusion_pipeline(name, device="cpu"))
    prompt = {"emoji": "heart", "digits": "seven"}[name]
    steps = []
    own = pipe.scheduler.set_timesteps
    pipe.scheduler.set_timesteps = lambda n, **options: (steps.append(n), own(n, **options))[1]
    with pytest.raises(
        Exception, match="replaced by something else"
    ):  # a scheduler that is not its own cannot be guided
        pipe(prompt=prompt)
    pipe(prompt=prompt, criteria=None)
    assert steps == [MODELS[name].steps]
    assert pipe._unalike_model is MODELS[name]


def test_unguided_call_of_any_pipeline_becomes_guided_by_one_line():
    kind = guided_class(diffusers.AuraFlowPipeline)
    assert kind.__name__ == "SPARKEGuidedAuraFlowPipeline"
    assert kind is guided_class(diffusers.AuraFlowPipeline)
    for wrong in (kind, int, "AuraFlowPipeline"):
        with pytest.raises(OptionError, match="allowed: a pipeline class of diffusers"):
            guided_class(wrong)


@pytest.mark.parametrize("name", ["no such model", "./not/here", 3])
def test_message_lists_the_models_when_the_name_is_unknown(name: Any):
    with pytest.raises(
        OptionError, match=r"model is .*allowed: emoji, emoji-turbo, .*digits, sdv1\.5, .* a folder"
    ):
        get_diffusion_pipeline(name)


def test_published_example_runs_as_it_is_but_for_the_import(
    tmp_path: Path, folder: Callable[[str], Path]
):
    """The README of the papers, with a tiny SDXL in the place where the hub's files are kept."""
    cache = tmp_path / "hub" / f"models--{MODELS['sdxl'].checkpoint}".replace("/", "--", 1)
    (cache / "refs").mkdir(parents=True)
    (cache / "refs" / "main").write_text("0" * 40)
    shutil.copytree(folder("sdxl"), cache / "snapshots" / ("0" * 40))
    environment = {
        **os.environ,
        "HF_HUB_CACHE": str(tmp_path / "hub"),
        "HF_HUB_OFFLINE": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    done = subprocess.run(
        [sys.executable, "-c", PUBLISHED],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "output.jpg").stat().st_size > 100


def test_neither_torch_nor_optional_libraries_are_imported_when_the_package_is():
    heavy = [
        "torch",
        "diffusers",
        "transformers",
        "torchvision",
        "controlnet_aux",
        "faiss",
        "ray",
        "gradio",
        "matplotlib",
        "scipy",
    ]
    code = f"import sys, unalike.pipelines; print([m for m in {heavy} if m in sys.modules])"
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.strip()
        == "[]"
    )

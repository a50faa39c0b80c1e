from typing import Any

import diffusers
import pytest
import torch
from tests.attach.conftest import seeded

import unalike
from unalike.attach import guide
from unalike.attach.diffusers.arguments import MODEL, completed, known_arguments
from unalike.errors import OptionError
from unalike.pipelines import MODELS, get_diffusion_pipeline

TextToImage: Any = diffusers.StableDiffusionPipeline


@pytest.mark.parametrize("name", ["sd", "sdxl", "sd3", "flux", "dit"])
def test_unknown_argument_is_refused_before_anything_is_drawn(pipelines: Any, name: str) -> None:
    pipe = pipelines(name)
    steps: list[int] = []
    own = type(pipe.scheduler).step
    guided = guide(pipe)
    asked = {"class_labels": [0]} if name == "dit" else {"prompt": "cat"}
    wrong, right = (
        ("num_inference_step", "num_inference_steps")
        if name == "dit"
        else ("num_images_per_promt", "num_images_per_prompt")
    )
    try:
        type(pipe.scheduler).step = lambda *a, **k: steps.append(1)
        with pytest.raises(OptionError, match=f"{wrong} is no argument .*did you mean '{right}'"):
            guided(**asked, **{wrong: 2})
    finally:
        type(pipe.scheduler).step = own
    assert not steps


def test_old_callback_is_known_when_the_pipeline_reads_it(sd: Any) -> None:
    assert {"callback", "callback_steps", "prompt"} <= (known_arguments(sd) or set())
    assert "kwargs" not in (known_arguments(sd) or set())


def test_argument_is_known_when_a_subclass_takes_it(sd: Any) -> None:
    styles: list[Any] = []

    class Mine(TextToImage):
        def __call__(self, **options: Any) -> Any:
            styles.append(options.pop("style", None))
            return super().__call__(**options)

    pipe = Mine(**sd.components, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    guided = guide(pipe)
    guided(prompt="cat", style="flat", num_inference_steps=1, output_type="latent")
    assert styles == ["flat"]
    with pytest.raises(OptionError, match="did you mean 'style'"):
        guided(prompt="cat", stile="flat")


def test_any_argument_is_passed_on_when_only_the_call_knows_its_names() -> None:
    class Own(diffusers.DiffusionPipeline):
        def __call__(self, **options: Any) -> Any:
            return options

    assert known_arguments(Own()) is None
    assert completed(Own(), (), {"anything": 1}) == {"anything": 1}


def test_guided_call_has_the_steps_and_scale_of_the_model_when_it_leaves_them_out() -> None:
    pipe = unalike.load("emoji")
    pipe.set_progress_bar_config(disable=True)
    guided, row = guide(pipe), MODELS["emoji"]
    assert (row.steps, row.guidance_scale) != (50, 7.5)
    short = guided("cat", generator=seeded(1), output_type="latent", num_inference_steps=2)
    own = pipe(
        "cat",
        generator=seeded(1),
        output_type="latent",
        num_inference_steps=2,
        guidance_scale=row.guidance_scale,
    )
    assert torch.equal(short.images, own.images)
    guided("cat", generator=seeded(1), output_type="latent")
    assert guided.report is not None
    assert guided.report.steps == row.steps
    stated = guided("cat", generator=seeded(1), output_type="latent", guidance_scale=1.0)
    assert not torch.equal(
        stated.images, guided("cat", generator=seeded(1), output_type="latent").images
    )


def test_plain_call_stays_the_hosts_own_when_the_model_was_loaded_by_name() -> None:
    pipe, seen = unalike.load("emoji"), []
    pipe.set_progress_bar_config(disable=True)

    def stop(pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        seen.append((pipe.num_timesteps, pipe.guidance_scale))
        pipe._interrupt = True
        return tensors

    pipe("cat", output_type="latent", callback_on_step_end=stop)
    assert seen == [(50, 7.5)]


def test_papers_interface_has_the_same_defaults() -> None:
    pipe = get_diffusion_pipeline("emoji", device="cpu")
    arguments = completed(pipe, ("cat",), {"guidance_scale": 3.0})
    assert arguments == {"num_inference_steps": MODELS["emoji"].steps, "guidance_scale": 3.0}
    assert getattr(pipe, MODEL) is MODELS["emoji"]


def test_model_is_not_written_with_the_pipeline(tmp_path: Any) -> None:
    pipe = unalike.load("digits")
    pipe.save_pretrained(tmp_path)
    assert MODEL not in (tmp_path / "model_index.json").read_text()
    assert not hasattr(unalike.load(tmp_path), MODEL)

from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from tests import tiny

ARGUMENTS: dict[str, dict[str, Any]] = {
    "sd": {"height": 16, "width": 16, "guidance_scale": 3.0},
    "sdxl": {"height": 16, "width": 16, "guidance_scale": 3.0},
    "sd3": {"height": 16, "width": 16, "guidance_scale": 3.0, "max_sequence_length": 12},
    "dit": {"guidance_scale": 3.0},
    "flux": {"height": 16, "width": 16, "max_sequence_length": 12},
}


@pytest.fixture(scope="session")
def pipelines(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    """A tiny pipeline by its name, read from disk once."""
    folder, read = tmp_path_factory.mktemp("pipelines"), {}

    def pipeline(name: str) -> Any:
        if name not in read:
            read[name] = tiny.load(tiny.write(name, Path(folder)))
        return read[name]

    return pipeline


@pytest.fixture
def sd(pipelines: Callable[[str], Any]) -> Any:
    return pipelines("sd")


@pytest.fixture
def solver(sd: Any) -> Any:
    """Sets the scheduler of the tiny pipeline for one test."""
    own = sd.scheduler

    def choose(name: str, **config: Any) -> Any:
        sd.scheduler = getattr(diffusers, name).from_config(own.config, **config)
        return sd

    yield choose
    sd.scheduler = own


@pytest.fixture
def pixel_pipe() -> Any:
    """A pipeline without prompts and without an autoencoder, for images of 8×8."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        unet = diffusers.UNet2DModel(
            sample_size=8,
            block_out_channels=(8, 8),
            layers_per_block=1,
            norm_num_groups=4,
            down_block_types=("DownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "UpBlock2D"),
        )
    pipe = diffusers.DDIMPipeline(unet=unet, scheduler=diffusers.DDIMScheduler())
    pipe.set_progress_bar_config(disable=True)
    return pipe


def prompted(name: str, prompts: list[str], each: int) -> dict[str, Any]:
    """The arguments that ask the named pipeline for `each` images of each prompt."""
    common = {**ARGUMENTS[name], "num_inference_steps": 4}
    if name == "dit":
        labels = [["cat", "dog", "owl"].index(p) for p in prompts for _ in range(each)]
        return {**common, "class_labels": labels, "output_type": "pt"}
    return {**common, "prompt": prompts, "num_images_per_prompt": each, "output_type": "latent"}


def seeded(count: int, first: int = 0) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(first + i) for i in range(count)]

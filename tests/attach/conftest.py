from collections.abc import Callable
from pathlib import Path
from typing import Any

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


def prompted(name: str, prompts: list[str], each: int) -> dict[str, Any]:
    """The arguments that ask the named pipeline for `each` images of each prompt."""
    common = {**ARGUMENTS[name], "num_inference_steps": 4}
    if name == "dit":
        labels = [["cat", "dog", "owl"].index(p) for p in prompts for _ in range(each)]
        return {**common, "class_labels": labels, "output_type": "pt"}
    return {**common, "prompt": prompts, "num_images_per_prompt": each, "output_type": "latent"}


def seeded(count: int, first: int = 0) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(first + i) for i in range(count)]

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tests import tiny


@pytest.fixture(scope="session")
def tiny_sd_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Stable Diffusion pipeline of a few thousand random weights that draws 16×16 images, in diffusers' layout."""
    return tiny.write("sd", tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def tiny_sd(tiny_sd_folder: Path) -> Any:
    """The pipeline of `tiny_sd_folder`, fresh for each test."""
    return tiny.load(tiny_sd_folder)


@pytest.fixture(autouse=True)
def _denormal_numbers() -> Iterator[None]:
    """Training flushes denormal numbers for its whole process; here the next test needs them."""
    yield
    torch.set_flush_denormal(False)

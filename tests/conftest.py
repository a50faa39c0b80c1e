from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def tiny_sd_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Stable Diffusion pipeline of a few thousand random weights that draws 16×16 images, in diffusers' layout."""
    from tests import tiny

    return tiny.write("sd", tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def tiny_sd(tiny_sd_folder: Path) -> Any:
    """The pipeline of `tiny_sd_folder`, fresh for each test."""
    from tests import tiny

    return tiny.load(tiny_sd_folder)

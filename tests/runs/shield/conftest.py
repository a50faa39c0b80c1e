from pathlib import Path

import pytest
from tests import tiny


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP of a few thousand random weights at 16×16, with a tokenizer of the alphabet."""
    return tiny.write_clip(tmp_path_factory.mktemp("clip"))

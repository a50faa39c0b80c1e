from pathlib import Path

import pytest
import torch
from tests import tiny
from transformers import Dinov2Config, Dinov2Model


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP of a few thousand random weights at 16×16, with a tokenizer of the alphabet."""
    return tiny.write_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="session")
def dinov2_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DINOv2 of a few thousand random weights."""
    folder = tmp_path_factory.mktemp("dinov2")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = Dinov2Config(
            hidden_size=16, num_hidden_layers=1, num_attention_heads=2, mlp_ratio=1, image_size=32, patch_size=16, qkv_bias=True
        )
        Dinov2Model(config).save_pretrained(folder)
    return folder

"""CLIP ViT-B/32 as an embedding to measure time with: its real size, and weights drawn at random,
which the time does not depend on.
"""

from __future__ import annotations

import torch
from transformers import CLIPConfig, CLIPModel

from unalike.extractors.base import Extractor
from unalike.extractors.clip import Clip

SIDE = 224


class UntrainedClip(Clip):
    """CLIP from its configuration alone, on the CPU; its vectors say nothing about images.

    Args:
        layers: of each tower; 12 is ViT-B/32.

    Example:
        >>> UntrainedClip(1).embed(torch.zeros(1, 3, 64, 64)).shape
        torch.Size([1, 512])
    """

    def __init__(self, layers: int = 12) -> None:
        tower = {"num_hidden_layers": layers}
        config = CLIPConfig(
            vision_config={**tower, "image_size": SIDE}, text_config=tower
        )  # all else is ViT-B/32 by default
        with torch.random.fork_rng(
            devices=[]
        ):  # transformers draws weights from the global generator
            torch.manual_seed(0)
            model = CLIPModel(config)
        Extractor.__init__(self, model, device="cpu")
        self.side = SIDE

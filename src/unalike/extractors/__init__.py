"""Feature extractors: images in, the vectors out that scores and metrics compare. All behind one interface, built by name.

from unalike.extractors import extractor

X = extractor("pixels").features(images)                  # images (n, 3, h, w) in [0, 1], X (n, d) float32
X = extractor("clip:openai/clip-vit-large-patch14").features(images)
"""

from unalike.extractors.base import Extractor
from unalike.extractors.table import EXTRACTORS, Row, extractor

__all__ = ["EXTRACTORS", "Extractor", "Row", "extractor"]

"""Feature extractors: from images to the feature vectors that scores and metrics compare.

    from unalike.extractors import extractor

    X = extractor("pixels").features(images)  # images (n, 3, h, w) in [0, 1], X (n, d) float32
    X = extractor("clip:openai/clip-vit-large-patch14").features(images)

The interface is `unalike.extractors.base.Extractor`; it is not imported here, so that the names can
be listed without torch.
"""

from unalike.extractors.table import EXTRACTORS, Row, extractor

__all__ = ["EXTRACTORS", "Row", "extractor"]

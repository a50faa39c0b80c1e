"""The Inception network of FID and KID, as torch-fidelity has it."""

from __future__ import annotations

import torch
from torch import Tensor

from unalike.errors import StoreError, UnsupportedError
from unalike.extractors.base import Extractor

_INSTALL = "pip install 'unalike[metrics]'"


class Inception(Extractor):
    """The 2048 features of Inception v3 before its classifier, by torch-fidelity.

    With the weights and the resizing of the original FID.

    Images are rounded to 8 bits first, as FID is defined, so no gradient passes. torch-fidelity
    needs torchvision, which its installation brings. It loads its weights from its own release
    page, once, into torch's cache.

    Source: Heusel et al. 2017 (arXiv:1706.08500); weights of Szegedy et al. 2015
    (arXiv:1512.00567).

    Raises:
        UnsupportedError: where torch-fidelity or torchvision is missing.
        StoreError: where its weights cannot be had.

    Cost: one pass of the network at 299×299 an image.
    """

    name = "inception"
    basis = (
        "the 2048 features of FID's Inception network (torch-fidelity), compared by their cosine"
    )
    resizing = (
        "resized to 299×299 by the bilinear interpolation of the original FID; other shapes than a "
        "square are squeezed"
    )

    def __init__(self, *, device: str = "auto", batch_size: int = 32) -> None:
        super().__init__(_network(), device=device, batch_size=batch_size)

    def embed(self, images: Tensor) -> Tensor:
        """The 2048 features of the batch."""
        (found,) = self.model((255 * images).round().to(torch.uint8))
        return found


def _network() -> torch.nn.Module:
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise UnsupportedError(
            "features is 'inception', which needs the packages torch-fidelity and torchvision "
            f"({error}); install both with: {_INSTALL}"
        ) from error
    try:
        return FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], verbose=False)
    except (OSError, RuntimeError) as error:
        from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3  # pyright: ignore[reportMissingImports]

        raise StoreError(
            "the weights of FID's Inception network cannot be had "
            f"({' '.join(str(error).split())}); fetch {URL_INCEPTION_V3} on a machine that can, "
            f"and put the file into {torch.hub.get_dir()}/checkpoints"
        ) from error

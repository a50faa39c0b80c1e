"""Interface of feature extractors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unalike.errors import Literal, NumericsError, Option, OptionError, StoreError, named
from unalike.fingerprint import fingerprint
from unalike.hub import offline_options
from unalike.images import read_all, stacked
from unalike.kernels import Cosine, Kernel


class Extractor(ABC):
    """Turns images into feature vectors.

    A new extractor sets the four attributes, passes its network, if it has one, to `__init__`, and
    gives `embed`.

    Attributes:
        name: as in the table, such as "clip".
        basis: what the features are, in one sentence for reports.
        resizing: what happens to an image of another size or shape, likewise.
        kernel: the kernel whose Gram matrix the diversity scores are taken of.
        unit: distances between features are reported divided by it, so that they mean something; 1
            leaves them as they are.
        unit_name: what distances in that unit are.
        copy_distance: two images whose features are nearer are taken for copies, where that was
            measured for these features; None where it was not.
        copy_errors: how often that is wrong, in a clause with what it was measured on; None where
            it is not known.

    Args:
        model: the network, moved to the device and set to evaluation; None where there is none.
        device: "auto" for the GPU where there is one, or a device of torch such as "cuda:1".
        batch_size: images embedded at a time.

    Raises:
        OptionError: for a device that is not there, or a batch of none.
    """

    name: str
    basis: str
    resizing: str
    kernel: Kernel = Cosine()
    unit: float = 1.0
    unit_name: str = "Euclidean distance of features"
    copy_distance: float | None = None
    copy_errors: str | None = None

    def __init__(
        self, model: torch.nn.Module | None = None, *, device: str = "auto", batch_size: int = 32
    ) -> None:
        if batch_size < 1:
            raise OptionError(
                f"batch_size is {batch_size}; it must be a whole number of at least 1, as in "
                "batch_size=32"
            )
        self.device = torch_device(device)
        self.batch_size = batch_size
        self.model: Any = (
            None if model is None else model.to(self.device).eval().requires_grad_(False)
        )

    @abstractmethod
    def embed(self, images: Tensor) -> Tensor:
        """The features (n, d) of one batch (n, 3, h, w) in [0, 1] on the extractor's device."""

    @property
    def fingerprint(self) -> str:
        """Name for records; of a network also its class and digits that change with its weights."""
        return (
            self.name
            if self.model is None
            else f"{self.name}/{type(self.model).__name__}-{fingerprint(self.model)}"
        )

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """Features (n, d) float32 on the CPU of images (n, 3, h, w) in [0, 1].

        `batch_size` images are embedded at a time.

        Raises:
            OptionError: for images of another shape or range.
            NumericsError: where the network makes NaN or infinity of them.
        """
        if (
            images.ndim != 4
            or images.shape[1] != 3
            or 0 in images.shape
            or not images.is_floating_point()
        ):
            raise OptionError(
                f"images is {images.dtype} of the shape {tuple(images.shape)}; allowed: floats (n, "
                "3, h, w), as in pixels / 255"
            )
        if not (images.min() >= 0 and images.max() <= 1):
            raise OptionError(
                f"images has values from {images.min():.3g} to {images.max():.3g}; allowed: 0 to "
                "1, as in pixels / 255"
            )
        found = torch.cat(
            [
                self.embed(part.float().to(self.device)).float().cpu()
                for part in images.split(self.batch_size)
            ]
        )
        self.require_finite(found, "image")
        return found

    def of_images(self, images: Any) -> Tensor:
        """Features (n, d) of images of any sizes, each as `unalike.images.read_image` takes it;
        those of one size are embedded together.

        Raises:
            OptionError: for no images.
            NumericsError: as `features`.
        """
        given = read_all(images)
        if isinstance(given, Tensor):
            return self.features(given)
        groups: dict[tuple[int, int], list[int]] = {}
        for i, image in enumerate(given):
            groups.setdefault(image.size, []).append(i)
        found = torch.empty(0)
        for own in groups.values():
            rows = self.features(stacked([given[i] for i in own]))
            found = found if len(found) else rows.new_empty(len(given), rows.shape[1])
            found[own] = rows
        return found

    def require_finite(self, found: Tensor, what: str) -> None:
        """Refuse features (n, d) with NaN or infinity; the message names the first image or prompt.

        Raises:
            NumericsError: for such features.
        """
        bad = (~found.isfinite().all(dim=1)).nonzero().flatten().tolist()
        if bad:
            raise NumericsError(
                f"the features {self.name!r} of {what} {bad[0]} of the batch have NaN or infinity; "
                "choose other features"
            )

    def prompt_features(self, prompts: Sequence[str]) -> Tensor | None:
        """Embeddings (n, d) of prompts in the space of `features`, for CLIPScore.

        None where the extractor has no text encoder.
        """
        return None


def torch_device(name: str) -> torch.device:
    """The torch device of this name; "auto" is the GPU where there is one, else the CPU.

    Raises:
        OptionError: for a device that torch does not know or the machine does not have.

    Example:
        >>> torch_device("cpu")
        device(type='cpu')
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise OptionError(
            named(
                "{device} is {!r}, which this machine or torch does not have ({}); allowed: auto, "
                "cpu, cuda, cuda:1, mps",
                name,
                reason,
            )
        ) from error
    return device


def pretrained(kind: Any, source: str, features: str, **options: Any) -> Any:
    """Load a model or tokenizer of the class `kind` from a folder or the Hugging Face hub.

    Raises:
        StoreError: for a folder that cannot be loaded.
        OptionError: for one that is not there, and for a checkpoint that the hub does not give.
    """
    folder = Path(source)
    try:
        offline = offline_options(source, "config.json")
        return kind.from_pretrained(source, **options, **offline)
    except (OSError, ValueError, RuntimeError, TypeError) as error:
        reason = " ".join(str(error).split())
        if folder.is_dir():
            raise StoreError(
                named(
                    "the folder {!r} has no {} that can be loaded ({}); give one that "
                    "save_pretrained wrote, as in {}",
                    str(folder),
                    kind.__name__,
                    reason,
                    Option("features", Literal(f"{features}:FOLDER")),
                )
            ) from error
        raise OptionError(
            named(
                "{} {!r} cannot be loaded: it is no folder here, and the Hugging Face hub did not "
                "give it ({}). With its files in a folder: {}. Without any download: "
                "{features='pixels'}",
                kind.__name__,
                source,
                reason,
                Option("features", Literal(f"{features}:FOLDER")),
            )
        ) from error

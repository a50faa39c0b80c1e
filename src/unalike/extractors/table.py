"""The extractors by name.

Neither torch nor any of their libraries is imported until one is built.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from unalike.errors import OptionError, did_you_mean, named

if TYPE_CHECKING:
    from unalike.extractors.base import Extractor


@dataclass(frozen=True)
class Row:
    """An extractor as help and documentation list it.

    Args:
        summary: what it sees, in a line.
        home: module and class, as "module:Class".
        source: where its network comes from if the name says nothing: a hub id or a shipped model;
            None where it needs none.
        named: whether another source may follow the name, as in "clip:FOLDER".
    """

    summary: str
    home: str
    source: str | None = None
    named: bool = False


EXTRACTORS: dict[str, Row] = {
    "pixels": Row(
        "colours and layout at 32×32; needs no network and no download",
        "unalike.extractors.pixels:Pixels",
    ),
    "emoji": Row(
        "the shapes of emoji, for images of the shipped model; no download",
        "unalike.models.emoji.extractor:Emoji",
    ),
    "emoji-copies": Row(
        "copies of emoji, edited ones too, for images of the shipped model; no download",
        "unalike.models.emoji.copies:EmojiCopies",
    ),
    "digits": Row(
        "handwritten digits, by the classifier of the shipped model; no download",
        "unalike.models.digits.extractor:Digits",
    ),
    "latents": Row(
        "latents of a model's own autoencoder",
        "unalike.pipelines.features:Latents",
        source="emoji",
        named=True,
    ),
    "clip": Row(
        "what an image is about; scores the fit to prompts too",
        "unalike.extractors.clip:Clip",
        "openai/clip-vit-base-patch32",
        named=True,
    ),
    "dinov2": Row(
        "objects, shape and texture, as FD-DINOv2 uses it",
        "unalike.extractors.dinov2:Dinov2",
        "facebook/dinov2-large",
        named=True,
    ),
    "sscd": Row(
        "copies of an image, edited ones too; needs its TorchScript file, as in sscd:FILE",
        "unalike.extractors.sscd:Sscd",
        named=True,
    ),
    "inception": Row(
        "the network of FID; needs the extra unalike[metrics]",
        "unalike.extractors.inception:Inception",
    ),
}


def parse(name: str) -> tuple[str, str | None]:
    """Split an extractor's full name into the name of its row and the source of its network.

    Raises:
        OptionError: for a name that is not in the table, and a source where none can be chosen.

    Example:
        >>> parse("clip:models/clip"), parse("pixels")
        (('clip', 'models/clip'), ('pixels', None))
    """
    kind, colon, source = name.partition(":")
    row = EXTRACTORS.get(kind)
    if row is None:
        close = did_you_mean(kind, EXTRACTORS)
        raise OptionError(
            named("{features} is {!r}; {}allowed: {}", name, close, ", ".join(spellings()))
        )
    if colon and not (row.named and source):
        choices = f"{kind}:FOLDER or {kind}" if row.named else kind
        raise OptionError(named("{features} is {!r}; allowed: {}", name, choices))
    return kind, source or row.source


def spellings() -> list[str]:
    """The spelling of each extractor, as in "clip[:MODEL]"."""
    return [f"{name}[:MODEL]" if row.named else name for name, row in EXTRACTORS.items()]


def extractor(name: str, *, device: str = "auto", batch_size: int = 32) -> Extractor:
    """Load the extractor of this name.

    Args:
        name: one of `EXTRACTORS`; for those with a network of one's choice also with a folder or
            hub id, as in "clip:FOLDER".
        device: "auto", or a device of torch.
        batch_size: images embedded at a time.

    Raises:
        OptionError: for an unknown name or device, or a network that is neither here nor on the
            hub.
        StoreError: for a folder that cannot be loaded.
        UnsupportedError: for a package that is missing, with the command that installs it, or a
            model without an autoencoder.

    Example:
        >>> import torch
        >>> extractor("pixels", device="cpu").features(torch.zeros(2, 3, 64, 48)).shape
        torch.Size([2, 3072])
    """
    kind, source = parse(name)
    module, _, cls = EXTRACTORS[kind].home.partition(":")
    build = getattr(import_module(module), cls)
    options = {"device": device, "batch_size": batch_size}
    return build(**options) if source is None else build(source, **options)


def portable(space: str) -> str:
    """The spelling of features without the place of a folder or file: its own name alone.

    Example:
        >>> portable("pixels"), portable("clip:openai/clip-vit-base-patch32")
        ('pixels', 'clip:openai/clip-vit-base-patch32')
    """
    kind, colon, source = space.partition(":")
    return f"{kind}:{Path(source).resolve().name}" if colon and Path(source).exists() else space

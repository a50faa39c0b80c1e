"""`unalike shield build` and `add`: write images into a protected set on disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unalike.errors import OptionError
from unalike.pipelines.sources import find
from unalike.runs.progress import Progress, silent
from unalike.runs.shield.encoders import Encoder, encoder_of, open_encoder
from unalike.runs.shield.generations import unguided_points
from unalike.runs.shield.latents import LatentFile
from unalike.runs.shield.reading import Skipped, all_names, encode_all, require_shapes
from unalike.runs.shield.settings import LATENT, AddSettings, BuildSettings, with_model
from unalike.runs.shield.sources import Source, find_sources
from unalike.shields.calibration import automatic_radius, nearest_distances, protected_distances
from unalike.shields.claim import require_free
from unalike.shields.manifest import Manifest
from unalike.shields.store import base_of, discard
from unalike.shields.writer import Writer

_ENCODING = 0.85  # share of the progress bar; the rest is for the radius and the search index


@dataclass(frozen=True)
class Outcome:
    """Result of a build or an addition.

    Attributes:
        folder: the set.
        manifest: what it holds now.
        inputs: how many inputs there were.
        added: how many different vectors are new.
        skipped: what could not be read, with the reason.
    """

    folder: Path
    manifest: Manifest
    inputs: int
    added: int
    skipped: Skipped

    def to_dict(self) -> dict[str, Any]:
        """The manifest with what was done, ready for JSON."""
        skipped = [{"image": name, "reason": why} for name, why in self.skipped]
        return {
            "out": str(self.folder),
            "inputs": self.inputs,
            "added": self.added,
            "skipped": skipped,
            **self.manifest.to_dict(),
        }


def build(settings: BuildSettings, progress: Progress | None = None) -> Outcome:
    """Build a protected set in a folder.

    What is encoded is on the disk batch by batch: interrupted in any way, the same call goes on
    with what is there. A set of which nothing was encoded leaves no folder.

    Args:
        settings: what to do.
        progress: told the share of the work that is done.

    Raises:
        OptionError: for a setting, input or model that is not allowed.
        StoreError: for images that cannot be read, a folder that is in the way or cannot be
            written, and a model that cannot be loaded.
        UnsupportedError: for a model without an autoencoder.
        NumericsError: for latents that are not finite, or too large for float16.
    """
    tell = progress or silent
    sources = find_sources(settings.images)
    require_free(settings.out)
    if settings.model:
        find(settings.model)
    encoder = open_encoder(
        settings.space,
        settings.model,
        size=settings.size,
        device=settings.device,
        batch_size=settings.batch_size,
    )
    require_shapes(sources, encoder)
    with Writer.begin(
        settings.out,
        space=encoder.space,
        shape=encoder.shape,
        dtype=settings.dtype,
        size=encoder.size,
        embedding=encoder.embedding,
    ) as writer:
        skipped = _fill(writer, sources, encoder, settings.batch_size, settings.skip_bad, tell)
        radius, source = settings.radius, None
        if radius is None:
            radius, source = _measured(writer, settings, encoder, tell)
        model = settings.model if settings.space == LATENT else None
        manifest = writer.finish(
            radius=radius,
            radius_source=source,
            model=model if model and not Path(model).is_dir() else None,
        )
    tell(1.0)
    return Outcome(settings.out, manifest, len(set(all_names(sources))), manifest.count, skipped)


def add(settings: AddSettings, progress: Progress | None = None) -> Outcome:
    """Add to a protected set; until all is in, the set on disk stays as it is. The radius is kept.

    Args:
        settings: what to do.
        progress: told the share of the work that is done.

    Raises:
        As `build`, and a StoreError where there is no finished set, or the model makes latents of
        another space.
    """
    tell, settings = progress or silent, with_model(settings)
    sources = find_sources(settings.images)
    base = base_of(settings.folder)
    encoder = encoder_of(
        base, settings.model, settings.space, device=settings.device, batch_size=settings.batch_size
    )
    require_shapes(sources, encoder)
    with Writer.append(settings.folder) as writer:
        skipped = _fill(writer, sources, encoder, settings.batch_size, settings.skip_bad, tell)
        manifest = writer.finish()
    tell(1.0)
    return Outcome(
        settings.folder,
        manifest,
        len(set(all_names(sources))),
        manifest.count - base.count,
        skipped,
    )


def discard_unfinished(folder: Path, images: Sequence[str] = ()) -> int:
    """Discard an interrupted build or addition, and return how many bytes were removed.

    Raises:
        OptionError: for images, which would be ignored.
        StoreError: when nothing was interrupted.
    """
    if images:
        raise OptionError(
            f"images are given ({images[0]}), and what is begun is to be discarded; leave one of "
            "the two out"
        )
    return discard(folder)


def _fill(
    writer: Writer,
    sources: Sequence[Source | LatentFile],
    encoder: Encoder,
    batch_size: int,
    skip_bad: bool,
    tell: Progress,
) -> Skipped:
    writer.expected = len(writer.done | set(all_names(sources)))
    return encode_all(
        sources,
        encoder,
        writer.add,
        done=set(writer.done),
        batch_size=batch_size,
        skip_bad=skip_bad,
        tell=lambda share, note="": tell(_ENCODING * share, note),
    )


def _measured(
    writer: Writer, settings: BuildSettings, encoder: Encoder, tell: Progress
) -> tuple[float, dict[str, Any]]:
    """The automatic radius, and what it was found from."""
    if not writer.count:
        raise OptionError("the protected set is empty; give at least one image or latent")
    vectors, half = writer.vectors(), (1 - _ENCODING) / 3
    apart = protected_distances(
        vectors,
        seed=settings.seed,
        tell=lambda share: tell(_ENCODING + half * share, "measuring distances"),
    )
    generated, how = None, None
    if settings.prompts:
        points, how = unguided_points(
            settings, encoder, lambda share, note="": tell(_ENCODING + half * (1 + share), note)
        )
        generated = nearest_distances(points, vectors)
    found = automatic_radius(apart, generated, copy_distance=encoder.copy_distance)
    explanation = {"method": "auto", **found.explanation}
    if encoder.copy_errors is not None:
        explanation["errors"] = encoder.copy_errors
    if how is not None:
        explanation["generated"] = {**explanation["generated"], **how}
    return found.radius, explanation

"""`score.json` and `scores.parquet`: settings and results; only the command has paths."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

import unalike
from unalike.extractors.base import Extractor
from unalike.extractors.table import portable
from unalike.runs.libraries import library_versions
from unalike.runs.record import resolved_features
from unalike.runs.score.bootstrap import LEVEL
from unalike.runs.score.catalogue import METRICS
from unalike.runs.score.images import ImageSet
from unalike.runs.score.scores import Score
from unalike.runs.score.settings import ScoreSettings


def score_record(
    settings: ScoreSettings,
    extractor: Extractor,
    images: ImageSet,
    reference: ImageSet | None,
    prompts: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Everything but the scores.

    Args:
        settings: what was asked for.
        extractor: what embedded the images.
        images, reference: what was read.
        prompts: where the prompts come from, how many, and the kernel on them; None where there are
            none.
    """
    return {
        "tool": "unalike",
        "version": unalike.__version__,
        "command": command_line(settings),
        "images": set_record(images),
        "reference": None if reference is None else set_record(reference),
        "prompts": None if prompts is None else dict(prompts),
        "features": {
            "name": portable(settings.features),
            "fingerprint": extractor.fingerprint,
            "basis": extractor.basis,
            "resizing": extractor.resizing,
            "unit": extractor.unit_name,
        },
        "settings": {
            name: getattr(settings, name)
            for name in ("k", "radius", "seed", "bootstrap", "batch_size")
        },
        "interval": LEVEL,
        "libraries": library_versions(),
    }


def set_record(images: ImageSet) -> dict[str, Any]:
    """A folder of images by its name, with how many, of which sizes, and which files were left
    out.
    """
    return {
        "name": images.folder.resolve().name,
        "count": len(images),
        "sizes": [
            {"width": w, "height": h, "count": count}
            for (w, h), count in images.sizes.most_common()
        ],
        "skipped": [{"file": file, "reason": reason} for file, reason in images.skipped],
    }


def command_line(settings: ScoreSettings) -> str:
    """The command that scores the same again; files and folders by their whole paths."""
    words: list[Any] = ["unalike", "score", settings.folder.resolve()]
    for option, path in (
        ("--reference", settings.reference),
        ("--prompts", settings.prompts),
        ("--reference-prompts", settings.reference_prompts),
    ):
        words += [] if path is None else [option, path.resolve()]
    words += ["--features", resolved_features(settings.features), "--k", settings.k]
    words += [] if settings.radius is None else ["--radius", settings.radius]
    words += [
        "--bootstrap",
        settings.bootstrap,
        "--seed",
        settings.seed,
        "--batch-size",
        settings.batch_size,
    ]
    words += ["--skip-bad"] if settings.skip_bad else []
    return shlex.join(str(word) for word in words)


def score_table(scores: Sequence[Score]) -> pa.Table:
    """`scores.parquet`: a row a prompt and metric, before them a row a metric of all images, and of
    the means over prompts.

    Columns: `metric`; `scope`: "all", "mean" or "prompt"; `prompt`, null unless the scope is that;
    `value`; `low` and `high`, the ends of the 95% interval, null where there is none; `resampled`,
    what the bootstrap redrew; `images`; `prompts`, how many a mean is over; `better`: "larger",
    "smaller" or null.
    """
    rows = [{**f.to_dict(), "better": METRICS[f.metric].better or None} for f in scores]
    return pa.Table.from_pylist(rows, schema=_SCHEMA)


_SCHEMA = pa.schema(
    [
        ("metric", pa.string()),
        ("scope", pa.string()),
        ("prompt", pa.string()),
        ("value", pa.float64()),
        ("low", pa.float64()),
        ("high", pa.float64()),
        ("resampled", pa.string()),
        ("images", pa.int64()),
        ("prompts", pa.int64()),
        ("better", pa.string()),
    ]
)

"""`unalike score`: scores of a folder of images."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unalike.cli.command import flag
from unalike.cli.progress import progress_bar
from unalike.extractors.table import EXTRACTORS
from unalike.runs.score.settings import ScoreSettings

if TYPE_CHECKING:
    from unalike.runs.score.run import Outcome


_flag = partial(flag, ScoreSettings)


def score(
    folder: Annotated[Path, _flag("folder", argument=True, metavar="DIR")],
    reference: Annotated[Path | None, _flag("reference", metavar="DIR")] = None,
    prompts: Annotated[Path | None, _flag("prompts", metavar="FILE")] = None,
    reference_prompts: Annotated[Path | None, _flag("reference_prompts", metavar="FILE")] = None,
    features: Annotated[
        str, _flag("features", autocompletion=lambda: list(EXTRACTORS))
    ] = ScoreSettings.features,
    k: Annotated[int, _flag("k", "--k")] = ScoreSettings.k,
    radius: Annotated[float | None, _flag("radius")] = None,
    bootstrap: Annotated[int, _flag("bootstrap")] = ScoreSettings.bootstrap,
    seed: Annotated[int, _flag("seed")] = ScoreSettings.seed,
    batch_size: Annotated[int, _flag("batch_size")] = ScoreSettings.batch_size,
    skip_bad: Annotated[bool, _flag("skip_bad", "--skip-bad")] = False,
    out: Annotated[Path | None, _flag("out", metavar="DIR")] = None,
    overwrite: Annotated[bool, _flag("overwrite", "--overwrite")] = False,
    device: Annotated[str, _flag("device")] = ScoreSettings.device,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document and nothing else.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No progress bar, and only the folder as output.")
    ] = False,
) -> None:
    """Score images: diversity, fit to their prompts, and how they compare with a reference.

    Writes score.json, scores.parquet and report.html. Ctrl-C writes nothing and ends with exit code
    130.
    """
    settings = ScoreSettings(
        folder=folder,
        reference=reference,
        prompts=prompts,
        reference_prompts=reference_prompts,
        features=features,
        out=out,
        overwrite=overwrite,
        seed=seed,
        bootstrap=bootstrap,
        k=k,
        radius=radius,
        skip_bad=skip_bad,
        batch_size=batch_size,
        device=device,
    )
    with progress_bar("scoring", hidden=quiet or as_json) as progress:
        from unalike.pipelines.loading import quieten_hosts
        from unalike.runs.score.run import score as run

        quieten_hosts(downloads=quiet or as_json)
        outcome = run(settings, progress)
    if as_json:
        typer.echo(json.dumps(outcome.to_dict(), indent=2, ensure_ascii=False))
    elif quiet:
        typer.echo(outcome.folder)
    else:
        typer.echo(_summary(outcome))


def _summary(outcome: Outcome) -> str:
    from unalike.runs.score.catalogue import METRICS
    from unalike.runs.score.page import score_in_words, scored_sentence

    columns = {
        scope: {
            f.metric: score_in_words(f, outcome.record) for f in outcome.scores if f.scope == scope
        }
        for scope in ("all", "mean")
    }
    heads = {"all": "all images", "mean": "mean over prompts"}
    used = [scope for scope in columns if columns[scope]]
    lines = [scored_sentence(outcome.record)]
    lines += [f"{'':30}" + "".join(f"{heads[scope]:32}" for scope in used).rstrip()]
    for name in [n for n in METRICS if any(n in columns[scope] for scope in used)]:
        lines.append(
            (
                f"{METRICS[name].title:30}"
                + "".join(f"{columns[scope].get(name, ''):32}" for scope in used)
            ).rstrip()
        )
    lines += [f"note: {note}" for note in outcome.record["notes"]]
    return "\n".join([*lines, f"report   {outcome.folder / 'report.html'}"])

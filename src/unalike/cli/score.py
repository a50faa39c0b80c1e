"""`unalike score`: figures of a folder of images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unalike.cli.progress import progress_bar
from unalike.extractors.table import spellings
from unalike.runs.score.settings import ScoreSettings

if TYPE_CHECKING:
    from unalike.runs.score.run import Outcome


def score(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="DIR", help="Images, also in folders below it, or an output folder of generate."
        ),
    ],
    reference: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Real or protected images to compare them with."),
    ] = None,
    prompts: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="File → prompt: csv, tsv, parquet, json or txt. [default: those of an output folder]",
        ),
    ] = None,
    reference_prompts: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The same for the reference.")
    ] = None,
    features: Annotated[
        str, typer.Option(help=f"What to compare images by: {', '.join(spellings())}.")
    ] = ScoreSettings.features,
    k: Annotated[
        int,
        typer.Option(
            "--k", help="The neighbour that ends a ball, for precision, recall, density, coverage."
        ),
    ] = ScoreSettings.k,
    radius: Annotated[
        float | None,
        typer.Option(help="Report the share of images closer than this to the reference."),
    ] = None,
    bootstrap: Annotated[
        int, typer.Option(help="Redraws of the 95% intervals; 0 for none.")
    ] = ScoreSettings.bootstrap,
    seed: Annotated[int, typer.Option(help="Of the redraws.")] = ScoreSettings.seed,
    batch_size: Annotated[
        int, typer.Option(help="Images embedded at a time.")
    ] = ScoreSettings.batch_size,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave images out that cannot be read.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Folder for the results. [default: a new one, named after DIR]"
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the earlier results in that folder.")
    ] = False,
    device: Annotated[
        str, typer.Option(help="Where to compute: auto, cpu, cuda, cuda:1, mps.")
    ] = ScoreSettings.device,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document and nothing else.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No progress bar, and only the folder as output.")
    ] = False,
) -> None:
    """Score images: how diverse they are, how they fit their prompts, and how they lie to a
    reference.

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
    from unalike.runs.score.page import with_interval

    columns = {
        scope: {f.metric: with_interval(f) for f in outcome.figures if f.scope == scope}
        for scope in ("all", "mean")
    }
    heads = {"all": "all images", "mean": "mean over prompts"}
    used = [scope for scope in columns if columns[scope]]
    lines = [f"{'':30}" + "".join(f"{heads[scope]:32}" for scope in used).rstrip()]
    for name in [n for n in METRICS if any(n in columns[scope] for scope in used)]:
        lines.append(
            (
                f"{METRICS[name].title:30}"
                + "".join(f"{columns[scope].get(name, ''):32}" for scope in used)
            ).rstrip()
        )
    lines += [f"note: {note}" for note in outcome.record["notes"]]
    return "\n".join([*lines, f"report   {outcome.folder / 'report.html'}"])

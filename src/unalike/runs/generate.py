"""`unalike generate`: prompts in, an output folder out."""

from __future__ import annotations

from pathlib import Path

from unalike.runs.folder import free_folder
from unalike.runs.job import Job, Outcome, draw
from unalike.runs.plan import planned_images
from unalike.runs.progress import Progress
from unalike.runs.record import prompt_words
from unalike.runs.settings import GenerateSettings


def generate(settings: GenerateSettings, progress: Progress | None = None) -> Outcome:
    """Draw the images of the settings into an output folder.

    Each batch is on the disk when it is finished: its images, its rows in the memory, and its rows
    in the ledger, in this order. After Ctrl-C (SIGINT or SIGTERM; the batch is finished first) and
    when a batch fails, the tables and pages are written for the images that are there, and
    `run.json` says `"finished": false`. With `resume=True` the same settings go on, after a power
    cut too, and draw the images that an uninterrupted run would have drawn.

    Args:
        settings: what to do.
        progress: told the share of the work that is done.

    Returns:
        The folder and what is in it; `finished` is false after Ctrl-C.

    Raises:
        OptionError: for a setting, model or method that is not allowed.
        StoreError: for an output folder that is in the way or cannot be written, a run to go on
            with that was begun with other settings, and for a damaged memory, shield or model, or
            those of another model.
        UnsupportedError: for a pipeline or scheduler that cannot be guided, or a pipeline whose
            images cannot be drawn again or withheld.
        NumericsError: when the model returns NaN or infinity.
    """
    job = Job(
        settings=settings,
        plan=planned_images(settings.prompts, settings.num, settings.seed),
        out=settings.out or free_folder(settings.prompts, Path.cwd()),
        command=["generate", *prompt_words(settings.prompts)],
        resume=settings.resume,
    )
    return draw(job, progress)

"""What SPARKE gains by comparing images in the place of latents, its ambient variant, and what that
costs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.ambient_page import (
    CLIP,
    IMAGES,
    LATENTS,
    ROWS,
    STEPS,
    TEST,
    UNGUIDED,
    VALIDATION,
    best,
    draw_figure,
    page,
)
from benchmarks.base import Benchmark, Progress, read_rows, write_rows
from benchmarks.figure import require_matplotlib
from training.emoji import measure as emoji
from unalike.extractors import extractor
from unalike.guidance.context import Context
from unalike.guidance.sparke import SPARKE
from unalike.pipelines.loading import load, quieten_hosts

GUIDANCE_SCALE = 2.5
Embed = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Trial:
    """What is compared, and SPARKE's strength and window; none of either without guidance."""

    way: str
    strength: float = 0.0
    stop: float = 0.0


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Args:
        validation: prompts that strength and window are chosen on.
        test: prompts that are reported.
        strengths, stops: of the trials, the same for both ways.
        images: of a prompt, drawn together.
        steps: of the scheduler.
        rounds: repetitions of the measurement of time, each of `timed` steps.
        timed: see `rounds`.
        layers: of each of CLIP's towers; 12 is ViT-B/32.
    """

    validation: Sequence[str] = emoji.VALIDATION[::2]
    test: Sequence[str] = emoji.PROMPTS[::3][:12]
    strengths: Sequence[float] = (0.1, 0.2)
    stops: Sequence[float] = (0.3, 0.6)
    images: int = 8
    steps: int = 20
    rounds: int = 5
    timed: int = 2
    layers: int = 12

    def trials(self) -> list[Trial]:
        """All of them, the unguided first."""
        return [
            Trial(UNGUIDED),
            *(
                Trial(way, a, b)
                for way in (LATENTS, IMAGES)
                for a in self.strengths
                for b in self.stops
            ),
        ]


SMOKE = Size(
    validation=emoji.VALIDATION[:1],
    test=emoji.PROMPTS[:1],
    strengths=(0.1,),
    stops=(0.6,),
    images=2,
    steps=2,
    rounds=1,
    timed=1,
    layers=1,
)


@dataclass(frozen=True, kw_only=True)
class Clocked(SPARKE):
    """SPARKE, and the processor time that each of its corrections took."""

    taken: list[float] = field(default_factory=list, repr=False)

    def x0_delta(self, x0: Tensor, context: Context) -> Tensor | None:
        """The correction of SPARKE, as it is."""
        begun = time.process_time()
        delta = super().x0_delta(x0, context)
        self.taken.append(time.process_time() - begun)
        return delta


def run(folder: Path, smoke: bool, progress: Progress) -> None:
    """Measure what the folder lacks: trials on validation prompts, the chosen ones on test prompts,
    then the time of a step.
    """
    require_matplotlib()
    quieten_hosts(downloads=True)
    size = SMOKE if smoke else Size()
    pipe = load("emoji")
    pipe.set_progress_bar_config(disable=True)
    with one_thread():
        rows = _chosen_and_tested(folder, pipe, size, lambda share: progress(0.8 * share))
        _timed(folder, pipe, size, lambda share: progress(0.8 + 0.2 * share))
    draw_figure(rows, read_rows(folder / STEPS), folder)
    progress(1.0)


@contextmanager
def one_thread() -> Iterator[None]:
    """With one thread processor time is the time that a core without other work takes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _chosen_and_tested(
    folder: Path, pipe: Any, size: Size, progress: Progress
) -> list[dict[str, Any]]:
    """All rows, those of the validation prompts first; prompt by prompt, so that what disturbs the
    machine disturbs all ways alike.
    """
    rows, embed = read_rows(folder / ROWS), extractor("emoji", device="cpu").embed
    trials, done = size.trials(), 0
    for split, prompts in ((VALIDATION, size.validation), (TEST, size.test)):
        if split == TEST:
            trials = [Trial(**best(rows, way)) for way in (UNGUIDED, LATENTS, IMAGES)]
        for prompt in prompts:
            progress(done / (len(size.validation) + len(size.test)))
            done += 1
            for trial in trials:
                where = {"split": split, "prompt": prompt, **asdict(trial)}
                if not any(where.items() <= row.items() for row in rows):
                    rows.append(where | measured(pipe, trial, embed, prompt, size))
                    write_rows(folder / ROWS, rows)
    return rows


def measured(pipe: Any, trial: Trial, embed: Embed, prompt: str, size: Size) -> dict[str, Any]:
    """How many images of a prompt are right, how many right ones are different, and the processor
    time of the call.
    """
    call = _guided(pipe, None if trial.way == UNGUIDED else _sparke(trial, embed))
    begun = time.process_time()
    images = emoji.draw(
        call, [prompt] * size.images, seed=0, guidance_scale=GUIDANCE_SCALE, steps=size.steps
    )
    return {"seconds": time.process_time() - begun, **asdict(emoji.count(images, prompt))}


def _sparke(trial: Trial, embed: Embed) -> SPARKE:
    return SPARKE(
        strength=trial.strength, stop=trial.stop, embed=embed if trial.way == IMAGES else None
    )


def _guided(pipe: Any, method: SPARKE | None) -> Any:
    from unalike.attach import (
        guide,
    )  # with diffusers, for which a list of the benchmarks should not wait

    return pipe if method is None else guide(pipe, method)


def _timed(folder: Path, pipe: Any, size: Size, progress: Progress) -> None:
    """The time of a guided step, in rounds of all ways one after the other; a first round that is
    not kept prepares what is made once.
    """
    rows = read_rows(folder / STEPS)
    begin = 1 + max((row["round"] for row in rows), default=-1)
    if begin >= size.rounds:
        return
    from benchmarks.ambient_clip import UntrainedClip

    embeds: dict[str, Embed | None] = {
        LATENTS: None,
        IMAGES: extractor("emoji", device="cpu").embed,
        CLIP: UntrainedClip(size.layers).embed,
    }
    for number in range(begin - 1, size.rounds):
        progress((number - begin + 1) / (size.rounds - begin + 1))
        found = [
            _step(pipe, UNGUIDED, None, size),
            *(_step(pipe, way, embed, size) for way, embed in embeds.items()),
        ]
        if number >= begin:
            rows += [{"round": number, **row} for row in found]
            write_rows(folder / STEPS, rows)


def _step(pipe: Any, way: str, embed: Embed | None, size: Size) -> dict[str, Any]:
    """Processor time of a step of all images, without decoding the last, and of the correction in
    it.
    """
    method = None if way == UNGUIDED else Clocked(strength=0.1, embed=embed)
    call = _guided(pipe, method)
    generators = [torch.Generator().manual_seed(i) for i in range(size.images)]
    begun = time.process_time()
    call(
        prompt=["cat"] * size.images,
        generator=generators,
        guidance_scale=GUIDANCE_SCALE,
        num_inference_steps=size.timed,
        output_type="latent",
    )
    seconds = (time.process_time() - begun) / size.timed
    correction = sum(method.taken) / size.timed if method is not None else 0.0
    return {
        "way": way,
        "images": size.images,
        "step_seconds": seconds,
        "correction_seconds": correction,
    }


BENCHMARK = Benchmark(name="ambient", run=run, page=page)

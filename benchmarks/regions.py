"""Whether guidance stays in the region that it was given: boxes, and words that the model's own
attention finds in its image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from benchmarks.base import Benchmark, Progress, read_rows, write_rows
from benchmarks.figure import require_matplotlib
from benchmarks.regions_page import FIGURE, ROWS, Shown, draw_figure, page
from training.emoji.measure import draw
from unalike.guidance.context import Context
from unalike.guidance.method import Method
from unalike.guidance.region import Region
from unalike.guidance.sparke import SPARKE
from unalike.pipelines.loading import quieten_hosts

GUIDANCE_SCALE, STEPS = 3.0, 20
LEFT = (0.0, 0.0, 0.5, 1.0)


@dataclass(frozen=True)
class Case:
    """A prompt with a region of its images, and how they are guided there.

    Args:
        family: what the table calls its kind.
        prompt: of all images.
        region: a box, or words.
        strength, stop: of SPARKE.
    """

    family: str
    prompt: str
    region: Region
    strength: float = 0.2
    stop: float = 1.0

    @property
    def key(self) -> tuple[str, str]:
        """What tells it from the others."""
        return self.family, self.prompt


HALVED = ("cat", "heart", "house", "car", "bird", "woman running", "woman: red hair", "flag: Japan")
"""Most of these mean quite different images, the last two one or a few."""
NAMED = {
    "face with medical mask": "mask",
    "man in motorized wheelchair": "wheelchair",
    "person in bed": "bed",
    "cat with tears of joy": "tears",
    "woman: red hair": "hair",
    "face": "hat",
}
"""Prompt → word; the last word is not in its prompt, so that the model's attention to it is all
that there is.
"""
CASES = (
    *(Case("box", prompt, LEFT) for prompt in HALVED),
    *(Case("words", prompt, word) for prompt, word in NAMED.items()),
    *(Case("box, first steps", prompt, LEFT, strength=0.4, stop=0.4) for prompt in HALVED),
)


@dataclass(frozen=True)
class Size:
    """How much is measured: which cases, how many images of each, drawn together, in how many
    steps, and what the figure shows.
    """

    cases: Sequence[Case] = CASES
    images: int = 8
    steps: int = STEPS
    shown: Sequence[tuple[str, str]] = (
        ("box", "cat"),
        ("box, first steps", "cat"),
        ("words", "face with medical mask"),
        ("words", "woman: red hair"),
    )
    pictures: int = 6


SMOKE = Size(
    cases=(CASES[0], CASES[len(HALVED)]), images=2, steps=3, shown=(("box", "cat"),), pictures=2
)


@dataclass(frozen=True, kw_only=True)
class Seen(Method):
    """Corrects nothing, and keeps at each step the predictions as the methods before it left them,
    and where the region is.

    Args:
        region: one that another method of the call has.
        x0: gets the predictions (B, …) of each step.
        masks: gets a mask (B or 1, 1, h, w) of each step.
    """

    name: ClassVar[str] = "seen"
    summary: ClassVar[str] = "keeps predictions and regions"
    citation: ClassVar[str] = ""

    region: Region
    x0: list[Tensor] = field(default_factory=list, repr=False)
    masks: list[Tensor] = field(default_factory=list, repr=False)

    def x0_delta(self, x0: Tensor, context: Context) -> None:
        """None, always."""
        assert context.masks is not None  # the region was checked before the first step
        self.x0.append(x0.clone())
        self.masks.append(context.masks(self.region).clone())


@dataclass(frozen=True)
class Drawn:
    """Final latents (B, c, h, w) and the images (B, 3, H, W) that they are, in [0, 1]."""

    latents: Tensor
    pictures: Tensor


@dataclass(frozen=True)
class Compared:
    """The same seeds without guidance, guided everywhere, and guided in the region, with what was
    seen before and after each correction.
    """

    unguided: Drawn
    everywhere: Drawn
    inside: Drawn
    before: Seen
    after: Seen

    @property
    def mask(self) -> Tensor:
        """The cells (B, h, w) that were in the region at any step."""
        masks = torch.stack(self.before.masks).any(dim=0)[:, 0]
        return masks.expand(len(self.unguided.latents), -1, -1)


def run(folder: Path, smoke: bool, progress: Progress) -> None:
    """Measure the cases that the folder lacks, and draw some of their images."""
    require_matplotlib()
    size = SMOKE if smoke else Size()
    rows = read_rows(folder / ROWS)
    done = {(row["family"], row["prompt"]) for row in rows}
    missing = [case for case in size.cases if case.key not in done]
    shown = sorted(
        (case for case in size.cases if case.key in size.shown),
        key=lambda case: size.shown.index(case.key),
    )
    if missing or not (folder / FIGURE).exists():
        model, pictures = Model(size), {}
        for i, case in enumerate([*missing, *(case for case in shown if case not in missing)]):
            progress(i / (len(missing) + len(shown)))
            found = model.compared(case)
            if case in missing:
                rows += measured(case, found)
                write_rows(folder / ROWS, rows)
            if case in shown:
                pictures[case] = shown_of(case, found, size.pictures)
        draw_figure([pictures[case] for case in shown], folder)
    progress(1.0)


class Model:
    """The emoji model, which draws the images of a size."""

    def __init__(self, size: Size) -> None:
        from benchmarks.pareto.tasks import open_pipeline
        from unalike.attach import (
            guide,
        )  # with diffusers, for which a list of the benchmarks should not wait

        quieten_hosts(downloads=True)
        self._guide, self._pipe, self._size = guide, open_pipeline("emoji"), size
        self._unguided: dict[str, Drawn] = {}

    def compared(self, case: Case) -> Compared:
        """The images of a case from the same seeds, three times."""
        before, after = Seen(region=case.region), Seen(region=case.region)
        options: dict[str, Any] = {"strength": case.strength, "stop": case.stop}
        if case.prompt not in self._unguided:
            self._unguided[case.prompt] = self._drawn(case.prompt)
        return Compared(
            unguided=self._unguided[case.prompt],
            everywhere=self._drawn(case.prompt, SPARKE(**options)),
            inside=self._drawn(case.prompt, before, SPARKE(region=case.region, **options), after),
            before=before,
            after=after,
        )

    def _drawn(self, prompt: str, *methods: Method) -> Drawn:
        guided = self._guide(self._pipe, *methods)
        images, steps = self._size.images, self._size.steps
        pictures = draw(
            guided, [prompt] * images, seed=0, guidance_scale=GUIDANCE_SCALE, steps=steps
        )
        assert guided.latents is not None  # every call runs to the last step
        return Drawn(guided.latents.float(), pictures)


def measured(case: Case, found: Compared) -> list[dict[str, Any]]:
    """A row an image: what changed inside and outside of its region, against the same seed without
    guidance.

    Changes of latents are root mean squares, of pixels means of absolute differences in [0, 1];
    None where no place is outside.
    """
    applied = (
        torch.stack([b - a for a, b in zip(found.before.x0, found.after.x0, strict=True)])
        .abs()
        .amax(dim=2)
    )
    masks = torch.stack(
        [mask[:, 0].expand(applied.shape[1], -1, -1) for mask in found.before.masks]
    )
    rows = []
    for b, cells in enumerate(found.mask):
        row: dict[str, Any] = {
            "family": case.family,
            "prompt": case.prompt,
            "region": case.region if isinstance(case.region, str) else "left half",
            "strength": case.strength,
            "stop": case.stop,
            "image": b,
            "share": cells.double().mean().item(),
            "share_of_a_step": masks[:, b].double().mean().item(),
            "agreement": _agreement(masks[0, b], masks[-1, b]),
            "largest_inside": applied[:, b].amax().item(),
            "largest_outside": applied[:, b].masked_fill(masks[:, b], 0).amax().item(),
        }
        for name, other in (("region", found.inside), ("everywhere", found.everywhere)):
            moved = (other.latents[b] - found.unguided.latents[b]).double().square().mean(dim=0)
            changed = (other.pictures[b] - found.unguided.pictures[b]).double().abs().mean(dim=0)
            for side, chosen in (("inside", cells), ("outside", ~cells)):
                some = bool(chosen.any())
                row[f"{name}_latents_{side}"] = moved[chosen].mean().sqrt().item() if some else None
                row[f"{name}_pixels_{side}"] = (
                    changed[pixels(chosen, changed.shape[0])].mean().item() if some else None
                )
        rows.append(row)
    return rows


def pixels(cells: Tensor, side: int) -> Tensor:
    """The pixels (side, side) bool of cells (h, w) bool."""
    return cells.repeat_interleave(side // cells.shape[0], 0).repeat_interleave(
        side // cells.shape[1], 1
    )


def _agreement(first: Tensor, last: Tensor) -> float:
    """How much of what is in one of the masks is in both."""
    return ((first & last).sum() / (first | last).sum().clamp_min(1)).item()


def shown_of(case: Case, found: Compared, count: int) -> Shown:
    """What the figure shows of a case."""
    region = f"“{case.region}”" if isinstance(case.region, str) else "left half"
    title = f"“{case.prompt}”, {region}"
    if case.stop < 1:
        title += f", strength {case.strength:g} until {case.stop:.0%}"
    rows = {
        "unguided": found.unguided,
        "everywhere": found.everywhere,
        "in the region": found.inside,
    }
    outlines = torch.stack(
        [pixels(cells, found.unguided.pictures.shape[-1]) for cells in found.mask[:count]]
    )
    return Shown(title, {name: drawn.pictures[:count] for name, drawn in rows.items()}, outlines)


BENCHMARK = Benchmark(name="regions", run=run, page=page)

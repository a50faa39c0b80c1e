"""The progress of a run: how fast it is, how long it will take, how unlike its images are."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from unalike.kernels import Gaussian
from unalike.runs.ledger import Entry
from unalike.runs.progress import Progress
from unalike.runs.samples import Planned
from unalike.runs.scoring import BANDWIDTH
from unalike.scores import conditional_rke

Told = Callable[[Mapping[str, Any]], None]
"""Told a row for each image that is finished or failed."""
RECENT = 256
"""Images that the running score is of."""
_SECONDS = 2.0


class Watch:
    """Follows a run and tells its progress.

    Args:
        progress: told the share of the work that is done, and a line about it.
        told: told a row for each image; None for nobody.
        total: images of the run.
        before: of these, how many were done before.
        work: steps of one image, of both images where it is compared.
        name: of the folder.
    """

    def __init__(
        self,
        progress: Progress,
        told: Told | None,
        *,
        total: int,
        before: int,
        work: int,
        name: str,
    ) -> None:
        self._progress, self._told = progress, told
        self._total, self._before, self._work, self._name = total, before, work, name
        self._began = time.perf_counter()
        self._done, self._failed, self._share = before, 0, before / max(1, total)
        self._recent: deque[tuple[int, Tensor]] = deque(maxlen=RECENT)
        self._score, self._scored = 0.0, -_SECONDS

    def steps_done(self, batch: Sequence[Planned], steps: int) -> None:
        """Note how many steps of a batch are done; those of restarts count no further."""
        within = min(1.0, steps / max(1, self._work)) * len(batch)
        self._tell(self._done + within, batch[-1].prompt)

    def committed(self, entries: Sequence[Entry]) -> None:
        """Note the images of a batch that is on disk."""
        self._done += len(entries)
        for entry in entries:
            if entry.features is not None:
                self._recent.append((entry.sample.planned.prompt_index, entry.features))
        for row in committed_rows(entries):
            if self._told:
                self._told(row)
        self._tell(self._done, entries[-1].sample.planned.prompt if entries else "")

    def failed(self, batch: Sequence[Planned], error: str) -> None:
        """Note images that could not be drawn."""
        self._failed += len(batch)
        for planned in batch:
            if self._told:
                self._told({**_planned_row(planned), "state": "failed", "error": error})

    def _tell(self, done: float, prompt: str) -> None:
        self._share = max(self._share, min(1.0, done / max(1, self._total)))
        self._progress(self._share, self._line(prompt))

    def _line(self, prompt: str) -> str:
        new, seconds = self._done - self._before, time.perf_counter() - self._began
        parts = [f"{self._done:,} of {self._total:,} images"]
        if new:
            parts.append(f"{new / seconds:.2g} images/s")
        score = self._running_score()
        if score:
            parts.append(f"RKE {score:.2f}")
        if self._failed:
            parts.append(f"{self._failed} failed")
        return " · ".join([*parts, prompt, self._name])

    def _running_score(self) -> float:
        """Conditional RKE of the last images given their prompts; 0 where no prompt has two."""
        now = time.perf_counter()
        if now - self._scored < _SECONDS:
            return self._score
        self._scored = now
        prompts = torch.tensor([index for index, _ in self._recent])
        if len(prompts) < 2 or len(prompts.unique()) == len(prompts):
            return self._score
        rows = torch.stack([features for _, features in self._recent]).double()
        same = (prompts[:, None] == prompts[None, :]).double()
        self._score = conditional_rke(gram=Gaussian(BANDWIDTH)(rows, rows), prompt_gram=same)
        return self._score


def committed_rows(entries: Sequence[Entry]) -> Iterator[dict[str, Any]]:
    """A plain row for each image of a batch, as `--json` prints it."""
    for entry in entries:
        image = entry.sample.image
        yield {
            **_planned_row(entry.sample.planned),
            "state": "finished" if image else "refused",
            "image": image.path if image else None,
        }


def _planned_row(planned: Planned) -> dict[str, Any]:
    return {
        "index": planned.index,
        "id": planned.id,
        "prompt": planned.prompt,
        "seed": planned.seed,
        "item": planned.item,
    }

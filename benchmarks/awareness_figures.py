"""What the prompt awareness benchmark shows: means with intervals over prompts, their figure, and
images to look at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.base import interval
from benchmarks.figure import COLOURS, MARKERS, drawn

_PANELS = {
    "from unrelated": "share of a correction\nmoved by unrelated prompts",
    "precision": "share of samples that are right",
    "distinct": "distinct right samples",
    "changed": "share of samples plainly changed",
}


@dataclass(frozen=True)
class Estimate:
    """A mean over prompts with its 95% interval."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Tensor) -> Estimate:
        """That of values (n,), one a prompt."""
        return cls(values.mean().item(), *interval(values))

    def shown(self, form: str, times: float = 1.0) -> str:
        """In words.

        Example:
            >>> Estimate(0.5, 0.25, 0.75).shown("{:.0%}")
            '50%, 25% to 75%'
        """
        mean, low, high = (form.format(times * value) for value in (self.mean, self.low, self.high))
        return f"{mean}, {low} to {high}"


def summarised(
    rows: Sequence[dict[str, Any]], model: str, objective: str, stored: int, alone: bool
) -> dict[str, Estimate]:
    """Estimates over the prompts of a model under one condition; changes are against the empty
    memory, prompt by prompt.
    """
    chosen = {
        r["prompt"]: r
        for r in rows
        if (r["model"], r["objective"], r["stored"], r["alone"])
        == (model, objective, stored, alone)
    }
    empty = {
        r["prompt"]: r for r in rows if (r["model"], r["stored"], r["alone"]) == (model, 0, alone)
    }

    def values(of: dict[str, dict[str, Any]], name: str) -> Tensor:
        return torch.tensor([of[prompt][name] for prompt in chosen], dtype=torch.float64)

    precision, before = (values(of, "right") / values(of, "samples") for of in (chosen, empty))
    distinct = values(chosen, "distinct")
    measured = {
        "from unrelated": values(chosen, "from_unrelated"),
        "precision": precision,
        "precision change": precision - before,
        "distinct": distinct,
        "distinct change": distinct - values(empty, "distinct"),
        "changed": values(chosen, "changed"),
    }
    return {name: Estimate.of(of_prompts) for name, of_prompts in measured.items()}


def draw_figure(rows: Sequence[dict[str, Any]], folder: Path) -> None:
    """Write `awareness.png`: a row of panels a model, each measure against the number of unrelated
    samples in the memory.
    """
    models = list(dict.fromkeys(r["model"] for r in rows))[::-1]
    with drawn(folder / "awareness.png", 11, 2.6 * len(models)) as figure:
        panels = figure.subplots(len(models), len(_PANELS), squeeze=False)
        for row, model in zip(panels, models, strict=True):
            numbers = sorted({r["stored"] for r in rows if r["model"] == model})
            for panel, (measure, label) in zip(row, _PANELS.items(), strict=True):
                for i, objective in enumerate(("rke", "cond-rke")):
                    found = [
                        summarised(rows, model, objective if n else "none", n, False)[measure]
                        for n in numbers
                    ]
                    means = [e.mean for e in found]
                    ends = [[e.mean - e.low for e in found], [e.high - e.mean for e in found]]
                    places = [k + 0.12 * (i - 0.5) for k in range(len(numbers))]
                    style: dict[str, Any] = {
                        "color": COLOURS[i],
                        "marker": MARKERS[i],
                        "linestyle": ("-", "--")[i],
                    }
                    panel.errorbar(
                        places,
                        means,
                        yerr=ends,
                        markersize=5,
                        linewidth=1.2,
                        capsize=2,
                        label=objective,
                        **style,
                    )
                panel.set_xticks(range(len(numbers)), [str(n) for n in numbers])
                panel.set_title(label if model == models[0] else "")
                panel.margins(y=0.1)
                panel.set_ylim(bottom=0)
                panel.set_xlabel("unrelated samples in the memory" if model == models[-1] else "")
            row[0].set_ylabel(model)
        panels[0][0].legend()


def draw_pictures(
    shown: Sequence[tuple[str, int, bool, Tensor]], prompt: str, folder: Path
) -> None:
    """Write `pictures.png`: the first images (n, 3, h, w) of each objective, number of unrelated
    ones and whether the batch is blind.
    """
    columns = min(10, len(shown[0][3]))
    with drawn(folder / "pictures.png", 2.2 + 0.75 * columns, 0.85 * len(shown) + 0.3) as figure:
        panels = figure.subplots(len(shown), columns, squeeze=False)
        for row, (objective, stored, alone, images) in zip(panels, shown, strict=True):
            for panel, image in zip(row, images, strict=False):
                panel.imshow(image.permute(1, 2, 0).numpy())
                panel.set(xticks=[], yticks=[])
                panel.spines[:].set_visible(False)
            first = (
                f"{objective}, {stored} unrelated"
                if stored
                else "no guidance"
                if alone
                else "empty memory"
            )
            seen = "do not see each other" if alone else "see each other"
            label = f"{first}\nthe images {seen}"
            row[0].set_ylabel(label, rotation=0, ha="right", va="center", fontsize=7)
        figure.suptitle(f"“{prompt}”, the same seeds in each column", fontsize=9)

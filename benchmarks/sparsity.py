"""How much and how often each method intervenes: figure 5 of Kirchhof et al. 2025
(arXiv:2410.06025), for all methods.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from benchmarks.base import Benchmark, Progress, read_rows, table, write_rows
from benchmarks.figure import COLOURS, drawn, require_matplotlib
from benchmarks.table import BENCHMARKS
from training.emoji.measure import PROMPTS
from unalike.guidance.methods import METHODS, build
from unalike.pipelines.catalogue import MODELS
from unalike.pipelines.loading import load

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROWS, FIGURE = "corrections.parquet", "corrections.png"
ACTIVE = 1e-6  # of the denoiser's own step: what is below is rounding
MODEL = MODELS["emoji"]


@dataclass(frozen=True)
class Setting:
    """One method with its options.

    Args:
        name: what table and figure call it.
        method: its name in the table of methods.
        options: of the method.
        guidance_scale: weight of classifier-free guidance; that of the catalogue unless given.
    """

    name: str
    method: str
    options: dict[str, Any] = field(default_factory=dict)
    guidance_scale: float = MODEL.guidance_scale

    def row(self) -> dict[str, Any]:
        """What the measurements say of it."""
        options = ", ".join(f"{key} {value}" for key, value in self.options.items()) or "defaults"
        return {"setting": self.name, "options": options, "guidance_scale": self.guidance_scale}


SETTINGS = (
    Setting("SPARKE", "sparke"),
    *(
        Setting(f"{METHODS[name].__name__}, the model's default", name, dict(options))
        for name, options in MODEL.methods.items()
    ),
    Setting("SPARKE on x0, first steps", "sparke", {"strength": 0.2, "stop": 0.6}),
    Setting(
        "SPARKE on x_t, every 5th step", "sparke", {"target": "x_t", "every": 5, "strength": 0.1}
    ),
    Setting("VendiGuidance", "vendi"),
    Setting("SPELL", "spell"),
    Setting("SPELL, small radius and limit", "spell", {"factor": 0.25, "limit": 0.3}),
    Setting("ParticleGuidance", "particle"),
    Setting("CADS", "cads"),
    Setting("IntervalGuidance", "interval"),
)
"""The methods as they are by default, and SPARKE and SPELL as they were tuned on this model and as
published.
"""


@dataclass(frozen=True)
class Size:
    """How much is measured: which prompts, how many images of each, drawn together, and in how many
    steps.
    """

    prompts: Sequence[str] = PROMPTS[::3][:12]
    images: int = 8
    steps: int = MODEL.steps


SMOKE = Size(prompts=PROMPTS[:1], images=2, steps=3)


def run(folder: Path, smoke: bool, progress: Progress) -> None:
    """Measure the settings that the folder lacks, and draw the figure."""
    require_matplotlib()
    measure(folder, SMOKE if smoke else Size(), progress)
    draw_figure(folder)
    progress(1.0)


def measure(folder: Path, size: Size, progress: Progress) -> None:
    """The share of the denoiser's own step that each setting corrects, a row an image and step."""
    rows = read_rows(folder / ROWS)
    done = {row["setting"] for row in rows}
    missing = [s for s in SETTINGS if s.name not in done]
    if not missing:
        return
    pipe = load(MODEL.name)
    pipe.set_progress_bar_config(disable=True)
    for i, setting in enumerate(SETTINGS):
        if setting.name in done:
            continue
        for j, prompt in enumerate(size.prompts):
            progress((i + j / len(size.prompts)) / len(SETTINGS))
            sizes = corrections(pipe, setting, prompt, images=size.images, steps=size.steps)
            rows += [
                {**setting.row(), "prompt": prompt, "image": b, "step": step, "of_step": share}
                for step, row in enumerate(sizes.tolist())
                for b, share in enumerate(row)
            ]
        write_rows(folder / ROWS, rows)


def corrections(pipe: Any, setting: Setting, prompt: str, *, images: int, steps: int) -> Tensor:
    """Per step and image (steps, B), how far the setting moves x0 as a share of the denoiser's own
    step, `||x0 - x_t / alpha||`.
    """
    from benchmarks.effect import Effect, Unchanged
    from unalike.attach import (
        guide,
    )  # with diffusers, for which a list of the benchmarks should not wait

    method = build(setting.method, **setting.options)
    call: dict[str, Any] = {
        "prompt": [prompt] * images,
        "generator": [torch.Generator().manual_seed(i) for i in range(images)],
        "guidance_scale": setting.guidance_scale,
        "num_inference_steps": steps,
        "output_type": "latent",
    }
    if method.acts_on_prompts:
        with Unchanged(pipe, setting.guidance_scale) as unchanged:
            effect = Effect(unchanged=unchanged)
            guide(pipe, method, effect)(**call)
        return torch.stack(effect.of_step)
    guided = guide(pipe, method)
    guided(**call)
    assert guided.report is not None
    return torch.tensor([image.corrections[method.name] for image in guided.report.images]).T


def by_setting(rows: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
    """For each setting, the sizes of its corrections (steps, images of all prompts)."""
    found = {}
    for name in dict.fromkeys(row["setting"] for row in rows):
        own = [row for row in rows if row["setting"] == name]
        steps = 1 + max(row["step"] for row in own)
        found[name] = torch.tensor(
            [[row["of_step"] for row in own if row["step"] == step] for step in range(steps)]
        )
    return found


def draw_figure(folder: Path) -> None:
    """A panel a setting: the size of the correction over the steps, median and quartiles, and the
    share of images that are corrected.
    """
    sizes = by_setting(read_rows(folder / ROWS))
    columns, lines = 3, -(-len(sizes) // 3)
    with drawn(folder / FIGURE, 8.2, 0.6 + 2.0 * lines) as figure:
        panels = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
        highest = max(0.02, *(float(shares.max()) for shares in sizes.values()))
        for panel, (name, shares) in zip(panels.flatten(), sizes.items(), strict=False):
            _panel(panel, shares, labelled=panel in panels[:, -1])
            ticks = [t for t in (0.1, 1, 10, 100, 1_000, 10_000) if t <= 200 * highest]
            panel.set_yticks(ticks, [f"{t:,g}" for t in ticks])
            panel.set(ylim=(0.1, 150 * highest), title=name)
        for panel in panels.flatten()[len(sizes) :]:
            panel.set_visible(False)
        figure.supxlabel("step", fontsize=9)
        figure.supylabel("correction, % of the denoiser's own step (blue)", fontsize=9)


def _panel(panel: Axes, shares: Tensor, *, labelled: bool) -> None:
    at = range(len(shares))
    touched = panel.twinx()
    touched.fill_between(
        at, 100 * (shares > ACTIVE).float().mean(dim=1), step="mid", color="#EAEAEA", linewidth=0
    )
    touched.set(ylim=(0, 100), yticks=[0, 50, 100])
    touched.tick_params(axis="y", colors="#666666", right=labelled, labelright=labelled)
    touched.grid(visible=False)
    if labelled:
        touched.set_ylabel("images corrected, % (grey)", color="#666666", fontsize=8)
    panel.set_zorder(touched.get_zorder() + 1)
    panel.patch.set_visible(False)
    panel.set_yscale("log")
    panel.minorticks_off()
    low, middle, high = (100 * _quantile(shares, q) for q in (0.25, 0.5, 0.75))
    panel.fill_between(at, low, high, color=COLOURS[0], alpha=0.35, linewidth=0)
    panel.plot(at, middle, color=COLOURS[0], linewidth=1.4, marker=".", markersize=4)


def _quantile(shares: Tensor, q: float) -> Tensor:
    """Of the corrected images at each step (steps,); NaN, which is not drawn, where there are
    none.
    """
    return torch.where(shares > ACTIVE, shares, torch.nan).nanquantile(q, dim=1)


def page(folder: Path) -> str:
    """The section of the documentation."""
    rows = read_rows(folder / ROWS)
    images, steps = len({(r["prompt"], r["image"]) for r in rows}), 1 + max(r["step"] for r in rows)
    prompts = len({r["prompt"] for r in rows})
    settings = {
        row["setting"]: [row["setting"], row["options"], f"{row['guidance_scale']:g}"]
        for row in rows
    }
    lines = [[*settings[name], *_summary(shares)] for name, shares in by_setting(rows).items()]
    columns = [
        "method",
        "options",
        "CFG",
        "median correction",
        "largest",
        "steps at which an image is corrected",
        "images ever corrected",
    ]
    parts = [
        "## Sparsity: how much and how often each method intervenes",
        f"{BENCHMARKS['sparsity'].question} `python -m benchmarks sparsity`",
        f"On `{MODEL.name}`: {prompts} prompts with {images // prompts} images each, drawn "
        f"together in {steps} steps, without a memory. A correction is measured against the "
        "denoiser's own step at that moment, `||x0 - x_t / alpha||`: at 100% the method moves the "
        f"prediction as far as the denoiser does. Corrected means by more than {ACTIVE:g} of "
        "that. CADS and IntervalGuidance correct no prediction: of them it is the distance "
        "between the predictions with and without the method at the same noisy latent. The noise "
        "that Auto draws anew at every step corrects nothing and is not counted. Median and "
        "quartiles are over what is corrected.",
        f"![Size of the corrections over the steps](../benchmarks/results/sparsity/{FIGURE})",
        table(columns, lines),
    ]
    return "\n\n".join(parts)


def _summary(shares: Tensor) -> list[str]:
    active = shares > ACTIVE
    sizes = (
        [f"{shares[active].quantile(0.5):.1%}", f"{shares.max():.0%}"]
        if active.any()
        else ["–", "–"]
    )
    return [*sizes, f"{active.float().mean():.0%}", f"{active.any(dim=0).float().mean():.0%}"]


BENCHMARK = Benchmark(name="sparsity", run=run, page=page)

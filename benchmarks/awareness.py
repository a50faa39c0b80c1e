"""The prompt awareness benchmark: what SPARKE's two objectives do to a prompt when the memory holds
images of unrelated ones.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.awareness_figures import draw_figure, draw_pictures, summarised
from benchmarks.base import Benchmark, Progress, read_rows, table, write_rows
from benchmarks.figure import require_matplotlib
from benchmarks.mixtures import PROMPTS, Mixtures
from benchmarks.mixtures import draw as draw_points
from benchmarks.table import BENCHMARKS
from training.emoji.measure import count
from training.emoji.measure import draw as draw_images
from unalike.guidance.context import Context
from unalike.guidance.noise import per_image_norm
from unalike.guidance.protocols import References
from unalike.guidance.sparke import SPARKE
from unalike.memory import Memory
from unalike.pipelines.catalogue import MODELS
from unalike.pipelines.loading import load, quieten_hosts
from unalike.runs.scoring import PLAINLY_CHANGED

ROWS = "rows.parquet"
SPARKE_OPTIONS = {"strength": 0.1, "stop": 0.6}  # the best on x0 in `python -m benchmarks pareto`
UNLIKE = (
    "cat",
    "heart",
    "car",
    "clock",
    "flower",
    "fruit",
    "ball",
    "moon",
    "bird",
    "train",
    "book",
    "hand",
)
"""Prompts without right images in common, each with many of its own."""
OBJECTIVES = ("rke", "cond-rke")
_TOY = {"strength": 1.6, "stop": 0.7}  # what the toy benchmark chooses on other worlds
_WORK = {"toy": 1, "emoji": 60}  # about, of a prompt, for the progress bar
_POOL_SEED = 10**6  # far from those of the measured samples


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Args:
        prompts: of the emoji model.
        worlds: of mixtures, with four prompts each.
        samples: of each prompt and condition, drawn at once.
        stored: numbers of unrelated samples in the memory.
        steps: of the emoji model; its own number if None.
    """

    prompts: tuple[str, ...] = UNLIKE
    worlds: int = 6
    samples: int = 16
    stored: tuple[int, ...] = (32, 128, 256)
    steps: int | None = None


SMOKE = Size(prompts=UNLIKE[:2], worlds=1, samples=4, stored=(4,), steps=4)


@dataclass(frozen=True)
class Condition:
    """What the guidance of a batch sees.

    Args:
        objective: SPARKE's; "none" for the empty memory, where all images are of one prompt and
            both objectives are the same.
        stored: number of unrelated samples in the memory.
        alone: whether the images of the batch do not see each other, so that unrelated ones are all
            that there is.
    """

    objective: str
    stored: int
    alone: bool


def conditions(size: Size) -> Iterator[Condition]:
    """Those of each prompt; the empty memory first, which the others are compared with."""
    for alone in (False, True):
        yield Condition("none", 0, alone)
        for stored in size.stored[-1:] if alone else size.stored:
            yield from (Condition(objective, stored, alone) for objective in OBJECTIVES)


@dataclass(frozen=True, kw_only=True)
class _Observed(SPARKE):
    """SPARKE, and at each step how far the memory moves its correction, as a share of a whole one
    (`strength · ||x0||`).
    """

    from_memory: list[Tensor] = field(default_factory=list, repr=False)

    def x0_delta(self, x0: Tensor, context: Context) -> Tensor | None:
        """The correction of SPARKE, as it is."""
        without_memory = dataclasses.replace(
            context, memory=None, state=context.state.setdefault("without memory", {})
        )
        delta, own = super().x0_delta(x0, context), super().x0_delta(x0, without_memory)
        zero = torch.zeros_like(x0)
        moved = per_image_norm((zero if delta is None else delta) - (zero if own is None else own))
        self.from_memory.append(moved / (self.strength * per_image_norm(x0)))
        return delta


def _observed(condition: Condition, options: dict[str, Any]) -> _Observed:
    objective = "cond-rke" if condition.objective == "none" else condition.objective
    return _Observed(objective=objective, batch=not condition.alone, **options)


def run(folder: Path, smoke: bool, progress: Progress) -> None:
    """Measure into the folder, prompt by prompt, and draw the figures."""
    require_matplotlib()
    size = SMOKE if smoke else Size()
    rows = read_rows(folder / ROWS)
    done = {(row["model"], row["prompt"]) for row in rows}
    units = [
        ("toy", f"world {w}, prompt {p}") for w in range(size.worlds) for p in range(PROMPTS)
    ] + [("emoji", p) for p in size.prompts]
    missing = [unit for unit in units if unit not in done]
    share = 1 / max(1, sum(_WORK[model] for model, _ in missing))
    emoji: _Emoji | None = None
    for i, (model, prompt) in enumerate(missing):
        progress(share * sum(_WORK[m] for m, _ in missing[:i]))
        if model == "toy":
            _, world, _, number = prompt.replace(",", "").split()
            measured = _toy(int(world), int(number), size)
        else:
            emoji = _Emoji(size) if emoji is None else emoji
            measured = emoji.measured(prompt, folder if prompt == size.prompts[0] else None)
        rows += [{"model": model, "prompt": prompt, **row} for row in measured]
        write_rows(folder / ROWS, rows)
    draw_figure(rows, folder)
    progress(1.0)


def _toy(seed: int, prompt: int, size: Size) -> Iterator[dict[str, Any]]:
    """A row a condition, of samples of one prompt of a world beside samples of its other
    prompts.
    """
    world = Mixtures.random(seed)
    others = torch.tensor([p for p in range(PROMPTS) if p != prompt]).repeat(
        -(-max(size.stored) // (PROMPTS - 1))
    )
    pool = draw_points(world, others, (), guidance_scale=1.0, seed=_POOL_SEED).x.float()
    prompts = torch.full((size.samples,), prompt)
    twins: dict[bool, Tensor] = {}
    for condition in conditions(size):
        n, method = condition.stored, _observed(condition, _TOY)
        memory = References(pool[:n], world.embeddings[others[:n]].float()) if n else None
        x = draw_points(
            world, prompts, [method], guidance_scale=1.0, seed=1000 * prompt, memory=memory
        ).x
        hits = world.hits(x, prompt)
        where = torch.where(hits.any(dim=1), hits.double().argmax(dim=1), -1)
        twin = twins.setdefault(condition.alone, where)
        counts = {
            "right": int(hits.any(dim=1).sum()),
            "distinct": int(hits.any(dim=0).sum()),
            "possible": min(hits.shape),
        }
        yield _row(
            condition,
            method,
            {"samples": size.samples, **counts},
            (where != twin).double().mean().item(),
        )


class _Emoji:
    """The shipped model with its own defaults, and images of all prompts to fill memories with."""

    def __init__(self, size: Size) -> None:
        from unalike.attach import (
            guide,
        )  # diffusers takes seconds to import, and listing the benchmarks needs none of it

        quieten_hosts(downloads=True)
        self._guide, self._size, self._defaults, self._pipe = (
            guide,
            size,
            MODELS["emoji"],
            load("emoji"),
        )
        self._pipe.set_progress_bar_config(disable=True)
        each = -(-max(size.stored) // (len(size.prompts) - 1))
        pool = Memory()
        self._draw(guide(self._pipe, memory=pool), list(size.prompts) * each, seed=_POOL_SEED)
        (self._space,) = pool.spaces()
        stored = pool.view(self._space)
        assert stored is not None
        assert stored.prompts is not None
        unet = self._pipe.unet.config
        self._latents = stored.latents.view(
            -1, unet.in_channels, unet.sample_size, unet.sample_size
        )
        self._prompts, self._texts = stored.prompts, pool.texts(self._space)

    def _draw(self, call: Callable[..., Any], prompts: Sequence[str], *, seed: int) -> Tensor:
        steps = self._size.steps or self._defaults.steps
        return draw_images(
            call, prompts, seed=seed, guidance_scale=self._defaults.guidance_scale, steps=steps
        )

    def measured(self, prompt: str, folder: Path | None) -> Iterator[dict[str, Any]]:
        """A row a condition; where a folder is given, the images are shown there."""
        shown, twins = [], {}
        for condition in conditions(self._size):
            method = _observed(condition, SPARKE_OPTIONS)
            call = self._guide(self._pipe, method, memory=self._unrelated(prompt, condition.stored))
            images = self._draw(call, [prompt] * self._size.samples, seed=0)
            twin = twins.setdefault(condition.alone, images)
            changed = (images - twin).square().flatten(1).mean(dim=1).sqrt() > PLAINLY_CHANGED
            shown.append((condition, images))
            yield _row(
                condition,
                method,
                dataclasses.asdict(count(images, prompt)),
                changed.double().mean().item(),
            )
        if folder is not None:
            most = (0, self._size.stored[-1])
            draw_pictures(
                [(c.objective, c.stored, c.alone, x) for c, x in shown if c.stored in most],
                prompt,
                folder,
            )

    def _unrelated(self, prompt: str, stored: int) -> Memory:
        memory = Memory()
        if stored:
            chosen = [i for i, text in enumerate(self._texts) if text != prompt][:stored]
            texts = [str(self._texts[i]) for i in chosen]
            memory.add(
                self._space, self._latents[chosen], prompts=self._prompts[chosen], texts=texts
            )
        return memory


def _row(
    condition: Condition, method: _Observed, counts: dict[str, int], changed: float
) -> dict[str, Any]:
    shares = torch.stack(method.from_memory) if method.from_memory else torch.zeros(1)
    return {
        **dataclasses.asdict(condition),
        "from_unrelated": shares.mean().item(),
        **counts,
        "changed": changed,
    }


def page(folder: Path) -> str:
    """The section of the documentation."""
    rows = read_rows(folder / ROWS)
    emoji, default = [r for r in rows if r["model"] == "emoji"], MODELS["emoji"]
    options = ", ".join(f"{name} {value:g}" for name, value in SPARKE_OPTIONS.items())
    prompts, worlds = (
        len({r["prompt"] for r in emoji}),
        len({r["prompt"] for r in rows if r["model"] == "toy"}),
    )
    parts = [
        "## Awareness: what guidance does to unrelated prompts",
        f"{BENCHMARKS['awareness'].question} `python -m benchmarks awareness`",
        f"Batches of {emoji[0]['samples']} images of one prompt, for {prompts} prompts of the "
        f"emoji model (CFG {default.guidance_scale:g}, SPARKE with {options}) and {worlds} "
        "prompts of mixtures with an exact denoiser, beside a memory with more and more images of "
        "other prompts and none of that prompt. Everything is compared with the same seeds beside "
        "an empty memory. The first column of measurements is how far the memory moves a "
        "correction, as a share of a whole one, over the steps at which it acts; right are "
        "samples that show what the prompt asks for, distinct how many different right images are "
        "among them. An image is plainly changed where its pixels differ by more than "
        f"{PLAINLY_CHANGED:.0%} (root mean square), a point where it lands in another mode. "
        "Intervals are 95%, by a bootstrap over prompts.",
        "![What a memory of unrelated prompts does](../benchmarks/results/awareness/awareness.png)",
        _table(rows, alone=False),
        "The same where the images of the batch do not see each other either, so that nothing "
        "related is there at all. A step of SPARKE is as long however little the prompts of the "
        "others weigh, so the kernel on prompts can only choose among the unrelated:",
        _table(rows, alone=True),
        "![Images of one prompt](../benchmarks/results/awareness/pictures.png)",
    ]
    return "\n\n".join(parts)


def _table(rows: Sequence[dict[str, Any]], *, alone: bool) -> str:
    lines = []
    for model, objective, stored in dict.fromkeys(
        (r["model"], r["objective"], r["stored"]) for r in rows if r["alone"] == alone
    ):
        s = summarised(rows, model, objective, stored, alone)
        right, distinct = f"{s['precision'].mean:.1%}", f"{s['distinct'].mean:.2f}"
        if stored:
            right += " (" + s["precision change"].shown("{:+.1f}", 100) + " points)"
            distinct += " (" + s["distinct change"].shown("{:+.2f}") + ")"
        moved, changed = (
            s[name].shown("{:.0%}") if stored else "" for name in ("from unrelated", "changed")
        )
        lines.append([model, stored, objective if stored else "", moved, right, distinct, changed])
    return table(
        [
            "model",
            "unrelated",
            "objective",
            "moved by them",
            "right",
            "distinct right",
            "plainly changed",
        ],
        lines,
    )


BENCHMARK = Benchmark(name="awareness", run=run, page=page)

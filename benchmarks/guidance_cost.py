"""What one guidance step costs against the number `n` of stored samples: SPARKE in closed form, automatic differentiation, Vendi guidance.

    python benchmarks/guidance_cost.py [--smoke] [--full] [--out cost.json]

All but Vendi guidance follow the same loss, Cond-IRKE with Gaussian kernels on latents and prompts scaled to norm 1, and the run stops if
their directions differ. Only ratios within one run mean anything; repetitions are interleaved and medians taken.

sparke       `SPARKE.x0_delta` for the whole batch, which also counts the other images of the batch (the others do not). Prompts here are
             variations of eight unlike ones: for one image it leaves out seven eighths of what is stored, for eight images nothing.
sparke-all   the same with nothing left out, `tolerance=0`.
published    what the public implementations do at each step: one image after another; the new sample appended to a copy of the stored
             ones, its kernels by differences of all rows, both Gram matrices grown by a row and a column and scaled by n, the score of
             the new sample from differences again, and the gradient by automatic differentiation. Their prompt encoder, which runs at
             each step too, and their checks are left out, which is in their favour. The loss is the paper's: k² in place of k.
new-row      the best that automatic differentiation can do: only the new rows of the Gram matrix, one matrix product, the whole batch,
             stored samples normalised beforehand.
whole-gram   the loss as its formula stands, all (n + 1)² kernels of normalised samples at each step, one image after another: O(n² d).
vendi        `VendiGuidance.x0_delta`, conditional, for the whole batch; O(n³).
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unalike.guidance.base import Context, Method, References
from unalike.guidance.sparke import SPARKE
from unalike.guidance.vendi import VendiGuidance
from unalike.kernels import unit_rows

STRENGTH, BANDWIDTH, PROMPT_BANDWIDTH = 0.05, 0.8, 0.35
LARGE = 1_000  # rivals whose cost grows faster than n stop here unless --full is given

Step = Callable[[], Tensor | None]


@dataclass(frozen=True)
class Problem:
    """New samples `x` (B, d) with prompts `y` (B, p), and `n` stored ones."""

    x: Tensor
    y: Tensor
    stored: Tensor
    stored_y: Tensor

    @classmethod
    def random(cls, n: int, batch: int, d: int, p: int, seed: int = 0) -> Problem:
        """Normal latents, and prompts that are variations of eight."""
        g = torch.Generator().manual_seed(seed)
        themes = torch.randn(8, p, generator=g)
        y = themes[torch.arange(n + batch) % 8] + 0.3 * torch.randn(n + batch, p, generator=g)
        return cls(torch.randn(batch, d, generator=g), y[n:], torch.randn(n, d, generator=g), y[:n])

    def context(self) -> Context:
        return Context(
            step=0,
            steps=50,
            alpha=0.8,
            sigma=0.6,
            next_alpha=0.82,
            next_sigma=0.57,
            x_t=self.x,
            prompts=self.y,
            groups=torch.arange(len(self.x)),
            memory=References(self.stored, self.stored_y),
        )


@dataclass(frozen=True)
class Row:
    """One measurement; `ratio` is to SPARKE's time for the same batch, so per image as much as per batch."""

    method: str
    n: int
    batch: int
    first_seconds: float
    seconds: float
    ratio: float
    rounds: int
    extra_bytes: int | None


def sparke(problem: Problem, **options: Any) -> Step:
    return _closed_form(SPARKE(strength=STRENGTH, bandwidth=BANDWIDTH, prompt_bandwidth=PROMPT_BANDWIDTH, **options), problem)


def sparke_all(problem: Problem) -> Step:
    return sparke(problem, tolerance=0.0)


def vendi(problem: Problem) -> Step:
    return _closed_form(VendiGuidance(strength=STRENGTH, conditional=True, bandwidth=BANDWIDTH, prompt_bandwidth=PROMPT_BANDWIDTH), problem)


def _closed_form(method: Method, problem: Problem) -> Step:
    context = problem.context()  # kept from step to step, as a run does
    return lambda: method.x0_delta(problem.x, context)


def published(problem: Problem) -> Step:
    features, texts = unit_rows(problem.stored), unit_rows(problem.stored_y)
    gram, text_gram = (torch.exp((f @ f.T - 1) / b**2) for f, b in ((features, BANDWIDTH), (texts, PROMPT_BANDWIDTH)))

    def column(rows: Tensor, new: Tensor, bandwidth: float) -> Tensor:
        return torch.exp(-((rows - new) ** 2).sum(dim=1) / (2 * bandwidth**2))

    def grown(rows: Tensor, K: Tensor, new: Tensor, bandwidth: float) -> tuple[Tensor, Tensor]:
        rows = torch.cat([rows, new])
        k = column(rows, new, bandwidth)
        K = torch.cat([torch.cat([K, k[None, :-1]]), k[:, None]], dim=1)
        return rows, K / len(rows)

    def one(x: Tensor, y: Tensor) -> Tensor:
        latent = x.clone().requires_grad_()
        rows, _ = grown(features, gram, latent / latent.norm(dim=1, keepdim=True), BANDWIDTH)
        text_rows, _ = grown(texts, text_gram, y / y.norm(dim=1, keepdim=True), PROMPT_BANDWIDTH)
        similarity = column(rows, rows[-1], BANDWIDTH) * column(text_rows, text_rows[-1], PROMPT_BANDWIDTH)
        score = 1 / similarity.square().mean()
        return _step(x, torch.autograd.grad(score, latent)[0])

    return lambda: torch.cat([one(x[None], y[None]) for x, y in zip(problem.x, problem.y, strict=True)])


def new_row(problem: Problem) -> Step:
    features, texts = unit_rows(problem.stored), unit_rows(problem.stored_y)
    log_k_y = (unit_rows(problem.y) @ texts.T - 1) / PROMPT_BANDWIDTH**2

    def step() -> Tensor:
        latents = problem.x.clone().requires_grad_()
        f = latents / latents.norm(dim=1, keepdim=True)
        log_k = (f @ features.T - 1) / BANDWIDTH**2
        score = -torch.logsumexp(2 * (log_k + log_k_y), dim=1).sum()
        return _step(problem.x, torch.autograd.grad(score, latents)[0])

    return step


def whole_gram(problem: Problem) -> Step:
    def kernel(rows: Tensor, bandwidth: float) -> Tensor:
        rows = rows / rows.norm(dim=1, keepdim=True)
        return torch.exp((rows @ rows.T - 1) / bandwidth**2)

    def one(x: Tensor, y: Tensor) -> Tensor:
        latent = x.clone().requires_grad_()
        K_Z = kernel(torch.cat([problem.stored, latent]), BANDWIDTH)
        K_Y = kernel(torch.cat([problem.stored_y, y]), PROMPT_BANDWIDTH)
        loss = (K_Z * K_Y).square().sum() / K_Y.square().sum()
        return _step(x, -torch.autograd.grad(loss, latent)[0])

    return lambda: torch.cat([one(x[None], y[None]) for x, y in zip(problem.x, problem.y, strict=True)])


def _step(x: Tensor, gradient: Tensor) -> Tensor:
    return STRENGTH * x.norm(dim=1, keepdim=True) * gradient / gradient.norm(dim=1, keepdim=True)


METHODS: dict[str, Callable[[Problem], Step]] = {
    "sparke": sparke,
    "sparke-all": sparke_all,
    "published": published,
    "new-row": new_row,
    "whole-gram": whole_gram,
    "vendi": vendi,
}
SAME_LOSS = ("published", "new-row", "whole-gram")
STEEP = ("whole-gram", "vendi")


def agreement(n: int = 64, batch: int = 4, d: int = 1_024, p: int = 64) -> dict[str, float]:
    """For each rival of the same loss, the smallest cosine of the images between its step and the closed form's on the memory alone.

    Raises:
        RuntimeError: where one is below 0.999: a ratio between different computations would mean nothing.
    """
    problem = Problem.random(n, batch, d, p)
    ours = sparke(problem, batch=False)()
    cosines = {}
    for name in SAME_LOSS:
        theirs = METHODS[name](problem)()
        if ours is None or theirs is None:
            raise RuntimeError(f"{name} or the closed form returned no correction, with {n} stored samples")
        cosines[name] = torch.cosine_similarity(ours, theirs).min().item()
        if not cosines[name] > 0.999:
            raise RuntimeError(f"{name} and the closed form differ in direction: their cosine is {cosines[name]:.4f}, 1 where they agree")
    return cosines


def extra_bytes(step: Step) -> int | None:
    """How far one step raises the process's peak of resident memory; None where the system cannot tell (Linux can)."""
    status, clear = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    try:
        clear.write_text("5")  # sets the peak back to the present size
        before = _status(status, "VmRSS")
        step()
        return max(0, _status(status, "VmHWM") - before)
    except OSError:
        return None


def _status(path: Path, key: str) -> int:
    line = next(line for line in path.read_text().splitlines() if line.startswith(f"{key}:"))
    return int(line.split()[1]) * 1024


def measure(problem: Problem, methods: Sequence[str], rounds: int, budget: float) -> list[Row]:
    """Medians of up to `rounds` interleaved repetitions; a method that has used `budget` seconds sits out after its third."""
    steps = {name: METHODS[name](problem) for name in methods}
    first = {name: _seconds(step) for name, step in steps.items()}
    extra = {name: extra_bytes(step) for name, step in steps.items()}
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            if len(times[name]) < 3 or sum(times[name]) < budget:
                times[name].append(_seconds(step))
    median = {name: statistics.median(t) for name, t in times.items()}
    n, batch = len(problem.stored), len(problem.x)
    return [
        Row(name, n, batch, first[name], median[name], median[name] / median["sparke"], len(times[name]), extra[name]) for name in methods
    ]


def _seconds(step: Step) -> float:
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def rows(
    sizes: Sequence[int],
    batches: Sequence[int],
    *,
    d: int,
    p: int,
    rounds: int,
    budget: float,
    full: bool,
    report: Callable[[str], None] = lambda line: None,
) -> list[Row]:
    """All measurements, `report` being told about each setting as it is done."""
    done: list[Row] = []
    for n in sizes:
        methods = [name for name in METHODS if full or n <= LARGE or name not in STEEP]
        for batch in batches:
            measured = measure(Problem.random(n, batch, d, p), methods, rounds, budget)
            report(f"n = {n:,}, batch {batch}: " + ", ".join(f"{r.method} {1e3 * r.seconds:,.1f} ms" for r in measured))
            done += measured
    return done


def table(measured: Sequence[Row]) -> str:
    """Two Markdown tables: milliseconds a step with the ratio to SPARKE, and MiB of memory beside what is stored."""
    cells = {(r.n, r.batch, r.method): r for r in measured}
    settings = list(dict.fromkeys((r.n, r.batch) for r in measured))

    def lines(title: str, cell: Callable[[Row], str]) -> list[str]:
        head = f"| stored | batch | {' | '.join(METHODS)} |"
        body = [
            f"| {n:,} | {batch} | " + " | ".join(cell(cells[key]) if (key := (n, batch, m)) in cells else "–" for m in METHODS) + " |"
            for n, batch in settings
        ]
        return [title, "", head, "|" + " ---: |" * (len(METHODS) + 2), *body]

    def cost(r: Row) -> str:
        return f"{1e3 * r.seconds:,.1f}" + ("" if r.method == "sparke" else f" ({r.ratio:,.1f}×)")

    def memory(r: Row) -> str:
        return "?" if r.extra_bytes is None else f"{r.extra_bytes / 2**20:,.0f}"

    first = lines("Milliseconds a step for the whole batch; in brackets how many times SPARKE's.", cost)
    return "\n".join([*first, "", *lines("Peak extra memory of a step, MiB.", memory)])


def machine() -> dict[str, Any]:
    info = Path("/proc/cpuinfo")
    names = (
        [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")] if info.exists() else []
    )
    return {
        "processor": names[0] if names else platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": str(torch.__version__),
        "python": platform.python_version(),
    }


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description="Cost of one guidance step against the number of stored samples.")
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 1_000, 4_000], help="numbers of stored samples")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8], help="batch sizes")
    parser.add_argument("--dimension", type=int, default=16_384, help="size of a latent")
    parser.add_argument("--rounds", type=int, default=9, help="repetitions, interleaved")
    parser.add_argument("--budget", type=float, default=10.0, help="seconds a method may use per setting before it stops repeating")
    parser.add_argument("--full", action="store_true", help=f"{' and '.join(STEEP)} also beyond n = {LARGE:,}: many minutes and gigabytes")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, to see that it runs")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    chosen = parser.parse_args(arguments)
    if chosen.smoke:
        chosen.sizes, chosen.dimension, chosen.rounds, chosen.budget = [8, 16], 64, 2, 0.5
    settings = {
        "d": chosen.dimension,
        "p": 64 if chosen.smoke else 768,
        "rounds": chosen.rounds,
        "budget": chosen.budget,
        "full": chosen.full,
    }
    cosines = agreement(n=16, d=64, p=16) if chosen.smoke else agreement()
    measured = rows(chosen.sizes, chosen.batches, **settings, report=lambda line: print(line, flush=True))
    result = {"machine": machine(), "settings": settings, "agreement": cosines, "rows": [asdict(row) for row in measured]}
    print(f"\n{table(measured)}")
    if chosen.out is not None:
        chosen.out.write_text(json.dumps(result, indent=1) + "\n")
    return result


if __name__ == "__main__":
    main()

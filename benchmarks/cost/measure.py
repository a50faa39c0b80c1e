"""Which settings are measured, and what is left out because it would not fit or take too long."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.base import Progress, read_rows, write_rows
from benchmarks.cost.clock import free_bytes, interleaved
from benchmarks.cost.problem import Bank
from benchmarks.cost.rivals import OURS, RIVALS, agreement, copy, sparke, sparke_all

STEPS, PROMPTS, AGREEMENT = "steps.parquet", "prompts.parquet", "agreement.parquet"
LOOSE = 0.01  # the other tolerance that the cost by prompts is measured with, ten times the default


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Args:
        sizes: numbers of stored samples.
        shapes: sizes of a latent and of a batch.
        similar: of the cost by prompts: stored samples, batch, and how many of them have the prompt
            of each image.
        d: size of a latent there.
        p: size of the prompt embeddings.
        rounds: repetitions.
        budget: seconds that a step may use before it repeats no more.
        longest: seconds that a step may take; longer ones are left out.
    """

    sizes: tuple[int, ...] = (100, 1_000, 4_000, 10_000, 100_000)
    shapes: tuple[tuple[int, int], ...] = ((4_096, 1), (16_384, 1), (16_384, 8), (65_536, 1))
    similar: tuple[tuple[int, int, int], ...] = (
        *(
            (10_000, 1, 100),
            (10_000, 1, 1_000),
            (10_000, 1, 10_000),
            (10_000, 8, 100),
            (10_000, 8, 1_000),
        ),
        *((1_000, 1, 1_000), (100_000, 1, 1_000)),
    )
    d: int = 16_384
    p: int = 768
    rounds: int = 9
    budget: float = 2.0
    longest: float = 12.0


SMOKE = Size(
    sizes=(8, 16),
    shapes=((64, 1), (64, 8)),
    similar=((64, 1, 4), (64, 1, 64), (64, 8, 4), (16, 1, 16)),
    d=64,
    p=16,
    rounds=2,
    budget=0.1,
)


@dataclass(frozen=True)
class Row:
    """One way to a step at one setting.

    Attributes:
        device: "cpu" or "cuda".
        d, n, batch: sizes of a latent, of the memory and of the batch.
        method: a name of `RIVALS`.
        left_out: why it was not measured: "memory", "time", or "" where it was.
        seconds, first_seconds, rounds, extra_bytes: see `Taken`.
    """

    device: str
    d: int
    n: int
    batch: int
    method: str
    left_out: str = ""
    seconds: float | None = None
    first_seconds: float | None = None
    rounds: int = 0
    extra_bytes: int | None = None


def devices() -> list[str]:
    """What there is to measure on: the processor, and a GPU where torch finds one."""
    return ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]


def run(folder: Path, size: Size, progress: Progress) -> None:
    """Measures what the folder lacks, one setting after another.

    Raises:
        RuntimeError: where a rival computes something else (see `agreement`).
    """
    cosines = agreement(n=16, d=64, p=16) if size.p < 768 else agreement()
    write_rows(
        folder / AGREEMENT, [{"method": name, "cosine": cosine} for name, cosine in cosines.items()]
    )
    limits, banks = (
        {device: free_bytes(device) for device in devices()},
        {device: Bank(device, size.p) for device in devices()},
    )
    work = [(device, setting) for device in limits for setting in _settings(size)]
    steps, prompts = [Row(**row) for row in read_rows(folder / STEPS)], read_rows(folder / PROMPTS)
    for i, (device, (d, n, batch, each)) in enumerate(work):
        progress(i / len(work))
        if each is None and not any(
            (r.device, r.d, r.n, r.batch) == (device, d, n, batch) for r in steps
        ):
            steps += _by_number(banks[device], device, d, n, batch, size, limits[device], steps)
            write_rows(folder / STEPS, [asdict(row) for row in steps])
        elif each is not None and not any(
            (r["device"], r["n"], r["batch"], r["similar"]) == (device, n, batch, each)
            for r in prompts
        ):
            prompts += _by_prompts(banks[device], device, d, n, batch, each, size, limits[device])
            write_rows(folder / PROMPTS, prompts)
    progress(1.0)


def _settings(size: Size) -> Iterator[tuple[int, int, int, int | None]]:
    """`d`, `n`, batch, and how many have the prompt of an image where that is given; in an order
    that makes each memory once.
    """
    for d in sorted({d for d, _ in size.shapes} | {size.d}):
        own = [
            (d, n, batch, None) for shape, batch in size.shapes if shape == d for n in size.sizes
        ]
        own += [(d, n, batch, each) for n, batch, each in size.similar if d == size.d]
        yield from sorted(own, key=lambda setting: (setting[1], setting[3] is not None))


def left_out(
    method: str,
    device: str,
    d: int,
    n: int,
    batch: int,
    earlier: Sequence[Row],
    *,
    limit: int,
    longest: float,
) -> str:
    """Why a method is not to be measured at a setting: "memory", "time" by what it took at fewer
    stored samples, or "" where it is.
    """
    rival = RIVALS[method]
    if 4 * (n * d + rival.numbers(n, d, batch)) > limit:
        return "memory"
    before = [
        r
        for r in earlier
        if (r.device, r.d, r.batch, r.method) == (device, d, batch, method) and r.n < n
    ]
    last = max(before, key=lambda r: r.n, default=None)
    if last is None:
        return ""
    if last.seconds is None:
        return last.left_out
    return "time" if last.seconds * (n / last.n) ** rival.power > longest else ""


def _by_number(
    bank: Bank,
    device: str,
    d: int,
    n: int,
    batch: int,
    size: Size,
    limit: int,
    earlier: Sequence[Row],
) -> list[Row]:
    reasons = {
        m: left_out(m, device, d, n, batch, earlier, limit=limit, longest=size.longest)
        for m in RIVALS
    }
    measured = [m for m, reason in reasons.items() if not reason]
    rows = {m: Row(device, d, n, batch, m, reason) for m, reason in reasons.items()}
    if measured:
        problem = bank.themed(n, batch, d)
        taken = interleaved(
            {m: RIVALS[m].step(problem) for m in measured},
            device,
            rounds=size.rounds,
            budget=size.budget,
        )
        rows |= {m: Row(device, d, n, batch, m, **asdict(t)) for m, t in taken.items()}
    return list(rows.values())


def _by_prompts(
    bank: Bank, device: str, d: int, n: int, batch: int, each: int, size: Size, limit: int
) -> list[dict[str, Any]]:
    """What prompts save: SPARKE with its own tolerance, with a loose one and with none; nothing
    where the memory does not fit.
    """
    if any(4 * (n * d + RIVALS[method].numbers(n, d, batch)) > limit for method in (*OURS, "copy")):
        return []
    problem = bank.similar(n, batch, d, each)
    steps = {
        "sparke": sparke(problem),
        "loose": sparke(problem, tolerance=LOOSE),
        "all": sparke_all(problem),
        "copy": copy(problem),
    }
    taken = interleaved(steps, device, rounds=size.rounds, budget=size.budget)
    setting = {"device": device, "d": d, "n": n, "batch": batch, "similar": each}
    return [{**setting, "method": name, **asdict(t)} for name, t in taken.items()]

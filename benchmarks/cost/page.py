"""The section of the documentation on cost, from what was measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.base import environment, read_rows, table
from benchmarks.cost.measure import AGREEMENT, LOOSE, PROMPTS, STEPS, Row
from benchmarks.cost.rivals import RIVALS

LATENT_SIZE = 16_384
CACHED = 2**27  # bytes of a memory; a cache may hold a good part of smaller ones
_REASONS = {"memory": "–ᵐ", "time": "–ᵗ"}
_DEVICES = {"cpu": "the processor", "cuda": "the GPU"}
_RULES = """How the comparison is kept fair:

- Before anything is timed, the directions of the methods that follow the same loss by automatic
  differentiation are compared with SPARKE's. The run stops where a cosine is below 0.999. Here:
  {cosines}. (SPELL and Vendi guidance have other objectives.)
- Repetitions are interleaved, so that a busy moment slows all of them alike, and medians are taken.
  Slow steps are repeated less often, at least once; the results have the number.
- Steps are timed inside a run, after the first. The results have the time of the first step, with
  what a method prepares there, as `first_seconds`. The published way has normalised stored samples
  and their Gram matrices from the start, as those implementations do.
- Left out of the published way, in its favour: encoding the prompt anew at each step, its checks
  and its logging.
- Prompts are variations of eight unlike ones, in turn. For each image SPARKE reads the samples of
  its own prompt, by a bound on the weight of the others: in a batch of eight images with eight
  prompts all samples are read, each for one image. Real prompts are less unlike.
- Ratios are of the same batch, so they hold per image. In a batch, SPARKE, SPELL and Vendi guidance
  also count the other images of the batch, and the other methods don't.
- Peak extra memory is what one step adds beside the memory itself and what was prepared (on Linux
  of the process, on a GPU of torch). Small amounts read as 0.
- {memory}: would need more than 20 GB, or more than was free. {time}: a step would take more than
  12 seconds, by its time with fewer stored samples. A memory stored in float16 is no smaller here,
  since float32 is compared.
"""


def page(folder: Path) -> str:
    """The section in Markdown."""
    rows, prompts = [Row(**row) for row in read_rows(folder / STEPS)], read_rows(folder / PROMPTS)
    machine = environment(folder)
    parts = [
        "## Cost: one guidance step against the number of stored samples",
        (
            "What does one guidance step cost, and how does that grow with the memory? `python -m "
            "benchmarks cost`"
        ),
        (
            f"Measured on {machine['processor']}, {machine['threads']} threads, torch "
            f"{machine['torch']}. Compare only figures of one run."
        ),
        table(
            ["name", "computes", "cost of a step for a batch of B"],
            [[r.name, r.computes, r.order] for r in RIVALS.values()],
        ),
        _rules(read_rows(folder / AGREEMENT)).strip(),
    ]
    for device in dict.fromkeys(row.device for row in rows):
        parts += _device(
            device,
            [r for r in rows if r.device == device],
            [r for r in prompts if r["device"] == device],
        )
    if all(row.device == "cpu" for row in rows):
        parts.append(
            "No GPU was there to be measured; the same command measures one too where torch finds "
            "it."
        )
    return "\n\n".join(parts)


def steps_table(rows: Sequence[Row]) -> str:
    """Milliseconds a step for the whole batch; in brackets how many times SPARKE's."""

    def cell(r: Row, ours: Row) -> str:
        ratio = (
            ""
            if r is ours or not (r.seconds and ours.seconds)
            else f" ({r.seconds / ours.seconds:,.1f}×)"
        )
        return f"{1e3 * (r.seconds or 0):,.1f}{ratio}"

    return _by_method(rows, [name for name in RIVALS if name != "copy"], cell)


def _by_method(rows: Sequence[Row], methods: Sequence[str], cell: Callable[[Row, Row], str]) -> str:
    found = {(r.n, r.batch, r.method): r for r in rows}
    lines = []
    for n, batch in sorted({(r.n, r.batch) for r in rows}):
        ours = found[n, batch, "sparke"]
        own = [found[n, batch, method] for method in methods]
        lines.append(
            [f"{n:,}", batch, *(_REASONS[r.left_out] if r.left_out else cell(r, ours) for r in own)]
        )
    return table(["stored", "batch", *methods], lines)


def _rules(agreement: Sequence[dict[str, Any]]) -> str:
    cosines = ", ".join(f"{row['method']} {row['cosine']:.6f}" for row in agreement)
    return _RULES.format(cosines=cosines, memory=_REASONS["memory"], time=_REASONS["time"])


def _device(device: str, rows: Sequence[Row], prompts: Sequence[dict[str, Any]]) -> list[str]:
    parts = [
        f"### On {_DEVICES[device]}",
        _findings(rows),
        f"![Time of a step](../benchmarks/results/cost/steps-{device}.png)",
    ]
    for d in sorted({r.d for r in rows}):
        own = [r for r in rows if r.d == d]
        parts += [
            (
                f"Milliseconds a step for latents of {d:,} numbers, the whole batch; in brackets "
                "how many times SPARKE's."
            ),
            steps_table(own),
            f"Peak extra memory of a step for latents of {d:,} numbers, MiB.",
            _by_method(
                own,
                [name for name in RIVALS if name != "copy"],
                lambda r, _: "?" if r.extra_bytes is None else f"{r.extra_bytes / 2**20:,.0f}",
            ),
        ]
    if prompts:
        parts += [
            "What prompts save: the images of the batch have unlike prompts, each of which so "
            "many of the stored samples have too, and the others have still others. Milliseconds "
            f"a step, latents of {prompts[0]['d']:,} numbers.",
            _prompts_table(prompts),
            f"![Time of a step by prompts](../benchmarks/results/cost/prompts-{device}.png)",
        ]
    return parts


def _prompts_table(rows: Sequence[dict[str, Any]]) -> str:
    found = {(r["n"], r["batch"], r["similar"], r["method"]): 1e3 * r["seconds"] for r in rows}
    settings = sorted({key[:3] for key in found})
    columns = {
        "sparke": "SPARKE",
        "loose": f"with tolerance {LOOSE:g}",
        "all": "nothing left out",
        "copy": "memory copied",
    }
    lines = [
        [
            f"{n:,}",
            batch,
            f"{each:,} ({each / n:.0%})",
            *(f"{found[n, batch, each, m]:,.1f}" for m in columns),
        ]
        for n, batch, each in settings
    ]
    return table(["stored", "batch", "with an image's prompt", *columns.values()], lines)


def _findings(rows: Sequence[Row]) -> str:
    """What was set out to be shown, as it came out."""
    seconds = {(r.d, r.n, r.batch, r.method): r.seconds for r in rows if r.seconds}
    lines = []
    for name in [name for name, rival in RIVALS.items() if rival.same_loss]:
        at = [
            key
            for key in seconds
            if key[0] == LATENT_SIZE and key[1] in (1_000, 4_000) and key[3] == name
        ]
        ratios = [seconds[key] / seconds[*key[:3], "sparke"] for key in at]
        if ratios:
            where = " and ".join(f"{n:,}" for n in sorted({key[1] for key in at}))
            lines.append(
                f"- {name} takes {_span(ratios, ',.1f')} times as long as SPARKE at {where} "
                f"stored latents of {LATENT_SIZE:,} numbers, batches of "
                f"{' and '.join(str(b) for b in sorted({key[2] for key in at}))}."
            )
    for batch in sorted({key[2] for key in seconds}):
        read = [
            t / seconds[d, n, b, "copy"]
            for (d, n, b, m), t in seconds.items()
            if (b, m) == (batch, "sparke-all") and 4 * n * d > CACHED
        ]
        if read:
            lines.append(
                f"- With nothing left out, a batch of {batch} takes {_span(read, '.2f')} times as "
                "long as copying the memory, which moves as many bytes as reading it twice "
                f"(memories of more than {CACHED / 2**20:.0f} MiB)."
            )
    return "\n".join(lines) if lines else "Too small a run to say more than the tables."


def _span(values: Sequence[float], form: str) -> str:
    low, high = format(min(values), form), format(max(values), form)
    return low if low == high else f"{low} to {high}"

"""The section of the documentation on the search among protected vectors, from what was
measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.base import environment, read_rows, table
from benchmarks.shield_search.results import (
    ANEW,
    BUILDS,
    OURS,
    PICTURES,
    QUERIES,
    RADII,
    RIVAL,
    SPECTRUM,
    STEPS,
    Summary,
    resident,
    summaries,
)
from benchmarks.shield_search.wide import projection

_LINK = "../benchmarks/results/shield_search"
_SET = """How the set is made. The autoencoder of the emoji model encodes {pictures} images of
128×128 ({kinds}) into latents of 16×16×16 = 4,096 numbers. Glyphs are enlarged. Mosaics are four
glyphs, as the model draws at this size. Dead leaves are discs and small glyphs that hide each
other, with radii by a power law, a known model of natural images (Lee, Mumford & Huang 2001). Crops
are of the two photographs that come with scikit-learn. The other vectors are collages: the left or
upper part of one latent with the rest of another, each mirrored or not. That is close to the latent
of the collage, since latents of a convolutional autoencoder are local. Our search stores the set in
float16 and reads it from mapped files; Faiss holds it in float32, as published."""
_RULES = """How the comparison is kept fair:

- The queries are the predictions x0 of the emoji model at each of {steps} steps (DDIM, {images}
  images a batch, a batch for each of the prompts {prompts}), guided by SPELL with the whole set
  protected at that radius, and recorded before each correction.
- The radii are that of `radius="auto"` (the multiple 0.5), measured on {sampled:,} vectors of the
  set, and larger ones, at which there is more to find.
- The vectors that are really within the radius were found by reading all of them, independently of
  the searches that are compared.
- All searches at a radius ran in one process, {threads} for each, trajectory by trajectory in
  turns. Faiss uses range search and √n cells. Its exhaustive index is measured at some steps of one
  trajectory only, and its time of a trajectory is estimated from those.
- Resident is what a search keeps in memory itself. Ours reads a few vectors in full from mapped
  files, which the system had cached here.
- Steps with nothing within the radius count for the time and not for recall."""


def page(folder: Path) -> str:
    """The section in Markdown."""
    found, machine = summaries(folder), environment(folder)
    rows, queries = read_rows(folder / STEPS), read_rows(folder / QUERIES)
    kinds = {row["kind"]: row["count"] for row in read_rows(folder / PICTURES)}
    sampled = sum(row["vectors"] == found[0].vectors for row in read_rows(folder / RADII))
    counts = sorted({s.vectors for s in found})
    threads = max(row["threads"] for row in rows)
    parts = [
        "## Search: is every protected vector found, how fast, in how much memory?",
        "Ours against Faiss, as published for protected sets (Kirchhof et al. 2025: IVF, √n "
        "cells, 1 to 10 probed; 2 in its comparison). `python -m benchmarks shield_search`",
        (
            f"Measured on {machine['processor']}, torch {machine['torch']}. Compare only figures "
            "of one run."
        ),
        _findings(folder, found),
        _SET.format(
            pictures=f"{sum(kinds.values()):,}",
            kinds=", ".join(f"{count:,} {kind}" for kind, count in kinds.items() if count),
        ).replace("\n", " "),
        f"![Spectrum of the set and of the encoded images]({_LINK}/spectrum.png)",
        _spectrum(folder),
        _RULES.format(
            steps=1 + max(row["step"] for row in rows),
            images=max(row["images"] for row in rows),
            prompts=", ".join(dict.fromkeys(row["prompt"] for row in queries)),
            sampled=sampled,
            threads=f"{threads} thread{'s' if threads > 1 else ''}",
        ),
    ]
    for count in counts:
        own = [s for s in found if s.vectors == count]
        parts += [f"### {count:,} vectors", _rivals(folder, own)]
        if count == found[0].vectors:
            parts += [
                f"![What is found against the time of a step]({_LINK}/recall.png)",
                f"![Time and distances along the steps]({_LINK}/steps.png)",
            ]
        parts += ["What ours looks at:", _layers([s for s in own if s.search in (OURS, ANEW)])]
    parts += [projection(folder), "What building takes:", _builds(folder)]
    return "\n\n".join(part for part in parts if part)


def _findings(folder: Path, found: Sequence[Summary]) -> str:
    """The three goals, as they came out."""
    lines = []
    ours = [s for s in found if s.search in (OURS, ANEW)]
    missed, there = sum(s.there - s.found for s in ours), sum(s.there for s in ours)
    wrong = sum(s.wrong for s in ours)
    lines.append(
        f"- Recall of ours: {there - missed:,} of {there:,} vectors found ({wrong:,} others): "
        f"{'1.0' if not missed else 'below 1'}."
    )
    pairs = [
        (s, t)
        for s in found
        for t in found
        if (s.search, t.search) == (OURS, RIVAL) and (s.vectors, s.factor) == (t.vectors, t.factor)
    ]
    if pairs:
        ratios = [s.per_step / t.per_step for s, t in pairs]
        lines.append(
            f"- Time of a trajectory, as a multiple of that of {RIVAL}: "
            f"{', '.join(f'{ratio:.2f}' for ratio in ratios)} at radius "
            f"{', '.join(f'{s.radius:.1f}' for s, _ in pairs)} (goal: at most 1)."
        )
        n = pairs[0][0].vectors
        mine, theirs = resident(folder, n, OURS), resident(folder, n, RIVAL)
        if mine and theirs:
            lines.append(
                f"- Resident memory: {_size(mine)} against {_size(theirs)}, 1/{theirs / mine:.1f} "
                "of it (goal: at most 1/20)."
            )
    rival = [t for _, t in pairs if t.there]
    if rival:
        lines.append(
            f"- {RIVAL}, misses {', '.join(f'{1 - t.recall:.1%}' for t in rival)} of the "
            f"protected vectors within radius {', '.join(f'{t.radius:.1f}' for t in rival)}, and "
            f"all of them at {', '.join(f'{t.unseen / t.inside:.1%}' for t in rival)} of the "
            "images and steps that are inside of a ball."
        )
    return "\n".join(lines)


def _spectrum(folder: Path) -> str:
    rows = read_rows(folder / SPECTRUM)
    lines = []
    for components in (1, 8, 32, 128, 512, 2048):
        shares = [
            sum(
                row["share"]
                for row in rows
                if row["latents"] == name and row["component"] <= components
            )
            for name in ("encoded", "set")
        ]
        lines.append([components, *(f"{share:.1%}" for share in shares)])
    return table(
        ["principal components", "share of the variance, encoded images", "protected set"], lines
    )


def _rivals(folder: Path, found: Sequence[Summary]) -> str:
    lines = []
    for s in found:
        base = next((t for t in found if (t.search, t.factor) == (RIVAL, s.factor)), None)
        own, theirs = resident(folder, s.vectors, s.search), resident(folder, s.vectors, RIVAL)
        lines.append(
            [
                f"{s.radius:.1f} ({s.factor:g})",
                s.search,
                f"{s.recall:.2%}" if s.there else "nothing there",
                f"{s.there:,}",
                f"{s.unseen / s.inside:.2%}" if s.inside else "–",
                s.wrong,
                f"{1e3 * s.per_step:.1f}",
                f"{1e3 * s.busy:.1f}",
                f"{s.per_trajectory:.2f}",
                f"{s.per_step / base.per_step:.2f}" if base else "–",
                _size(own) if own else "–",
                f"{own / theirs:.3f}" if own and theirs else "–",
            ]
        )
    ratio = f"of {RIVAL}"
    columns = [
        "radius (multiple)", "search", "found", "there", "images inside, none found", "wrong",
        "ms a step", "of the processor", "s a trajectory", ratio, "resident", ratio,
    ]  # fmt: skip
    return table(columns, lines)


def _layers(found: Sequence[Summary]) -> str:
    """Shares of vectors that each bound excludes, of all images, steps and vectors."""
    lines = []
    for s in found:
        all_pairs = s.searches * s.vectors
        full_searches = s.seen["first"] / s.vectors
        lines.append(
            [
                f"{s.radius:.1f}",
                s.search,
                f"{s.skipped:.1%}",
                f"{1 - s.seen['second'] / s.seen['first']:.4%}" if s.seen["first"] else "–",
                f"{s.seen['second'] / full_searches:,.0f}" if full_searches else "–",
                f"{s.seen['full'] / s.searches:,.1f}",
                f"{1 - s.seen['full'] / all_pairs:.5%}",
                f"{s.there / s.searches:,.1f}",
            ]
        )
    columns = [
        "radius", "search", "steps skipped by the triangle bound",
        "excluded by the first bound in a full search", "left to the second",
        "read in full, an image and step", "never read", "there, an image and step",
    ]  # fmt: skip
    return table(columns, lines)


def _builds(folder: Path) -> str:
    rows = read_rows(folder / BUILDS)
    lines = [
        [
            f"{row['vectors']:,}",
            row["search"],
            f"{row['seconds']:,.0f}",
            _size(row["resident_bytes"]),
        ]
        for row in rows
    ]
    return table(["vectors", "search", "seconds", "resident"], lines)


def _size(count: int) -> str:
    return f"{count / 2**20:,.0f} MiB" if count < 10 * 2**30 else f"{count / 2**30:,.1f} GiB"

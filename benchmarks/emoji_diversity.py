"""Distinct right images among 32 samples of 40 one-to-many prompts on the shipped emoji model: unguided, guided, and with lower CFG.

`python benchmarks/emoji_diversity.py --out result.json` takes the settings of `emoji_diversity.json`, which were chosen on prompts that
are not among the forty; `--tune` sweeps over those. An interrupted run goes on from its result file. A picture counts where the judge
accepts it (see `unalike.models.emoji.judge`), so that blends do not.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.progress import track

from unalike.attach import guide
from unalike.guidance.methods import build
from unalike.memory import Memory
from unalike.models.emoji.measure import PROMPTS, count, draw
from unalike.pipelines.catalogue import load

VALIDATION = (
    "dog", "tree", "star", "cloud", "house", "phone", "money", "tool", "angry face", "teacher", "person walking", "waving hand",
)  # fmt: skip
"""One-to-many prompts to choose settings by; none of them is among `PROMPTS`."""


@dataclass(frozen=True)
class Setting:
    """One row of the comparison.

    Args:
        name: what the table calls it.
        guidance_scale: weight of classifier-free guidance.
        methods: method name → options.
        batch: samples drawn together; with `memory`, later batches see the earlier ones.
        memory: whether they do.
    """

    name: str
    guidance_scale: float = 7.5
    methods: dict[str, dict[str, Any]] = field(default_factory=dict)
    batch: int = 32
    memory: bool = False


def sweep() -> Iterator[Setting]:
    """The settings that `--tune` tries: lower weights of CFG, and six of each method at a weight of 7.5 and at a low one."""
    for scale in (1.5, 2.0, 2.5, 3.0, 4.0):
        yield Setting(f"CFG {scale:g}", guidance_scale=scale)
    for scale in (7.5, 2.5):
        for strength, stop in ((0.03, 1.0), (0.1, 0.6), (0.2, 0.6), (0.2, 0.25), (0.5, 0.25), (1.0, 0.25)):
            options: dict[str, Any] = {"strength": strength, "stop": stop}
            yield Setting(f"SPARKE {strength:g} until {stop:g}, CFG {scale:g}", guidance_scale=scale, methods={"sparke": options})
        for limit in (None, 0.3):
            for factor in (0.25, 0.5, 0.75):
                options = {"factor": factor, "limit": limit}
                yield Setting(f"SPELL {factor:g}, limit {limit}, CFG {scale:g}", guidance_scale=scale, methods={"spell": options})


def run(pipe: Any, setting: Setting, prompt: str, *, samples: int, steps: int) -> dict[str, Any]:
    """Draw and judge the samples of one prompt under one setting; the record says what was right and how long drawing took."""
    memory = Memory() if setting.memory else None
    methods = [build(name, **options) for name, options in setting.methods.items()]
    call = guide(pipe, *methods, memory=memory) if methods else pipe
    begun = time.perf_counter()
    images = draw(call, [prompt] * samples, seed=0, guidance_scale=setting.guidance_scale, steps=steps, batch=setting.batch)
    seconds = time.perf_counter() - begun
    return {"setting": setting.name, "prompt": prompt, "seconds": seconds, **asdict(count(images, prompt))}


def table(records: Sequence[dict[str, Any]], settings: Sequence[Setting]) -> str:
    """The comparison with the first setting in Markdown, with 95% intervals from a bootstrap over prompts."""
    by_setting = {s.name: {r["prompt"]: r for r in records if r["setting"] == s.name} for s in settings}
    base = by_setting[settings[0].name]
    lines = [
        f"| setting | distinct right | against {settings[0].name} | share of possible | precision | points of precision | time |",
        "|---|---|---|---|---|---|---|",
    ]
    for setting in settings:
        rows = by_setting[setting.name]
        if rows.keys() != base.keys():
            continue
        gain, loss = _intervals([base[p] for p in rows], list(rows.values()))
        distinct = sum(r["distinct"] for r in rows.values()) / len(rows)
        share = sum(r["distinct"] / r["possible"] for r in rows.values()) / len(rows)
        precision = sum(r["right"] for r in rows.values()) / sum(r["samples"] for r in rows.values())
        slower = sum(r["seconds"] for r in rows.values()) / sum(r["seconds"] for r in base.values())
        lines.append(f"| {setting.name} | {distinct:.1f} | {gain} | {share:.0%} | {precision:.1%} | {loss} | ×{slower:.2f} |")
    return "\n".join(lines)


def _intervals(base: Sequence[dict[str, Any]], rows: Sequence[dict[str, Any]], draws: int = 2000) -> tuple[str, str]:
    """Relative gain in distinct right images and points of precision gained, each with its interval."""
    keys = ("distinct", "right", "samples")
    a, b = (torch.tensor([[float(r[k]) for k in keys] for r in side]) for side in (base, rows))
    chosen = torch.randint(len(a), (draws, len(a)), generator=torch.Generator().manual_seed(0))
    chosen = torch.cat([torch.arange(len(a))[None], chosen])
    a, b = a[chosen].sum(1), b[chosen].sum(1)
    gain, points = b[:, 0] / a[:, 0] - 1, 100 * (b[:, 1] / b[:, 2] - a[:, 1] / a[:, 2])
    ends = torch.tensor([0.025, 0.975])
    low, high = gain[1:].quantile(ends).tolist()
    least, most = points[1:].quantile(ends).tolist()
    return f"{gain[0]:+.0%} ({low:+.0%} to {high:+.0%})", f"{points[0]:+.1f} ({least:+.1f} to {most:+.1f})"


def compare(
    settings: Sequence[Setting], prompts: Sequence[str], *, samples: int, steps: int, out: Path, model: str = "emoji"
) -> list[dict[str, Any]]:
    """Every prompt under every setting, prompt by prompt so that times compare; writes `out` after each prompt and goes on from it."""
    state = {"samples": samples, "steps": steps, "settings": [asdict(s) for s in settings]}
    records: list[dict[str, Any]] = []
    if out.exists():
        earlier = json.loads(out.read_text())
        if {k: earlier.get(k) for k in state} != state:
            raise SystemExit(f"{out} holds a run with other settings; give another --out or remove it")
        records = earlier["records"] if len(earlier["records"]) < len(settings) * len(prompts) else []
    pipe = load(model)
    pipe.set_progress_bar_config(disable=True)
    done = {(r["setting"], r["prompt"]) for r in records}
    for prompt in track(prompts, description="prompts"):
        for setting in settings:
            if (setting.name, prompt) not in done:
                records.append(run(pipe, setting, prompt, samples=samples, steps=steps))
        out.write_text(json.dumps(state | {"records": records}, indent=1) + "\n")
    return records


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tune", action="store_true", help="sweep settings on the validation prompts instead")
    parser.add_argument("--smoke", action="store_true", help="two prompts, four samples, eight steps")
    parser.add_argument("--samples", type=int, default=32)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--model", default="emoji", help="a folder instead of the shipped model")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    if arguments.tune:
        settings, prompts = [Setting("unguided"), *sweep()], VALIDATION
    else:
        chosen = json.loads(Path(__file__).with_suffix(".json").read_text())
        settings, prompts = [Setting("unguided"), *(Setting(**row) for row in chosen)], PROMPTS
    samples, steps = (4, 8) if arguments.smoke else (arguments.samples, arguments.steps)
    prompts = prompts[:2] if arguments.smoke else prompts
    records = compare(settings, prompts, samples=samples, steps=steps, out=arguments.out, model=arguments.model)
    print(table(records, settings))


if __name__ == "__main__":
    main()

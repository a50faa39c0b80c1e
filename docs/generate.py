"""Writes what the documentation takes from the code and from measurements: `python docs/generate.py`.

`docs/options.md` comes from the table of methods. Between `<!-- name -->` and `<!-- end name -->` the other pages have tables of
measurements that are in the repository.
"""

import json
import re
import runpy
from collections.abc import Iterable, Mapping
from dataclasses import Field
from pathlib import Path
from typing import Any

from unalike.extractors.table import EXTRACTORS, spellings
from unalike.guidance.base import Method, allowed
from unalike.guidance.methods import METHODS, options
from unalike.runs.score.catalogue import METRICS

ROOT = Path(__file__).parents[1]
EMOJI = ROOT / "src" / "unalike" / "models" / "emoji"
BENCHMARKS = ROOT / "benchmarks"


def pages() -> dict[Path, str]:
    """Every page that is generated, whole or in part, with the text that it should have."""
    record = json.loads((EMOJI / "record.json").read_text("utf-8"))
    card = EMOJI / "README.md"
    tables = {"summary": emoji_summary(record), "prompts": emoji_prompts(record)}
    scoring, scores = ROOT / "docs" / "scoring.md", {"figures": figure_table(), "features": feature_table()}
    readme, results = ROOT / "README.md", {**diversity_tables(), "cost": cost_table()}
    return {
        ROOT / "docs" / "options.md": options_page(),
        card: filled(card.read_text("utf-8"), tables),
        readme: filled(readme.read_text("utf-8"), results),
        scoring: filled(scoring.read_text("utf-8"), scores),
    }


def filled(page: str, tables: Mapping[str, str]) -> str:
    """The page with each table between its two marks."""
    for name, table in tables.items():
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end {name} -->)", re.DOTALL)
        page, count = pattern.subn(lambda m, table=table: f"{m[1]}{table}\n{m[2]}", page)
        if count != 1:
            raise SystemExit(f"the page has {count} places for the table {name!r}; it needs one <!-- {name} --> … <!-- end {name} -->")
    return page


def options_page() -> str:
    """The page of options as Markdown."""
    shared = {f.name for f in options(Method)}
    parts = ["# Options of the methods", "", "Written by `python docs/generate.py`. On the command line: `--set METHOD.OPTION=VALUE`.", ""]
    for name, method in METHODS.items():
        parts += [f"## {method.__name__}", "", f"`--method {name}`: {method.summary}.", ""]
        parts += _table(f for f in options(method) if f.name not in shared)
    parts += ["## All methods", "", *_table(options(Method))]
    return "\n".join(parts)


def _table(rows: Iterable[Field[Any]]) -> list[str]:
    lines = ["| option | default | allowed | |", "|---|---|---|---|"]
    lines += [f"| `{f.name}` | `{f.default!r}` | {allowed(f)} | {f.metadata['help']} |" for f in rows]
    return [*lines, ""]


def emoji_summary(record: Mapping[str, Any]) -> str:
    """What was measured, in words, and precision and distinct right pictures over the forty prompts, a row a guidance scale."""
    names = record["full_names"]
    which = "Every full name" if record["every"] == 1 else f"Every {record['every']}th full name"
    lines = [
        f"- Autoencoder: {record['autoencoder_psnr']:.1f} dB over all pictures.",
        f"- {which} drawn once (CFG 3, {record['steps']} steps): the nearest picture is the right one for {names['named']:.1%},",
        f"  and the judge accepts it as that for {names['named_and_shown']:.1%}.",
        f"- The same with CLDR names alone, which leave the default skin tone open: {names['named_by_cldr']:.1%},",
        f"  accepted {names['named_by_cldr_and_shown']:.1%}.",
        "",
        "Forty prompts with many right pictures each:",
        "",
        "| CFG | precision | distinct right pictures | share of the possible |",
        "|---|---|---|---|",
    ]
    for row in record["summary"]:
        lines.append(
            f"| {row['guidance_scale']:g} | {row['precision']:.0%} | {row['distinct']:.1f} of {record['samples']} samples "
            f"| {row['share_of_possible']:.0%} |"
        )
    return "\n".join(lines)


def emoji_prompts(record: Mapping[str, Any]) -> str:
    """Right samples and distinct right pictures, a row a prompt."""
    scales = sorted({r["guidance_scale"] for r in record["prompts"]})
    lines = ["| prompt | possible | " + " | ".join(f"CFG {s:g}" for s in scales) + " |", "|---|---|" + "---|" * len(scales)]
    for prompt in dict.fromkeys(r["prompt"] for r in record["prompts"]):
        own = {r["guidance_scale"]: r for r in record["prompts"] if r["prompt"] == prompt}
        cells = " | ".join(f"{own[s]['right']} right, {own[s]['distinct']} distinct" for s in scales)
        lines.append(f"| {prompt} | {own[scales[0]]['possible']} | {cells} |")
    return "\n".join(lines)


def figure_table() -> str:
    """The figures of `unalike score`, a row a figure."""
    lines = ["| figure | in the files | needs | better | what it says |", "|---|---|---|---|---|"]
    needs = {"diversity": "", "prompts": "prompts", "reference": "a reference"}
    for name, m in METRICS.items():
        lines.append(f"| {m.title} | `{name}` | {needs[m.group]} | {m.better} | {m.meaning} |")
    return "\n".join(lines)


def feature_table() -> str:
    """The extractors, a row a name."""
    lines = ["| `--features` | what it sees | network |", "|---|---|---|"]
    for spelling, row in zip(spellings(), EXTRACTORS.values(), strict=True):
        lines.append(f"| `{spelling}` | {row.summary} | {f'`{row.source}`' if row.source else ''} |")
    return "\n".join(lines)


def diversity_tables() -> dict[str, str]:
    """The methods on the shipped model: all against unguided sampling, and those at the lower weight of CFG against that weight alone."""
    code, result = _benchmark("emoji_diversity")
    settings = [code["Setting"](**row) for row in result["settings"]]
    low = [s for s in settings if s.guidance_scale < settings[0].guidance_scale]
    return {"diversity": code["table"](result["records"], settings), "diversity at low CFG": code["table"](result["records"], low)}


def cost_table() -> str:
    """Milliseconds a guidance step takes, a row a number of stored samples and batch size."""
    code, result = _benchmark("guidance_cost")
    return code["table"]([code["Row"](**row) for row in result["rows"]]).split("\n\n")[1]


def _benchmark(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a benchmark defines, and the result of its last run."""
    result = json.loads((BENCHMARKS / "results" / f"{name}.json").read_text("utf-8"))
    return runpy.run_path(str(BENCHMARKS / f"{name}.py"), run_name=name), result


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text, "utf-8")

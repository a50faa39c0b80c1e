"""Generate documentation from the code and from measurements: `python docs/generate.py`.

`docs/options.md` and the stubs of the package for type checkers come from the table of methods,
`docs/models.md` from the catalogue, `docs/benchmarks.md` from the results of the benchmarks,
`docs/pipelines.md` from the families of pipelines that the tests run. Each page begins with a text
of `docs/introductions`. Other pages and the models' cards have generated tables between
`<!-- name -->` and `<!-- end name -->`.
"""

import json
import re
import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping
from dataclasses import Field
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # benchmarks and tests are packages of the repository

from docs.cards import copy_tables, flow_tables, turbo_tables

from benchmarks.copies.page import short_tables
from benchmarks.fewstep.methods import AUTO, ONE_PASS
from benchmarks.fewstep.page import short_table
from benchmarks.pareto.page import headline_table, variety_table
from benchmarks.scaling.page import scaling_tables
from benchmarks.table import available, load
from benchmarks.throughput import throughput_table
from unalike.extractors.table import EXTRACTORS, spellings
from unalike.guidance.method import Method
from unalike.guidance.methods import METHODS, options
from unalike.options import allowed
from unalike.pipelines.catalogue import MODELS
from unalike.runs.score.catalogue import METRICS

EMOJI = ROOT / "src" / "unalike" / "models" / "emoji"
DIGITS = ROOT / "src" / "unalike" / "models" / "digits"
TRAINING = ROOT / "training"
RESULTS = ROOT / "benchmarks" / "results"
PARETO = RESULTS / "pareto"
FEWSTEP = RESULTS / "fewstep"
THROUGHPUT = RESULTS / "throughput"
HEADLINE = (AUTO, ONE_PASS, "choice of 4", "ContrastiveNoise", "SPARKE on x0", "SPELL", "CADS")
"""The few-step methods that the README shows."""

WIDTH = 100
OTHER = re.compile(r"\||#|<!|!\[|```|$")
"""The beginning of a line that is no prose: table, heading, mark, figure, code, empty."""
ITEM = re.compile(r"- |\d+\. ")


def introduction(name: str) -> str:
    """The text that a generated page begins with."""
    return (ROOT / "docs" / "introductions" / f"{name}.md").read_text("utf-8").rstrip("\n")


def wrapped(page: str) -> str:
    """The page with its paragraphs and list items at 100 columns."""
    lines: list[str] = []
    prose: list[str] = []
    code = False
    for line in [*page.split("\n"), ""]:
        code ^= line.startswith("```")
        if prose and (ITEM.match(line) or code or OTHER.match(line)):
            lines += _paragraph(" ".join(prose))
            prose = []
        if code or OTHER.match(line):
            lines.append(line)
        else:
            prose.append(line.strip())
    return "\n".join(lines[:-1])


def _paragraph(text: str) -> list[str]:
    mark = ITEM.match(text)
    indent = " " * len(mark[0]) if mark else ""
    whole = re.sub(r"`[^`]*`", lambda code: code[0].replace(" ", "\0"), text)  # code in one line
    lines = textwrap.wrap(
        whole, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
    lines = [line.replace("\0", " ") for line in lines]
    if broken := [
        line for line in lines[1:] if ITEM.match(line.strip()) or line.strip()[0] in "#|"
    ]:
        raise SystemExit(f"a line of a paragraph would begin a list or heading: {broken[0]!r}")
    return lines


def pages() -> dict[Path, str]:
    """Every page that is generated, whole or in part, with the text that it should have."""
    record = json.loads((TRAINING / "emoji" / "record.json").read_text("utf-8"))
    card = EMOJI / "README.md"
    tables = {"summary": emoji_summary(record), "prompts": emoji_prompts(record)}
    tables |= copy_tables(json.loads((TRAINING / "emoji" / "copies.json").read_text("utf-8")))
    digits = json.loads((TRAINING / "digits" / "record.json").read_text("utf-8"))
    readme = ROOT / "README.md"
    results = {
        "headline": headline_table(PARETO, "emoji"),
        "few steps": short_table(FEWSTEP, "emoji-turbo", HEADLINE),
    }
    scaling = ROOT / "docs" / "scaling.md"
    choosing, shields = ROOT / "docs" / "choosing.md", ROOT / "docs" / "shields.md"
    long_runs = ROOT / "docs" / "long-runs.md"
    variety = {f"variety {name}": variety_table(PARETO, name) for name in ("emoji", "digits")}
    variety["few steps"] = short_table(FEWSTEP, "emoji-turbo")
    scoring, scores = (
        ROOT / "docs" / "scoring.md",
        {"figures": figure_table(), "features": feature_table()},
    )
    return {
        ROOT / "src" / "unalike" / "__init__.pyi": stub("unalike"),
        ROOT / "src" / "unalike" / "guidance" / "__init__.pyi": stub("unalike.guidance"),
        ROOT / "docs" / "options.md": wrapped(options_page()),
        ROOT / "docs" / "benchmarks.md": wrapped(benchmarks_page()),
        ROOT / "docs" / "models.md": wrapped(models_page()),
        ROOT / "docs" / "pipelines.md": wrapped(pipelines_page()),
        choosing: filled(choosing.read_text("utf-8"), variety),
        long_runs: wrapped(
            filled(long_runs.read_text("utf-8"), {"throughput": throughput_table(THROUGHPUT)})
        ),
        shields: wrapped(
            filled(shields.read_text("utf-8"), {"copies": short_tables(RESULTS / "copies")})
        ),
        scaling: wrapped(filled(scaling.read_text("utf-8"), scaling_tables(RESULTS / "scaling"))),
        card: filled(card.read_text("utf-8"), tables),
        DIGITS / "README.md": filled(
            (DIGITS / "README.md").read_text("utf-8"), digits_tables(digits)
        ),
        EMOJI / "turbo" / "README.md": card_of("turbo", turbo_tables),
        EMOJI / "flow" / "README.md": card_of("flow", flow_tables),
        readme: filled(readme.read_text("utf-8"), results),
        scoring: filled(scoring.read_text("utf-8"), scores),
    }


def card_of(name: str, tables: Callable[[Any], dict[str, str]]) -> str:
    """The card of one of emoji's descendants, with the tables of its measurements."""
    record = json.loads((TRAINING / f"emoji_{name}" / "record.json").read_text("utf-8"))
    return filled((EMOJI / name / "README.md").read_text("utf-8"), tables(record))


def filled(page: str, tables: Mapping[str, str]) -> str:
    """The page with each table between its two marks."""
    for name, table in tables.items():
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end {name} -->)", re.DOTALL)
        page, count = pattern.subn(lambda m, table=table: f"{m[1]}{table}\n{m[2]}", page)
        if count != 1:
            raise SystemExit(
                f"the page has {count} places for the table {name!r}; it needs one <!-- {name} "
                f"--> … <!-- end {name} -->"
            )
    return page


def stub(package: str) -> str:
    """The stub of a package that imports its names when they are used, for type checkers."""
    module = import_module(package)
    homes = module._homes()
    lines = [f'"""Written by `python docs/generate.py`: the names of {package}."""', ""]
    sources = [
        (package if home == f"{package}.{name}" else home, name)
        for name, home in homes.items()
        if home != package
    ]
    lines += [f"from {source} import {name} as {name}" for source, name in sorted(sources)]
    own = [name for name, home in homes.items() if home == package]
    lines += ["", *(f"{name}: str" for name in own)] if own else []
    return "\n".join(lines) + "\n"


def options_page() -> str:
    """The page of options as Markdown."""
    shared = {f.name: f.default for f in options(Method)}
    parts = ["# Options of the methods", "", introduction("options"), ""]
    for name, method in METHODS.items():
        parts += [f"## {method.__name__}", "", f"`--method {name}`: {method.summary}.", ""]
        parts += _table(
            f for f in options(method) if f.name not in shared or f.default != shared[f.name]
        )
    parts += ["## All methods", "", "Unless the table of a method has another default.", ""]
    parts += _table(options(Method))
    return "\n".join(parts)


def models_page() -> str:
    """The catalogue of models as Markdown, a row a model."""
    lines = [
        introduction("models"),
        "",
        "| name | draws | files | pipeline | a call | size | precision |",
        "|---|---|---|---|---|---|---|",
    ]
    sources: dict[str, list[str]] = {}
    for model in MODELS.values():
        files = (
            " + ".join(f"`{part}`" for part in (model.checkpoint, model.controlnet) if part)
            or "with the package"
        )
        call = ", ".join(f"`{name}={value!r}`" for name, value in model.call().items())
        host = f"`{model.pipeline}`" + (f" with `{model.scheduler}`" if model.scheduler else "")
        size = f"{model.size[0]}×{model.size[1]}"
        lines.append(
            f"| `{model.name}` | {model.summary} | {files} | {host} | {call} | {size} | "
            f"{model.dtype} |"
        )
        told = [
            f"`{method}`: " + ", ".join(f"`{n}={v!r}`" for n, v in chosen.items())
            for method, chosen in model.published.items()
        ]
        source = f"{model.source}. Published options: {'; '.join(told)}" if told else model.source
        sources.setdefault(source, []).append(f"`{model.name}`")
    lines += ["", "Where the settings come from:", ""]
    return (
        "\n".join(
            [*lines, *(f"- {', '.join(names)}: {source}." for source, names in sources.items())]
        )
        + "\n"
    )


def benchmarks_page() -> str:
    """The page of benchmarks as Markdown: what they have in common, then a section for each whose
    results are in the repository.
    """
    measured = [name for name in available() if (RESULTS / name).is_dir()]
    return (
        "\n\n".join(
            [introduction("benchmarks"), *(load(name).page(RESULTS / name) for name in measured)]
        )
        + "\n"
    )


def pipelines_page() -> str:
    """The page of pipelines as Markdown: the table of families, and under it the limits that it has
    numbers for.
    """
    from tests.hosts.families import FAMILIES

    limits = list(dict.fromkeys(limit for family in FAMILIES for limit in family.limits))
    lines = [
        (
            "| family | pipeline | the scheduler sees | | CADS | interval guidance | shields of "
            "what images show |"
        ),
        "|---|---|---|---|---|---|---|",
    ]
    for f in FAMILIES:
        numbers = ", ".join(str(limits.index(limit) + 1) for limit in f.limits)
        works = f"works with a limit ({numbers})" if numbers else "works"
        prompts = ("yes" if f.prompt_methods else "no") if f.prompted else "no prompts"
        interval = prompts if f.guidance else "no guidance"
        lines.append(
            f"| {f.name} | `{f.pipeline}` | {f.sample} | {works} | {prompts} | {interval} | "
            f"{'yes' if f.decodes else 'no'} |"
        )
    notes = [f"{number}. {limit}" for number, limit in enumerate(limits, 1)]
    return "\n".join(
        [
            introduction("pipelines"),
            "",
            *lines,
            "",
            "Limits:",
            "",
            *notes,
            "",
            introduction("pipelines_settings"),
            "",
            introduction("pipelines_concurrency"),
            "",
        ]
    )


def _table(rows: Iterable[Field[Any]]) -> list[str]:
    lines = ["| option | default | allowed | |", "|---|---|---|---|"]
    lines += [
        f"| `{f.name}` | `{f.default!r}` | {allowed(f)} | {f.metadata['help']} |" for f in rows
    ]
    return [*lines, ""]


def emoji_summary(record: Mapping[str, Any]) -> str:
    """What was measured, in words, and precision and distinct right images over the forty
    prompts, a row a guidance scale.
    """
    names = record["full_names"]
    which = "Every full name" if record["every"] == 1 else f"Every {record['every']}th full name"
    lines = [
        f"- Autoencoder: {record['autoencoder_psnr']:.1f} dB over all images.",
        (
            f"- {which} drawn once (CFG 3, {record['steps']} steps): the nearest image is the "
            f"right one for {names['named']:.1%},"
        ),
        f"  and the judge accepts it as that for {names['named_and_shown']:.1%}.",
        (
            "- The same with CLDR names alone, which leave the default skin tone open: "
            f"{names['named_by_cldr']:.1%},"
        ),
        f"  accepted {names['named_by_cldr_and_shown']:.1%}.",
        "",
        "Forty prompts with many right images each:",
        "",
        "| CFG | precision | distinct right images | coverage |",
        "|---|---|---|---|",
    ]
    for row in record["summary"]:
        lines.append(
            f"| {row['guidance_scale']:g} | {row['precision']:.0%} | {row['distinct']:.1f} of "
            f"{record['samples']} samples | {row['share_of_possible']:.0%} |"
        )
    return "\n".join(lines)


def emoji_prompts(record: Mapping[str, Any]) -> str:
    """Right samples and distinct right images, a row a prompt."""
    scales = sorted({r["guidance_scale"] for r in record["prompts"]})
    lines = [
        "| prompt | possible | " + " | ".join(f"CFG {s:g}" for s in scales) + " |",
        "|---|---|" + "---|" * len(scales),
    ]
    for prompt in dict.fromkeys(r["prompt"] for r in record["prompts"]):
        own = {r["guidance_scale"]: r for r in record["prompts"] if r["prompt"] == prompt}
        cells = " | ".join(
            f"{own[s]['right']} right, {own[s]['distinct']} distinct" for s in scales
        )
        lines.append(f"| {prompt} | {own[scales[0]]['possible']} | {cells} |")
    return "\n".join(lines)


def digits_tables(record: Mapping[str, Any]) -> dict[str, str]:
    """The tables of the card of the digits: what the judge accepts, the samples over all classes,
    and each class by itself.
    """
    classifier = record["classifier"]
    judge = [
        f"| of {classifier['pictures']} held-out images | accepted as their digit | as another |",
        "|---|---|---|",
        *(
            f"| {row['damage']} | {row['right']:.1%} | {row['wrong']:.1%} |"
            for row in record["judge"]
        ),
    ]
    samples = [
        f"- Autoencoder: {record['autoencoder_psnr']:.1f} dB over all images.",
        (
            f"- Classifier: names {classifier['accuracy']:.1%} of {classifier['pictures']} "
            "held-out images rightly."
        ),
        (
            f"- {record['samples']} samples of each class in {record['steps']} steps, the k-NN "
            "figures class by class:"
        ),
        "",
        (
            "| CFG | named right | accepted | distinct right images | coverage | k-NN precision | "
            "k-NN recall | k-NN density | k-NN coverage |"
        ),
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in record["summary"]:
        shares = " | ".join(
            f"{row[name]:.2f}" for name in ("feature_precision", "recall", "density", "coverage")
        )
        samples.append(
            f"| {row['guidance_scale']:g} | {row['accuracy']:.1%} | {row['precision']:.1%} | "
            f"{row['distinct']:.1f} of {record['samples']} samples | "
            f"{row['share_of_possible']:.0%} | {shares} |"
        )
    scales = sorted({r["guidance_scale"] for r in record["classes"]})
    classes = [
        "| class | " + " | ".join(f"CFG {s:g}" for s in scales) + " |",
        "|---|" + "---|" * len(scales),
    ]
    for label in sorted({r["label"] for r in record["classes"]}):
        own = {r["guidance_scale"]: r for r in record["classes"] if r["label"] == label}
        cells = " | ".join(
            f"{own[s]['named']} named, {own[s]['right']} right, {own[s]['distinct']} distinct"
            for s in scales
        )
        classes.append(f"| {label} | {cells} |")
    return {"judge": "\n".join(judge), "samples": "\n".join(samples), "classes": "\n".join(classes)}


def figure_table() -> str:
    """The scores of `unalike score`, a row a score."""
    lines = ["| score | in the files | needs | better | what it says |", "|---|---|---|---|---|"]
    needs = {"diversity": "", "prompts": "prompts", "reference": "a reference"}
    for name, m in METRICS.items():
        lines.append(f"| {m.title} | `{name}` | {needs[m.group]} | {m.better} | {m.meaning} |")
    return "\n".join(lines)


def feature_table() -> str:
    """The extractors, a row a name."""
    lines = ["| `--features` | what it sees | network |", "|---|---|---|"]
    for spelling, row in zip(spellings(), EXTRACTORS.values(), strict=True):
        lines.append(
            f"| `{spelling}` | {row.summary} | {f'`{row.source}`' if row.source else ''} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text, "utf-8")

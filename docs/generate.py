"""Writes what the documentation takes from the code and from measurements: `python
docs/generate.py`.

`docs/options.md` and the names of the package for type checkers come from the table of methods, `docs/benchmarks.md` from the results of the
benchmarks, `docs/pipelines.md` from the families of pipelines that the tests run. Between `<!--
name -->` and `<!-- end name -->` the other pages have tables of measurements that are in the
repository.
"""

import json
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import Field
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # benchmarks and tests are packages of the repository

from benchmarks.pareto.page import headline_table, variety_table
from benchmarks.table import available, load
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

BENCHMARKS_INTRODUCTION = """# Benchmarks

Written by `python docs/generate.py` from [benchmarks/results](../benchmarks/results): tables and figures come from the measurements, none
are typed.

**What is measured.** Diversity is the number of different *right* images that a set of samples shows, as a share of the most that could
be: the smaller of the samples and the right images there are. A sample counts where it shows a right image itself, not something between
two. Fidelity is the share of samples that are right. Neither means much alone: spreading samples at random covers more and is right less
often. So methods are compared by their front, the settings that no other setting of theirs beats in both, by the area under it
(hypervolume), and by what they cover at the same precision.

**How settings are chosen.** Every method has the same number of trials. They are chosen on prompts, or worlds, that are not those of
the tables, and lower classifier-free guidance is tuned as one method more, for it is the simplest way to more variety. Methods run as the
library has them, on the same model, seeds and steps. Intervals are drawn over prompts or worlds, since samples of one prompt are alike.

**How to repeat it.** In a checkout, `pip install -e '.[dev]'`; then `python -m benchmarks` lists the benchmarks and
`python -m benchmarks NAME --out DIR` measures one; no GPU and no download is needed. An interrupted run goes on with the same command; `--smoke` shows in seconds that it works. In the
repository `--out benchmarks/results/NAME`, then `python docs/generate.py`, brings this page up to date; `environment.json` beside the
results names the processor, the threads and the versions.

**Data for larger models.** `python -m benchmarks.captions TABLE --out DIR` makes one-to-many captions with their images from a table of
captions such as CC12M's, with the filters of Kirchhof et al. 2025, appendix E (arXiv:2410.06025); it has been run on made tables only."""

PIPELINES_SETTINGS = """## Precision, offloading, LoRA, compiled models

- **Precision.** bfloat16 and float16 work throughout: without a correction the images are bit-identical, and results keep their type.
  Corrections are computed, and the memory is kept, in float32.
- **Offloading.** `enable_model_cpu_offload` works before `guide` or after it, `enable_sequential_cpu_offload` after it only; the error says
  so. While latents are guided no other model runs between the steps. A method or a shield that compares images by an embedding decodes
  at each step, so that the denoiser leaves and returns each time: slower, and right. Encode protected images before sequential
  offloading. Tested with accelerate's hooks on a CPU; not run on a GPU.
- **LoRA** works as without guidance. One on the denoiser keeps the memory; one on a text encoder changes the prompts' embeddings and
  needs a memory of its own, or a `prompt_encoder` that is shared.
- **Weights that change in place**, as by `load_textual_inversion`, `fuse_lora`, `load_state_dict` or `param.add_`, are noticed at the
  next call, in milliseconds: the models are named anew, and where the name does not tell the change, a memory or a shield that depends
  on those weights is refused. Of parameters with more than 65,536 numbers 128 are compared, so a change of a few rows of a large matrix
  is not noticed, nor is one of offloaded weights, nor one made before `guide` that keeps the signs that a name is made of: give those a
  memory of their own.
- **`torch.compile`** works, wrapped or in place, whole graphs too, and nothing is compiled anew; tested with the backends eager and
  aot_eager. Refused are two things that would have to reach into the graph: annealing of classes (`CADS` with DiT), and regions that
  are given as words."""

PIPELINES_INTRODUCTION = """# Pipelines

Written by `python docs/generate.py` from [tests/hosts](../tests/hosts): each row is a family of pipelines that the tests run from end to
end, as a tiny pipeline of diffusers' own class with random weights, written to disk and read back by `from_pretrained`.

**What works means.** Without a correction the images are those of the pipeline, bit for bit; a correction changes every image; several
images of each of several prompts are grouped by their prompt; and an image is the same, up to rounding, for the same seed in any batch. Pipelines
that are not in the table are guided in the same way, as long as they step a scheduler with a known map to x0; what is not known is
refused.

**Columns.** What a method sees as x0 has the shape that the scheduler sees, for `B` images: C channels, H × W places, F frames, S tokens of
a packed latent, L samples of sound. CADS and interval guidance change what the model is given, and so need to tell the prompts in its
input apart. A shield of what images show (pixels, or an embedding such as CLIP's) needs to decode the latents of a step, and
`unalike.attach.encode_images` goes the other way; a shield of latents needs neither.

Stable Cascade's two stages are tested too, in a test of their own: diffusers does not read back the folder that it writes of them."""

PIPELINES_CONCURRENCY = """## What may run concurrently

A guided call runs on a stand-in of the pipeline: the same class and the same weights, with a scheduler, hooks and call settings of its own.
Other calls of what it shares stay bit-identical, and so does the guided call. Tested with SPARKE, SPELL, CADS, interval guidance and regions
given as words:

| beside a guided call | |
|---|---|
| an unguided call of the same pipeline, in a callback, a thread or an asyncio task | works |
| a call of another pipeline that shares its U-Net, transformer, VAE, text encoder or scheduler | works |
| a call of another guided pipeline around the same pipeline: `guide(pipe, …)` twice | works; they may share a `Memory` |
| a second call of the same guided pipeline, in a callback or a thread | refused: `report` and `latents` are of one call |

- A callback is given the stand-in. Calling it draws unguided; setting `_guidance_scale` or `_interrupt` on it, or on the guided pipeline,
  acts on the running call. On the original pipeline only `_interrupt` does.
- After the call the pipeline and its scheduler are as they were before it: read `guided.report` and `guided.latents`, not
  `pipe.scheduler.timesteps`.
- Two *unguided* calls of one pipeline in two threads are mixed up by diffusers itself, and one tokenizer in two threads by transformers.
  In a guided call both are copies.
- What diffusers itself changes on shared models during a call is seen by all: attention processors of perturbed-attention guidance, the
  LoRA scale of a call, and float16 VAEs of SDXL, which are decoded in float32."""

OPTIONS_INTRODUCTION = """Written by `python docs/generate.py`. On the command line: `--set METHOD.OPTION=VALUE`.

`SPARKE`, `VendiGuidance` and `SPELL` also take `region`, where in the image they act: `--set sparke.region=hair` for a word, which the
model's own attention finds, `--set sparke.region=0,0,0.5,1` for a box (left, top, right, bottom, as shares of width and height); in Python
a list of words and a mask too. `SPARKE` and `VendiGuidance` take `embed`, a function of images by which they are compared in place of
latents, and `reference`, latents to move away from or towards; both in Python alone."""

MODELS_INTRODUCTION = """# Models

Written by `python docs/generate.py` from `unalike.pipelines.MODELS`; `unalike models` prints the same.

Each name works for `unalike.load`, `unalike.pipelines.get_diffusion_pipeline`, which gives it [the papers' interface](papers.md), and
`unalike generate --model` (image models that need no further picture). In the place of a name stand a folder in diffusers' layout and
any id on the Hugging Face hub. Steps, guidance scale and the other arguments in the table are used where a guided call,
`guide(load(name))`, does not say otherwise (the plain pipeline's own call has the defaults of its class);
so is the precision, on a GPU. On a CPU it is float32.

Only the two models that come with the package have been run here; the others' files are on the hub, and their pipeline classes are
tested with tiny random weights ([pipelines](pipelines.md))."""


def pages() -> dict[Path, str]:
    """Every page that is generated, whole or in part, with the text that it should have."""
    record = json.loads((TRAINING / "emoji" / "record.json").read_text("utf-8"))
    card = EMOJI / "README.md"
    tables = {"summary": emoji_summary(record), "prompts": emoji_prompts(record)}
    digits = json.loads((TRAINING / "digits" / "record.json").read_text("utf-8"))
    readme = ROOT / "README.md"
    results = {"headline": headline_table(PARETO, "emoji")}
    choosing = ROOT / "docs" / "choosing.md"
    variety = {f"variety {name}": variety_table(PARETO, name) for name in ("emoji", "digits")}
    scoring, scores = (
        ROOT / "docs" / "scoring.md",
        {"figures": figure_table(), "features": feature_table()},
    )
    return {
        ROOT / "src" / "unalike" / "__init__.pyi": stub("unalike"),
        ROOT / "src" / "unalike" / "guidance" / "__init__.pyi": stub("unalike.guidance"),
        ROOT / "docs" / "options.md": options_page(),
        ROOT / "docs" / "benchmarks.md": benchmarks_page(),
        ROOT / "docs" / "models.md": models_page(),
        ROOT / "docs" / "pipelines.md": pipelines_page(),
        choosing: filled(choosing.read_text("utf-8"), variety),
        card: filled(card.read_text("utf-8"), tables),
        DIGITS / "README.md": filled(
            (DIGITS / "README.md").read_text("utf-8"), digits_tables(digits)
        ),
        readme: filled(readme.read_text("utf-8"), results),
        scoring: filled(scoring.read_text("utf-8"), scores),
    }


def filled(page: str, tables: Mapping[str, str]) -> str:
    """The page with each table between its two marks."""
    for name, table in tables.items():
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end {name} -->)", re.DOTALL)
        page, count = pattern.subn(lambda m, table=table: f"{m[1]}{table}\n{m[2]}", page)
        if count != 1:
            raise SystemExit(
                f"the page has {count} places for the table {name!r}; it needs one <!-- {name} --> … <!-- end {name} -->"
            )
    return page


def stub(package: str) -> str:
    """The names of a package that imports them when they are used, for type checkers and editors."""
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
    parts = ["# Options of the methods", "", OPTIONS_INTRODUCTION, ""]
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
        MODELS_INTRODUCTION,
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
            f"| `{model.name}` | {model.summary} | {files} | {host} | {call} | {size} | {model.dtype} |"
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
            [BENCHMARKS_INTRODUCTION, *(load(name).page(RESULTS / name) for name in measured)]
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
        "| family | pipeline | the scheduler sees | | CADS | interval guidance | shields of what images show |",
        "|---|---|---|---|---|---|---|",
    ]
    for f in FAMILIES:
        numbers = ", ".join(str(limits.index(limit) + 1) for limit in f.limits)
        works = f"works with a limit ({numbers})" if numbers else "works"
        prompts = ("yes" if f.prompt_methods else "no") if f.prompted else "no prompts"
        interval = prompts if f.guidance else "no guidance"
        lines.append(
            f"| {f.name} | `{f.pipeline}` | {f.sample} | {works} | {prompts} | {interval} | {'yes' if f.decodes else 'no'} |"
        )
    notes = [f"{number}. {limit}" for number, limit in enumerate(limits, 1)]
    return "\n".join(
        [
            PIPELINES_INTRODUCTION,
            "",
            *lines,
            "",
            "Limits:",
            "",
            *notes,
            "",
            PIPELINES_SETTINGS,
            "",
            PIPELINES_CONCURRENCY,
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
    """What was measured, in words, and precision and distinct right pictures over the forty
    prompts, a row a guidance scale.
    """
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
        f"| of {classifier['pictures']} held-out pictures | accepted as their digit | as another |",
        "|---|---|---|",
        *(
            f"| {row['damage']} | {row['right']:.1%} | {row['wrong']:.1%} |"
            for row in record["judge"]
        ),
    ]
    samples = [
        f"- Autoencoder: {record['autoencoder_psnr']:.1f} dB over all pictures.",
        f"- Classifier: names {classifier['accuracy']:.1%} of {classifier['pictures']} held-out pictures rightly.",
        f"- {record['samples']} samples of each class in {record['steps']} steps, all by their class for precision to coverage:",
        "",
        "| CFG | named rightly | accepted | distinct right pictures | share of the possible | precision | recall | density | coverage |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in record["summary"]:
        shares = " | ".join(
            f"{row[name]:.2f}" for name in ("feature_precision", "recall", "density", "coverage")
        )
        samples.append(
            f"| {row['guidance_scale']:g} | {row['accuracy']:.1%} | {row['precision']:.1%} "
            f"| {row['distinct']:.1f} of {record['samples']} samples | {row['share_of_possible']:.0%} | {shares} |"
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
        lines.append(
            f"| `{spelling}` | {row.summary} | {f'`{row.source}`' if row.source else ''} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text, "utf-8")

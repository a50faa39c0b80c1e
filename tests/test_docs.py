"""What the README and the pages of docs say is so: their programs run, their commands work, their
links and tables are right.
"""

import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests import tiny

from unalike.cli.app import app
from unalike.guidance.methods import METHODS, options
from unalike.pipelines import MODELS

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
FROM_THE_HUB = {"sdxl": "sdxl", "flux": "flux-dev"}
"""Examples of models on the hub: the name of a tiny pipeline, and of the model it stands for."""
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(language: str, pages: list[Path]) -> list[str]:
    return [
        text
        for page in pages
        for kind, text in BLOCK.findall(page.read_text("utf-8"))
        if kind == language
    ]


COMMANDS = [
    line[2:]
    for text in blocks("console", [ROOT / "README.md"])
    for line in text.splitlines()
    if line.startswith("$ unalike ")
]


@pytest.mark.parametrize(
    "example", [e for e in EXAMPLES if e.stem not in FROM_THE_HUB], ids=lambda p: p.stem
)
def test_example_runs_when_started_as_a_program(example, tmp_path):
    subprocess.run(
        [sys.executable, "-W", "error", str(example)],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        timeout=600,
    )


@pytest.mark.parametrize(("example", "model"), FROM_THE_HUB.items())
def test_example_of_a_hub_model_runs_when_a_tiny_one_is_in_the_cache(example, model, tmp_path):
    """The program as it stands, but for "cpu" in place of "cuda"."""
    cache = tmp_path / "hub" / f"models--{MODELS[model].checkpoint}".replace("/", "--", 1)
    (cache / "refs").mkdir(parents=True)
    (cache / "refs" / "main").write_text("0" * 40)
    (tmp_path / "tiny").mkdir()
    shutil.copytree(tiny.write(example, tmp_path / "tiny"), cache / "snapshots" / ("0" * 40))
    program = (ROOT / "examples" / f"{example}.py").read_text("utf-8")
    assert '"cuda"' in program
    hub = {"HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program.replace('"cuda"', '"cpu"')],
        cwd=tmp_path,
        env={**os.environ, **hub},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.glob("doctor-*.png"))) == 4


@pytest.mark.parametrize("command", COMMANDS)
def test_command_of_the_readme_works_when_typed(command, tmp_path):
    subprocess.run(
        [sys.executable, "-m", *shlex.split(command)],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        timeout=600,
    )
    (folder,) = tmp_path.iterdir()
    assert (folder / "report.html").exists()


def test_readme_has_commands_to_try():
    assert COMMANDS


@pytest.mark.parametrize("block", blocks("python", PAGES), ids=lambda b: b.strip().splitlines()[0])
def test_program_of_the_docs_is_part_of_an_example_that_runs(block):
    assert any(block in example.read_text("utf-8") for example in EXAMPLES)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere_when_they_are_local(page):
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text("utf-8")):
        assert (page.parent / target).exists(), target


def test_generated_pages_are_current():
    pages = runpy.run_path(str(ROOT / "docs" / "generate.py"))["pages"]()
    for path, text in pages.items():
        assert path.read_text("utf-8") == text, "run: python docs/generate.py"


def test_every_command_is_in_the_readme():
    listed = re.findall(
        r"^\| `unalike (\w+)", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE
    )
    groups = {
        group.typer_instance.info.name for group in app.registered_groups if group.typer_instance
    }
    assert groups < set(listed)
    assert [name for name in listed if name not in groups] == [
        c.callback.__name__ for c in app.registered_commands if c.callback
    ]


def test_changelog_names_the_version_of_the_package_or_what_is_unreleased():
    import unalike

    text = (ROOT / "CHANGELOG.md").read_text("utf-8")
    assert f"## {unalike.__version__}" in text or "## Unreleased" in text
    assert f"version: {unalike.__version__}" in (ROOT / "CITATION.cff").read_text("utf-8")


def test_options_page_has_the_default_of_a_method_when_it_is_another_than_that_of_all() -> None:
    page = (ROOT / "docs" / "options.md").read_text("utf-8")
    sections = {part.split("\n", 1)[0]: part for part in page.split("\n## ")}
    for method in METHODS.values():
        own, shared = sections[method.__name__], sections["All methods"]
        for f in options(method):
            row = f"| `{f.name}` | `{f.default!r}` |"
            assert row in own or (f"| `{f.name}` " not in own and row in shared), (method, f.name)

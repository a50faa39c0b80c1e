"""The names that users' code and scripts stand on. A change here is a change for them."""

import subprocess
import sys

import pytest
import typer
from typer.core import TyperGroup

import unalike
from unalike.cli.app import app

NAMES = [
    "Auto",
    "CADS",
    "Choice",
    "ContextualRepulsion",
    "ContrastiveNoise",
    "CoupledNoise",
    "DAVE",
    "FirstStepBase",
    "GuidedPipeline",
    "IntervalGuidance",
    "Memory",
    "ParticleGuidance",
    "PinkNoise",
    "SPARKE",
    "SPELL",
    "SeedVariance",
    "Shield",
    "TSR",
    "VendiGuidance",
    "__version__",
    "attach",
    "choose",
    "errors",
    "extractors",
    "guidance",
    "guide",
    "kernels",
    "load",
    "memory",
    "metrics",
    "pipelines",
    "scores",
    "selection",
    "shields",
]

DRAWING = [
    "--attempts",
    "--batch-size",
    "--candidates",
    "--compare",
    "--device",
    "--dtype",
    "--format",
    "--guidance-scale",
    "--height",
    "--image",
    "--image-strength",
    "--lora",
    "--memory",
    "--method",
    "--model",
    "--model-config",
    "--negative-prompt",
    "--no-compare",
    "--num",
    "--on-violation",
    "--out",
    "--overwrite",
    "--quality",
    "--scheduler",
    "--seed",
    "--set",
    "--shield",
    "--shield-space",
    "--steps",
    "--strength",
    "--width",
    "-n",
]
"""Of all commands that draw into a folder."""
COMMANDS = {
    "generate": [
        *DRAWING,
        "--prompt",
        "--prompts-file",
        "--like",
        "--resume",
        "--json",
        "--quiet",
        "-q",
        "PROMPT",
    ],
    "run": [
        *DRAWING,
        "--devices",
        "--json",
        "--merge",
        "--quiet",
        "--ray",
        "--ray-gpus",
        "--ray-workers",
        "--shard",
        "--shard-size",
        "--wildcards",
        "-q",
        "PROMPTS",
    ],
    "seeds": [
        "--height",
        "--image",
        "--image-strength",
        "--lora",
        "--model-config",
        "--negative-prompt",
        "--scheduler",
        "--width",
        "--batch-size",
        "--candidates",
        "--device",
        "--dtype",
        "--guidance-scale",
        "--json",
        "--memory",
        "--model",
        "--num",
        "--objective",
        "--prompt",
        "--quality",
        "--quiet",
        "--seed",
        "--shield",
        "--shield-space",
        "--step",
        "--steps",
        "--weight",
        "-n",
        "-q",
        "PROMPT",
    ],
    "score": [
        "--batch-size",
        "--bootstrap",
        "--device",
        "--features",
        "--json",
        "--k",
        "--out",
        "--overwrite",
        "--prompts",
        "--quiet",
        "--radius",
        "--reference",
        "--reference-prompts",
        "--seed",
        "--skip-bad",
        "-q",
        "DIR",
    ],
    "shield build": [
        "--batch-size",
        "--device",
        "--dtype",
        "--generations",
        "--json",
        "--model",
        "--out",
        "--prompt",
        "--quiet",
        "--radius",
        "--seed",
        "--size",
        "--skip-bad",
        "--space",
        "-q",
        "IMAGES",
    ],
    "shield add": [
        "--batch-size",
        "--device",
        "--discard",
        "--json",
        "--model",
        "--quiet",
        "--skip-bad",
        "--space",
        "-q",
        "DIR",
        "IMAGES",
    ],
    "shield inspect": ["--json", "DIR"],
    "shield check": [
        "--batch-size",
        "--device",
        "--edits",
        "--fail-inside",
        "--json",
        "--model",
        "--out",
        "--overwrite",
        "--quiet",
        "--skip-bad",
        "--space",
        "-q",
        "DIR",
        "IMAGES",
    ],
    "shield verify": [
        "--device",
        "--edits",
        "--json",
        "--model",
        "--quiet",
        "--shield",
        "--space",
        "-q",
        "RUN",
    ],
    "memory inspect": ["--json", "FILE"],
    "memory search": ["--json", "--num", "-n", "FILE", "TEXT"],
    "memory remove": ["--item", "--json", "--run", "--seed", "--text", "FILE"],
    "memory merge": ["--json", "FILE...", "OUT"],
    "memory export": ["--json", "--out", "--thumbnails", "FILE"],
    "models": ["--json"],
    "methods": ["--json"],
    "cite": ["METHOD"],
}


def test_names_are_the_agreed_ones_when_listed():
    assert dir(unalike) == NAMES
    assert sorted(getattr(unalike, "__all__")) == NAMES  # noqa: B009


@pytest.mark.parametrize("name", NAMES)
def test_name_can_be_had_when_asked_for(name):
    assert getattr(unalike, name) is not None


def test_message_suggests_and_lists_the_names_when_there_is_no_such_name():
    with pytest.raises(
        AttributeError, match=r"no attribute 'SPARK'; did you mean 'SPARKE'. it has Auto, CADS"
    ):
        unalike.SPARK  # noqa: B018  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match=r"'unalike\.guidance' has no attribute 'Contxt'; did"):
        unalike.guidance.Contxt  # noqa: B018  # type: ignore[attr-defined]
    with pytest.raises(
        AttributeError, match=r"no attribute 'lod'; did you mean 'load'. it has MODE"
    ):
        unalike.pipelines.lod  # noqa: B018  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match=r"no attribute 'guid'; did you mean 'guide'"):
        unalike.attach.guid  # noqa: B018  # type: ignore[attr-defined]


def in_a_new_process(program: str) -> list[str]:
    found = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=120
    )
    return found.stdout.split()


def test_nothing_heavy_is_imported_when_the_package_is():
    program = "import sys, unalike\n{}\nprint(*sys.modules)"
    loaded = in_a_new_process(program.format(""))
    assert {name for name in loaded if name.startswith("unalike.")} <= {
        "unalike.errors",
        "unalike.lazy",
    }
    assert not {"torch", "diffusers", "numpy"} & set(
        in_a_new_process(program.format("dir(unalike)"))
    )


def test_submodules_are_reachable_when_only_the_package_is_imported():
    modules = [
        n for n in NAMES if n.isalpha() and n.islower() and n not in ("choose", "guide", "load")
    ]
    listed = ", ".join(f"unalike.{name}.__name__" for name in modules)
    found = in_a_new_process(f"import unalike; print({listed})")
    assert found == [f"unalike.{name}" for name in modules]


def spelled(group: TyperGroup, prefix: str = "") -> dict[str, list[str]]:
    """The options and arguments of every command; those of a group are its commands."""
    found = {}
    for name, command in group.commands.items():
        if isinstance(command, TyperGroup):
            found |= spelled(command, f"{prefix}{name} ")
            continue
        named = [
            word
            for p in command.params
            if p.param_type_name == "option"
            for word in (*p.opts, *p.secondary_opts)
        ]
        found[prefix + name] = sorted(
            named + [str(p.metavar) for p in command.params if p.param_type_name == "argument"]
        )
    return found


def test_options_are_the_agreed_ones_when_the_command_line_is_built():
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    assert spelled(group) == {name: sorted(words) for name, words in COMMANDS.items()}

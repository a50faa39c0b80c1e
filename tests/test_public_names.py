"""The names that users' code and scripts stand on. A change here is a change for them."""

import pytest
import typer
from typer.core import TyperGroup

import unalike
from unalike.cli.app import app

NAMES = [
    "Auto",
    "CADS",
    "GuidedPipeline",
    "IntervalGuidance",
    "Memory",
    "ParticleGuidance",
    "SPARKE",
    "SPELL",
    "Shield",
    "VendiGuidance",
    "__version__",
    "errors",
    "guide",
    "kernels",
    "load",
    "metrics",
    "scores",
]

COMMANDS = {
    "generate": [
        "--attempts",
        "--batch-size",
        "--compare",
        "--device",
        "--dtype",
        "--guidance-scale",
        "--json",
        "--memory",
        "--method",
        "--model",
        "--no-compare",
        "--num",
        "--on-violation",
        "--out",
        "--overwrite",
        "--quiet",
        "--seed",
        "--set",
        "--shield",
        "--shield-space",
        "--steps",
        "--strength",
        "-n",
        "-q",
        "--prompt",
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
        "--json",
        "--model",
        "--quiet",
        "--shield",
        "--space",
        "-q",
        "RUN",
    ],
    "models": ["--json"],
    "methods": ["--json"],
    "cite": ["METHOD"],
}


def test_names_are_the_agreed_ones_when_listed():
    assert dir(unalike) == NAMES
    assert sorted(unalike.__all__) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_name_can_be_had_when_asked_for(name):
    assert getattr(unalike, name) is not None


def test_message_lists_the_names_when_there_is_no_such_name():
    with pytest.raises(AttributeError, match="no attribute 'sparkle'; it has CADS, SPARKE"):
        unalike.sparkle  # noqa: B018


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

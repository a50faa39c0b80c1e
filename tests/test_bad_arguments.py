"""Bad arguments in Python: an error that names the argument, in the words of Python; and numbers of
numpy, which are numbers.

The cases follow from the declared options, so that a new one is tried without a line here.
"""

import ast
import copy
import json
import math
import re
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from unalike import load
from unalike.errors import Literal, Option, OptionError, UnalikeError, named
from unalike.guidance.methods import METHODS, build, described, options
from unalike.memory import Memory
from unalike.options import declared
from unalike.runs.memory.settings import (
    ExportSettings,
    MergeSettings,
    RemoveSettings,
    SearchSettings,
)
from unalike.runs.run_settings import RunSettings
from unalike.runs.score.settings import ScoreSettings
from unalike.runs.settings import GenerateSettings, parse_assignment
from unalike.runs.shield.settings import (
    AddSettings,
    BuildSettings,
    CheckSettings,
    VerifySettings,
    parse_radius,
)

SOURCE = Path(__file__).parents[1] / "src" / "unalike"
SETTINGS: dict[type, dict[str, Any]] = {
    GenerateSettings: {"prompts": ("cat",)},
    RunSettings: {"source": Path("prompts.txt")},
    ScoreSettings: {"folder": Path("images"), "reference": Path("real")},
    BuildSettings: {"images": ("x",), "out": Path("set"), "space": "pixels"},
    AddSettings: {"folder": Path("set"), "images": ("x",)},
    CheckSettings: {"folder": Path("set"), "images": ("x",)},
    VerifySettings: {"run": Path("run")},
    SearchSettings: {"file": Path("bank"), "text": "cat"},
    RemoveSettings: {"file": Path("bank"), "run": "monday"},
    MergeSettings: {"out": Path("all"), "files": ("bank",)},
    ExportSettings: {"file": Path("bank"), "out": Path("table")},
}
NEEDING = ("generations", "model", "prompts")
ODD = {
    "a word": "many",
    "true": True,
    "NaN": math.nan,
    "infinity": math.inf,
    "huge": 10**400,
    "a 0-d tensor": torch.tensor(1.0),
    "a 0-d array": np.array(1.0),
    "a numpy bool": np.bool_(True),
    "numpy NaN": np.float32("nan"),
    "a list": [1],
    "bytes": b"1",
    "an object": object(),
    "complex": 1j,
}
ODD_TEXTS = {
    "a number": 5,
    "bytes": b"x",
    "empty": "",
    "blank": " ",
    "a NUL": "a\0b",
    "half a character": "\udcff",
    "an object": object(),
    "a list of numbers": [1],
}


def odd_values(kind: Any, choices: tuple[Any, ...]) -> dict[str, Any]:
    if kind in (int, float):
        return ODD | ({"a fraction": 1.5, "numpy fraction": np.float64(1.5)} if kind is int else {})
    if kind is bool:
        return {"a word": "yes", "one": 1, "none": None}
    if kind is None:
        return {"a word": "nonsense", "a number": 5, "a list": [], "an array": np.ones(2)}
    return ODD_TEXTS | ({"text": "x" * 999} if kind is Path else {})


OPTIONS = [
    pytest.param(name, f.name, value, id=f"{name}.{f.name}-{what}")
    for name, method in METHODS.items()
    for f in options(method)
    for what, value in odd_values(f.metadata["kind"], f.metadata["choices"]).items()
]
FIELDS = [
    pytest.param(settings, f.name, value, id=f"{settings.__name__}.{f.name}-{what}")
    for settings in SETTINGS
    for f in declared(settings)
    for what, value in odd_values(f.metadata["kind"], f.metadata["choices"]).items()
]


@pytest.mark.parametrize(("name", "option", "value"), OPTIONS)
def test_option_of_a_method_is_refused_by_name(name, option, value):
    with pytest.raises(OptionError) as caught:
        METHODS[name](**{option: value})
    message = str(caught.value)
    assert message.startswith(f"{METHODS[name].__name__}: {option} is ")
    assert f"as in {METHODS[name].__name__}({option}=" in message
    assert "--" not in message.replace("'--", "")
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize(("settings", "option", "value"), FIELDS)
def test_setting_is_refused_by_name(settings, option, value):
    with pytest.raises(OptionError) as caught:
        settings(**{**SETTINGS[settings], option: value})
    message = str(caught.value)
    assert option in message
    assert "--" not in message
    assert len(message.splitlines()) == 1
    assert len(message) < 600


@pytest.mark.parametrize("kind", [np.int64, np.int32, np.uint8, np.float64, np.float32, np.float16])
@pytest.mark.parametrize("name", METHODS)
def test_numbers_of_numpy_are_numbers_in_methods(name, kind):
    for f in options(METHODS[name]):
        example = f.metadata["example"]
        if f.metadata["kind"] not in (int, float) or isinstance(example, str) or example is None:
            continue
        number: Any = kind(example)
        if f.metadata["kind"] is int and not issubclass(kind, np.integer):
            continue
        try:
            plain = METHODS[name](**{f.name: number.item()})
        except OptionError:
            continue  # the kind rounds it to something that is not allowed
        given = METHODS[name](**{f.name: number})
        assert given == plain
        json.dumps(described(given)["options"][f.name])


def test_numbers_of_numpy_are_numbers_in_settings():
    numbers: dict[str, Any] = {
        "num": np.int64(3),
        "seed": np.uint8(7),
        "steps": np.int32(5),
        "batch_size": np.int64(2),
        "guidance_scale": np.float32(2.5),
        "strength": np.float64(0.25),
    }
    settings = GenerateSettings(prompts=("cat",), **numbers)
    assert json.dumps([settings.num, settings.seed, settings.steps, settings.guidance_scale])
    assert (settings.num, settings.strength, type(settings.seed)) == (3, 0.25, int)
    asked: dict[str, Any] = {
        "images": ["x"],
        "out": "set",
        "radius": np.float32(2),
        "size": (np.int64(64), np.int32(32)),
    }
    built = BuildSettings(model="emoji", **asked)
    assert (built.radius, built.size, built.out) == (2.0, (64, 32), Path("set"))
    scored: dict[str, Any] = {"folder": "x", "k": np.int64(3)}
    assert ScoreSettings(**scored).k == 3


@pytest.mark.parametrize(
    "name",
    [
        "",
        " ",
        "emojy",
        "a\0b",
        "x" * 300,
        "\udcff",
        "a/b/c",
        "../..",
        5,
        None,
        b"emoji",
        [],
        {},
        1.5,
    ],
    ids=repr,
)
def test_model_is_refused_by_name(name):
    with pytest.raises(OptionError, match="model"):
        load(name)


@pytest.mark.parametrize("name", ["", "sparks", "SPARKE", 5, None, "\0"], ids=repr)
def test_method_is_refused_by_name(name):
    with pytest.raises(OptionError, match="method is "):
        build(name)


@pytest.mark.parametrize("text", ["", "=", ".", ".=", "a.b", "a.b=", " . = ", "a=b", "\0"])
def test_assignment_is_refused_by_name(text):
    with pytest.raises(OptionError, match="set is "):
        parse_assignment(text)


@pytest.mark.parametrize("text", ["", "x", "1,5", "--1", "\udcff"])
def test_radius_is_refused_by_name(text):
    with pytest.raises(OptionError, match="radius is "):
        parse_radius(text)


@pytest.mark.parametrize("size", [5, "x", (1,), (1, 2, 3), (0, 1), (1.5, 2), (True, 1), (10**9, 1)])
def test_size_is_refused_by_name(size):
    with pytest.raises(OptionError, match="size is "):
        BuildSettings(images=("x",), out=Path("set"), model="emoji", size=size)


@pytest.mark.parametrize("capacity", [0, -1, 1.5, True, "x", None, math.nan], ids=repr)
def test_capacity_is_refused_by_name(capacity):
    with pytest.raises(OptionError, match="capacity is "):
        Memory(capacity=capacity)


@pytest.mark.parametrize("latents", [torch.tensor(1.0), torch.ones(3), 5, None, [1.0]], ids=repr)
def test_latents_are_refused_by_name(latents):
    with pytest.raises(UnalikeError, match="latents is "):
        Memory().add("space", latents)


def test_message_keeps_its_options_when_it_is_part_of_another():
    inner = OptionError(named("{model} is {!r}", "{num}"))
    outer = named("cannot: {}; give {model='emoji'}, or {}", inner, Option("size", Literal("H W")))
    assert str(outer) == "cannot: model is '{num}'; give model='emoji', or size=H W"
    assert (
        outer.spelled(lambda o: f"<{o.name}>")
        == "cannot: <model> is '{num}'; give <model>, or <size>"
    )
    assert str(copy.deepcopy(OptionError(outer))) == str(outer)


def test_every_declared_option_has_help_and_an_example_that_is_allowed():
    for settings, base in SETTINGS.items():
        for f in fields(settings):
            if f.name == "size" or (settings is BuildSettings and f.name == "space"):
                continue
            assert f.metadata["help"].endswith((".", "]")), f.name
            example = f.metadata["example"]
            if example in (MISSING, None, ()):
                continue
            drawn = {"model": "emoji", "prompts": ("cat",)}  # what some options need beside them
            extra = drawn if settings is BuildSettings and f.name in NEEDING else {}
            extra |= {"image": Path("x.png")} if f.name == "image_strength" else {}
            extra |= {"format": "webp"} if f.name == "quality" else {}
            extra |= {"ray": "auto"} if f.name in ("ray_workers", "ray_gpus") else {}
            extra |= {"out": Path("new")} if f.name in ("shard", "merge") else {}
            settings(**{**base, **extra, f.name: example})


def messages(path: Path) -> list[str]:
    """The texts in the raise statements of a file."""
    tree = ast.parse(path.read_text("utf-8"))
    raised = (node for node in ast.walk(tree) if isinstance(node, ast.Raise) and node.exc)
    return [
        part.value
        for node in raised
        for part in ast.walk(node)
        if isinstance(part, ast.Constant) and isinstance(part.value, str)
    ]


@pytest.mark.parametrize(
    "path",
    [p for p in SOURCE.rglob("*.py") if "cli" not in p.parts],
    ids=lambda p: str(p.relative_to(SOURCE)),
)
def test_messages_outside_the_command_line_mention_no_flag(path):
    for text in messages(path):
        plain = re.sub(r"`[^`]*`?", "", text)  # whole commands may be named
        found = re.findall(r"(?<![\w-])--[a-z][a-z-]+", plain)
        assert not found or found == ["--discard"], text

"""Bad values of every option of every command: one sentence that names the flag, and no work done.

The cases follow from the options, so that a new option is tried without a line here.
"""

import inspect
import shutil
from pathlib import Path
from typing import Any

import pytest
import typer
from PIL import Image
from typer.core import TyperGroup

from unalike.cli import drawing, score
from unalike.cli.app import app
from unalike.memory import Memory
from unalike.runs.shield.build import build
from unalike.runs.shield.settings import BuildSettings

BASES = {
    "generate": ["cat"],
    "run": ["prompts.txt"],
    "seeds": ["cat"],
    "score": ["images"],
    "shield build": ["images", "--out", "new", "--space", "pixels"],
    "shield add": ["set", "images"],
    "shield check": ["set", "images"],
    "shield verify": ["run"],
    "memory search": ["bank", "cat"],
    "memory remove": ["bank"],
    "memory export": ["bank"],
}
LONG = "9" * 5000
NUMBERS = ["many", "", "nan", "inf", "-1", "99999999999999999999", "1e400", LONG, "0x10", "1,5"]
WHOLE = ["1.5", "1e3"]
TEXTS = ["", " ", "\udcff", "x\0y", "no such thing", "a" * 300]
PATHS = ["", "a" * 300, "x\udcff", "x\0y"]
FREE = {"--strength"}
"""Options without bounds of their own, whose methods have them."""
ALLOWED = {
    ("generate", "--prompt", "no such thing"),
    ("generate", "--prompt", "a" * 300),
    ("run", "--negative-prompt", "no such thing"),
    ("run", "--negative-prompt", "a" * 300),
    ("seeds", "--prompt", "no such thing"),
    ("seeds", "--prompt", "a" * 300),
    ("generate", "--negative-prompt", "no such thing"),
    ("generate", "--negative-prompt", "a" * 300),
    ("seeds", "--negative-prompt", "no such thing"),
    ("seeds", "--negative-prompt", "a" * 300),
    ("shield build", "--prompt", "no such thing"),
    ("shield build", "--prompt", "a" * 300),
    ("memory export", "--out", "no such thing"),
    ("memory remove", "--run", "no such thing"),
    ("memory remove", "--seed", "-1"),
    ("memory remove", "--seed", "99999999999999999999"),
    *(
        ("memory remove", flag, value)
        for flag in ("--text", "--item")
        for value in ("no such thing", "a" * 300)
    ),
}


def commands(group: TyperGroup, prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, command in group.commands.items():
        if isinstance(command, TyperGroup):
            found |= commands(command, f"{prefix}{name} ")
        else:
            found[prefix + name] = command
    return found


def bad_values(parameter: Any) -> list[str]:
    kind = parameter.metavar
    if kind in ("INTEGER", "NUMBER", "R|auto"):
        return NUMBERS + (WHOLE if kind == "INTEGER" else [])
    if kind == "H W":
        return []
    return PATHS if kind in ("DIR", "FILE") else TEXTS


GROUP = typer.main.get_command(app)
assert isinstance(GROUP, TyperGroup)
COMMANDS = commands(GROUP)
CASES = [
    (name, max(p.opts, key=len), value)
    for name, base in BASES.items()
    for p in COMMANDS[name].params
    if p.param_type_name == "option" and not p.is_flag
    for value in bad_values(p)
    if (name, max(p.opts, key=len), value) not in ALLOWED
]


def test_bases_are_all_commands_that_take_values():
    assert {
        *BASES,
        "models",
        "methods",
        "cite",
        "shield inspect",
        "memory inspect",
        "memory merge",
    } == set(COMMANDS)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A protected set of one image, by its pixels."""
    folder = tmp_path_factory.mktemp("built")
    Image.new("RGB", (8, 8), "green").save(folder / "green.png")
    asked = BuildSettings(
        images=(str(folder / "green.png"),), out=folder / "set", space="pixels", radius=0.1
    )
    return build(asked).folder


@pytest.fixture(autouse=True)
def place(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "images").mkdir()
    for i, colour in enumerate(("red", "blue")):
        Image.new("RGB", (8, 8), colour).save(tmp_path / "images" / f"{i}.png")
    shutil.copytree(built, tmp_path / "set")
    (tmp_path / "prompts.txt").write_text("cat\n", "utf-8")
    Memory.open(tmp_path / "bank", create=True).close()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path


def listed(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*"))


@pytest.mark.parametrize(
    ("command", "flag", "value"), CASES, ids=[f"{c} {f}={v[:12]!a}" for c, f, v in CASES]
)
def test_message_names_the_flag_when_its_value_is_bad(unalike, place, command, flag, value):
    before = listed(place)
    arguments = [f"{flag}={value}"]
    if flag == "--shield-space":
        arguments += ["--shield", "set"]
    if flag == "--attempts":
        arguments += ["--on-violation", "regenerate", "--shield", "set"]
    if command == "shield build" and flag in ("--prompt", "--generations", "--model"):
        arguments += ["--generations", "2"] if flag == "--prompt" else ["--prompt", "cat"]
        arguments += [] if flag == "--model" else ["--model", "emoji"]
    if flag == "--reference-prompts":
        arguments += ["--reference", "images"]
    code, out, err = unalike(*command.split(), *BASES[command], *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("unalike: ")
    assert len(err.splitlines()) == 1
    assert len(err) < 1000
    assert "Traceback" not in err
    of_run = command == "shield verify" and value == "no such thing"  # the run is looked at first
    assert of_run or flag in err or (flag == "--prompt" and "PROMPT" in err)
    name = flag.removeprefix("--").replace("-", "_")
    assert f"{name}=" not in err
    assert f" {name} is " not in err
    assert listed(place) == before


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        [""],
        [" "],
        ["\udcff"],
        ["c\0t"],
        ["cat", "cat"],
        ["cat", ""],
        ["cat", "--prompt", "cat"],
        ["cat", "--method", "sparke", "--method", "sparke"],
        ["cat", "--set", "sparke.strength"],
        ["cat", "--set", "sparke.=1"],
        ["cat", "--method", "sparke", "--set", "sparke.nonsense=1"],
        ["cat", "--method", "sparke", "--set", "sparke.embed=1"],
        ["cat", "--method", "sparke", "--set", "sparke.strength=nan"],
        ["cat", "--method", "sparke", "--set", "sparke.strength=true"],
        ["cat", "--method", "sparke", "--set", f"sparke.strength={LONG}"],
        ["cat", "--method", "sparke", "--set", "sparke.kernel=cubic"],
        ["cat", "--method", "sparke", "--set", "sparke.batch=3"],
        ["cat", "--method", "sparke", "--set", "sparke.region=0,0,2,2"],
        ["cat", "--method", "spell", "--set", "spell.radius=1e300"],
        ["cat", "--method", "interval", "--strength", "0.5"],
        ["cat", "--attempts", "5"],
        ["cat", "--on-violation", "refuse"],
        ["cat", "--strength", "1e9"],
        ["cat", "-n", "100000", "--prompt", "dog"],
        ["cat", "--seed", str(2**63 - 3)],
        ["cat", "--memory", "no/such/folder/bank"],
        ["cat", "--memory", "images"],
        ["cat", "--memory", "images/0.png"],
        ["cat", "--memory", "images/0.png/bank"],
        ["cat", "--out", "images/0.png"],
        ["cat", "--out", "images/0.png/out"],
        ["cat", "--out", "images"],
        ["cat", "--out", "images", "--overwrite"],
        ["cat", "--shield", "images"],
        ["cat", "--shield", "images/0.png"],
        ["cat", "--device", "gpu"],
        ["cat", "--device", "cuda:99"],
        ["cat", "--device", "meta:x"],
        ["cat", "--model", "images"],
        ["cat", "--model", "images/0.png"],
        ["cat", "--model", "nobody/nothing"],
        ["cat", "--nonsense"],
        ["cat", "--num"],
        ["unicorn riding a bicycle", "--model", "digits", "--steps", "1"],
    ],
    ids=lambda arguments: " ".join(arguments)[:60].encode("ascii", "backslashreplace").decode(),
)
def test_generate_refuses_in_one_sentence_and_writes_nothing(unalike, place, arguments):
    before = listed(place)
    code, out, err = unalike("generate", *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("unalike: ")
    assert len(err.splitlines()) == 1
    assert listed(place) == before


@pytest.mark.parametrize(
    ("assigned", "message"),
    [
        (
            ["nope.strength=1"],
            "--set is 'nope.strength=1', and there is no method 'nope'; allowed:",
        ),
        (["SPARKE.strength=1"], "no method 'SPARKE'; did you mean 'sparke'?"),
        (["sparke.strength=0.1", "sparke.strength=0.2"], "--set gives sparke.strength twice"),
    ],
)
def test_message_is_about_set_when_its_method_or_option_is_wrong(unalike, assigned, message):
    flags = [word for text in assigned for word in ("--set", text)]
    code, _, err = unalike("generate", "cat", "--method", "sparke", *flags)
    assert code == 2
    assert message in err
    assert "--method is" not in err


@pytest.mark.parametrize("region", ["0,0,2,2", "0.5,0,0.5,1"])
def test_message_names_the_option_of_a_method_as_typed_when_its_region_is_bad(unalike, region):
    code, _, err = unalike(
        "generate", "cat", "--method", "sparke", "--set", f"sparke.region={region}"
    )
    assert code == 2
    assert "--set sparke.region" in err
    assert "SPARKE" not in err


def test_message_names_the_flag_when_the_set_is_of_another_model(unalike, place):
    asked = ("--steps", "1", "-n", "1", "--model", "digits", "--shield", "latents")
    build(BuildSettings(images=("images",), out=Path("latents"), model="emoji", radius=1.0))
    code, _, err = unalike("generate", "3", *asked)
    assert code == 2
    assert "--shield protects latents of" in err
    assert "(pipe" not in err


def test_help_and_completion_are_there(unalike):
    assert unalike("-h").out == unalike("--help").out
    for name in COMMANDS:
        assert unalike(*name.split(), "-h").out.startswith(f"Usage: unalike {name}")
    assert "--show-completion" in unalike("--help").out


def test_no_help_is_written_twice():
    """The help of an option is that of its settings, so it cannot say something else."""
    for module, least in ((drawing, 25), (score, 10)):
        assert inspect.getsource(module).count("_flag(") >= least

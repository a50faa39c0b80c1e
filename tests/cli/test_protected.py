"""The command line with a protected set: exit codes and sentences."""

import json
from pathlib import Path

import pytest

from unalike.memory import Memory
from unalike.shields import Shield


@pytest.fixture
def generate(unalike, tiny_sd_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """`unalike generate` with the tiny model and the set `shield` around the image of seed 0, in a
    folder of its own.
    """
    common = (
        "generate",
        "--model",
        tiny_sd_folder,
        "--steps",
        2,
        "--method",
        "sparke",
        "--strength",
        0,
    )
    unalike(
        *common,
        "--quiet",
        "--memory",
        tmp_path / "bank",
        "--out",
        tmp_path / "probe",
        "-n",
        1,
        "cat",
    )
    memory = Memory.open(tmp_path / "bank")
    (space,) = memory.spaces()
    view = memory.view(space)
    assert view is not None
    Shield(view.latents.view(1, 4, 8, 8), space=space.split()[0], radius=0.5, ids=["mine"]).save(
        tmp_path / "shield"
    )
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: unalike(
        *common, "--shield", "shield", "--out", "out", "-n", 2, "cat", *arguments
    )


def test_exit_code_is_1_and_says_why_when_images_are_refused(generate, tmp_path: Path) -> None:
    code, out, err = generate("--on-violation", "refuse")
    assert code == 1
    assert "unalike: 1 image is inside the protected set 'shield' and not written" in err
    assert out.startswith("0 of 1 finished images are inside the protected set of 1: encoded again")
    assert "1 of 2 outside; 0 of 2 images moved out, 0 drawn again, 1 refused" in out
    assert [path.name for path in (tmp_path / "out" / "images").iterdir()] == ["00001.png"]


def test_exit_code_is_0_when_images_were_moved_or_drawn_again(generate) -> None:
    code, out, _ = generate("--on-violation", "move")
    assert (code, "1 of 2 images moved out" in out) == (0, True)
    code, out, _ = generate(
        "--on-violation", "regenerate", "--attempts", 2, "--overwrite", "--json"
    )
    assert (code, json.loads(out)["images"]["drawn_again"]) == (0, 1)


def test_exit_code_tells_whether_certificates_hold_when_verified(
    generate, unalike, tiny_sd_folder: Path, tmp_path: Path
) -> None:
    generate("--quiet", "--on-violation", "move")
    code, out, _ = unalike("shield", "verify", "out", "--model", tiny_sd_folder)
    assert code == 0
    lines = out.splitlines()
    assert "of 2 finished images" in lines[0]
    assert "Only latents are certified: " in lines[1]
    assert "1 moved out, 0 refused" in lines[1]
    assert lines[2].startswith("confirmed: all that run.json and samples.parquet say of 2 images")
    (tmp_path / "out" / "images" / "00001.png").unlink()
    code, out, err = unalike(
        "shield", "verify", "out", "--model", tiny_sd_folder, "--shield", "shield", "--json"
    )
    assert code == 1
    assert json.loads(out)["confirmed"] is False
    assert "do not hold: 1 difference" in err
    code, out, err = unalike("shield", "verify", "out", "--model", tiny_sd_folder, "--quiet")
    assert (code, out.count("\n")) == (1, 1)
    assert "00001.png cannot be read" in out


def test_exit_code_is_2_when_the_set_of_the_run_is_not_here(
    generate, unalike, tmp_path: Path
) -> None:
    generate("--quiet", "--on-violation", "move")
    (tmp_path / "shield").rename(tmp_path / "elsewhere")
    code, _, err = unalike("shield", "verify", "out", "--quiet")
    assert code == 2
    assert "give its folder, as in --shield DIR" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--on-violation", "redo"), "allowed: redraw or move or regenerate or refuse"),
        (("--attempts", 2, "--on-violation", "move"), "nothing is drawn again"),
    ],
)
def test_exit_code_is_2_when_the_policy_makes_no_sense(
    generate, arguments: tuple[object, ...], message: str
) -> None:
    code, _, err = generate(*arguments)
    assert code == 2
    assert message in err

"""`--edits` on the command line, with the shipped model."""

import json
from pathlib import Path

import pytest
from PIL import Image

EDITED = ("jpeg80", "half", "crop10")


@pytest.fixture
def run(unalike, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two hearts in `hearts`, drawn with a protected set `set` of latents around the first heart of
    another seed, edited by a crop.
    """
    monkeypatch.chdir(tmp_path)
    draw = ("generate", "heart", "--model", "emoji", "--steps", 4, "-n", 2, "--quiet")
    assert unalike(*draw, "--out", "plain").code == 0
    Path("mine").mkdir()
    with Image.open("plain/images/00000.png") as first:
        left = first.convert("RGB").crop((6, 6, 58, 58))
        left.resize((64, 64), Image.Resampling.BICUBIC).save("mine/crop.png")
    build = ("shield", "build", "mine", "--model", "emoji", "--radius", 0.01, "--out", "set")
    assert unalike(*build, "--quiet").code == 0
    assert unalike(*draw, "--out", "hearts", "--shield", "set").code == 0
    return Path("hearts")


def test_edits_are_told_and_exit_code_is_0_when_a_run_is_verified(unalike, run: Path) -> None:
    code, out, _ = unalike("shield", "verify", run, "--edits")
    lines = out.splitlines()
    assert (code, len(lines)) == (0, 6)
    assert lines[0].startswith("0 of 2 finished images are inside the protected set of 1")
    assert lines[2].startswith("confirmed: ")
    assert lines[3].startswith("After jpeg80 (saved as JPEG of quality 80) 0 of 2 images are ")
    assert lines[5].startswith("After crop10 (cropped by 10% at each side and enlarged) 1 of 2 ")
    code, out, _ = unalike("shield", "verify", run, "--edits", "--json")
    document = json.loads(out)
    assert (code, document["confirmed"], tuple(document["edits"])) == (0, True, EDITED)
    assert document["edits"]["crop10"]["inside"] == 1
    code, out, _ = unalike("shield", "verify", run, "--json")
    assert (code, json.loads(out)["edits"]) == (0, None)

    asked = ("shield", "check", "set", run, "--out", "found", "--edits")
    code, out, _ = unalike(*asked, "--fail-inside")
    assert code == 0
    told = [line.partition(" inside")[0] for line in lines[3:]]
    assert [line.partition(" inside")[0] for line in out.splitlines()[1:4]] == told
    record = json.loads(Path("found/check.json").read_text("utf-8"))
    assert [entry["inside_crop10"] for entry in record["checked"]].count(True) == 1
    for edit in EDITED:
        assert record["edits"][edit]["margin"] == pytest.approx(
            document["edits"][edit]["margin"], rel=1e-3, abs=1e-4
        )


def test_exit_code_is_2_when_nothing_would_be_printed_of_the_edits(unalike) -> None:
    code, out, err = unalike("shield", "verify", "hearts", "--edits", "--quiet")
    assert (code, out) == (2, "")
    assert "--quiet leaves out what --edits measures" in err

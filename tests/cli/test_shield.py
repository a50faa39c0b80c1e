import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.runs.score import folders

from unalike.runs.shield import reading
from unalike.shields import Shield


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("os.fsync", lambda handle: None)
    folders.write(tmp_path / "set", range(5))


BUILD = ("shield", "build", "set", "--space", "pixels", "--out", "out", "--device", "cpu")


def test_set_is_summed_up_when_it_is_built_extended_shown_and_used(unalike, tmp_path):
    code, out, err = unalike(*BUILD)
    assert code == 0
    assert out.startswith("added    5 vectors of 5 inputs; the set has 5\nradius   ")
    assert "measured: half the 5% quantile (" in out
    assert "Traceback" not in err
    folders.write(tmp_path / "more", [7, 0])
    (tmp_path / "more" / "torn.png").write_text("x")
    code, out, _ = unalike("shield", "add", "out", "more", "--skip-bad", "--device", "cpu")
    assert code == 0
    assert "skipped  more/torn.png (cannot identify" in out
    assert "added    1 vectors of 3 inputs; the set has 6" in out
    code, out, _ = unalike("shield", "inspect", "out")
    assert (code, out.splitlines()[0]) == (
        0,
        "vectors   6 of 3072 numbers in float32, 72.5 KiB in 2 files",
    )
    code, out, _ = unalike(
        "shield", "check", "out", "more/00.png", "--device", "cpu", "--out", "found"
    )
    assert code == 0
    assert out.startswith("1 of 1 images, as they are on disk, is inside: nearer than ")
    assert f"report   {Path('found/report.html')}" in out


def test_output_is_one_document_and_nothing_else_when_json_is_asked_for(unalike):
    code, out, err = unalike(*BUILD, "--json", "--radius", 2)
    document = json.loads(out)
    assert (code, err, document["count"], document["radius"]) == (0, "", 5, 2.0)
    code, out, err = unalike("shield", "inspect", "out", "--json")
    assert (code, err, json.loads(out)["checksum"]) == (0, "", document["checksum"])
    code, out, err = unalike(
        "shield", "check", "out", "set", "--json", "--out", "found", "--device", "cpu"
    )
    assert (code, err, json.loads(out)["inside"]) == (0, "", 5)
    code, out, err = unalike("shield", "add", "out", "set", "--json", "--device", "cpu")
    assert (code, err, json.loads(out)["added"]) == (0, "", 0)


def test_only_the_folder_is_printed_when_quiet(unalike):
    assert unalike(*BUILD, "--quiet") == (0, "out\n", "")
    assert unalike("shield", "add", "out", "set", "--quiet", "--device", "cpu") == (0, "out\n", "")
    assert unalike(
        "shield", "check", "out", "set", "--quiet", "--out", "found", "--device", "cpu"
    ) == (0, "found\n", "")


def test_exit_code_is_1_when_an_image_is_inside_and_that_is_to_fail(unalike, tmp_path):
    assert unalike(*BUILD, "--radius", 0.001).code == 0
    folders.write(tmp_path / "other", [30, 31])
    asked = ("--device", "cpu", "--quiet", "--overwrite", "--out", "found")
    assert unalike("shield", "check", "out", "other", "--fail-inside", *asked).code == 0
    assert unalike("shield", "check", "out", "set", *asked).code == 0
    assert unalike("shield", "check", "out", "set", "--fail-inside", *asked) == (1, "found\n", "")


def test_options_arrive_when_given(unalike, tiny_sd_folder):
    options = (
        "--model",
        tiny_sd_folder,
        "--size",
        16,
        24,
        "--dtype",
        "float16",
        "--radius",
        4,
        "--batch-size",
        2,
    )
    document = json.loads(
        unalike("shield", "build", "set", "--out", "out", "--device", "cpu", "--json", *options).out
    )
    assert (document["shape"], document["size"], document["dtype"], document["radius"]) == (
        [4, 8, 12],
        [16, 24],
        "float16",
        4,
    )
    drawn = ("--model", "digits", "--prompt", "3", "--prompt", "5", "--generations", 1, "--seed", 9)
    document = json.loads(
        unalike("shield", "build", "set", "--out", "other", "--device", "cpu", "--json", *drawn).out
    )
    source = document["radius_source"]["generated"]
    assert (source["prompts"], source["of_each"], source["seed"]) == (["3", "5"], 1, 9)


BAD = {
    "no model": (["build", "set", "--out", "o"], "model is missing"),
    "no radius": (
        ["build", "set", "--out", "o", "--space", "pixels", "--radius", "large"],
        "radius is 'large'",
    ),
    "radius of 0": (
        ["build", "set", "--out", "o", "--space", "pixels", "--radius", "0"],
        "radius is 0",
    ),
    "no image": (["build", "none", "--out", "o", "--space", "pixels"], "is not there"),
    "in the way": (["build", "set", "--out", "set", "--space", "pixels"], "holds other files"),
    "no set": (["add", "set", "set"], "no protected set"),
    "nothing to add": (["add", "set"], "IMAGES is missing"),
    "nothing to discard": (["add", "set", "--discard"], "nothing to discard"),
    "nothing to show": (["inspect", "set"], "no protected set"),
    "nothing to check against": (["check", "set", "set"], "no protected set"),
}


@pytest.mark.parametrize(("arguments", "message"), BAD.values(), ids=BAD)
def test_bad_input_is_one_sentence_and_exit_code_2_when_given(unalike, arguments, message):
    code, out, err = unalike("shield", *arguments)
    assert (code, out) == (2, "")
    assert err.strip().startswith("unalike: ")
    assert message in err
    assert len(err.split("\n")) <= 3  # the first may be that of the progress bar
    assert not Path("o").exists()


def test_same_command_goes_on_when_it_was_interrupted_with_ctrl_c(unalike, monkeypatch):
    take = reading._Job.take

    def interrupted(job, points, names):
        take(job, points, names)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(reading._Job, "take", interrupted)
        code, out, err = unalike(*BUILD, "--batch-size", 2, "--quiet")
    assert (code, out) == (130, "")
    assert "interrupted; the same command goes on with what is in out" in err
    assert Path("out/building.jsonl").exists()
    assert unalike(*BUILD, "--quiet").code == 0
    assert len(Shield.open("out")) == 5


def test_interrupted_addition_is_discarded_when_that_is_asked_for(unalike, monkeypatch, tmp_path):
    unalike(*BUILD, "--quiet")
    folders.write(tmp_path / "more", range(10, 14))
    with monkeypatch.context() as patch:
        patch.setattr(
            "unalike.shields.writer.Writer.finish",
            lambda writer: (_ for _ in ()).throw(KeyboardInterrupt),
        )
        assert unalike("shield", "add", "out", "more", "--device", "cpu", "--quiet").code == 130
    assert "addition" in unalike("shield", "inspect", "out").err
    code, out, _ = unalike("shield", "add", "out", "--discard")
    assert (code, out.split()[1:]) == (0, ["bytes", "discarded"])
    assert len(Shield.open("out")) == 5


def test_same_command_goes_on_when_it_was_killed(unalike, tmp_path):
    folders.write(tmp_path / "many", range(40))
    command = [
        "shield",
        "build",
        "many",
        "--space",
        "pixels",
        "--out",
        "out",
        "--device",
        "cpu",
        "--batch-size",
        "1",
        "--quiet",
    ]
    child = subprocess.Popen(
        [sys.executable, "-m", "unalike", *command],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    journal, end = tmp_path / "out" / "building.jsonl", time.monotonic() + 300
    while time.monotonic() < end and not (
        journal.exists() and journal.read_bytes().count(b"\n") > 3
    ):
        time.sleep(0.002)
    os.kill(child.pid, signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    assert journal.read_bytes().count(b"\n") < 40
    assert unalike(*command) == (0, "out\n", "")
    assert list(Shield.open("out").ids) == [f"many/{i:02}.png" for i in range(40)]

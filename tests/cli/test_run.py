import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from PIL import Image


@pytest.fixture
def run(unalike, tiny_sd_folder, tmp_path):
    """`unalike run` on a tiny model; returns code, out, err."""

    def called(source, *arguments):
        plain = ("--model", tiny_sd_folder, "--steps", 2, "-n", 2, "--out", tmp_path / "out")
        return unalike("run", source, *plain, *arguments)

    return called


def test_a_line_is_printed_for_each_image_when_json_is_asked_for(run, tmp_path):
    source = tmp_path / "prompts.csv"
    source.write_text('prompt,id,n\n"cat, red",first,2\ndog,second,1\n', "utf-8")
    code, out, _ = run(source, "--json")
    lines = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [(r["id"], r["prompt"], r["seed"], r["state"]) for r in lines] == [
        ("first", "cat, red", 0, "finished"),
        ("first", "cat, red", 1, "finished"),
        ("second", "dog", 0, "finished"),
    ]
    assert all((tmp_path / "out" / r["image"]).is_file() for r in lines)


def test_the_same_command_draws_nothing_when_all_is_there(run, tmp_path):
    source = tmp_path / "prompts.txt"
    source.write_text("cat\n", "utf-8")
    assert run(source, "--quiet")[:2] == (0, f"{tmp_path / 'out'}\n")
    assert run(source, "--json")[:2] == (0, "")


def test_the_printed_command_repeats_the_run(run, unalike, tmp_path):
    import shlex

    source = tmp_path / "my prompts.txt"
    source.write_text("cat\n--dog\n", "utf-8")
    assert run(source, "--quiet")[0] == 0
    record = json.loads((tmp_path / "out" / "run.json").read_text("utf-8"))
    program, *arguments = shlex.split(record["command"])
    assert program == "unalike"
    assert unalike(*arguments, "--out", tmp_path / "again", "--quiet")[0] == 0
    for path in (tmp_path / "out" / "images").iterdir():
        assert path.read_bytes() == (tmp_path / "again" / "images" / path.name).read_bytes()


@pytest.mark.parametrize(
    ("text", "arguments", "message"),
    [
        ("prompt,n\ncat,0\n,1\n", (), r"2 faults.*line 2 has n 0.*line 3 has no prompt"),
        ("prompt,hight\ncat,64\n", (), "hight"),
        ("prompt\ncat\n", ("--shard-size", 3), "--shard-size is 3; allowed"),
        ("prompt\ncat\n", ("--shard-size", 2000000, "--compare"), "leave one of them out"),
        ("prompt\ncat\n", ("--format", "gif"), "--format is 'gif'"),
        ("prompt\ncat\n", ("--quality", 90), "--quality is 90, and PNG has none"),
        ("prompt\ncat\n", ("--memory", "no/such/bank"), "--memory is 'no/such/bank'"),
    ],
)
def test_bad_input_is_told_in_flags_before_anything_is_made(
    run, tmp_path, text, arguments, message
):
    import re

    source = tmp_path / "prompts.csv"
    source.write_text(text, "utf-8")
    code, out, err = run(source, *arguments)
    assert (code, out) == (2, "")
    assert re.search(message, err, re.DOTALL), err
    assert not (tmp_path / "out").exists()


def test_a_missing_file_is_told_when_it_is_not_there(run, tmp_path):
    code, _, err = run(tmp_path / "none.csv")
    assert code == 2
    assert "none.csv" in err


def test_standard_input_is_read_when_asked_for(tiny_sd_folder, tmp_path):
    command = [sys.executable, "-m", "unalike", "run", "-", "--model", str(tiny_sd_folder)]
    command += ["--steps", "2", "-n", "1", "--out", str(tmp_path / "out"), "--json"]
    done = subprocess.run(command, input="cat\r\ndog\r\n", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["prompt"] for line in done.stdout.splitlines()] == ["cat", "dog"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_batch_is_finished_and_the_way_on_told_when_interrupted(
    tiny_sd_folder, tmp_path, number
):
    source = tmp_path / "prompts.txt"
    source.write_text("\n".join(f"cat {i}" for i in range(2000)), "utf-8")
    command = [sys.executable, "-m", "unalike", "run", str(source), "-n", "1", "--steps", "2"]
    command += ["--model", str(tiny_sd_folder), "--out", str(tmp_path / "out")]
    command += ["--batch-size", "2"]
    listening = partial(signal.signal, number, signal.SIG_DFL)
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        preexec_fn=listening,
    ) as process:
        while not (tmp_path / "out" / "images" / "00003.png").exists():
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(number)
        _, err = process.communicate()
    assert process.returncode == 130
    assert "Traceback" not in err
    assert "go on with: unalike run" in err
    drawn = len(list((tmp_path / "out" / "images").glob("*.png")))
    assert drawn % 2 == 0, "the batch is finished"
    assert f"{drawn:,} of 2,000 images are in" in err


def test_an_image_is_drawn_again_when_another_is_to_be_like_it(unalike, tiny_sd_folder, tmp_path):
    plain = ("--model", tiny_sd_folder, "--steps", 2, "--seed", 3, "-n", 2, "--quiet")
    assert unalike("generate", "cat", *plain, "--strength", 0, "--out", tmp_path / "a")[0] == 0
    image = tmp_path / "a" / "images" / "00001.png"
    again = ("--like", image, "--model", tiny_sd_folder, "--quiet")
    assert unalike("generate", *again, "--out", tmp_path / "b")[0] == 0
    assert unalike("generate", *again, "--seed", 3, "--out", tmp_path / "c")[0] == 0
    same, other = (pixels(tmp_path / name / "images" / "00000.png") for name in "bc")
    assert same == pixels(image)
    assert other == pixels(tmp_path / "a" / "images" / "00000.png")


def pixels(path: Path) -> bytes:
    with Image.open(path) as image:
        return image.tobytes()


def test_prompts_come_from_a_file_when_it_is_given(unalike, tiny_sd_folder, tmp_path):
    source = tmp_path / "prompts.txt"
    source.write_text("cat\n--dog\n", "utf-8")
    plain = ("--model", tiny_sd_folder, "--steps", 2, "-n", 1, "--quiet")
    given = ("--prompts-file", source, "--out", tmp_path / "out")
    assert unalike("generate", "owl", *given, *plain)[0] == 0
    record = json.loads((tmp_path / "out" / "run.json").read_text("utf-8"))
    assert record["prompts"] == ["owl", "cat", "--dog"]

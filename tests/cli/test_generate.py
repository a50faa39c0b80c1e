import json
import os
import signal
import subprocess
import sys
import time
from functools import partial

import pytest
import torch

from unalike.memory import Memory


@pytest.fixture
def generate(unalike, tiny_sd_folder, tmp_path):
    """`unalike generate` with the tiny model, three steps and the folder `out`."""

    def run(*arguments):
        return unalike(
            "generate",
            "--model",
            tiny_sd_folder,
            "--steps",
            3,
            "--out",
            tmp_path / "out",
            *arguments,
        )

    return run


def test_places_of_the_pictures_are_printed_when_finished(generate, tmp_path):
    code, out, err = generate("cat", "-n", 2, "--compare")
    assert code == 0
    for name in ("images", "grid.png", "report.html"):
        assert str(tmp_path / "out" / name) in out
        assert (tmp_path / "out" / name).exists()
    assert "Traceback" not in err


def test_output_is_one_document_and_nothing_else_when_json_is_asked_for(generate, tmp_path):
    code, out, err = generate("cat", "dog", "-n", 1, "--json")
    assert (code, err) == (0, "")
    document = json.loads(out)
    assert document["out"] == str(tmp_path / "out")
    assert document["finished"] is True
    assert [(tmp_path / "out" / f).exists() for f in document["files"]] == [True, True]


def test_only_the_folder_is_printed_when_quiet(generate, tmp_path):
    assert generate("cat", "-n", 1, "--quiet") == (0, f"{tmp_path / 'out'}\n", "")


def test_options_arrive_when_given(generate):
    arguments = (
        "--method",
        "spell",
        "--method",
        "sparke",
        "--strength",
        0.2,
        "--set",
        "spell.radius=7.5",
        "--seed",
        4,
        "--batch-size",
        1,
    )
    document = json.loads(
        generate("cat", "-n", 2, *arguments, "--guidance-scale", 2, "--no-compare", "--json").out
    )
    spell, sparke = document["methods"]
    assert (spell["name"], spell["options"]["radius"], sparke["options"]["strength"]) == (
        "spell",
        7.5,
        0.2,
    )
    assert (
        document["seeds"],
        document["steps"],
        document["guidance_scale"],
        document["batch_size"],
    ) == ([4, 5], 3, 2.0, 1)


@pytest.mark.parametrize("method", ["cads", "interval", "particle"])
def test_images_are_drawn_by_any_method_of_the_table(generate, method):
    document = json.loads(
        generate("cat", "-n", 2, "--method", method, "--guidance-scale", 3, "--json").out
    )
    assert document["finished"] is True
    assert document["guidance"][0]["active"] > 0


BAD = {
    "unknown model": (["cat", "--model", "emojy"], "did you mean 'emoji'"),
    "unknown method": (["cat", "--method", "sparks"], "did you mean 'sparke'"),
    "unknown option": (
        ["cat", "--method", "sparke", "--set", "sparke.strenght=1"],
        "did you mean 'strength'",
    ),
    "malformed option": (["cat", "--set", "strength"], "METHOD.OPTION=VALUE"),
    "option of a method that is not used": (
        ["cat", "--method", "sparke", "--set", "spell.radius=1"],
        "not among the methods used",
    ),
    "empty prompt": ([""], "PROMPT is '', which is empty"),
    "no image": (["cat", "-n", "0"], "--num is 0"),
    "negative strength": (["cat", "--strength=-1"], "--strength is -1"),
    "radius zero": (
        ["cat", "--method", "spell", "--set", "spell.radius=0"],
        "--set spell.radius is 0",
    ),
    "negative radius": (
        ["cat", "--method", "spell", "--set", "spell.radius=-2"],
        "--set spell.radius is -2",
    ),
    "bandwidth zero": (
        ["cat", "--method", "sparke", "--set", "sparke.bandwidth=0"],
        "--set sparke.bandwidth is 0",
    ),
    "start after stop": (
        ["cat", "--method", "spell", "--set", "spell.start=0.9", "--set", "spell.stop=0.1"],
        "start must be below stop",
    ),
    "batch of none": (["cat", "--batch-size", "0"], "--batch-size is 0"),
    "no steps": (["cat", "--steps", "0"], "--steps is 0"),
    "no shield": (["cat", "--shield", "no/such/shield"], "shield"),
    "folder in place of a memory": (["cat", "--memory", "."], "memory"),
}


@pytest.mark.parametrize(("arguments", "message"), BAD.values(), ids=BAD)
def test_bad_input_is_one_sentence_and_exit_code_2_when_given(
    generate, tmp_path, arguments, message
):
    code, out, err = generate("--quiet", *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("unalike: ")
    assert message in err
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_exit_code_is_2_when_the_output_folder_is_not_empty(generate, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("x")
    for arguments, message in (((), "not empty"), (("--overwrite",), "no run of unalike wrote")):
        code, _, err = generate("cat", "--quiet", *arguments)
        assert code == 2
        assert message in err
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["mine.txt"]


def test_exit_code_is_2_when_the_output_folder_cannot_be_written(unalike, tiny_sd_folder, tmp_path):
    (tmp_path / "file").write_text("x")
    code, out, err = unalike(
        "generate", "cat", "--model", tiny_sd_folder, "--out", tmp_path / "file" / "out", "--quiet"
    )
    assert (code, out) == (2, "")
    assert "cannot be written" in err


def test_exit_code_is_2_when_the_memory_is_of_another_model(generate, tmp_path):
    other = Memory()
    other.add(
        "AutoencoderKL-0123456789/4x8x8 text-0123456789/16",
        torch.ones(1, 4, 8, 8),
        prompts=torch.ones(1, 16),
    )
    other.save(tmp_path / "bank")
    before = (tmp_path / "bank").read_bytes()
    code, out, err = generate("cat", "--memory", tmp_path / "bank", "--quiet")
    assert (code, out) == (2, "")
    assert "another model" in err
    assert (tmp_path / "bank").read_bytes() == before


def test_exit_code_is_2_when_the_memory_is_damaged(generate, tmp_path):
    Memory().save(tmp_path / "bank")
    (tmp_path / "bank").write_bytes(b"x" * 200 + (tmp_path / "bank").read_bytes()[200:])
    code, out, err = generate("cat", "--memory", tmp_path / "bank", "--quiet")
    assert (code, out) == (2, "")
    assert "bank" in err


def test_exit_code_is_1_and_the_step_is_named_when_the_model_returns_nan(
    unalike, tiny_sd, tmp_path
):
    torch.nn.init.constant_(tiny_sd.unet.conv_out.bias, float("nan"))
    tiny_sd.save_pretrained(tmp_path / "broken")
    code, out, err = unalike(
        "generate",
        "cat",
        "--model",
        tmp_path / "broken",
        "--steps",
        3,
        "--out",
        tmp_path / "out",
        "--quiet",
    )
    assert (code, out) == (1, "")
    assert "step 0 of 3" in err


def test_finished_images_stay_when_interrupted_with_ctrl_c(tiny_sd_folder, tmp_path):
    command = [
        sys.executable,
        "-m",
        "unalike",
        "generate",
        "cat",
        "-n",
        "5000",
        "--batch-size",
        "1",
        "--steps",
        "2",
    ]
    command += ["--model", str(tiny_sd_folder), "--out", str(tmp_path / "out")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": environment}
    listening = partial(
        signal.signal, signal.SIGINT, signal.SIG_DFL
    )  # a background job of a shell, as tests may be, ignores Ctrl-C
    with subprocess.Popen(command, **pipes, preexec_fn=listening) as process:
        second = tmp_path / "out" / "images" / "00001.png"
        while not second.exists() and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate()
    assert process.returncode == 130
    assert "Traceback" not in err
    assert f"images are in {tmp_path / 'out'}" in err
    record = json.loads((tmp_path / "out" / "run.json").read_text("utf-8"))
    assert record["finished"] is False
    assert (
        2
        <= record["images"]["finished"]
        == len(list((tmp_path / "out" / "images").glob("*.png")))
        < 5000
    )
    assert "report.html" in out
    assert (tmp_path / "out" / "report.html").exists()

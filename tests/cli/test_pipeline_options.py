"""The options of the pipeline as they are typed: schedulers, LoRAs, sizes, start images, files."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from importlib import resources
from pathlib import Path

import pytest
from PIL import Image
from tests import tiny
from tests.checkpoints import write_checkpoint
from tests.pipelines.test_loras import write_lora

pytestmark = [  # of numpy, about diffusers' schedulers
    pytest.mark.filterwarnings(f"ignore:__{name}__:DeprecationWarning")
    for name in ("array", "array_wrap")
]
TURBO = Path(str(resources.files("unalike.models"))) / "emoji" / "turbo"


@pytest.fixture(scope="module")
def lora(tiny_sd_folder, tmp_path_factory) -> Path:
    return write_lora(tmp_path_factory.mktemp("lora"), tiny.load(tiny_sd_folder), 0)


@pytest.fixture
def start(tmp_path) -> Path:
    Image.linear_gradient("L").resize((16, 24)).save(tmp_path / "start.png")
    return tmp_path / "start.png"


def pixels(folder: Path) -> list[bytes]:
    found = []
    for path in sorted((folder / "images").glob("*.png")):
        with Image.open(path) as image:
            found.append(image.tobytes())
    return found


def test_printed_command_repeats_the_images_when_all_options_are_combined(
    unalike, tiny_sd_folder, lora, start, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny_sd_folder, tmp_path / "model")
    shutil.copy(lora, tmp_path / "style.safetensors")
    given = ["--model", "model", "--scheduler", "euler_a", "--lora", "style.safetensors:0.125"]
    given += ["--negative-prompt", "-dog", "--image", "start.png", "--image-strength", 0.6]
    given += ["--height", 32, "--steps", 5, "--method", "sparke", "--strength", 0.3]
    code, out, err = unalike("generate", "cat", "-n", 2, "--out", "out", "--json", *given)
    assert (code, err) == (0, "")
    record = json.loads(out)
    assert record["model"]["pipeline"] == "StableDiffusionImg2ImgPipeline"
    assert record["model"]["scheduler"] == "EulerAncestralDiscreteScheduler"
    assert (record["scheduler"], record["negative_prompt"]) == ("euler_a", "-dog")
    assert (record["height"], record["width"], record["image_strength"]) == (32, None, 0.6)
    (used,) = record["lora"]
    assert (used["name"], used["scale"]) == ("style.safetensors", 0.125)
    assert record["image"]["name"] == "start.png"
    with Image.open(tmp_path / "out" / "images" / "00000.png") as image:
        assert image.size == (16, 32)
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert "euler_a" in page
    assert "style.safetensors" in page

    words = shlex.split(record["command"])
    monkeypatch.chdir(tmp_path / "model")
    assert unalike(*words[1:], "--out", tmp_path / "again", "--quiet").code == 0
    assert pixels(tmp_path / "again") == pixels(tmp_path / "out")


def test_images_are_bit_identical_when_a_lora_has_scale_zero(
    unalike, tiny_sd_folder, lora, tmp_path
):
    for out, given in (("with", ["--lora", f"{lora}:0"]), ("without", [])):
        asked = ("--steps", 3, "--model", tiny_sd_folder, "--out", tmp_path / out, "-q", *given)
        assert unalike("generate", "cat", "-n", 2, *asked).code == 0
    assert pixels(tmp_path / "with") == pixels(tmp_path / "without")


def test_images_are_those_of_emoji_turbo_when_its_lora_is_given(unalike, tmp_path):
    file = TURBO / "emoji-turbo-4.safetensors"
    by_hand = ["--model", "emoji", "--lora", file, "--steps", 4, "--guidance-scale", 1]
    for out, given in (("named", ["--model", "emoji-turbo"]), ("by hand", by_hand)):
        asked = (*given, "--scheduler", "ddim", "--out", tmp_path / out, "--quiet")
        assert unalike("generate", "red heart", "-n", 2, *asked).code == 0
    assert pixels(tmp_path / "named") == pixels(tmp_path / "by hand")


def test_images_are_those_of_the_folder_when_the_model_is_one_file(
    unalike, tiny_sd_folder, tiny_sd, tmp_path
):
    file = write_checkpoint(tiny_sd, tmp_path / "tiny.safetensors")
    config = tmp_path / "config"
    shutil.copytree(tiny_sd_folder, config, ignore=shutil.ignore_patterns("*.safetensors"))
    single = ["--model", file, "--model-config", config]
    for out, given in (("file", single), ("folder", ["--model", tiny_sd_folder])):
        asked = (*given, "--steps", 3, "--out", tmp_path / out, "--quiet")
        assert unalike("generate", "cat", "-n", 2, *asked).code == 0
    assert pixels(tmp_path / "file") == pixels(tmp_path / "folder")
    record = json.loads((tmp_path / "file" / "run.json").read_text("utf-8"))
    assert record["model"]["name"] == "tiny.safetensors"
    assert f"--model {file} --model-config {config}" in record["command"]


def test_seeds_are_chosen_when_all_options_are_combined(
    unalike, tiny_sd_folder, lora, start, tmp_path
):
    given = ["--model", tiny_sd_folder, "--scheduler", "heun", "--lora", f"{lora}:0.5"]
    given += ["--negative-prompt", "dog", "--height", 8, "--width", 16, "--image", start]
    asked = ("-n", 2, "--candidates", 4, "--steps", 5, "--json")
    code, out, err = unalike("seeds", "cat", "owl", *asked, *given)
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert [len(row["seeds"]) for row in found["prompts"]] == [2, 2]
    assert (found["scheduler"], found["height"], found["negative_prompt"]) == ("heun", 8, "dog")


BAD = {
    "unknown scheduler": (["--scheduler", "euler-a"], "did you mean 'euler_a'?"),
    "scheduler of flows": (["--scheduler", "flow_euler"], "--scheduler is 'flow_euler'"),
    "no such LoRA": (["--lora", "none.safetensors"], "--lora is 'none.safetensors': there is no"),
    "scale of a LoRA": (["--lora", "x.safetensors:much"], "allowed: FILE or FILE:SCALE"),
    "LoRA that is an image": (["--lora", "start.png"], "it is no safetensors file"),
    "LoRA of another model": (["--lora", "lora.safetensors"], "which does not fit"),
    "odd height": (["--height", "63"], "--height is 63; allowed with"),
    "no such image": (["--image", "none.png"], "--image is 'none.png', which cannot be read"),
    "image that is none": (["--image", "lora.safetensors"], "which cannot be read"),
    "strength alone": (["--image-strength", "0.5"], "there is no image; give one, as in --image"),
    "strength too large": (
        ["--image", "start.png", "--image-strength", "2"],
        "--image-strength is 2",
    ),
    "no step left": (
        ["--image", "start.png", "--image-strength", "0.1", "--steps", "5"],
        "no step is left; give at least --steps 10",
    ),
    "negative prompt without guidance": (
        ["--negative-prompt", "dog", "--guidance-scale", "1"],
        "--negative-prompt is 'dog', which does nothing with --guidance-scale 1",
    ),
    "configuration of a name": (["--model-config", "emoji"], "--model-config is 'emoji'"),
    "model that is a LoRA": (["--model", "lora.safetensors"], "which is a LoRA; give"),
    "model that is a pickle": (["--model", "model.ckpt"], "a pickle, which may run any program"),
}


@pytest.mark.parametrize("command", ["generate", "seeds"])
@pytest.mark.parametrize("case", BAD)
def test_bad_option_ends_in_one_sentence_and_no_folder(
    unalike, lora, start, tmp_path, monkeypatch, case, command
):
    arguments, message = BAD[case]
    monkeypatch.chdir(tmp_path)
    shutil.copy(lora, "lora.safetensors")
    Path("model.ckpt").write_bytes(b"\x80\x04.")
    before = sorted(tmp_path.iterdir())
    code, out, err = unalike(command, "cat", *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_names_are_completed_when_completion_is_installed(tmp_path):
    program = tmp_path / "bin" / "unalike"
    program.parent.mkdir()
    program.write_text(f"#!{sys.executable}\nfrom unalike.cli.app import main\nmain()\n")
    program.chmod(0o755)
    paths = {"PATH": f"{program.parent}:{os.environ['PATH']}", "PYTHONPATH": ":".join(sys.path)}
    environment = {**os.environ, **paths, "HOME": str(tmp_path), "SHELL": "/bin/bash"}
    install = [
        "bash",
        "--norc",
        "-c",
        "unalike --install-completion bash && true",
    ]  # bash stays its parent
    subprocess.run(install, env=environment, check=True, capture_output=True)
    script = """
    source ~/.bashrc
    for words in 'unalike gen' 'unalike generate x --scheduler dpmpp_2m_k' \
                 'unalike generate x --model emoji-f'; do
        COMP_WORDS=($words); COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
        _unalike_completion unalike; echo "${COMPREPLY[@]}"
    done
    """
    done = subprocess.run(
        ["bash", "--norc", "-c", script],
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout.splitlines()[:2] == ["generate", "dpmpp_2m_karras"]
    assert done.stdout.splitlines()[-1] == "emoji-flow"

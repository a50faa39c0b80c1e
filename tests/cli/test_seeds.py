import json
from typing import Any

import pytest
import torch

from unalike import choose, load
from unalike.runs.seeds_settings import MOST_CANDIDATES, OBJECTIVES, QUALITIES
from unalike.selection.greedy import MOST

QUICK = ("--steps", "2", "-n", "2", "--candidates", "3", "--device", "cpu")


def test_seeds_are_those_that_choose_finds(unalike: Any):
    code, out, err = unalike("seeds", "heart", *QUICK, "--quiet")
    assert (code, err) == (0, "")
    choice = choose(load("emoji"), ["heart"], num=2, candidates=3, num_inference_steps=2)
    assert [int(seed) for seed in out.split()] == choice.seeds


def test_each_prompt_has_a_line_and_json_is_one_document(unalike: Any):
    lines = unalike("seeds", "heart", "tree", *QUICK).out.splitlines()
    assert [line.partition(": ")[0] for line in lines] == ["heart", "tree"]
    document = json.loads(unalike("seeds", "heart", "tree", *QUICK, "--json").out)
    assert [row["prompt"] for row in document["prompts"]] == ["heart", "tree"]
    shown = [line.partition(": ")[2] for line in lines]
    assert [" ".join(map(str, row["seeds"])) for row in document["prompts"]] == shown
    assert (document["model"], document["calls"], document["steps"]) == ("emoji", 6, 2)


def test_classes_are_prompts_when_the_model_draws_classes(unalike: Any):
    code, out, err = unalike("seeds", "3", "--model", "digits", *QUICK)
    assert (code, err) == (0, "")
    assert len(out.split()) == 2


def test_settings_list_what_there_is():
    """They are listed again there, since reading the command line imports no torch."""
    from unalike.attach.run.candidates import QUALITIES as THERE
    from unalike.selection import OBJECTIVES as CHOICES

    assert tuple(CHOICES) == OBJECTIVES
    assert THERE == QUALITIES
    assert MOST == MOST_CANDIDATES


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-n", "9", "--candidates", "8"], "--candidates is 8 and --num is 9; there must be at"),
        (["--step", "0"], "--step is 0; allowed: a whole number at least 1 or auto, as in --step"),
        (["--step", "9", "--steps", "4"], "--step is 9 and the call has 4 evaluations of the"),
        (
            ["--objective", "dpp"],
            "--objective is 'dpp'; allowed: farthest or log-determinant or vendi",
        ),
        (["--quality", "consistency", "--step", "1"], "and --step is 1; give --step 2, or"),
        (["--shield-space", "pixels"], "--shield-space is 'pixels', and there is no protected"),
        (["--memory", "no.memory"], "no.memory"),
    ],
)
def test_sentence_names_the_flags_when_an_option_is_not_allowed(
    unalike: Any, options: list[str], message: str
):
    code, out, err = unalike("seeds", "heart", *options)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


def test_generated_images_are_those_of_the_recorded_seeds(unalike: Any, tmp_path: Any):
    import pyarrow.parquet as pq
    from PIL import Image

    folder = tmp_path / "out"
    code, _, err = unalike(
        "generate", "heart", "-n", "2", "--candidates", "3", "--steps", "2", "--strength", "0",
        "--method", "sparke", "--device", "cpu", "--out", str(folder), "--quiet",
    )  # fmt: skip
    assert (code, err) == (0, "")
    rows = pq.read_table(folder / "samples.parquet").to_pylist()
    record = json.loads((folder / "run.json").read_text())
    assert (record["candidates"], record["seeds"]) == (3, None)
    assert "--candidates 3" in record["command"]
    pipe = load("emoji")
    generators = [torch.Generator().manual_seed(row["seed"]) for row in rows]
    plain = pipe(
        ["heart"] * 2, num_inference_steps=2, guidance_scale=record["guidance_scale"],
        generator=generators,
    ).images  # fmt: skip
    for row, image in zip(rows, plain, strict=True):
        with Image.open(folder / row["image"]) as drawn:
            difference = torch.tensor(list(drawn.tobytes())).int() - torch.tensor(
                list(image.tobytes())
            )
        assert difference.abs().max() <= 1


def test_unguided_images_are_of_the_seeds_as_they_are_when_seeds_are_chosen(
    unalike: Any, tmp_path: Any
):
    from PIL import Image

    common = ("heart", "-n", "2", "--method", "sparke", "--steps", "2", "--device", "cpu", "-q")
    for name, candidates in (("chosen", "3"), ("plain", "1")):
        folder = str(tmp_path / name)
        code, _, err = unalike(
            "generate", *common, "--compare", "--candidates", candidates, "--out", folder
        )
        assert (code, err) == (0, "")
    for file in ("00000.png", "00001.png"):
        plain, other = (tmp_path / name / "unguided" / file for name in ("plain", "chosen"))
        with Image.open(plain) as image, Image.open(other) as same:
            assert image.tobytes() == same.tobytes()

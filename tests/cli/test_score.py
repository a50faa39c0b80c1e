import json

import pytest
from tests.runs.score import folders

from unalike.runs.score import images as images_module


@pytest.fixture
def score(unalike, tmp_path):
    """`unalike score` of five pictures into the folder `out`."""
    folders.write(tmp_path / "set", range(5))

    def run(*arguments):
        return unalike(
            "score",
            tmp_path / "set",
            "--out",
            tmp_path / "out",
            "--bootstrap",
            100,
            "--device",
            "cpu",
            *arguments,
        )

    return run


def test_scores_and_the_place_of_the_report_are_printed_when_finished(score, tmp_path):
    code, out, err = score("--reference", tmp_path / "set", "--k", 2)
    assert code == 0
    assert "Vendi score" in out
    assert "precision                     1 (1 to 1)" in out
    assert "note: The Fréchet distance is of 5 images" in out
    assert f"report   {tmp_path / 'out' / 'report.html'}" in out
    assert (tmp_path / "out" / "report.html").exists()
    assert "Traceback" not in err


def test_output_is_one_document_and_nothing_else_when_json_is_asked_for(score, tmp_path):
    code, out, err = score("--json")
    assert (code, err) == (0, "")
    document = json.loads(out)
    assert document.pop("out") == str(tmp_path / "out")
    assert document == json.loads((tmp_path / "out" / "score.json").read_text("utf-8"))


def test_only_the_folder_is_printed_when_quiet(score, tmp_path):
    assert score("--quiet") == (0, f"{tmp_path / 'out'}\n", "")


def test_options_arrive_when_given(score, tmp_path):
    (tmp_path / "p.txt").write_text("".join(f"{i:02}.png\tcat\n" for i in range(5)))
    prompts = ("--prompts", tmp_path / "p.txt", "--reference-prompts", tmp_path / "p.txt")
    numbers = ("--k", 3, "--radius", 0.5, "--seed", 4, "--batch-size", 2)
    document = json.loads(
        score(
            "--reference", tmp_path / "set", *prompts, "--features", "emoji", *numbers, "--json"
        ).out
    )
    assert document["settings"] == {
        "k": 3,
        "radius": 0.5,
        "seed": 4,
        "bootstrap": 100,
        "batch_size": 2,
    }
    assert (document["features"]["name"], document["prompts"]["count"]) == ("emoji", 1)
    here = tmp_path
    assert document["command"].startswith(
        f"unalike score {here}/set --reference {here}/set --prompts {here}/p.txt "
        f"--reference-prompts {here}/p.txt --features emoji --k 3"
    )


BAD = {
    "no folder": (["no/such/folder"], "is no folder"),
    "unknown features": (["set", "--features", "pixel"], "did you mean 'pixels'"),
    "no file of prompts": (["set", "--prompts", "none.csv"], "it is not there"),
    "no reference": (["set", "--reference", "none"], "is no folder"),
    "radius without a reference": (["set", "--radius", "1"], "no reference"),
    "no redraws to speak of": (["set", "--bootstrap", "3"], "at least 100 redraws"),
    "prompts of other files": (["set", "--prompts", "other.txt"], "5 of 5 images have no prompt"),
    "unreadable image": (["bad"], "--skip-bad"),
    "no such device": (["set", "--device", "cuda:99"], "device is 'cuda:99'"),
    "nothing to load": (["set", "--features", "clip:set"], "--features clip:FOLDER"),
}


@pytest.mark.parametrize(("arguments", "message"), BAD.values(), ids=BAD)
def test_bad_input_is_one_sentence_and_exit_code_2_when_given(
    unalike, tmp_path, monkeypatch, arguments, message
):
    monkeypatch.chdir(tmp_path)
    folders.write(tmp_path / "set", range(5))
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "x.png").write_text("x")
    folders.picture(0).save(tmp_path / "bad" / "y.png")
    (tmp_path / "other.txt").write_text("a.png\tcat\n")
    code, out, err = unalike("score", *arguments, "--out", tmp_path / "out", "--quiet")
    assert (code, out) == (2, "")
    assert err.startswith("unalike: ")
    assert message in err
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_exit_code_is_130_and_nothing_is_left_when_interrupted_with_ctrl_c(
    score, monkeypatch, tmp_path
):
    read, seen = images_module.read_image, []

    def interrupted(path):
        seen.append(path)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return read(path)

    monkeypatch.setattr(images_module, "read_image", interrupted)
    code, out, err = score("--quiet")
    assert (code, out) == (130, "")
    assert "Traceback" not in err
    assert len(seen) == 3
    assert not (tmp_path / "out").exists()


def test_results_lie_where_the_user_is_when_a_name_begins_with_a_tilde(
    unalike, monkeypatch, tmp_path
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    folders.write(tmp_path / "~" / "images", range(3))
    score = ("score", "~/images", "--bootstrap", 0, "--device", "cpu")
    assert unalike(*score, "--out", "~/scores").code == 0
    assert unalike("shield", "build", "~/images", "--space", "pixels", "--out", "~/set").code == 0
    assert unalike("shield", "inspect", "~/set").code == 0
    assert unalike("generate", "cat", "--num", 1, "--steps", 1, "--out", "~/run").code == 0
    assert unalike("shield", "check", "~/set", "~/run", "--out", "~/check").code == 0
    found = {path.name for path in (tmp_path / "~").iterdir()}
    assert {"scores", "set", "run", "check"} <= found
    assert not (tmp_path / "home").exists()

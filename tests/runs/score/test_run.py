import csv
import html
import json
import math
import re

import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from tests.runs.score import folders

from unalike import metrics, scores
from unalike.errors import OptionError, StoreError
from unalike.extractors import extractor
from unalike.kernels import Cosine, Gaussian
from unalike.runs.generate import generate
from unalike.runs.score import run as run_module
from unalike.runs.score import scores as scores_module
from unalike.runs.score.catalogue import METRICS
from unalike.runs.score.run import score
from unalike.runs.score.settings import ScoreSettings
from unalike.runs.settings import GenerateSettings


def scored(folder, **settings):
    settings = {"out": folder.parent / "scores", "bootstrap": 100, "device": "cpu", **settings}
    return score(ScoreSettings(folder=folder, **settings))


def table(outcome, scope="all", prompt=None):
    return {f.metric: f for f in outcome.scores if f.scope == scope and f.prompt == prompt}


def values(outcome, scope="all", prompt=None):
    return {name: f.value for name, f in table(outcome, scope, prompt).items()}


def prompts_file(path, names, prompts):
    with path.open("w", newline="") as f:
        csv.writer(f).writerows([("file", "prompt"), *zip(names, prompts, strict=True)])
    return path


@pytest.fixture
def pair(tmp_path):
    """A set of 12 pictures of three prompts and a reference of 15, some the same, with prompts
    too.
    """
    drawn = folders.write(tmp_path / "drawn", [0, 1, 2, 3, 4, 5, 6, 7, 7, 20, 21, 22])
    real = folders.write(tmp_path / "real", range(15))
    asked = ["cat", "dog", "bird"] * 4
    prompts_file(tmp_path / "drawn.csv", drawn, asked)
    prompts_file(tmp_path / "real.csv", real, ["cat", "dog", "bird"] * 5)
    own = extractor("pixels", device="cpu")
    X, R = (
        own.features(folders.pixels(tmp_path / d, n)) for d, n in (("drawn", drawn), ("real", real))
    )
    return {
        "folder": tmp_path / "drawn",
        "drawn": X,
        "real": R,
        "groups": torch.arange(12) % 3,
        "real groups": torch.arange(15) % 3,
        "own": own,
    }


def with_everything(pair, **settings):
    home = pair["folder"].parent
    files = {
        "prompts": home / "drawn.csv",
        "reference": home / "real",
        "reference_prompts": home / "real.csv",
    }
    return scored(pair["folder"], **{**files, "k": 2, "radius": 0.1, **settings})


def frechet_by_singular_values(real, generated):
    """The Fréchet distance of few samples with many numbers, which `metrics.frechet_distance` would
    take a minute for.

    `tr (C_r^½ C_g C_r^½)^½` is the sum of the singular values of `G Rᵀ`, for centred samples over
    the roots of their numbers.
    """
    (r, mean_r), (g, mean_g) = (
        (x - x.mean(dim=0), x.mean(dim=0)) for x in (real.double(), generated.double())
    )
    r, g = r / (len(r) - 1) ** 0.5, g / (len(g) - 1) ** 0.5
    cross = torch.linalg.svdvals(g @ r.T).sum()
    return (
        (mean_r - mean_g).square().sum() + r.square().sum() + g.square().sum() - 2 * cross
    ).item()


def test_scores_are_those_of_the_functions_when_the_features_are_the_same(pair):
    found = values(with_everything(pair))
    X, R, own = pair["drawn"], pair["real"], pair["own"]
    kernel, prompts = own.kernel, torch.eye(3)[pair["groups"]]
    assert isinstance(kernel, Gaussian)
    around = metrics.manifolds(R, X, k=2)
    nearest = metrics.nearest_distances(X, R)[0] / own.unit
    expected = {
        "vendi": scores.vendi(X, kernel=kernel),
        "rke": scores.rke(X, kernel=kernel),
        "vendi_inf": scores.vendi(X, math.inf, kernel=kernel),
        "similarity": metrics.in_batch_similarity(X),
        "conditional_vendi": scores.conditional_vendi(X, prompts, kernel=kernel),
        "information_vendi": scores.information_vendi(X, prompts, kernel=kernel),
        "frechet_distance": frechet_by_singular_values(R, X),
        "kernel_distance": metrics.kernel_distance(R, X),
        "nearest_distance": nearest.mean().item(),
        "smallest_distance": nearest.min().item(),
        "auth_pct": metrics.auth_pct(X, R),
        "share_inside": metrics.share_inside(X, R, 0.1 * own.unit),
        **vars(around),
    }
    assert found == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_scores_of_prompts_are_those_of_their_own_images_and_means_are_over_them(pair):
    outcome = with_everything(pair, k=1)
    X, R, kernel = pair["drawn"], pair["real"], pair["own"].kernel
    each = metrics.by_group(
        lambda g, r: metrics.manifolds(r, g, k=1), pair["groups"], X, (R, pair["real groups"])
    )
    vendi = metrics.by_group(lambda g: scores.vendi(g, kernel=kernel), pair["groups"], X)
    for number, prompt in enumerate(["cat", "dog", "bird"]):
        found = values(outcome, "prompt", prompt)
        assert found["vendi"] == pytest.approx(vendi[number])
        assert {name: found[name] for name in vars(each[number])} == pytest.approx(
            vars(each[number])
        )
        assert table(outcome, "prompt", prompt)["vendi"].resampled == "images"
    means = table(outcome, "mean")
    assert means["vendi"].value == pytest.approx(sum(vendi.values()) / 3)
    assert means["recall"].value == pytest.approx(sum(e.recall for e in each.values()) / 3)
    assert means["similarity"].value == pytest.approx(
        metrics.in_batch_similarity(X, pair["groups"])
    )
    assert (means["vendi"].resampled, means["vendi"].prompts, means["vendi"].images) == (
        "prompts",
        3,
        12,
    )
    low, high = means["vendi"].low, means["vendi"].high
    assert low is not None
    assert high is not None
    assert low < means["vendi"].value < high
    assert (low, high) == pytest.approx((min(vendi.values()), max(vendi.values())), abs=0.1)


def test_everything_resampled_is_named_when_there_are_prompts_and_a_reference(pair):
    found = {name: f.resampled for name, f in table(with_everything(pair)).items()}
    assert found["vendi"] == found["precision"] == found["frechet_distance"] == "prompts"
    assert found["recall"] == found["coverage"] == "reference prompts"
    assert found["smallest_distance"] is None
    home = pair["folder"].parent
    plain = {
        name: f.resampled
        for name, f in table(
            scored(pair["folder"], reference=home / "real", out=home / "other")
        ).items()
    }
    assert (plain["vendi"], plain["recall"]) == ("images", "reference images")


def test_whole_reference_is_used_for_every_prompt_when_it_has_no_prompts(pair):
    outcome = with_everything(pair, reference_prompts=None)
    dog = values(outcome, "prompt", "dog")
    own = pair["drawn"][pair["groups"] == 1]
    assert dog["nearest_distance"] == pytest.approx(
        (metrics.nearest_distances(own, pair["real"])[0] / pair["own"].unit).mean().item()
    )
    assert dog["auth_pct"] == pytest.approx(metrics.auth_pct(own, pair["real"]))
    assert "recall" not in dog
    assert "recall" in values(outcome)
    assert any("The reference has no prompts" in note for note in outcome.record["notes"])


def test_scores_are_one_when_all_images_are_copies(tmp_path):
    folders.write(tmp_path / "copies", [3] * 8)
    found = table(scored(tmp_path / "copies"))
    for name in ("vendi", "rke", "vendi_inf", "similarity"):
        assert (found[name].value, found[name].low, found[name].high) == pytest.approx((1, 1, 1))


def test_precision_recall_and_coverage_are_one_and_authpct_zero_when_a_set_is_its_own_reference(
    tmp_path,
):
    folders.write(tmp_path / "set", range(10))
    found = values(scored(tmp_path / "set", reference=tmp_path / "set", radius=0.01))
    assert [found[n] for n in ("precision", "recall", "coverage", "share_inside")] == [1, 1, 1, 1]
    assert [found[n] for n in ("auth_pct", "nearest_distance")] == [0, 0]
    assert found["frechet_distance"] == pytest.approx(0, abs=1e-6)


def test_files_say_the_same_when_written(pair):
    outcome = with_everything(pair)
    folder = pair["folder"].parent / "scores"
    assert sorted(p.name for p in folder.iterdir()) == [
        "report.html",
        "score.json",
        "scores.parquet",
    ]
    record = json.loads((folder / "score.json").read_text("utf-8"))
    assert record == outcome.record
    rows = pq.read_table(folder / "scores.parquet").to_pylist()
    assert [{k: v for k, v in row.items() if k != "better"} for row in rows] == record["figures"]
    keys = [(r["scope"], r["prompt"], r["metric"]) for r in rows]
    assert len(set(keys)) == len(keys)
    assert {r["prompt"] for r in rows if r["scope"] == "prompt"} == {"cat", "dog", "bird"}
    assert {r["metric"] for r in rows} == set(METRICS) - {"clip_score"}
    assert all(r["low"] <= r["value"] <= r["high"] for r in rows if r["low"] is not None)
    text = (folder / "score.json").read_text("utf-8") + (folder / "report.html").read_text("utf-8")
    text = re.sub(r'<span class="flag">(.*?)</span>', r"\1", text)  # in the page's command
    for command in (html.escape(record["command"]), record["command"]):
        text = text.replace(command, "")
    assert str(pair["folder"].parent) not in text


def test_pairs_are_the_copies_and_the_nearest_when_they_are_listed(pair):
    record = with_everything(pair).record
    assert record["most_alike"][0] == {
        "image": "07.png",
        "other": "08.png",
        "similarity": pytest.approx(1),
    }
    named = [name for p in record["most_alike"] for name in (p["image"], p["other"])]
    assert len(named) == len(set(named)) >= 6
    assert record["nearest_reference"][0] == {"image": "00.png", "other": "00.png", "distance": 0}


def test_result_is_the_same_when_repeated_and_other_with_another_seed(pair):
    first, again, other = (
        table(with_everything(pair, out=pair["folder"].parent / str(i), seed=seed))["precision"]
        for i, seed in enumerate((0, 0, 1))
    )
    assert first == again
    assert first.value == other.value
    assert (first.low, first.high) != (other.low, other.high)


def test_there_are_no_intervals_when_no_redraws_are_asked_for(pair):
    outcome = with_everything(pair, bootstrap=0)
    assert all(f.low is None and f.high is None and f.resampled is None for f in outcome.scores)


def test_clip_scores_prompts_and_compares_them_by_its_own_embeddings(tmp_path, clip_folder):
    names = folders.write(tmp_path / "drawn", range(6))
    asked = ["cat", "dog", "bird"] * 2
    file = prompts_file(tmp_path / "p.csv", names, asked)
    outcome = scored(tmp_path / "drawn", prompts=file, features=f"clip:{clip_folder}")
    own = extractor(f"clip:{clip_folder}", device="cpu")
    X, Y = own.features(folders.pixels(tmp_path / "drawn", names)), own.prompt_features(asked)
    assert Y is not None
    found = values(outcome)
    assert found["clip_score"] == pytest.approx(metrics.clip_score(X, Y), rel=1e-5)
    units = torch.nn.functional.normalize(Y.double(), dim=1)
    gram = Gaussian(0.3)(units, units)
    assert found["conditional_vendi"] == pytest.approx(
        scores.conditional_vendi(X, prompt_gram=gram, kernel=Cosine()), rel=1e-4
    )
    assert values(outcome, "prompt", "dog")["clip_score"] == pytest.approx(
        metrics.clip_score(X[1::3], Y[1::3]), rel=1e-5
    )
    assert outcome.record["features"]["name"] == f"clip:{clip_folder.name}"
    assert str(clip_folder.parent) not in json.dumps({**outcome.record, "command": ""})


def test_scores_are_about_those_of_the_run_when_an_output_folder_is_scored(
    tiny_sd_folder, tmp_path
):
    settings = GenerateSettings(
        prompts=("cat", "dog"),
        num=3,
        model=str(tiny_sd_folder),
        steps=2,
        out=tmp_path / "run",
        compare=True,
        device="cpu",
    )
    run = generate(settings)
    outcome = scored(tmp_path / "run")
    assert outcome.record["images"]["count"] == 6
    assert outcome.record["prompts"]["source"] == "samples.parquet"
    for prompt, expected in run.record["scores"]["guided"]["prompts"].items():
        assert values(outcome, "prompt", prompt)["vendi"] == pytest.approx(
            expected["vendi"], abs=0.01
        )
    unguided = scored(tmp_path / "run" / "unguided", out=tmp_path / "b")
    expected = run.record["scores"]["unguided"]["prompts"]["dog"]["vendi"]
    assert values(unguided, "prompt", "dog")["vendi"] == pytest.approx(expected, abs=0.01)


# limits


def test_sample_is_scored_and_said_when_there_are_too_many_images(tmp_path, monkeypatch):
    monkeypatch.setattr(scores_module, "SPECTRAL_LIMIT", 6)
    names = folders.write(tmp_path / "set", range(10))
    outcome = scored(tmp_path / "set")
    found = table(outcome)
    assert found["vendi"].images == 6
    assert found["similarity"].images == 10
    assert any("are those of 6 of them, by the seed 0" in note for note in outcome.record["notes"])
    chosen = torch.randperm(10, generator=torch.Generator().manual_seed(0))[:6]
    own = extractor("pixels", device="cpu")
    X = own.features(folders.pixels(tmp_path / "set", names))[chosen]
    assert found["vendi"].value == pytest.approx(scores.vendi(X, kernel=own.kernel))


def test_all_images_are_scored_when_the_cosine_has_fewer_numbers_than_the_limit(
    tmp_path, monkeypatch, clip_folder
):
    monkeypatch.setattr(scores_module, "SPECTRAL_LIMIT", 16)
    folders.write(tmp_path / "set", range(20))
    found = table(scored(tmp_path / "set", features=f"clip:{clip_folder}"))
    assert found["vendi"].images == 20


def test_neighbourhoods_are_left_out_and_said_when_there_are_too_few_images(tmp_path):
    folders.write(tmp_path / "set", range(4))
    outcome = scored(tmp_path / "set", reference=tmp_path / "set")
    assert "precision" not in values(outcome)
    assert any("more than k = 5 images" in note for note in outcome.record["notes"])


def test_frechet_distance_is_left_out_and_said_when_it_would_be_too_large(tmp_path, monkeypatch):
    monkeypatch.setattr(scores_module, "FRECHET_LIMIT", 10)
    folders.write(tmp_path / "set", range(6))
    outcome = scored(tmp_path / "set", reference=tmp_path / "set")
    assert "frechet_distance" not in values(outcome)
    assert any("Fréchet distance is left out" in note for note in outcome.record["notes"])


def test_prompts_without_reference_are_left_out_of_means_and_said(pair):
    home = pair["folder"].parent
    names = [f"{i:02}.png" for i in range(15)]
    file = prompts_file(home / "other.csv", names, ["cat"] * 6 + ["fish"] * 9)
    outcome = with_everything(pair, reference_prompts=file, k=1)
    assert table(outcome, "mean")["precision"].prompts == 1
    assert "precision" not in values(outcome, "prompt", "dog")
    assert any(
        "2 of 3 prompts have no reference images" in note for note in outcome.record["notes"]
    )


def test_different_sizes_are_said_when_images_are_resized(tmp_path):
    folders.write(tmp_path / "set", range(3))
    folders.picture(9, (40, 20)).save(tmp_path / "set" / "wide.png")
    record = scored(tmp_path / "set").record
    assert record["images"]["sizes"] == [
        {"width": 16, "height": 16, "count": 3},
        {"width": 40, "height": 20, "count": 1},
    ]
    assert "different sizes; each is averaged to 32×32" in record["notes"][0]


def test_skipped_images_are_in_the_record_when_asked_for(tmp_path):
    folders.write(tmp_path / "set", range(3))
    (tmp_path / "set" / "bad.png").write_text("x")
    record = scored(tmp_path / "set", skip_bad=True).record
    assert [s["file"] for s in record["images"]["skipped"]] == ["bad.png"]
    assert record["images"]["count"] == 3


# the output folder


def test_output_is_a_new_folder_named_after_the_images_when_none_is_given(tmp_path, monkeypatch):
    folders.write(tmp_path / "My Set", range(3))
    monkeypatch.chdir(tmp_path)
    first, second = (scored(tmp_path / "My Set", out=None).folder for _ in range(2))
    assert (first.name, second.name) == ("unalike-score-my-set", "unalike-score-my-set-2")


def test_folder_is_refused_when_it_has_files_and_replaced_only_when_asked_for(tmp_path):
    folders.write(tmp_path / "set", range(3))
    out = scored(tmp_path / "set").folder
    (out / "mine.txt").write_text("x")
    with pytest.raises(StoreError, match="overwrite=True"):
        scored(tmp_path / "set", seed=1)
    assert json.loads((out / "score.json").read_text("utf-8"))["settings"]["seed"] == 0
    scored(tmp_path / "set", seed=1, overwrite=True)
    assert json.loads((out / "score.json").read_text("utf-8"))["settings"]["seed"] == 1
    assert (out / "mine.txt").exists()
    (out / "score.json").unlink()
    with pytest.raises(StoreError, match="no run of unalike wrote"):
        scored(tmp_path / "set", overwrite=True)


@pytest.mark.parametrize("stage", ["extract", "compute", "score_page"])
def test_nothing_is_left_when_interrupted_at_any_stage(tmp_path, monkeypatch, stage):
    folders.write(tmp_path / "set", range(3))

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(run_module, stage, interrupted)
    with pytest.raises(KeyboardInterrupt):
        scored(tmp_path / "set")
    assert not (tmp_path / "scores").exists()


def test_earlier_results_stay_whole_when_writing_fails(tmp_path, monkeypatch):
    folders.write(tmp_path / "set", range(3))
    out = scored(tmp_path / "set").folder
    before = {p.name: p.read_bytes() for p in out.iterdir()}
    monkeypatch.setattr(run_module, "score_page", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        scored(tmp_path / "set", overwrite=True)
    monkeypatch.setattr(run_module, "score_page", lambda *_: b"no text")
    with pytest.raises(TypeError):
        scored(tmp_path / "set", overwrite=True)
    assert {p.name: p.read_bytes() for p in out.iterdir()} == before


# what is refused


def test_set_is_refused_when_it_has_one_image(tmp_path):
    folders.write(tmp_path / "set", [0])
    with pytest.raises(OptionError, match="at least 2 are needed"):
        scored(tmp_path / "set")
    assert not (tmp_path / "scores").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"features": "pixel"}, "did you mean 'pixels'"),
        ({"bootstrap": -1}, "bootstrap is -1"),
        ({"bootstrap": 20}, "at least 100 redraws"),
        ({"k": 0}, "k is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 2**63}, "at most 9,223,372"),
        ({"radius": 1.0}, "no reference to measure distances to"),
        ({"radius": 0.0}, "radius is 0.0"),
        ({"radius": math.inf}, "radius is inf"),
        ({"reference_prompts": "x.csv"}, "no reference that they could belong to"),
    ],
)
def test_settings_are_refused_when_outside_what_is_allowed(tmp_path, settings, message):
    with pytest.raises(OptionError, match=message):
        ScoreSettings(folder=tmp_path, **settings)


def test_pictures_of_one_colour_are_scored_when_features_have_no_direction(tmp_path):
    (tmp_path / "set").mkdir()
    for i, colour in enumerate(["white", "black", "white"]):
        Image.new("RGB", (8, 8), colour).save(tmp_path / "set" / f"{i}.png")
    assert values(scored(tmp_path / "set", features="emoji"))["vendi"] == pytest.approx(1)
    assert values(scored(tmp_path / "set", out=tmp_path / "b"))["vendi"] == pytest.approx(
        math.exp(-(2 / 3) * math.log(2 / 3) - math.log(1 / 3) / 3), abs=0.01
    )

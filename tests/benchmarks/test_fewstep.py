"""Few steps and small groups: settings, statistics by hand, what the tables say, and a small run
through the command line.
"""

import json
from itertools import combinations
from pathlib import Path

import pytest
import torch

from benchmarks.base import read_rows, write_rows
from benchmarks.fewstep import SMOKE, models
from benchmarks.fewstep.measure import Job, Judged, measure
from benchmarks.fewstep.methods import (
    ALONE,
    FIRST_STEP,
    ONE_PASS,
    OTHERWISE,
    PLAIN,
    RESTARTS,
    SETTINGS,
    families,
    plain,
)
from benchmarks.fewstep.models import MODELS, Model, installed, require
from benchmarks.fewstep.page import page
from benchmarks.fewstep.results import (
    Choice,
    Results,
    by_prompt,
    equal_calls,
    expected_distinct,
    harmed,
    point,
)
from benchmarks.pareto.trials import Trial
from unalike.errors import OptionError, StoreError
from unalike.guidance.methods import ENTRIES

BASE = Trial(PLAIN, 2.0)


def row(
    trial: Trial,
    prompt: str,
    shown: list[int],
    *,
    group: int = 0,
    size: int = 8,
    evaluations: float = 4.0,
) -> dict[str, object]:
    """A group of which there are eight right images."""
    right = [i for i in shown if i >= 0]
    return {
        "model": "emoji-cfg2",
        "key": trial.key,
        "family": trial.family,
        "setting": trial.setting,
        "prompt": prompt,
        "size": size,
        "group": group,
        "samples": len(shown),
        "right": len(right),
        "distinct": len(set(right)),
        "possible": min(8, size),
        "shown": shown,
        "similarity": 0.5,
        "evaluations": evaluations,
    }


@pytest.mark.parametrize("name", MODELS)
def test_settings_are_equally_many_when_methods_are_compared(name):
    found = families(MODELS[name])
    assert {len(own) for family, own in found.items() if family not in OTHERWISE} == {SETTINGS}
    assert found[PLAIN] == [plain(MODELS[name])]
    keys = [trial.key for trials in found.values() for trial in trials]
    assert len(set(keys)) == len(keys)
    named = [(t.family, t.options or str(t.guidance_scale)) for own in found.values() for t in own]
    assert len(set(named)) == len(named)
    assert {Trial.from_key(key).key for key in keys} == set(keys)


def test_methods_are_left_out_when_a_model_gives_them_nothing_to_act_on():
    one = families(Model("one", "emoji", steps=1, scale=1.0))
    guided = families(Model("guided", "emoji", steps=4, scale=3.0))
    several = {"lower guidance scale", "IntervalGuidance", "ancestral sampling", ONE_PASS, RESTARTS}
    assert set(guided) - set(one) == several


def test_every_method_of_the_library_is_compared_when_all_models_are_measured():
    trials = [t for m in MODELS.values() for own in families(m).values() for t in own]
    assert {name for trial in trials for name in trial.methods} == set(ENTRIES)


def test_methods_that_are_drawn_once_are_in_the_table_when_images_are_regrouped():
    found = {name for model in MODELS.values() for name in families(model)}
    assert found >= ALONE
    assert FIRST_STEP not in families(MODELS["emoji-cfg2"])
    assert len(families(MODELS["emoji-turbo"])[FIRST_STEP]) == 3


def test_models_are_refused_with_what_is_allowed_when_unknown_or_missing(monkeypatch):
    with pytest.raises(OptionError, match=r"'emoji-turbo-3'.*allowed: .*did you mean"):
        require(["emoji-turbo-3"])
    monkeypatch.setitem(models.MODELS, "lost", Model("lost", "no such model", steps=4))
    with pytest.raises(StoreError, match=r"'lost'.*leave it out, as in --models emoji"):
        require(["lost"])
    assert "lost" not in installed()
    assert require(["emoji-cfg7.5", "emoji-cfg2"]) == ["emoji-cfg2", "emoji-cfg7.5"]


def test_choice_of_models_is_refused_when_a_benchmark_has_none(bench, tmp_path):
    code, _, err = bench("toy", "--models", "emoji", "--out", tmp_path / "new")
    assert (code, "leave out --models" in err) == (2, True)
    assert not (tmp_path / "new").exists()


def test_expected_distinct_is_the_mean_over_all_choices_when_images_are_drawn():
    shown = [3, 3, 3, 5, 8, 8, -1, -1]
    for images in range(1, 9):
        each = [len(set(chosen) - {-1}) for chosen in combinations(shown, images)]
        assert expected_distinct(shown, images) == pytest.approx(sum(each) / len(each))
    between = expected_distinct(shown, 3) + 0.25 * (
        expected_distinct(shown, 4) - expected_distinct(shown, 3)
    )
    assert expected_distinct(shown, 3.25) == pytest.approx(between)
    assert expected_distinct([-1, -1], 2) == 0


def test_prompts_are_means_over_their_groups_when_they_have_several():
    rows = [
        row(BASE, "b", [1, 1, 2, -1]),
        row(BASE, "a", [1, 2, 3, 4]),
        row(BASE, "a", [1, 1, 1, -1], group=1),
    ]
    found = by_prompt(rows, point)
    expected = torch.tensor([[(4 + 1) / 16, 7 / 8], [2 / 8, 3 / 4]], dtype=torch.float64)
    torch.testing.assert_close(found, expected)


def test_prompts_are_harmed_when_they_lose_more_than_five_points():
    base = torch.tensor([0.5, 0.5, 0.5, 0.5], dtype=torch.float64)
    own = torch.tensor([0.9, 0.45, 0.44, 0.0], dtype=torch.float64)
    assert harmed(own, base) == 0.5


def test_setting_is_the_most_varied_precise_one_when_some_are_precise():
    bold, careful, third = (Trial("m", 2.0, {"spell": {"factor": f}}) for f in (0.9, 0.5, 0.1))
    base = [row(BASE, "v", [1, 1, 1, -1])]
    tuning = [
        *base,
        row(bold, "v", [1, 2, -1, -1, -1]),
        row(careful, "v", [1, 2, 2, -1]),
        row(third, "v", [1, 1, 1, 1]),
    ]
    results = Results(tuning, [])
    assert results.precise("m") == Choice(careful.key, precise=True)
    assert results.precise(PLAIN) == Choice(BASE.key, precise=True)
    assert Results([*base, tuning[1]], []).precise("m") == Choice(bold.key, precise=False)
    assert results.complete == Results(tuning[1:], []).complete == []


def test_equal_calls_spend_as_many_evaluations_when_plain_images_are_drawn():
    own = Trial("m", 2.0, {"spell": {"factor": 0.1}})
    pool = [[1, 1], [2, -1]]
    test = [row(BASE, "a", shown, group=g, size=2) for g, shown in enumerate(pool)]
    drawn = row(own, "a", [1, 2], size=2)
    results = Results([*test, drawn], [*test, drawn])
    found, expected = equal_calls(results, own.key, 2, 1.5) or pytest.fail("no pool")
    assert float(found) == 2
    # of the four choices of three images one is without 2, and all have 1
    assert float(expected) == pytest.approx(1 + 3 / 4)
    assert equal_calls(results, own.key, 2, 2.5) is None


def test_page_says_what_was_measured_when_rows_are_known(tmp_path: Path):
    own = Trial("SPELL", 2.0, {"spell": {"factor": 0.5}})
    auto = Trial("Auto", 2.0, {"auto": {}})
    similar, varied = [1, 1, 2, 2, -1, -1, -1, -1], [1, 2, 3, 4, -1, -1, -1, -1]
    wrong = [1, 1, -1, -1, -1, -1, -1, -1]
    tuning = [row(t, "v", shown) for t, shown in ((BASE, similar), (own, wrong), (auto, varied))]
    test = [row(BASE, p, shown, group=g) for p in "ab" for g, shown in enumerate((similar, wrong))]
    test += [row(own, p, wrong, evaluations=8.0) for p in "ab"]
    test += [row(auto, p, varied) for p in "ab"]
    folder = tmp_path / "emoji-cfg2"
    folder.mkdir()
    write_rows(folder / "tuning.parquet", tuning)
    assert "### emoji-cfg2" not in page(tmp_path)
    write_rows(folder / "test.parquet", test)
    text = page(tmp_path)
    assert "| `emoji-cfg2` | 20 | 2 | 19% | 38% | 0.50 |" in text
    assert (
        "| Auto | default | 50% (50% to 50%) | ×2.00 (2.00 to 2.00) | 50% (50% to 50%) | "
        "+0.0 (+0.0 to +0.0) | 0% | 0.50 | ×1.00 |"
    ) in text
    assert (
        "| SPELL * | factor 0.5 | 12% (12% to 12%) | ×0.50 (0.50 to 0.50) | 25% (25% to 25%) | "
        "-25.0 (-25.0 to -25.0) | 100% | 0.50 | ×2.00 | ×0.50 (0.50 to 0.50) | "
        "+37.5 (+37.5 to +37.5) |"
    ) in text
    assert "| plain sampling, other seeds |  | 12% (12% to 12%) |" in text


def test_groups_are_judged_by_hand_when_images_are_known():
    features = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    images = Judged(torch.tensor([7, 7, -1]), features, 4.0)
    found = images.row(right_images=2)
    assert found == {
        "samples": 3,
        "right": 2,
        "distinct": 1,
        "possible": 2,
        "shown": [7, 7, -1],
        "similarity": pytest.approx(1 / 3),
        "evaluations": 4.0,
    }
    assert images[1:].row(right_images=2)["similarity"] == 0


def test_images_are_those_of_their_seeds_when_groups_are_drawn_at_once_or_apart():
    model = MODELS["emoji-cfg2"]
    job = Job(model.name, plain(model), ("tree",), {2: 2})
    alone = measure(job)
    apart = measure(
        Job(model.name, Trial("no method", model.guidance_scale), job.prompts, job.groups)
    )
    assert [row["shown"] for row in alone] == [row["shown"] for row in apart]
    assert [row["similarity"] for row in alone] == pytest.approx(
        [row["similarity"] for row in apart], abs=1e-3
    )
    assert {row["evaluations"] for row in (*alone, *apart)} == {2.0 * model.steps}


def test_smoke_run_measures_and_goes_on_when_called_twice(bench, tmp_path: Path):
    folder = tmp_path / "fewstep"
    code, out, err = bench("fewstep", "--smoke", "--json", "--out", folder)
    assert code == 0, err
    assert "| plain sampling |" in json.loads(out)["page"]
    (name,) = (path.name for path in folder.iterdir() if path.is_dir())
    own = folder / name
    assert {path.name for path in own.iterdir()} == {
        "tuning.parquet",
        "test.parquet",
        "coverage.png",
    }
    rows = read_rows(own / "test.parquet")
    assert {row["size"] for row in rows} == set(SMOKE.groups)
    assert {row["family"] for row in rows} == set(list(families(MODELS[name]))[:: SMOKE.methods])
    assert all(row["distinct"] <= row["right"] <= row["samples"] == row["size"] for row in rows)
    before = (own / "test.parquet").stat().st_mtime_ns
    assert bench("fewstep", "--smoke", "--json", "--out", folder).code == 0
    assert (own / "test.parquet").stat().st_mtime_ns == before
    tuning = read_rows(own / "tuning.parquet")
    old = {**tuning[0], "key": Trial("gone", 1.0).key, "family": "gone"}
    write_rows(own / "tuning.parquet", [*tuning, old])
    assert bench("fewstep", "--smoke", "--json", "--out", folder, "--models", name).code == 0
    assert read_rows(own / "tuning.parquet") == tuning

"""Variety against fidelity: what is chosen, what the tables say, and a small run through the
command line.
"""

import json
from pathlib import Path

import pytest
import torch

from benchmarks.base import read_rows, write_rows
from benchmarks.pareto import choose
from benchmarks.pareto.page import page
from benchmarks.pareto.results import Results, volume
from benchmarks.pareto.tasks import TASKS
from benchmarks.pareto.trials import INDEPENDENT, Trial, families


def row(trial: Trial, unit: str, distinct: int, right: int, **more: object) -> dict[str, object]:
    about = {
        "task": "emoji",
        "key": trial.key,
        "family": trial.family,
        "setting": trial.setting,
        "unit": unit,
    }
    counts = {"samples": 10, "right": right, "distinct": distinct, "possible": 10}
    return (
        about
        | counts
        | {f"manifold_{name}": 0.5 for name in ("precision", "recall", "density", "coverage")}
        | more
    )


def test_trials_are_equally_many_when_methods_are_compared():
    for task in TASKS:
        assert {len(trials) for trials in families(task).values()} == {8}
        keys = [trial.key for trials in families(task).values() for trial in trials]
        assert len(set(keys)) == len(keys)


def test_trial_comes_back_when_made_from_its_key():
    trial = families("emoji")["SPELL"][3].with_memory()
    assert Trial.from_key(trial.key) == trial


def test_no_prompt_is_in_both_when_settings_are_validated_and_tested():
    for task in TASKS.values():
        assert not {unit.prompt for unit in task.validation} & {unit.prompt for unit in task.test}
        assert set(task.small) <= {unit.prompt for unit in task.test}


def test_settings_are_chosen_when_they_add_hypervolume():
    trials = [Trial("m", scale) for scale in (1.0, 2.0, 3.0, 4.0)]
    points = [(2, 9), (8, 3), (5, 6), (1, 8)]  # the last is beaten by the first
    rows = [
        row(trial, unit, *point)
        for trial, point in zip(trials, points, strict=True)
        for unit in "ab"
    ]
    assert choose(rows, 1) == [trials[2]]
    assert sorted(trial.guidance_scale for trial in choose(rows, 9)) == [1.0, 2.0, 3.0]


def test_precise_setting_is_chosen_on_validation_when_test_rows_differ():
    base, bold, careful = Trial(INDEPENDENT, 7.5), Trial("m", 1.0), Trial("m", 2.0)
    tuning = [row(base, "v", 1, 5), row(bold, "v", 9, 2), row(careful, "v", 4, 5)]
    test = [row(base, "t", 1, 5), row(bold, "t", 9, 9), row(careful, "t", 1, 1)]
    results = Results(tuning, test, [], [])
    assert results.unguided == base.key
    assert results.precise([bold.key, careful.key]) == careful.key
    assert results.precise([bold.key]) == bold.key


def test_volume_is_that_of_mean_points_when_units_differ():
    points = torch.tensor([[[0.2, 1.0], [1.0, 0.0]], [[0.4, 0.8], [1.0, 0.2]]])
    assert float(volume(points)) == pytest.approx(0.3 * 0.9 + 0.7 * 0.1)


def test_page_says_what_was_measured_when_rows_are_known(tmp_path: Path):
    base, better = Trial(INDEPENDENT, 7.5), Trial("CADS", 2.0, {"cads": {"noise_scale": 0.1}})
    rows = [
        row(t, u, d, 5, vendi=2.0, similarity=0.5)
        for t, d in ((base, 2), (better, 4))
        for u in "ab"
    ]
    write_rows(tmp_path / "tuning.parquet", rows)
    write_rows(tmp_path / "test.parquet", rows)
    about = {"stage": "test", "task": "emoji", "frechet": 3.0}
    write_rows(tmp_path / "pooled.parquet", [about | {"key": t.key} for t in (base, better)])
    write_rows(
        tmp_path / "times.parquet",
        [{"task": "emoji", "key": t.key, "seconds": s} for t, s in ((base, 0.2), (better, 0.3))],
    )
    text = page(tmp_path)
    assert (
        "| CADS | noise_scale 0.1, CFG 2 | 40% (40% to 40%) | ×2.00 (2.00 to 2.00) | "
        "50% (50% to 50%) | +0.0 (+0.0 to +0.0) | ×1.50 |" in text
    )
    assert "| CADS | 1 | 0.200 (0.200 to 0.200) |" in text
    assert "| 0.50 | 3.0 |" in text


def test_smoke_run_measures_and_goes_on_when_called_twice(bench, tmp_path: Path):
    folder = tmp_path / "pareto"
    code, out, err = bench("pareto", "--smoke", "--json", "--out", folder)
    assert code == 0, err
    document = json.loads(out)
    assert "| independent sampling |" in document["page"]
    rows = read_rows(folder / "test.parquet")
    assert {row["task"] for row in rows} == {"emoji", "digits"}
    assert all(0 <= row["distinct"] <= row["right"] <= row["samples"] == 4 for row in rows)
    assert {"emoji.png", "digits.png"} <= {path.name for path in folder.iterdir()}
    before = (folder / "test.parquet").stat().st_mtime_ns
    assert bench("pareto", "--smoke", "--json", "--out", folder).code == 0
    assert (folder / "test.parquet").stat().st_mtime_ns == before

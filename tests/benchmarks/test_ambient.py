import pytest
import torch

from benchmarks import ambient, ambient_page
from benchmarks.ambient import SMOKE, Clocked, Size, Trial
from benchmarks.ambient_page import CLIP, IMAGES, LATENTS, TEST, UNGUIDED, VALIDATION, best
from benchmarks.base import read_rows, write_rows
from unalike.guidance.context import Context
from unalike.guidance.level import Level
from unalike.guidance.sparke import SPARKE


def row(split, prompt, way, right, distinct, *, strength=0.1, stop=0.6, seconds=4.0, possible=8):
    where = {"split": split, "prompt": prompt, "way": way, "strength": strength, "stop": stop}
    return where | {
        "seconds": seconds,
        "samples": 8,
        "right": right,
        "distinct": distinct,
        "possible": possible,
    }


def step(number, way, seconds, correction):
    return {
        "round": number,
        "way": way,
        "images": 8,
        "step_seconds": seconds,
        "correction_seconds": correction,
    }


def test_setting_with_most_distinct_right_images_is_chosen_and_precision_decides_when_equal():
    rows = [
        row(VALIDATION, "a", IMAGES, 8, 2, strength=0.1),
        row(VALIDATION, "a", IMAGES, 5, 4, strength=0.2),
        row(VALIDATION, "a", IMAGES, 6, 2, strength=0.4, possible=4),
        row(VALIDATION, "a", LATENTS, 8, 8, strength=0.8),
        row(TEST, "a", IMAGES, 8, 8, strength=0.1),
    ]
    assert best(rows, IMAGES) == {"way": IMAGES, "strength": 0.4, "stop": 0.6}
    assert best(rows, LATENTS)["strength"] == 0.8


def test_both_ways_have_as_many_trials_and_no_test_prompt_is_one_of_validation():
    trials = [trial.way for trial in Size().trials()]
    assert trials.count(LATENTS) == trials.count(IMAGES) == 4
    assert trials.count(UNGUIDED) == 1
    assert not set(Size().test) & set(Size().validation)


def test_correction_is_that_of_sparke_when_its_time_is_taken():
    x0 = torch.randn(2, 8, generator=torch.Generator().manual_seed(0))
    context = Context(
        step=0,
        steps=1,
        level=Level(0.6, 0.8, 1, 0),
        x_t=x0,
        groups=torch.zeros(2),
    )
    method = Clocked(strength=0.1)
    found, expected = method.x0_delta(x0, context), SPARKE(strength=0.1).x0_delta(x0, context)
    assert found is not None
    assert expected is not None
    assert torch.equal(found, expected)
    assert len(method.taken) == 1


def test_page_and_figure_have_what_the_rows_say(tmp_path):
    rows = [
        row(VALIDATION, "v", way, 8, 4, strength=s) for way in (LATENTS, IMAGES) for s in (0.1, 0.2)
    ]
    rows += [row(TEST, p, UNGUIDED, 8, 2, strength=0.0, stop=0.0, seconds=2.0) for p in "ab"]
    rows += [row(TEST, p, LATENTS, 6, 4, seconds=4.0) for p in "ab"]
    rows += [row(TEST, p, IMAGES, 4, 3, strength=0.2, seconds=12.0) for p in "ba"]
    rows[-1]["distinct"] = 4
    taken = {UNGUIDED: (1.0, 0.0), LATENTS: (1.5, 0.5), IMAGES: (3.0, 2.0), CLIP: (9.0, 8.0)}
    steps = [
        step(i, way, speed * a, speed * b)
        for i, speed in enumerate((1, 2, 1))
        for way, (a, b) in taken.items()
    ]
    write_rows(tmp_path / ambient_page.ROWS, rows)
    write_rows(tmp_path / ambient_page.STEPS, steps)
    ambient_page.draw_figure(rows, steps, tmp_path)
    text = ambient.BENCHMARK.page(tmp_path)
    assert "| unguided |  | 100.0% (100.0% to 100.0%) | 25.0% (25.0% to 25.0%) | 0.25 s |" in text
    assert (
        "| images | strength 0.2, stop 0.6 | 50.0% (50.0% to 50.0%) | 43.8% (37.5% to 50.0%) | "
        "1.50 s |" in text
    )
    assert (
        "| images against latents | -25.0 (-25.0 to -25.0) | -6.2 (-12.5 to +0.0) | 3.0 |" in text
    )
    assert (
        "| latents against unguided | -25.0 (-25.0 to -25.0) | +25.0 (+25.0 to +25.0) | 2.0 |"
        in text
    )
    assert "2 trials" in text
    assert "| latents | 1500 ms | 500.0 ms | 1.50 |" in text
    assert f"| {CLIP} | 9000 ms | 8000.0 ms | 9.00 |" in text
    assert (tmp_path / ambient_page.FIGURE).read_bytes().startswith(b"\x89PNG")


def test_smoke_run_chooses_tests_and_times_and_goes_on_when_rows_are_missing(bench, tmp_path):
    threads = torch.get_num_threads()
    code, _, err = bench("ambient", "--smoke", "--out", tmp_path)
    assert (code, "Traceback" in err) == (0, False)
    names = {"environment.json", ambient_page.ROWS, ambient_page.STEPS, ambient_page.FIGURE}
    assert {p.name for p in tmp_path.iterdir()} == names
    rows, steps = read_rows(tmp_path / ambient_page.ROWS), read_rows(tmp_path / ambient_page.STEPS)
    ways = [UNGUIDED, LATENTS, IMAGES]
    assert [(r["split"], r["way"]) for r in rows] == [
        (split, way) for split in (VALIDATION, TEST) for way in ways
    ]
    assert [(r["round"], r["way"]) for r in steps] == [(0, way) for way in (*ways, CLIP)]
    assert all((r["correction_seconds"] > 0) is (r["way"] != UNGUIDED) for r in steps)
    write_rows(
        tmp_path / ambient_page.ROWS, [r for r in rows if (r["split"], r["way"]) != (TEST, LATENTS)]
    )
    assert bench("ambient", "--smoke", "--out", tmp_path)[0] == 0
    again = read_rows(tmp_path / ambient_page.ROWS)
    same = [{k: v for k, v in r.items() if k != "seconds"} for r in rows]
    assert sorted(
        ({k: v for k, v in r.items() if k != "seconds"} for r in again), key=str
    ) == sorted(same, key=str)
    assert read_rows(tmp_path / ambient_page.STEPS) == steps
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("trial", [Trial(LATENTS, 0.1, 0.6), Trial(IMAGES, 0.1, 0.6)])
def test_images_are_embedded_only_when_they_are_compared(trial):
    method = ambient._sparke(trial, torch.flatten)
    assert (method.embed is torch.flatten) is (trial.way == IMAGES)
    assert (method.strength, method.stop) == (0.1, 0.6)
    assert SMOKE.trials()[0] == Trial(UNGUIDED)

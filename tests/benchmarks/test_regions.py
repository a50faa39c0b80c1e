import dataclasses

import pytest
import torch

from benchmarks import regions, regions_page
from benchmarks.base import read_rows, write_rows
from benchmarks.regions import CASES, SMOKE, Case, Compared, Drawn, Seen, measured


def seen(x0, masks):
    return Seen(
        region="hair", x0=[torch.tensor(x) for x in x0], masks=[torch.tensor(m) for m in masks]
    )


def drawn(latents):
    """One image of one channel and 2×2 places, each of which is a pixel of three equal colours."""
    found = torch.tensor(latents).view(1, 1, 2, 2)
    return Drawn(found, found.expand(1, 3, 2, 2) / 10)


CASE = Case("words", "woman: red hair", "hair")
LEFT, TOP = [[[[True, False], [True, False]]]], [[[[True, True], [False, False]]]]
ZERO = [[[[0.0, 0.0], [0.0, 0.0]]]]


def test_changes_are_those_inside_and_outside_when_the_mask_moves():
    after = seen([[[[[0.0, 0.0], [3.0, 0.0]]]], [[[[0.0, -5.0], [0.0, 0.25]]]]], [LEFT, TOP])
    found = Compared(
        unguided=drawn([1.0, 1.0, 1.0, 1.0]),
        everywhere=drawn([1.0, 1.0, 1.0, 5.0]),
        inside=drawn([4.0, 5.0, 1.0, 3.0]),
        before=seen([ZERO, ZERO], [LEFT, TOP]),
        after=after,
    )
    (row,) = measured(CASE, found)
    assert row["share"] == 0.75  # all but the place that is neither at the left nor at the top
    assert row["share_of_a_step"] == 0.5
    assert row["agreement"] == pytest.approx(1 / 3)
    assert (row["largest_inside"], row["largest_outside"]) == (5.0, 0.25)
    assert row["region_latents_inside"] == pytest.approx((25 / 3) ** 0.5)
    assert row["region_latents_outside"] == 2.0
    assert row["region_pixels_inside"] == pytest.approx(0.7 / 3)
    assert row["region_pixels_outside"] == pytest.approx(0.2)
    assert (row["everywhere_latents_inside"], row["everywhere_latents_outside"]) == (0.0, 4.0)


def test_nothing_is_said_of_the_outside_when_there_is_none():
    whole = [[[[True, True], [True, True]]]]
    still = seen([ZERO], [whole])
    same = drawn([1.0, 1.0, 1.0, 1.0])
    (row,) = measured(CASE, Compared(same, same, same, still, still))
    assert (row["share"], row["largest_outside"], row["region_pixels_outside"]) == (1.0, 0.0, None)


def made(prompt, image, outside):
    sizes = {
        "latents_inside": 0.4,
        "latents_outside": outside,
        "pixels_inside": 0.08,
        "pixels_outside": outside / 10,
    }
    whole = {
        f"everywhere_{name}": {"inside": 0.1, "outside": 0.2}[name.split("_")[1]] for name in sizes
    }
    return {
        "family": "words", "prompt": prompt, "region": "hair", "strength": 0.2, "stop": 1.0,
        "image": image, "share": 0.25, "share_of_a_step": 0.125, "agreement": 0.5,
        "largest_inside": 1.5, "largest_outside": 0.0,
        **{f"region_{k}": v for k, v in sizes.items()}, **whole,
    }  # fmt: skip


def test_page_has_what_the_rows_say(tmp_path):
    write_rows(
        tmp_path / regions_page.ROWS,
        [made("a", 0, 0.1), made("a", 1, 0.3), made("b", 0, 0.2), made("b", 1, 0.2)],
    )
    text = regions.BENCHMARK.page(tmp_path)
    assert (
        "Over all 4 guided images and all steps the largest correction of a prediction outside"
        in text
    )
    assert "was 0; inside it was 1.5." in text
    for prompt in "ab":
        assert (
            f"| {prompt} | hair | 12% | 25% | 50% | 0.40 / 0.20 | 8.0% / 2.0% | 0.10 / 0.20 | "
            "10.0% / 20.0% |" in text
        )
    assert (
        "Outside, pixels change 10% (10% to 10%) as much as with guidance everywhere, latents 100% "
        "(100% to 100%)" in text
    )
    assert "have 50% of what is in either in common" in text


def test_page_admits_it_when_a_correction_is_outside(tmp_path):
    write_rows(tmp_path / regions_page.ROWS, [{**made("a", 0, 0.1), "largest_outside": 0.125}])
    assert "was 0.125; inside it was 1.5." in regions.BENCHMARK.page(tmp_path)


def test_page_names_prompts_when_they_change_more_outside_than_inside(tmp_path):
    write_rows(tmp_path / regions_page.ROWS, [made("a", 0, 0.1), made("b", 0, 0.9)])
    assert "Pixels change more outside than inside of “b”." in regions.BENCHMARK.page(tmp_path)


def test_cases_are_told_apart_by_their_keys_and_shown_ones_exist():
    keys = [case.key for case in CASES]
    assert len(set(keys)) == len(keys)
    assert set(regions.Size().shown) <= set(keys)
    assert any(case.region not in case.prompt for case in CASES if isinstance(case.region, str))


def test_correction_is_zero_outside_when_measured_and_a_run_goes_on(bench, tmp_path, monkeypatch):
    monkeypatch.setattr(regions, "SMOKE", dataclasses.replace(SMOKE, steps=2))
    code, _, err = bench("regions", "--smoke", "--out", tmp_path)
    assert (code, "Traceback" in err) == (0, False)
    assert {p.name for p in tmp_path.iterdir()} == {
        "environment.json",
        regions_page.ROWS,
        regions_page.FIGURE,
    }
    rows = read_rows(tmp_path / regions_page.ROWS)
    assert [(r["family"], r["prompt"], r["image"]) for r in rows] == [
        (*case.key, i) for case in SMOKE.cases for i in range(2)
    ]
    assert all(r["largest_outside"] == 0 < r["largest_inside"] for r in rows)
    assert all(r["region_latents_inside"] > r["region_latents_outside"] for r in rows)
    before = (tmp_path / regions_page.FIGURE).stat().st_mtime_ns
    assert bench("regions", "--smoke", "--out", tmp_path)[0] == 0
    assert read_rows(tmp_path / regions_page.ROWS) == rows
    assert (tmp_path / regions_page.FIGURE).stat().st_mtime_ns == before

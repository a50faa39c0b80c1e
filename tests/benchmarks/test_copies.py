import torch

from benchmarks.base import write_rows
from benchmarks.copies.draw import known
from benchmarks.copies.edits import EDITED, edited, edits_section
from benchmarks.copies.page import VARIETY, page
from benchmarks.copies.settings import (
    FINISHED,
    GUARDS,
    NONE,
    PROMPTS_OF,
    SMOKE,
    Size,
    answered,
    protected,
)
from unalike.models.emoji.copies import COPY
from unalike.models.emoji.data import load_images, truth


def row(guard, prompt, seed, copies, **more):
    usual = {"refused": False, "named": copies < COPY, "right": True, "seconds": 1.0, "restarts": 0}
    place = {"model": "emoji-turbo", "protected": "hearts", "guard": guard, "prompt": prompt}
    return {**place, "seed": seed, "copies": copies, "evaluations": 4.0, **usual, **more}


def test_every_prompt_is_drawn_beside_every_guard_and_has_right_images():
    jobs = Size().jobs()
    assert len({job.key for job in jobs}) == len(jobs)
    for name, prompts in PROMPTS_OF.items():
        assert all(len(truth(prompt)) for prompt in prompts)
        own = {(j.prompt, j.setting.guard) for j in jobs if j.setting.protected == name}
        assert own == {(prompt, guard) for prompt in prompts for guard in GUARDS}
    finished = [j for j in jobs if j.setting.guard == FINISHED]
    assert sum(job.images for job in finished) >= 2000
    assert len(SMOKE.jobs()) <= 4


def test_prompts_are_told_apart_by_whether_they_have_an_answer_that_is_not_protected():
    assert answered("heart", "hearts")
    assert answered("house", "flags")
    assert not answered("red heart", "hearts")
    assert not answered("flag: Japan", "flags")
    assert not answered("house", "all")
    assert len(protected("hearts")) == 12
    assert len(protected("all")) == len(load_images())


def test_page_counts_what_was_returned(tmp_path):
    rows = [
        row(NONE, "heart", 0, 0.1),
        row(NONE, "heart", 1, 0.9),
        row(FINISHED, "heart", 0, 0.1, refused=True, named=True, evaluations=12.0, restarts=2),
        row(FINISHED, "heart", 1, 0.9, evaluations=4.0),
        row(NONE, "red heart", 0, 0.1),
        row(FINISHED, "red heart", 0, 0.1, refused=True, restarts=2),
        row(NONE, "house", 0, 1.2),
        row(FINISHED, "house", 0, 1.2, seconds=1.5),
    ]
    scores = [
        {**{k: r[k] for k in ("model", "protected", "guard", "prompt")}, "vendi": 1.5}
        for r in rows[::2]
    ]
    write_rows(tmp_path / VARIETY, scores)
    text = page(tmp_path, rows)
    plain, kept = (line for line in text.splitlines() if line.startswith(("| none", "| finished")))
    assert "| 2 of 4 | 50.0%" in plain
    assert "| 0 of 2 | 0.0% (0.0% to 0.0%) | 2 of 4 | 1 of 3 |" in kept
    assert "×1.50 | ×1.12 |" in kept
    assert "For the 1 pairs of a set and a prompt" in text
    assert "took ×1.50 the time of none" in text
    assert "Edited afterwards" not in text


def test_edits_are_counted_over_models_and_protected_images_once(tmp_path):
    common = {"edit": "jpeg80", "images": 10, "known": 5, "recognised": 4, "protected": "hearts"}
    rows = [{"model": m, "inside": i, **common} for m, i in (("emoji", 1), ("emoji-turbo", 2))]
    write_rows(tmp_path / EDITED, rows)
    assert "| 3 of 20 (15.0%) | 4 of 5 (80.0%) |" in edits_section(tmp_path)


def test_protected_images_are_known_after_edits_and_others_are_not():
    hearts = load_images()[protected("hearts")] / 255
    points = known("copies", "hearts")
    assert torch.equal(points, known("copies", "hearts"))
    assert points.shape == (12, 64)
    changed = edited(hearts, "half")
    assert changed.shape == hearts.shape
    assert not torch.equal(changed, hearts)

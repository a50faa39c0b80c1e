from collections import Counter
from dataclasses import replace

import pytest
import torch
from tests.runs.pages import Reader, require_structure
from tests.runs.score import folders
from tests.runs.test_page import NASTY

from unalike.runs.score import page
from unalike.runs.score.images import ImageSet
from unalike.runs.score.page import score_page
from unalike.runs.score.scores import Score
from unalike.runs.score.selection import Pair


@pytest.fixture
def images(tmp_path):
    files = folders.write(tmp_path / "set", range(5), size=(200, 150))
    return ImageSet(tmp_path / "set", files, torch.zeros(5, 1), Counter({(200, 150): 5}), [])


def record(**changes):
    side = {"name": NASTY, "count": 5, "sizes": [], "skipped": []}
    plain = {
        "images": side,
        "reference": side,
        "prompts": {"source": "p.csv", "count": 2, "kernel": "same prompt"},
        "features": {"name": "pixels", "basis": "basis", "unit": "unit of distances"},
        "settings": {"k": 5, "radius": 0.1, "bootstrap": 300},
        "notes": ["something to know"],
        "command": "unalike score x",
    }
    return {**plain, **changes}


SCORES = [
    Score("vendi", "all", None, 3.25, 2.5, 4.0, "prompts", 5),
    Score("recall", "all", None, 0.75, 0.5, 1.0, "reference prompts", 5),
    Score("smallest_distance", "all", None, 0.015, None, None, None, 5),
    Score("vendi", "mean", None, 1.75, 1.5, 2.0, "prompts", 5, 2),
    Score("vendi", "prompt", NASTY, 1.5, 1.25, 1.625, "images", 3),
    Score("vendi", "prompt", "cat", 2.0, 1.5, 2.25, "images", 2),
]


def read(own, scores=SCORES, asked=(NASTY, NASTY, NASTY, "cat", "cat"), **changes):
    reference = own if changes.get("reference", True) else None
    nearest = [Pair(0, 3, 0.125)] if reference else []
    return Reader(
        score_page(record(**changes), scores, own, reference, asked, [Pair(0, 1, 0.875)], nearest)
    )


def test_page_needs_nothing_else_when_opened_offline(images):
    reader = read(images)
    assert {tag for tag, _ in reader.elements}.isdisjoint({"script", "link", "iframe"})
    sources = [a["src"] for a in reader.all("img")]
    assert len(sources) == 2 + 2 + 5
    assert all(s.startswith("data:image/png;base64,") for s in sources)
    assert not any(
        name in attributes
        for _, attributes in reader.elements
        for name in ("href", "srcset", "onload", "style")
    )


def test_names_and_prompts_are_text_when_they_look_like_markup(images):
    reader = read(images)
    assert reader.all("script") == []
    assert NASTY in reader.text


def test_scores_stand_with_their_intervals_and_what_was_redrawn(images):
    text = read(images).text.replace("\u00a0", " ")
    for words in (
        "3.25 (2.5 to 4)",
        "1.75 (1.5 to 2)",
        "0.75 (0.5 to 1)",
        "0.015",
        "300 redraws of prompts and reference prompts",
    ):
        assert words in text
    assert "larger is better" in text


def test_every_picture_and_chart_has_words_when_it_cannot_be_seen(images):
    reader = read(images)
    assert all(a["alt"].strip() for a in reader.all("img"))
    (chart,) = reader.all("svg")
    assert "Vendi score of each prompt" in chart["aria-label"]


def test_pictures_keep_their_shape_when_made_small(images):
    assert {(a["width"], a["height"]) for a in read(images).all("img")} == {("128", "96")}


def test_pairs_say_how_alike_and_how_near_they_are(images):
    text = read(images).text
    assert "similarity 0.875, " + NASTY in text
    assert "distance 0.125: 00.png, 03.png" in text
    assert "unit of distances" in text


def test_nothing_is_said_of_prompts_and_reference_when_there_are_none(images):
    reader = read(images, SCORES[:1], None, reference=None, prompts=None, notes=[])
    shown = (
        reader.text.partition("Settings")[0]
        .partition("Scores")[2]
        .replace("redraws of prompts", "")
    )
    assert not any(words in shown for words in ("prompt", "reference", "To keep in mind"))
    assert reader.all("svg") == []


def test_notes_and_skipped_files_are_listed_when_there_are_any(images):
    side = {
        "name": "x",
        "count": 5,
        "sizes": [],
        "skipped": [{"file": "bad.png", "reason": "torn"}],
    }
    text = read(images, images=side).text
    assert "something to know" in text
    assert "1 image could not be read and left out: bad.png (torn)" in text


def test_page_says_how_many_are_left_out_when_there_are_too_many(images, monkeypatch):
    monkeypatch.setattr(page, "PROMPTS_LISTED", 1)
    monkeypatch.setattr(page, "PROMPTS_CHARTED", 1)
    reader = read(images)
    assert "first 1 of 2 prompts" in reader.text
    assert "the 1 least varied prompts of 2" in reader.text


def test_colours_follow_the_reader_when_light_or_dark_is_preferred(images):
    assert "prefers-color-scheme: dark" in read(images).text


def test_headings_scrolling_parts_and_widths_are_sound(images):
    require_structure(read(images))
    require_structure(read(images, SCORES[:1], None, reference=None, prompts=None, notes=[]))


def test_score_says_of_how_many_it_is_when_it_is_not_of_all(images):
    scores = [replace(SCORES[0], images=4), SCORES[1], replace(SCORES[3], prompts=1)]
    text = read(images, [*scores, *SCORES[4:]]).text.replace("\u00a0", " ")
    assert "3.25 (2.5 to 4), of 4 images" in text
    assert "1.75 (1.5 to 2), of 1 prompt" in text
    assert "0.75 (0.5 to 1), of" not in text

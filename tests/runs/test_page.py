from dataclasses import replace
from html.parser import HTMLParser

import pytest
import torch
from PIL import Image

from unalike.attach.run.report import Certificate, Decoded, ImageReport
from unalike.runs import page
from unalike.runs.page import report_page
from unalike.runs.samples import Picture, Planned, Sample
from unalike.runs.scoring import Diversity

NASTY = '<script>alert("&")</script>'
VOID = {"meta", "img", "link", "br", "hr", "input"}


class Reader(HTMLParser):
    """Checks that elements are closed in order, and collects what a page shows and loads."""

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.text = [], [], ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def record(**changes):
    plain = {
        "prompts": [NASTY],
        "finished": True,
        "shield": {"size": 1200, "radius": 10.0, "radius_source": None},
        "methods": [{"name": "sparke"}],
        "model": {"name": "emoji"},
        "steps": 2,
        "images": {"planned": 3},
        "command": "unalike generate x",
    }
    return {**plain, **changes}


def sample(index=0, *, change=None, certificate=None, sizes=(0.1, 0.2), active=0.5, side=16):
    report = ImageReport(
        index=index,
        prompt=NASTY,
        group=0,
        corrections={"sparke": [10 * s for s in sizes]},
        corrections_of_x0={"sparke": list(sizes)},
        active={"sparke": active},
        nearest=None,
        certificate=certificate,
    )
    picture = Picture("images/00000.png", Image.new("RGB", (side, side), "red"), torch.zeros(3))
    return Sample(
        Planned(index, NASTY, 0, 7 + index),
        picture,
        report,
        picture if change is not None else None,
        change,
    )


def read(samples, scores=None, twins=None, **changes):
    scores = {NASTY: Diversity(2.5, 2.25, len(samples))} if scores is None else scores
    return Reader(report_page(record(**changes), samples, scores, twins or {}))


def test_page_needs_nothing_else_when_opened_offline():
    reader = read(
        [sample(0, change=0.4), sample(1, change=0.0, side=200)],
        twins={NASTY: Diversity(1.5, 1.25, 2)},
    )
    assert {tag for tag, _ in reader.elements}.isdisjoint({"script", "link", "iframe"})
    sources = [a["src"] for a in reader.all("img")]
    assert len(sources) == 4
    assert all(s.startswith(("data:image/png;base64,", "data:image/webp;base64,")) for s in sources)
    assert not any(
        name in attributes
        for _, attributes in reader.elements
        for name in ("href", "srcset", "onload", "style")
    )
    assert "url(" not in reader.text
    assert "@import" not in reader.text


def test_prompt_is_text_when_it_looks_like_markup():
    reader = read([sample()])
    assert reader.all("script") == []
    assert NASTY in reader.text


def test_every_picture_and_chart_has_words_when_it_cannot_be_seen():
    reader = read([sample(0, change=0.4), sample(1, change=0.0)])
    assert all(a["alt"].startswith(NASTY) for a in reader.all("img"))
    assert len(reader.all("svg")) == 2
    assert all(a["role"] == "img" and "sparke" in a["aria-label"] for a in reader.all("svg"))
    assert reader.all("html") == [{"lang": "en"}]


def test_only_plainly_changed_images_are_framed_and_all_say_how_far_when_compared():
    reader = read([sample(0, change=0.4), sample(1, change=0.01), sample(2, change=0.0)])
    assert len([a for a in reader.all("li") if a.get("class") == "changed"]) == 1
    for words in ("seed 7, changed by 40%", "seed 8, changed by 1%", "seed 9, identical"):
        assert words in reader.text


def test_scores_stand_side_by_side_when_compared():
    reader = read([sample(0, change=0.4)], twins={NASTY: Diversity(1.5, 1.25, 1)})
    for words in ("Vendi, unguided", "1.50", "2.50", "1.25", "2.25"):
        assert words in reader.text


def test_nothing_is_said_of_unguided_images_when_there_are_none():
    assert "unguided" not in read([sample()]).text


def test_certificates_are_listed_when_there_was_a_shield():
    certificate = Certificate(
        "logo-7",
        12.5,
        10.0,
        2.25,
        True,
        "s",
        "c",
        steps_moved=17,
        decoded=Decoded("logo-8", 9.75, True),
    )
    text = read([sample(certificate=certificate)]).text
    assert "Protected set" in text
    assert "1,200 protected images; radius 10, as given." in text
    assert all(
        word in text
        for word in ("logo-7", "12.5", "10", "2.25", "yes", "17", "9.75 from logo-8 (inside)")
    )
    assert "Protected set" not in read([sample()]).text


def test_refused_image_is_listed_and_not_shown_when_there_is_one():
    certificate = Certificate("logo-7", 2.0, 10.0, -8.0, False, "s", "c")
    kept, gone = sample(0, certificate=certificate), sample(1, certificate=certificate)
    gone = replace(gone, picture=None, report=replace(gone.report, refused=True))
    reader = read([kept, gone])
    assert len(reader.all("img")) == 1
    assert "1 images of 1 prompt" in reader.text
    assert "1 more was drawn and refused" in reader.text
    assert "number 1, refused" in reader.text
    assert read([gone], scores={}).all("img") == []


def test_page_says_so_when_the_run_was_stopped():
    assert "stopped before all 3 images" in read([sample()], finished=False).text
    assert "stopped" not in read([sample()]).text


def test_page_says_how_many_are_left_out_when_there_are_too_many(monkeypatch):
    monkeypatch.setattr(page, "IMAGES_SHOWN", 2)
    reader = read([sample(i) for i in range(3)])
    assert len(reader.all("img")) == 2
    assert "first 2 of 3 images" in reader.text


def test_colours_follow_the_reader_when_light_or_dark_is_preferred():
    assert "prefers-color-scheme: dark" in read([sample()]).text


def test_page_is_whole_when_there_was_one_step():
    assert len(read([sample(sizes=(0.1,))]).all("svg")) == 2


@pytest.mark.parametrize(
    ("active", "words"),
    [(0.5, "by what it had the model told of the prompts"), (0.0, "and corrected nothing")],
)
def test_words_stand_for_the_charts_when_a_method_corrected_no_image(active, words):
    page = read([sample(sizes=(0.0, 0.0), active=active)])
    assert not page.all("svg")
    assert words in page.text

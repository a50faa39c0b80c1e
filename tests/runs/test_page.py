from dataclasses import replace

import pytest
from tests.runs.pages import Reader, require_structure

from unalike.attach.run.report import Certificate, Decoded, ImageReport
from unalike.runs.html import ROWS_LISTED, settings_section
from unalike.runs.page import report_page
from unalike.runs.samples import Planned, Sample, StoredImage
from unalike.runs.scoring import Diversity

NASTY = '<script>alert("&")</script>'


def record(**changes):
    plain = {
        "prompts": [NASTY],
        "finished": True,
        "shield": {
            "size": 1200,
            "radius": 10.0,
            "radius_source": None,
            "rounding": 0.25,
            "certified": "latents",
        },
        "methods": [{"name": "sparke"}],
        "methods_as_used": None,
        "model": {"name": "emoji"},
        "steps": 2,
        "images": {
            "planned": 3,
            "finished": 3,
            "decoded_inside": 2,
            "moved": 1,
            "drawn_again": 0,
            "refused": 0,
        },
        "scores": {
            "guided": {"vendi": 2.5, "prompts": {NASTY: {"images": 3}}},
            "unguided": None,
        },
        "command": "unalike generate x",
    }
    return {**plain, **changes}


def sample(index=0, *, change=None, certificate=None, sizes=(0.1, 0.2), active=0.5):
    report = ImageReport(
        index=index,
        prompt=NASTY,
        group=0,
        corrections={"sparke": [10 * s for s in sizes]},
        corrections_of_x0={"sparke": list(sizes)},
        active={"sparke": active},
        nearest=None,
        certificate=certificate,
        certificates=[] if certificate is None else [certificate],
    )
    return Sample(
        Planned(index, NASTY, 0, 7 + index),
        stored(f"images/{index:05}.png"),
        report,
        stored(f"unguided/{index:05}.png") if change is not None else None,
        change,
    )


def stored(path):
    """An image on disk: a page needs nothing of it but its path."""
    return StoredImage(path)


def read(samples, scores=None, twins=None, **changes):
    scores = {NASTY: Diversity(2.5, 2.25, len(samples))} if scores is None else scores
    return Reader(report_page(record(**changes), samples, scores, twins or {}))


def test_page_needs_nothing_but_its_folder_when_opened_offline():
    reader = read(
        [sample(0, change=0.4), sample(1, change=0.0)],
        twins={NASTY: Diversity(1.5, 1.25, 2)},
    )
    assert {tag for tag, _ in reader.elements}.isdisjoint({"link", "iframe"})
    sources = [a["src"] for a in reader.all("img")]
    assert sources == [
        *("unguided/00000.png", "images/00000.png", "unguided/00001.png", "images/00001.png")
    ]
    assert [a["href"] for a in reader.all("a")] == sources
    assert not any(
        name in attributes
        for tag, attributes in reader.elements
        for name in ("srcset", "onload", "style", *(["src"] if tag != "img" else []))
    )
    assert "url(" not in reader.text
    assert "@import" not in reader.text
    script = reader.scripts[None]
    assert not any(name in script for name in ("fetch(", "import", "http", "innerHTML"))


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
    scores = {NASTY: Diversity(2.5, 2.25, 3)}
    reader = read([sample(0, change=0.4)], scores, {NASTY: Diversity(1.5, 1.25, 3)})
    rows = [r for r in reader.rows if r[0] in ("prompt", NASTY)]
    assert rows == [
        ["prompt", "images", "Vendi, unguided", "Vendi", "RKE, unguided", "RKE"],
        [NASTY, "3", "1.50", "2.50", "1.25", "2.25"],
    ]
    assert "2.50 on pixels, of 3 images" in reader.text


def test_one_image_has_no_diversity():
    reader = read([sample()], {NASTY: Diversity(1.0, 1.0, 1)})
    assert [r for r in reader.rows if r[0] == NASTY] == [[NASTY, "1", "–", "–"]]


def test_nothing_is_said_of_unguided_images_when_there_are_none():
    assert "unguided" not in read([sample()]).text.partition("Settings")[0]


def test_finished_images_come_first_when_only_latents_are_certified():
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
    reader = read([sample(certificate=certificate)])
    text = reader.text.partition("Protected set")
    assert "2 of 3 finished images are inside the protected set of 1,200" in text[0]
    assert "nearer than 10.25" in text[0]
    assert "Only latents are certified: 3 of 3 outside; 1 of 3 images moved out" in text[0]
    assert "1,200 protected images; radius 10, as given." in text[2]
    (row,) = [r for r in reader.rows if r[0].startswith("images/")]
    assert row == [
        "images/00000.png",
        "logo-8",
        "inside",
        "9.75",
        "logo-7",
        "12.5",
        "2.25",
        "yes",
        "17",
        "0",
        "1",
    ]
    assert text[2].index("finished image") < text[2].index("latent")
    assert "Distances to the protected set" not in str(read([sample()]).elements)


def test_finished_images_are_said_to_be_unknown_when_they_cannot_be_encoded():
    certificate = Certificate("logo-7", 12.5, 10.0, 2.25, False, "s", "c")
    images = {**record()["images"], "decoded_inside": None}
    reader = read([sample(certificate=certificate)], images=images)
    assert "It is not known how many of 3 finished images are inside" in reader.text
    assert "not measured" in next(r for r in reader.rows if r[0].startswith("images/"))


def test_certificates_are_of_finished_images_when_the_set_is_of_features():
    certificate = Certificate("logo-7", 0.125, 0.1, 0.025, False, "s", "c")
    shield = {**record()["shield"], "certified": "finished images"}
    images = {**record()["images"], "decoded_inside": 0}
    reader = read([sample(certificate=certificate)], images=images, shield=shield)
    assert "0 of 3 finished images are inside the protected set of 1,200: none is" in reader.text
    assert "latent" not in reader.text.partition("Settings")[0]
    (row,) = [r for r in reader.rows if r[0].startswith("images/")]
    assert row[:5] == ["images/00000.png", "logo-7", "outside", "0.125", "0.025"]


def test_refused_image_is_listed_and_not_shown_when_there_is_one():
    certificate = Certificate("logo-7", 2.0, 10.0, -8.0, False, "s", "c")
    kept, gone = sample(0, certificate=certificate), sample(1, certificate=certificate)
    gone = replace(gone, image=None, report=replace(gone.report, refused=True))
    reader = read([kept, gone])
    assert len(reader.all("img")) == 1
    assert "1 image of 1 prompt" in reader.text
    assert "1 more was drawn and refused" in reader.text
    assert "number 1, refused" in reader.text
    assert read([gone], scores={}).all("img") == []


def test_page_says_so_when_the_run_was_stopped():
    assert "stopped before all 3 images" in read([sample()], finished=False).text
    assert "stopped" not in read([sample()]).text


def test_tables_are_cut_and_say_where_the_rest_is_when_there_are_many_rows():
    near = [
        Certificate("a", 12.0 - i / 100, 10.0, 1.0, False, "s", "c")
        for i in range(ROWS_LISTED + 20)
    ]
    scores = {f"cat {i}": Diversity(3.0 - i / 100, 1.0, 4) for i in range(ROWS_LISTED + 1)}
    scores["alone"] = Diversity(1.0, 1.0, 1)
    reader = read([sample(i, certificate=c) for i, c in enumerate(near)], scores)
    prompts = [row[0] for row in reader.rows if row[0].startswith("cat ")]
    assert prompts == [f"cat {i}" for i in range(ROWS_LISTED, 0, -1)]
    places = [row[0] for row in reader.rows if row[0].startswith("images/")]
    assert places == [f"images/{len(near) - 1 - i:05}.png" for i in range(ROWS_LISTED)]
    assert "Distances to the protected set: 30 of 50" in reader.text
    assert reader.text.count("in samples.parquet") == 2


def test_record_is_linked_to_when_it_is_long():
    whole, cut = read([sample()]), read([sample()], prompts=[NASTY] * 5000)
    assert '"finished": true' in whole.text
    assert '"finished": true' not in cut.text
    assert cut.all("a")[-1] == {"href": "run.json"}


def test_title_is_short_when_prompts_are_long():
    reader = read([sample()], prompts=["word " * 100] * 5)
    (title,) = [text for level, text in reader.headings if level == 1]
    assert len(title) < 150
    assert title.endswith("…")


def test_colours_follow_the_reader_when_light_or_dark_is_preferred():
    assert "prefers-color-scheme: dark" in read([sample()]).text


def test_page_is_whole_when_there_was_one_step():
    assert len(read([sample(sizes=(0.1,))]).all("svg")) == 2


@pytest.mark.parametrize(
    ("active", "words"),
    [
        (0.5, "acted at 50% of the steps of all images, by what the model was told of the prompts"),
        (0.0, "It corrected no prediction."),
    ],
)
def test_words_stand_for_the_charts_when_a_method_corrected_no_image(active, words):
    page = read([sample(sizes=(0.0, 0.0), active=active)])
    assert not page.all("svg")
    assert words in page.text


@pytest.mark.parametrize(
    ("renewal", "words"),
    [
        (None, "at 2 of 9 steps (steps 0 to 1). Lines"),
        (
            {"asked": 1.0, "used": 1.0, "steps": 8},
            "At 8 of 9 steps all of the noise was drawn anew",
        ),
        (
            {"asked": 0.5, "used": 0.5, "steps": 8},
            "At 8 of 9 steps 50% of the noise was drawn anew",
        ),
        ({"asked": 1.0, "used": 0.0, "steps": 0}, "which this scheduler does not allow"),
    ],
)
def test_steps_that_the_charts_show_are_told_from_renewed_noise(renewal, words):
    entry = {"name": "auto"} | ({"renewal": renewal} if renewal else {})
    page = read([sample(sizes=(0.4, 0.4, *[0.0] * 7), active=8 / 9)], methods_as_used=[entry])
    assert "It corrected predictions at 2 of 9 steps (steps 0 to 1)." in page.text
    assert words in page.text


def test_unguided_and_guided_image_of_a_seed_are_in_one_item_when_compared():
    page = read([sample(i, change=0.1) for i in range(3)])
    inside = [tag for tag, _ in page.elements]
    items = " ".join(inside).split("li ")[1:]
    assert [item.split().count("img") for item in items[:3]] == [2, 2, 2]
    assert [t for t in page.texts if t in ("unguided", "guided")] == ["unguided", "guided"] * 3


def test_lead_counts_the_prompts_that_have_images_when_the_run_was_stopped():
    page = read([sample()], prompts=[NASTY, "dog"], finished=False)
    assert "1 image of 1 of 2 prompts" in page.text


def test_margin_is_one_number_for_people_when_it_is_tiny():
    certificate = Certificate(
        "a", 10.00000667, 10.0, 6.67e-06, True, "s", "c", decoded=Decoded("a", 9.5, True)
    )
    page = read([sample(certificate=certificate)])
    (row,) = [r for r in page.rows if r[0].startswith("images/")]
    assert row[6] == "6.67\u00a0×\u00a010⁻⁶"


def test_headings_scrolling_parts_and_widths_are_sound_when_a_page_has_everything():
    certificate = Certificate(
        "a", 12.5, 10.0, 2.25, True, "s", "c", decoded=Decoded("b", 9.75, True)
    )
    require_structure(
        read(
            [sample(0, change=0.4, certificate=certificate), sample(1, change=0.0)],
            twins={NASTY: Diversity(1.5, 1.25, 2)},
        )
    )


def test_flags_of_the_command_stay_whole_when_lines_are_broken():
    page = settings_section("draw", {"command": "unalike generate 'a <b>' --on-violation move"}, "")
    assert '<span class="flag">--on-violation</span> move</pre>' in page
    assert "&lt;b&gt;" in page

import json
from dataclasses import replace

import pytest
from tests.runs.pages import Reader
from tests.runs.test_page import NASTY, sample, stored

from unalike.attach.run.report import Nearest
from unalike.runs.gallery import IMAGES_OF_PAGE, images_section
from unalike.runs.samples import by_prompt
from unalike.runs.scoring import Diversity

SIZE = (96, 64)


def read(samples, scores=None, unguided=None):
    return Reader(images_section(samples, scores or {}, unguided or {}, SIZE))


def data(reader):
    return json.loads(reader.scripts["images-data"])


def of(prompt, index, **facts):
    own = sample(index, **facts)
    return replace(own, planned=replace(own.planned, prompt=prompt))


def near(own, distance):
    return replace(own, report=replace(own.report, nearest=Nearest(0, "run", distance)))


def orders(reader):
    return [a["value"] for a in reader.all("option")]


@pytest.mark.parametrize(
    "prompt",
    [
        NASTY,
        "</script><script>alert(1)</script>",
        "<!-- <script>",
        "]]> &lt; \\u003c \\",
        "line\u2028and\u2029paragraph",
        "日本の旗 🇯🇵 \"quoted\" 'single' `${x}`",
    ],
)
def test_prompt_survives_when_it_could_end_the_data(prompt):
    html = images_section([of(prompt, 0), of(prompt, 1)], {}, {}, SIZE)
    reader = Reader(html)
    assert data(reader)["prompts"] == [prompt]
    assert len(reader.all("script")) == 2
    assert [text for level, text in reader.headings if level == 3] == [prompt]
    own = reader.scripts["images-data"]
    assert not any(c in own for c in "<>&\u2028\u2029")


def test_all_images_are_there_once_and_the_page_is_small_when_there_are_ten_thousand():
    samples = [
        near(of(f"a painted house by the sea, number {i // 4}", i, change=0.1), 12.345)
        for i in range(10_000)
    ]
    scores = {prompt: Diversity(2.0, 1.5, 4) for prompt in by_prompt(samples)}
    html = images_section(samples, scores, scores, SIZE)
    reader = Reader(html)
    found = data(reader)
    assert found["guided"] == [f"images/{i:05}.png" for i in range(10_000)]
    assert found["unguided"] == [f"unguided/{i:05}.png" for i in range(10_000)]
    assert found["prompt"] == [i // 4 for i in range(10_000)]
    assert {len(own) for name, own in found.items() if name not in ("size", *PROMPTS)} == {10_000}
    assert {len(found[name]) for name in PROMPTS} == {2500}
    assert len(html.encode()) < 2_000_000
    assert len(reader.elements) < 1500


PROMPTS = ("prompts", "words", "vendi")


def test_first_page_is_in_the_html_when_there_is_no_javascript():
    reader = read([of(f"cat {i // 50}", i) for i in range(100)])
    shown = [a["src"] for a in reader.all("img")]
    assert shown == [f"images/{i:05}.png" for i in range(IMAGES_OF_PAGE)]
    assert "The first 64 of 100 images are shown" in reader.text
    assert len(reader.all("noscript")) == 1
    assert all("hidden" in a for tag, a in reader.elements if tag in ("form", "nav"))
    assert data(reader)["size"] == IMAGES_OF_PAGE


def test_pages_are_not_turned_when_all_images_are_shown():
    reader = read([sample(i) for i in range(IMAGES_OF_PAGE)])
    assert len(reader.all("img")) == IMAGES_OF_PAGE
    assert reader.all("nav") == []
    assert reader.all("noscript") == []


def test_image_stands_alone_when_it_is_the_only_one():
    reader = read([sample()])
    assert len(reader.all("img")) == 1
    assert reader.all("form") == reader.all("script") == []


def test_images_are_files_read_late_in_a_place_of_their_size_when_shown():
    (image,) = read([sample()]).all("img")
    assert image["loading"] == "lazy"
    assert image["decoding"] == "async"
    assert (image["width"], image["height"]) == ("96", "64")


def test_links_are_quoted_when_a_path_is_no_url():
    odd = 'images/50% #1 a?"b.png'
    images = [replace(sample(i), image=stored(odd)) for i in range(2)]
    reader = read(images)
    url = "images/50%25%20%231%20a%3F%22b.png"
    assert [a["src"] for a in reader.all("img")] == [url] * 2
    assert data(reader)["guided"] == [url] * 2


def test_images_are_listed_when_they_are_in_shards():
    own = [
        replace(sample(i, change=0.4), image=stored(path), unguided=stored(path))
        for i, path in enumerate(("shards/shard-000000.tar#00000012.png",) * 2)
    ]
    reader = read(own)
    assert reader.all("img") == reader.all("a") == []
    caption = "shards/shard-000000.tar#00000012.png, seed 7, changed by 40%"
    assert caption in reader.texts
    assert data(reader)["caption"][0] == caption
    assert not {"guided", "unguided"} & data(reader).keys()
    assert "in shards, which a page cannot show" in reader.text


def test_prompts_stay_together_when_their_images_alternate():
    reader = read([of(("cat", "dog")[i % 2], i) for i in range(4)])
    assert data(reader)["prompt"] == [0, 0, 1, 1]
    assert data(reader)["seed"] == [7, 9, 8, 10]
    assert [a["src"][-5] for a in reader.all("img")] == ["0", "2", "1", "3"]


def test_only_orders_that_images_have_are_offered_when_sorted():
    plain = [of("cat", 0), of("cat", 1)]
    assert orders(read(plain)) == ["order up", "seed up"]
    score = Diversity(1.5, 1.25, 2)
    assert "vendi up" not in orders(read(plain, {"cat": score}))
    several = [*plain, near(of("dog", 2, change=0.25), 3.0)]
    reader = read(several, {"cat": score, "dog": Diversity(1.0, 1.0, 1)})
    assert orders(reader) == [
        *("order up", "vendi up", "vendi down", "nearest up", "nearest down"),
        *("change down", "change up", "seed up"),
    ]
    found = data(reader)
    assert found["vendi"] == [1.5, None]
    assert found["nearest"] == [None, None, 3.0]
    assert found["change"] == [None, None, 0.25]
    assert found["changed"] == [None, None, 1]


def test_distance_is_left_out_of_the_order_when_it_is_no_number():
    reader = read([near(sample(0), float("inf")), near(sample(1), 2.0)])
    assert data(reader)["nearest"] == [None, 2.0]


def test_scores_stand_over_the_images_of_a_prompt_when_there_are_several():
    own = [of("cat", 0), of("cat", 1), of("dog", 2)]
    scores = {"cat": Diversity(1.5, 1.25, 2), "dog": Diversity(1.0, 1.0, 1)}
    reader = read(own, scores, {"cat": Diversity(1.2, 1.1, 2)})
    assert "2 images, Vendi score 1.50; 1.20 without guidance" in reader.texts
    assert "1 image" in reader.texts
    assert data(reader)["words"][1] == "1 image"


def test_every_control_has_a_name_when_pages_are_turned():
    reader = read([of(f"cat {i}", i) for i in range(IMAGES_OF_PAGE + 1)])
    inside = [path for text, path in reader.pieces if text.strip() and "label" in path]
    assert len(inside) == len(reader.all("input")) + len(reader.all("select")) + 2  # its options
    assert [a["type"] for a in reader.all("button")] == ["button"] * 4
    names = [a["aria-label"] for a in reader.all("nav")]
    assert len(set(names)) == 2
    (status,) = [a for a in reader.all("p") if a.get("role") == "status"]
    assert status["aria-live"] == "polite"

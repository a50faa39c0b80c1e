import pytest
import torch

from unalike.errors import OptionError
from unalike.models.emoji import captions, concepts, entries, load_images, truth


def test_every_fully_qualified_emoji_is_there() -> None:
    assert len(entries()) == 3664
    assert len({entry.text for entry in entries()}) == 3664


def test_pictures_are_distinct_and_each_belongs_to_an_entry() -> None:
    images = load_images()
    assert images.shape == (3650, 3, 64, 64)
    assert images.dtype == torch.uint8
    assert len(torch.unique(images.flatten(1), dim=0)) == len(images)
    assert {entry.image for entry in entries()} == set(range(len(images)))


def test_shared_pictures_are_one_right_answer() -> None:
    assert truth("flag: France").tolist() == truth("flag: Clipperton Island").tolist()


@pytest.mark.parametrize(
    ("prompt", "count"),
    [
        ("red heart", 1),
        ("clock", 24),
        ("woman running", 6),
        ("person running", 18),
        ("woman running: dark skin tone", 1),
        ("woman running: yellow skin tone", 1),
        ("farmer", 18),
        ("people holding hands", 78),
        ("keycap: #", 1),
        ("circle", 9),
    ],
)
def test_truth_has_the_counted_pictures(prompt: str, count: int) -> None:
    assert len(truth(prompt)) == count


def test_truth_ignores_case_and_punctuation() -> None:
    assert torch.equal(truth("Flag: FRANCE"), truth("flag france"))


def test_truth_suggests_when_the_prompt_is_unknown() -> None:
    with pytest.raises(OptionError, match=r"'hart' is no emoji name.*heart"):
        truth("hart")


def test_full_captions_name_one_entry_each() -> None:
    full = [own.full for own in captions()]
    assert len(set(full)) == len(full)


def test_every_caption_leads_back_to_its_picture() -> None:
    for entry, own in zip(entries(), captions(), strict=True):
        for text in (
            entry.name,
            own.full,
            *own.toneless,
            *own.neutral,
            *own.concepts,
            *own.keywords,
        ):
            assert entry.image in truth(text).tolist(), (entry.name, text)


def test_head_words_are_curated_where_keywords_would_add_others() -> None:
    names = {entry.toneless for entry in entries() if entry.image in truth("heart").tolist()}
    assert "red heart" in names
    assert "smiling face with hearts" not in names
    assert concepts()["bird"].isdisjoint({"feather", "wing"})

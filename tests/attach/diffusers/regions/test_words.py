import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.attach.conftest import prompted
from tests.tiny import clip_tokenizer, t5_tokenizer
from transformers import CLIPTokenizer

from unalike.attach.diffusers.regions.words import tokens_of, word_tokens
from unalike.errors import UnsupportedError

Pipelines = Callable[[str], Any]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> CLIPTokenizer:
    """CLIP's kind of tokenizer, of letters and of the pieces "re", "red", "ha", "hai" and
    "hair".
    """
    folder = tmp_path_factory.mktemp("clip")
    letters = [*"abcdefghijklmnopqrstuvwxyz-,"]
    pieces = ["re", "red</w>", "ha", "hai", "hair</w>"]
    vocabulary = [
        "<|startoftext|>",
        "<|endoftext|>",
        *letters,
        *(f"{c}</w>" for c in letters),
        *pieces,
    ]
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(vocabulary)}))
    (folder / "merges.txt").write_text("#version: 0.2\nr e\nre d</w>\nh a\nha i\nhai r</w>\n")
    return CLIPTokenizer(
        str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=24
    )


@pytest.mark.parametrize(
    ("text", "word", "expected"),
    [
        ("red hair", "hair", ["hair</w>"]),
        ("red hair", "Red  HAIR", ["red</w>", "hair</w>"]),
        ("red hair", "air", []),
        ("hair, red hair", "hair", ["hair</w>", "hair</w>"]),
        ("hairy", "hair", []),
        ("hairy", "hairy", ["hai", "r", "y</w>"]),
        ("a t-shirt", "t-shirt", ["t</w>", "-</w>", "s", "h", "i", "r", "t</w>"]),
        ("shirt", "t", []),
        ("", "hair", []),
    ],
)
def test_tokens_are_those_that_spell_the_word_when_a_text_is_cut_into_pieces(
    clip: CLIPTokenizer, text: str, word: str, expected: list[str]
):
    ids = clip(text, padding="max_length", max_length=24, truncation=True).input_ids
    found = tokens_of(clip, ids, word)
    assert clip.convert_ids_to_tokens([ids[place] for place in found]) == expected
    assert found == sorted(found)


def test_space_before_a_word_is_not_part_of_it_when_the_tokenizer_marks_it():
    tokenizer = t5_tokenizer()
    ids = tokenizer("a cat", padding="max_length", max_length=12).input_ids
    assert [
        tokenizer.convert_ids_to_tokens(ids)[place] for place in tokens_of(tokenizer, ids, "cat")
    ] == ["c", "a", "t"]


def test_a_word_is_found_without_spaces_when_its_script_has_none():
    class Letters:
        """One token a character."""

        all_special_ids = (0,)

        def decode(self, ids: list[int], **_: Any) -> str:
            return "".join(map(chr, ids))

    assert tokens_of(Letters(), [0, *map(ord, "一只猫在家"), 0], "猫") == [3]
    assert tokens_of(Letters(), [0, *map(ord, "eine Katzen"), 0], "Katze") == []


@pytest.mark.parametrize(
    ("name", "places"),
    [
        ("sd", [[2, 3, 4], [4, 5, 6]]),
        ("sdxl", [[2, 3, 4], [4, 5, 6]]),
        ("sd3", [[2, 3, 4, 15, 16, 17], [4, 5, 6, 17, 18, 19]]),
        ("flux", [[3, 4, 5], [5, 6, 7]]),
    ],
)
def test_places_are_those_of_all_encoders_when_a_pipeline_has_several(
    pipelines: Pipelines, name: str, places: list[list[int]]
):
    pipe, arguments = pipelines(name), prompted(name, ["a cat", "dog cat"], 2)
    tokens = word_tokens(pipe, arguments, ["cat"], append=False)
    assert tokens.words == {"cat": places}
    assert (tokens.prompts, tokens.length) == (2, 24 if name == "sd3" else 12)
    assert tokens.padded is None


def test_only_missing_words_are_appended_when_prompts_have_others(pipelines: Pipelines):
    pipe = pipelines("sdxl")
    tokens = word_tokens(
        pipe, {"prompt": ["a cat", "Dog"], "prompt_2": ["dog", "b"]}, ["cat", "dog"], append=True
    )
    assert tokens.words == {
        "cat": [[2, 3, 4, 5, 6], [2, 3, 4, 5, 6]],
        "dog": [[1, 2, 3, 5, 6, 7], [1, 2, 3, 5, 6, 7]],
    }
    joined, *_ = pipe.encode_prompt(
        ["a cat dog", "Dog cat"], ["dog cat", "b cat dog"], "cpu", 1, False
    )
    assert torch.equal(tokens.embeddings, joined)


def test_words_are_encoded_alone_when_the_prompt_leaves_no_room_for_them(pipelines: Pipelines):
    pipe = pipelines("sd")
    tokens = word_tokens(pipe, {"prompt": ["abcdefghij", "cat"]}, ["owl"], append=True)
    assert tokens.words == {"owl": [[1, 2, 3], [4, 5, 6]]}
    alone, *_ = pipe.encode_prompt(["owl", "cat owl"], "cpu", 1, False)
    assert torch.equal(tokens.embeddings, alone)


def test_second_prompt_is_the_one_that_counts_when_its_encoder_is_the_one_that_is_read(
    pipelines: Pipelines,
):
    pipe, arguments = pipelines("flux"), prompted("flux", ["a dog"], 1)
    assert word_tokens(pipe, {**arguments, "prompt_2": "cat"}, ["cat"], append=False).words == {
        "cat": [[1, 2, 3]]
    }


def test_prompts_are_encoded_as_the_call_does_when_it_has_settings_for_that(pipelines: Pipelines):
    pipe, call = (
        pipelines("sdxl"),
        {"prompt": "cat", "clip_skip": 1, "negative_prompt": "dog", "num_images_per_prompt": 3},
    )
    tokens = word_tokens(pipe, call, ["cat"], append=True)
    assert torch.equal(
        tokens.embeddings, pipe.encode_prompt("cat", None, "cpu", 1, False, clip_skip=1)[0]
    )
    assert not torch.equal(tokens.embeddings, pipe.encode_prompt("cat", None, "cpu", 1, False)[0])
    assert not pipe.text_encoder._forward_pre_hooks


def test_error_names_the_encoder_when_its_tokens_are_not_those_of_the_denoiser(
    tmp_path: Path, pipelines: Pipelines
):
    class Cuts:
        """A pipeline that gives its denoiser fewer tokens than its text encoder reads."""

        tokenizer = clip_tokenizer(tmp_path)
        text_encoder = pipelines("sd").text_encoder

        def encode_prompt(self, prompt: list[str]) -> torch.Tensor:
            ids = self.tokenizer(
                prompt, padding="max_length", max_length=12, return_tensors="pt"
            ).input_ids
            return self.text_encoder(ids).last_hidden_state[:, :7]

        def __call__(self, prompt: str) -> None: ...

    with pytest.raises(
        UnsupportedError,
        match=r"Cuts gives its denoiser 7 tokens of a prompt, which are not those that its "
        r"text_encoder reads \(12\)",
    ):
        word_tokens(Cuts(), {"prompt": "cat"}, ["cat"], append=True)

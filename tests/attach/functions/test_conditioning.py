from typing import Any

import pytest
import torch
from torch import Tensor

from unalike.attach.functions.conditioning import Conditioning
from unalike.errors import OptionError

X = torch.zeros(4, 3, 2, 2)


def test_images_are_one_group_when_nothing_is_known() -> None:
    known = Conditioning().conditions(X)
    assert (known.images, known.texts, known.embeddings) == (4, None, None)
    assert known.groups.tolist() == [0, 0, 0, 0]


def test_groups_follow_the_prompts_when_there_are_prompts() -> None:
    known = Conditioning(["cat", "dog", "cat", "owl"]).conditions(X)
    assert known.groups.tolist() == [0, 1, 0, 2]
    assert known.texts == ["cat", "dog", "cat", "owl"]


def test_one_prompt_is_that_of_all_images_when_it_is_a_str() -> None:
    known = Conditioning("cat").conditions(X)
    assert known.texts == ["cat"] * 4
    assert known.groups.tolist() == [0, 0, 0, 0]


def test_groups_follow_the_embeddings_when_there_are_no_prompts() -> None:
    known = Conditioning(
        embeddings=torch.tensor([[2.0, 0.0], [0.0, 1.0], [2.0, 0.0], [0.0, 1.0]])
    ).conditions(X)
    assert known.groups[0] == known.groups[2] != known.groups[1] == known.groups[3]
    assert known.embeddings is not None
    assert known.embeddings.tolist() == [[1, 0], [0, 1], [1, 0], [0, 1]]


def test_groups_are_those_given_when_prompts_say_otherwise() -> None:
    assert Conditioning(["a", "b", "c", "d"], groups=[5, 5, 7, 7]).conditions(
        X
    ).groups.tolist() == [
        5,
        5,
        7,
        7,
    ]


def test_each_prompt_is_encoded_once_when_there_is_an_encoder() -> None:
    asked: list[list[str]] = []

    def encoder(prompts: list[str]) -> Tensor:
        asked.append(prompts)
        return torch.tensor([[float(len(p)), 0.0] if p == "cat" else [0.0, 3.0] for p in prompts])

    batch = Conditioning(["cat", "horse", "cat", "horse"], encoder)
    known = batch.conditions(X)
    assert asked == [["cat", "horse"]]
    assert known.embeddings is not None
    assert known.embeddings.tolist() == [[1, 0], [0, 1], [1, 0], [0, 1]]
    assert batch.model.endswith("encoder")


def test_images_are_half_the_rows_when_the_batch_is_doubled() -> None:
    assert Conditioning(doubled=True).conditions(X).images == 2
    assert Conditioning(["cat", "dog"], doubled=True).conditions(X).texts == ["cat", "dog"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"prompts": ["cat", "dog"]}, "a batch of 4 .* for 2 images;.*doubled=True"),
        ({"seeds": [1, 2, 3]}, "a batch of 4 .* for 3 images"),
        ({"groups": [0, 0, 1, 1], "doubled": True}, "a batch of 4 .* for 4 images, each twice,"),
    ],
)
def test_batch_is_refused_when_it_has_another_number_of_images(
    given: dict[str, Any], message: str
) -> None:
    with pytest.raises(OptionError, match=message):
        Conditioning(**given).conditions(X)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"prompts": ["a"], "groups": [0, 1]}, "there are 1 prompts, 2 groups"),
        ({"prompts": 3}, "prompts is 3; allowed"),
        ({"prompts": [b"a"]}, "prompts is .*; allowed"),
        ({"embeddings": torch.zeros(3)}, r"embeddings is of shape \(3,\); allowed"),
        ({"embeddings": torch.full((1, 2), torch.nan)}, "embeddings is of shape .*finite"),
        ({"prompt_encoder": len}, "prompt_encoder is given and prompts is None"),
        (
            {"prompts": "a", "prompt_encoder": len, "embeddings": torch.ones(1, 2)},
            "embeddings are given too",
        ),
        ({"prompts": "a", "prompt_encoder": 7}, "prompt_encoder is a int"),
        ({"groups": [0.5, 1.5]}, "groups is .0.5, 1.5.; allowed: a whole number"),
        ({"groups": ["a", "b"]}, "groups is .*; allowed: a whole number"),
        ({"groups": []}, "groups is ..; allowed: a whole number"),
        ({"groups": [[0, 1], [2]]}, "groups is .*; allowed: a whole number"),
    ],
)
def test_arguments_are_refused_when_they_do_not_fit(given: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        Conditioning(**given)


def test_encoder_is_refused_when_it_returns_another_number_of_rows() -> None:
    with pytest.raises(OptionError, match=r"shape \(1, 2\) for 2 prompts"):
        Conditioning(["a", "b", "a", "b"], lambda prompts: torch.ones(1, 2)).conditions(X)

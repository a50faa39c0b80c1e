from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from unalike.attach.diffusers.prompts import Prompts
from unalike.attach.diffusers.scoped import own_pipeline
from unalike.errors import OptionError, UnsupportedError


class Encoding:
    """A pipeline's `encode_prompt` with a result of one's choice."""

    def __init__(self, *results: Any) -> None:
        self.results = list(results)

    def encode_prompt(
        self, prompt: Any, num_images_per_prompt: int = 1, prompt_2: Any = None
    ) -> Any:
        return self.results.pop(0)


class Sequence(torch.nn.Module):
    """A text encoder that makes one-hot vectors."""

    def forward(self, tokens: Tensor) -> tuple[Tensor]:
        return (torch.eye(10)[tokens],)


class Encoderless:
    """A pipeline that calls its text encoder itself."""

    text_encoder: Sequence

    def tokenizer(self, texts: list[str], **_: Any) -> Any:
        return SimpleNamespace(input_ids=[[5 + "ab".index(text)] for text in texts])

    tokenizer.pad_token_id = 0  # type: ignore[attr-defined]


def heard(pipe: Any, rows: int, **arguments: Any) -> Any:
    prompts = Prompts(pipe, arguments)
    with prompts:
        pipe.encode_prompt(**arguments)
    return prompts.conditions(torch.randn(rows, 4, generator=torch.Generator().manual_seed(0)))


def test_embedding_is_the_unit_mean_over_tokens_when_there_is_no_mask() -> None:
    tokens = torch.tensor([[[2.0, 0.0], [0.0, 2.0]], [[0.0, 3.0], [0.0, 1.0]]])
    conditions = heard(Encoding((tokens, torch.zeros_like(tokens))), 2, prompt=["a", "b"])
    torch.testing.assert_close(
        conditions.embeddings, torch.tensor([[0.5**0.5, 0.5**0.5], [0.0, 1.0]])
    )
    assert conditions.texts == ["a", "b"]
    assert conditions.groups.tolist() == [0, 1]


def test_padding_is_left_out_when_the_pipeline_returns_a_mask() -> None:
    tokens = torch.tensor([[[2.0, 0.0], [0.0, 9.0]]])
    conditions = heard(Encoding((tokens, torch.tensor([[1, 0]]))), 1, prompt="a")
    torch.testing.assert_close(conditions.embeddings, torch.tensor([[1.0, 0.0]]))


def test_embedding_is_the_mean_of_each_when_prompts_have_different_lengths() -> None:
    tokens = [torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 1.0], [0.0, 3.0]])]
    conditions = heard(Encoding((tokens, None)), 2, prompt=["a", "b"])
    torch.testing.assert_close(conditions.embeddings, torch.eye(2))


def test_first_call_counts_when_negative_prompts_are_encoded_in_a_second() -> None:
    pipe = Encoding(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]))
    prompts = Prompts(pipe, {"prompt": "a"})
    with prompts:
        pipe.encode_prompt("a")
        pipe.encode_prompt("bad")
    conditions = prompts.conditions(torch.zeros(1, 2))
    assert conditions.texts == ["a"]
    torch.testing.assert_close(conditions.embeddings, torch.tensor([[1.0, 0.0]]))


def test_groups_follow_prompts_when_the_same_is_given_twice() -> None:
    conditions = heard(
        Encoding(torch.eye(3).repeat_interleave(2, 0)),
        6,
        prompt=["a", "b", "a"],
        num_images_per_prompt=2,
    )
    assert conditions.groups.tolist() == [0, 0, 1, 1, 0, 0]
    assert conditions.texts == ["a", "a", "b", "b", "a", "a"]


def test_groups_differ_when_only_the_second_prompt_does() -> None:
    conditions = heard(Encoding(torch.ones(2, 3)), 2, prompt=["a", "a"], prompt_2=["x", "y"])
    assert conditions.groups.tolist() == [0, 1]


def test_groups_follow_embeddings_when_there_is_no_text() -> None:
    conditions = heard(Encoding(torch.eye(3)[[2, 0, 2]]), 3, prompt=None)
    assert conditions.texts is None
    assert conditions.groups[0] == conditions.groups[2] != conditions.groups[1]


def test_rows_are_spread_when_the_encoder_leaves_that_to_the_pipeline() -> None:
    conditions = heard(Encoding(torch.eye(2)), 4, prompt=["a", "b"])
    assert torch.equal(conditions.embeddings, torch.eye(2)[[0, 0, 1, 1]])


def test_rows_are_thinned_when_they_are_repeated_for_frames() -> None:
    conditions = heard(Encoding(torch.eye(2).repeat_interleave(3, 0)), 2, prompt=["a", "b"])
    assert torch.equal(conditions.embeddings, torch.eye(2))


def test_images_are_counted_once_when_the_batch_is_duplicated_for_guidance() -> None:
    prompts = Prompts(object(), {"class_labels": torch.tensor([7, 3])})
    half = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))
    conditions = prompts.conditions(torch.cat([half, half]))
    assert (conditions.images, conditions.texts) == (2, ["7", "3"])
    assert conditions.embeddings is not None
    assert conditions.embeddings.argmax(1).tolist() == [7, 3]
    assert conditions.embeddings.sum(1).tolist() == [1, 1]


def test_classes_are_called_by_name_when_the_pipeline_knows_it() -> None:
    pipe = SimpleNamespace(labels={"goldfish": 1, "Carassius auratus": 1, "tench": 0})
    prompts = Prompts(pipe, {"class_labels": [1, 0, 5]})
    assert prompts.conditions(torch.zeros(3, 2)).texts == ["goldfish", "tench", "5"]


def test_prompts_are_known_when_the_pipeline_has_no_encode_prompt() -> None:
    with Prompts(object(), {"prompt": ["a", "b"], "num_images_per_prompt": 2}) as prompts:
        pass
    conditions = prompts.conditions(torch.zeros(4, 3))
    assert conditions.images == 4
    assert conditions.embeddings is None
    assert conditions.groups.tolist() == [0, 0, 1, 1]


def test_text_encoder_is_heard_when_the_pipeline_has_no_encode_prompt() -> None:
    ids = {"prompts": torch.tensor([[5, 0], [6, 0]]), "negative": torch.tensor([[7, 8], [9, 0]])}
    for order in (("prompts", "negative"), ("negative", "prompts")):
        shared = Encoderless()
        shared.text_encoder = Sequence()
        pipe = own_pipeline(shared)
        with Prompts(pipe, {"prompt": ["a", "b"]}) as prompts:
            for name in order:
                pipe.text_encoder(ids[name])
        shared.text_encoder(ids["prompts"])  # of another call
        assert torch.equal(prompts.positive, torch.eye(10)[ids["prompts"]])  # type: ignore[arg-type]
        assert not prompts.negative_is_equal


def test_mask_belongs_to_its_prompt_when_the_pipeline_repeats_all_of_them_in_turn() -> None:
    tokens = torch.tensor([[[2.0, 0.0], [0.0, 9.0]], [[0.0, 3.0], [0.0, 1.0]]]).repeat_interleave(
        3, 0
    )
    masks = torch.tensor([[1, 0], [1, 1]])
    for mask in (masks.repeat(3, 1), masks.repeat_interleave(3, 0)):
        conditions = heard(Encoding((tokens, mask)), 6, prompt=["a", "b"], num_images_per_prompt=3)
        assert torch.equal(conditions.embeddings, torch.eye(2).repeat_interleave(3, 0))


def test_texts_are_those_of_the_caller_when_the_pipeline_writes_a_template_around_them() -> None:
    class Templating(Encoding):
        def encode_prompt(
            self, prompt: Any, num_images_per_prompt: int = 1, prompt_2: Any = None
        ) -> Any:
            prompt[:] = [f"<user>{p}" for p in prompt]
            return super().encode_prompt(prompt)

    assert heard(Templating(torch.eye(2)), 2, prompt=["a", "b"]).texts == ["a", "b"]


def test_encoder_is_asked_once_for_each_text_when_it_is_given() -> None:
    asked = []

    def encoder(texts: list[str]) -> Tensor:
        asked.append(texts)
        return torch.tensor([[3.0, 0.0], [0.0, 5.0]])

    conditions = Prompts(object(), {"prompt": ["b", "a", "b"]}, encoder).conditions(
        torch.zeros(3, 2)
    )
    assert asked == [["b", "a"]]
    assert torch.equal(conditions.embeddings, torch.eye(2)[[0, 1, 0]])  # type: ignore[arg-type]


def test_encoder_is_refused_when_its_result_does_not_fit() -> None:
    prompts = Prompts(object(), {"prompt": ["b", "a"]}, lambda texts: torch.zeros(1, 2))
    with pytest.raises(OptionError, match=r"prompt_encoder returned shape \(1, 2\) for 2 prompts"):
        prompts.conditions(torch.zeros(2, 2))


def test_encoder_is_refused_when_there_are_no_texts() -> None:
    with pytest.raises(OptionError, match="needs prompts as text"):
        Prompts(object(), {}, lambda texts: torch.zeros(1, 2)).conditions(torch.zeros(2, 2))


def test_groups_are_taken_as_given_when_they_fit() -> None:
    assert Prompts(object(), {"prompt": "a"}, None, [4, 4, 2]).conditions(
        torch.zeros(3, 2)
    ).groups.tolist() == [4, 4, 2]
    with pytest.raises(OptionError, match="groups has 3 entries and this call makes 2 images"):
        Prompts(object(), {"prompt": "a"}, None, [4, 4, 2]).conditions(torch.zeros(2, 2))


def test_images_are_refused_when_prompts_do_not_divide_them() -> None:
    with pytest.raises(UnsupportedError, match="2 prompts and 3 images"):
        Prompts(object(), {"prompt": ["a", "b"]}).conditions(torch.arange(3.0).view(3, 1))

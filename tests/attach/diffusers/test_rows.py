import pytest
import torch
from torch import Tensor

from unalike.attach.diffusers.rows import image_count, positive_rows
from unalike.errors import UnsupportedError

CAT, DOG, EMPTY = (torch.full((1, 2, 3), value) for value in (1.0, 2.0, 0.0))


def rows(
    tokens: list[Tensor], positive: list[Tensor], *, images: int, frames: int = 1
) -> list[bool]:
    given = torch.cat(tokens)
    found = positive_rows(given, torch.cat(positive), rows=len(given) // frames, images=images)
    assert found is not None
    assert found.shape == (len(given) // frames, frames)
    assert (found.all(dim=1) == found.any(dim=1)).all()
    return found.all(dim=1).tolist()


def test_rows_of_prompts_are_found_when_the_batch_is_doubled() -> None:
    assert rows([EMPTY, EMPTY, CAT, DOG], [CAT, DOG], images=2) == [False, False, True, True]


def test_rows_are_all_or_none_when_empty_prompts_have_a_call_of_their_own() -> None:
    assert rows([CAT, DOG], [CAT, DOG], images=2) == [True, True]
    assert rows([EMPTY, EMPTY], [CAT, DOG], images=2) == [False, False]


def test_all_images_of_a_prompt_are_found_when_it_is_embedded_once() -> None:
    assert rows([EMPTY, EMPTY, CAT, CAT], [CAT], images=2) == [False, False, True, True]
    assert (
        rows([EMPTY] * 4 + [CAT, CAT, DOG, DOG], [CAT, DOG], images=4) == [False] * 4 + [True] * 4
    )


def test_every_block_of_the_prompts_is_found_when_there_are_several() -> None:
    assert rows([CAT, DOG, CAT, DOG], [CAT, DOG], images=2) == [True] * 4
    assert (
        rows([EMPTY, EMPTY, CAT, DOG, CAT, DOG], [CAT, DOG], images=2) == [False] * 2 + [True] * 4
    )
    assert (
        rows([CAT, DOG, DOG, CAT, EMPTY, EMPTY], [CAT, DOG], images=2) == [True] * 2 + [False] * 4
    )


@pytest.mark.parametrize(("blocks", "perturbed"), [(2, False), (3, True)])
def test_first_block_is_the_negative_prompts_when_they_are_equal(
    blocks: int, perturbed: bool
) -> None:
    found = positive_rows(
        CAT.repeat(blocks, 1, 1),
        CAT,
        rows=blocks,
        images=1,
        negative_is_equal=True,
        perturbed=perturbed,
    )
    assert found is not None
    assert found.flatten().tolist() == [False] + [True] * (blocks - 1)


def test_rows_are_refused_when_equal_negative_prompts_may_be_any_block() -> None:
    with pytest.raises(UnsupportedError, match=r"equals the prompt.*3 blocks"):
        positive_rows(CAT.repeat(3, 1, 1), CAT, rows=3, images=1, negative_is_equal=True)


def test_images_are_the_rows_that_are_not_repeated() -> None:
    latents = torch.randn(2, 4, 2, 2, generator=torch.Generator().manual_seed(0))
    edited = torch.cat([torch.cat([latents, torch.full_like(latents, i)], 1) for i in range(3)])
    assert image_count(latents.repeat(3, 1, 1, 1), 1) == 2
    assert image_count(edited, 1) == 6
    assert image_count(edited, 1, channels=4) == 2
    assert image_count(latents, 2) == 2


def test_rows_are_found_one_by_one_when_their_order_is_another() -> None:
    assert rows([DOG, EMPTY, CAT, EMPTY], [CAT, DOG], images=2) == [True, False, True, False]


def test_prompts_are_found_when_something_follows_them() -> None:
    longer = [torch.cat([part, torch.full((1, 1, 3), 9.0)], dim=1) for part in (EMPTY, CAT, DOG)]
    assert rows([longer[0], *longer], [CAT, DOG], images=2) == [False, False, True, True]


def test_a_video_is_found_when_each_frame_has_its_prompt() -> None:
    assert rows([EMPTY] * 6 + [CAT] * 3 + [DOG] * 3, [CAT, DOG], images=2, frames=3) == [
        False,
        False,
        True,
        True,
    ]


def test_frames_are_told_apart_when_they_have_several_prompts() -> None:
    found = positive_rows(torch.cat([CAT, EMPTY]), CAT, rows=1, images=1)
    assert found is not None
    assert found.tolist() == [[True, False]]


def test_rows_of_classes_are_found() -> None:
    found = positive_rows(torch.tensor([3, 5, 10, 10]), torch.tensor([3, 5]), rows=4, images=2)
    assert found is not None
    assert found.flatten().tolist() == [True, True, False, False]


@pytest.mark.parametrize(
    "tokens",
    [CAT[:, :1], CAT[..., :2], CAT[0], torch.cat([CAT] * 3)],
    ids=["shorter", "narrower", "flat", "ragged"],
)
def test_nothing_is_found_when_the_embeddings_do_not_fit(tokens: Tensor) -> None:
    assert positive_rows(tokens, CAT, rows=2 if len(tokens) == 3 else len(tokens), images=1) is None


def test_prompts_are_found_when_the_model_is_given_them_in_half_precision() -> None:
    prompt = torch.randn(1, 2, 3, generator=torch.Generator().manual_seed(0))
    found = positive_rows(torch.cat([EMPTY, prompt]).bfloat16(), prompt, rows=2, images=1)
    assert found is not None
    assert found.flatten().tolist() == [False, True]

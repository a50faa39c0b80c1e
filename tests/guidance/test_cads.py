from typing import Any

import pytest
import torch
from torch import Tensor

from unalike.errors import OptionError
from unalike.guidance.cads import CADS
from unalike.guidance.context import Context
from unalike.guidance.level import Level


def at(step: int, images: int = 2, seed: int = 0, steps: int = 10) -> Context:
    return Context(
        step=step,
        steps=steps,
        level=Level(0.6, 0.8, 0.8, 0.6),
        x_t=torch.zeros(images, 4),
        groups=torch.zeros(images, dtype=torch.int64),
        generators=[torch.Generator().manual_seed(seed + i) for i in range(images)],
    )


def embeddings(images: int = 2) -> Tensor:
    return 3 + 2 * torch.randn(images, 7, 50, generator=torch.Generator().manual_seed(9))


def annealed(step: int, y: Tensor, **options: Any) -> Tensor:
    changed = CADS(**options).condition(y, at(step, len(y)))
    assert changed is not None
    return changed


@pytest.mark.parametrize(("step", "whole"), [(0, 0.0), (2, 0.0), (4, 0.25), (6, 0.5)])
def test_embedding_is_that_of_the_equation_when_it_is_not_rescaled(step: int, whole: float) -> None:
    y, context = embeddings(), at(step, steps=20)
    noise = torch.stack(
        [torch.randn(7, 50, generator=torch.Generator().manual_seed(i)) for i in range(2)]
    )
    changed = CADS(noise_scale=0.5, tau_1=0.5, tau_2=0.9, mixing=0.0).condition(y, context)
    torch.testing.assert_close(changed, whole**0.5 * y + 0.5 * (1 - whole) ** 0.5 * noise)


def test_mean_and_deviation_of_each_image_are_kept_when_rescaled() -> None:
    y = embeddings()
    y[1] = 10 * y[1] - 4
    for step in (0, 2, 3):
        changed = annealed(step, y)
        torch.testing.assert_close(changed.mean(dim=(1, 2)), y.mean(dim=(1, 2)))
        torch.testing.assert_close(changed.std(dim=(1, 2)), y.std(dim=(1, 2)))
        assert not torch.allclose(changed, y, atol=0.1)


def test_mixing_lies_between_the_noised_and_the_rescaled_embedding() -> None:
    y = embeddings()
    torch.testing.assert_close(
        annealed(2, y, mixing=0.3),
        0.3 * annealed(2, y, mixing=1.0) + 0.7 * annealed(2, y, mixing=0.0),
    )


@pytest.mark.parametrize("step", [4, 5, 9])
def test_prompt_is_left_whole_when_the_time_is_past_tau_1(step: int) -> None:
    assert CADS(tau_1=0.6, tau_2=0.9).condition(embeddings(), at(step)) is None


def test_noise_of_an_image_is_the_same_when_the_batch_is_larger() -> None:
    y = embeddings(3)
    assert torch.equal(annealed(0, y)[:1], annealed(0, y[:1]))


def test_noise_is_new_when_the_step_is_another() -> None:
    y, context = embeddings(), at(0)
    method = CADS()
    first, second = method.condition(y, context), method.condition(y, context)
    assert first is not None
    assert second is not None
    assert not torch.equal(first, second)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_dtype_is_that_of_the_embedding(dtype: torch.dtype) -> None:
    assert annealed(0, embeddings().to(dtype)).dtype == dtype


def test_error_says_so_when_there_are_no_generators() -> None:
    context = at(0)
    context.generators = ()
    with pytest.raises(OptionError, match="0 generators for 2 images"):
        CADS().condition(embeddings(), context)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tau_1": 0.9, "tau_2": 0.9}, "tau_1 is 0.9 and tau_2 is 0.9; tau_1 must be below tau_2"),
        ({"limit": 0.5}, r"limit is 0\.5, and x0 is not corrected"),
    ],
)
def test_error_names_the_options_when_they_do_not_go_together(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(OptionError, match=message):
        CADS(**options)

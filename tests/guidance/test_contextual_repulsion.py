import math

import pytest
import torch
from torch import Tensor

from unalike.guidance.context import Context, Layer
from unalike.guidance.contextual_repulsion import ContextualRepulsion
from unalike.guidance.level import Level

LAYER = Layer("blocks.0", 0, 1, "image", (1,))


def context(images: int, groups: list[int] | None = None, **more: object) -> Context:
    return Context(
        step=0,
        steps=4,
        level=Level(0.1, 0.9, 0.5, 0.5),
        x_t=torch.zeros(images, 1),
        groups=torch.tensor(groups or [0] * images),
        **more,  # pyright: ignore[reportArgumentType]
    )


def entropy(hidden: Tensor) -> Tensor:
    """The von Neumann entropy of the cosine Gram matrix of rows, by its definition."""
    f = hidden.flatten(1) / hidden.flatten(1).norm(dim=1, keepdim=True)
    values = torch.linalg.eigvalsh(f @ f.T / len(f))
    return -(values * values.log()).sum()


def features(images: int, seed: int = 0) -> Tensor:
    """Features that have much in common, as those of one prompt."""
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(1, 6, 5, generator=draw) + 0.3 * torch.randn(images, 6, 5, generator=draw)


def test_step_is_along_the_gradient_of_the_entropy() -> None:
    hidden = features(4).double()
    leaf = hidden.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(entropy(leaf), leaf)
    moved = ContextualRepulsion(strength=1e-4).features(hidden, LAYER, context(4))
    assert moved is not None
    along = torch.nn.functional.cosine_similarity(
        (moved - hidden).flatten(1), gradient.flatten(1), dim=1
    )
    assert (along > 1 - 1e-4).all()


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_angle_and_norm_are_the_same_when_features_are_larger(scale: float) -> None:
    hidden = scale * features(4)
    moved = ContextualRepulsion(strength=0.5).features(hidden, LAYER, context(4))
    assert moved is not None
    torch.testing.assert_close(moved.flatten(1).norm(dim=1), hidden.flatten(1).norm(dim=1))
    cosine = torch.nn.functional.cosine_similarity(moved.flatten(1), hidden.flatten(1), dim=1)
    torch.testing.assert_close(cosine, torch.full((4,), math.cos(math.atan(0.5))))


def test_entropy_rises_when_images_of_a_prompt_repel_each_other() -> None:
    hidden = features(8)
    moved = ContextualRepulsion(strength=0.2).features(hidden, LAYER, context(8))
    assert moved is not None
    assert entropy(moved) > entropy(hidden) + 0.1


def test_nothing_moves_when_images_are_equal_or_alone() -> None:
    same = features(1).repeat(3, 1, 1)
    moved = ContextualRepulsion().features(same, LAYER, context(3))
    assert moved is not None
    torch.testing.assert_close(moved, same)
    assert ContextualRepulsion().features(features(1), LAYER, context(1)) is None
    assert ContextualRepulsion().features(features(2), LAYER, context(2, [0, 1])) is None


def test_prompts_do_not_see_each_other() -> None:
    hidden, method = features(4), ContextualRepulsion()
    both = method.features(hidden, LAYER, context(4, [0, 0, 1, 1]))
    alone = method.features(hidden[:2], LAYER, context(2))
    assert both is not None
    assert alone is not None
    torch.testing.assert_close(both[:2], alone)


def test_single_image_moves_away_from_earlier_ones_when_they_are_remembered() -> None:
    method, hidden = ContextualRepulsion(remember=2), features(4)
    stream: dict[str, object] = {}
    prompts = torch.nn.functional.normalize(torch.ones(1, 3), dim=1)
    last = hidden[0]
    for i in range(4):
        here = context(1, stream=stream, prompts=prompts)
        moved = method.features(hidden[i : i + 1], LAYER, here)
        assert (moved is None) == (i == 0)
        if moved is not None:
            before = torch.cosine_similarity(hidden[i].flatten(), last.flatten(), dim=0)
            after = torch.cosine_similarity(moved[0].flatten(), last.flatten(), dim=0)
            assert after < before
        last = (hidden[i : i + 1] if moved is None else moved)[0]
    (entry,) = stream["prompts"]  # pyright: ignore[reportGeneralTypeIssues]
    assert [rows.shape for rows in entry[1].values()] == [(2, 30)]
    other = context(1, stream=stream, prompts=torch.tensor([[1.0, 0.0, 0.0]]))
    assert method.features(hidden[:1], LAYER, other) is None


@pytest.mark.parametrize(
    ("settings", "seen"),
    [
        ({}, [True, False, False]),
        ({"features_of": "text"}, [True, False, False]),
        ({"features_of": "image"}, [False, True, True]),
    ],
)
def test_text_is_read_where_layers_change_it(settings: dict[str, str], seen: list[bool]) -> None:
    layers = [
        Layer("blocks.0", 0, 2, "text", (1,), joint=True),
        Layer("blocks.0", 0, 2, "image", (1,), joint=True),
        Layer("blocks.1", 1, 2, "image", (1,)),  # the last block of SD3 drops the text
    ]
    here, method = context(2), ContextualRepulsion(**settings)  # pyright: ignore[reportArgumentType]
    assert [method.features(features(2), la, here) is not None for la in layers] == seen

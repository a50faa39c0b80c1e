from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest
import torch
from tests.attach.conftest import prompted, seeded
from torch import Tensor

from unalike.attach import guide
from unalike.attach.diffusers.decoding import Decoder
from unalike.attach.diffusers.images import PipelineImages, Remembered
from unalike.errors import NumericsError, OptionError, UnsupportedError
from unalike.guidance.context import Context
from unalike.guidance.method import Method
from unalike.memory import Memory

# some schedulers hand tensors to numpy in the way of numpy 1
pytestmark = pytest.mark.filterwarnings("ignore:__array_:DeprecationWarning")

Pipelines = Callable[[str], Any]


def colours(images: Tensor) -> Tensor:
    """Mean colours of the four quarters and their squares."""
    means = torch.nn.functional.adaptive_avg_pool2d(images, 2).flatten(1)
    return torch.cat([means, means.square()], dim=1)


@dataclass(frozen=True, kw_only=True)
class Asks(Method):
    """Calls a function with each prediction and context; asks for images."""

    name: ClassVar[str] = "asks"
    act: Callable[[Tensor, Context], Tensor | None]
    embed: Any = field(default=colours)

    def x0_delta(self, x0: Tensor, context: Context) -> Tensor | None:
        return self.act(x0, context)


def test_embeddings_are_those_of_the_decoded_predictions_with_their_gradient(sd: Any):
    seen = []

    def act(x0: Tensor, context: Context) -> None:
        assert context.images is not None
        with torch.enable_grad():
            leaf = x0.detach().requires_grad_()
            e = context.images.embedded(leaf, colours)
            weights = torch.linspace(-1, 1, e.numel()).view_as(e)
            (gradient,) = torch.autograd.grad(e, leaf, weights)
        plain = context.images.embedded(x0, colours)
        seen.append((x0.clone(), e.detach(), plain, gradient, weights))

    guide(sd, Asks(act=act))(**prompted("sd", ["cat", "dog"], 1), generator=seeded(2))
    assert len(seen) == 4
    for x0, e, plain, gradient, weights in seen[-2:]:
        with torch.enable_grad(), Decoder(sd).open():
            leaf = x0.requires_grad_()
            expected = colours(Decoder(sd).images(leaf))
            (by_batch,) = torch.autograd.grad((expected * weights).sum(), leaf)
        torch.testing.assert_close(e, expected.detach(), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(plain, expected.detach(), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(gradient, by_batch, rtol=1e-4, atol=1e-6)
        assert gradient.abs().amax(dim=(1, 2, 3)).min() > 0


def test_earlier_images_are_embedded_once_and_in_order(sd: Any):
    memory, counted, rows = Memory(), [], []

    def embed(images: Tensor) -> Tensor:
        counted.append(len(images))
        return colours(images)

    def act(x0: Tensor, context: Context) -> None:
        assert context.images is not None
        rows.append(
            (
                context.images.remembered(embed),
                None if context.memory is None else context.memory.latents,
            )
        )

    guided = guide(sd, Asks(act=act, embed=embed), memory=memory)
    for call in range(3):
        guided(**prompted("sd", ["cat", "dog"], 1), generator=seeded(2, 10 * call))
    assert counted == [2, 2]  # the second and the third call each embed what the one before drew
    assert rows[0][0].numel() == 0
    made, latents = rows[-1]
    with torch.no_grad(), Decoder(sd).open():
        torch.testing.assert_close(
            made, colours(Decoder(sd).images(latents.view(4, 4, 8, 8))), rtol=1e-5, atol=1e-6
        )
    memory.resize(3)
    guided(**prompted("sd", ["cat"], 1), generator=seeded(1, 40))
    assert len(rows[-1][0]) == 3
    assert sum(counted) == 6


def test_embeddings_are_made_anew_when_memory_or_embedding_is_another(sd: Any):
    kept, made = Remembered(), []

    def make(latents: Tensor) -> Tensor:
        made.append(len(latents))
        return latents

    first, second = Memory(), Memory()
    for memory in (first, second):
        memory.add("s", torch.rand(2, 3, generator=torch.Generator().manual_seed(len(made))))
    for memory, embed in (
        (first, colours),
        (first, colours),
        (second, colours),
        (second, abs),
        (first, abs),
    ):
        view = memory.view("s")
        assert view is not None
        assert torch.equal(kept.rows(memory, "s", view, embed, make), view.latents)
    assert made == [2, 2, 2, 2]


def test_autoencoder_is_as_it_was_when_the_call_has_ended(sd: Any):
    def act(x0: Tensor, context: Context) -> None:
        assert sd.vae.is_gradient_checkpointing
        raise KeyError("stop")

    with pytest.raises(KeyError):
        guide(sd, Asks(act=act))(**prompted("sd", ["cat"], 1))
    assert not sd.vae.is_gradient_checkpointing


@pytest.mark.parametrize(
    ("embed", "error", "message"),
    [
        (lambda images: images, OptionError, r"embed returned shape \(1, 3, 16, 16\) for 1 images"),
        (
            lambda images: colours(images) * float("nan"),
            NumericsError,
            "embeddings of the predicted images have NaN",
        ),
    ],
)
def test_message_says_what_is_wrong_when_the_embedding_is_none(
    sd: Any, embed: Any, error: type[Exception], message: str
):
    def act(x0: Tensor, context: Context) -> Tensor:
        assert context.images is not None
        return context.images.embedded(x0, embed)

    with pytest.raises(error, match=message):
        guide(sd, Asks(act=act, embed=embed))(**prompted("sd", ["cat"], 1))


def test_pipeline_is_refused_before_it_runs_when_its_latents_cannot_be_decoded(
    sd: Any, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(type(sd), "_pack_latents", lambda *_: None, raising=False)
    monkeypatch.setattr(sd.unet, "forward", lambda *_, **__: pytest.fail("denoised"))
    with pytest.raises(UnsupportedError, match="unpacks its latents in a way that is not known"):
        guide(sd, Asks(act=lambda x0, context: None))(**prompted("sd", ["cat"], 1))


def test_nothing_is_remembered_without_a_memory(sd: Any):
    assert PipelineImages(Decoder(sd), Remembered()).remembered(colours).numel() == 0

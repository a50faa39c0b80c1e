"""Regions in every family of pipelines: boxes, and words where the denoiser's attention can be
read.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from tests.hosts.families import FAMILIES
from tests.hosts.family import WARNINGS, Family
from torch import Tensor
from torch.nn.functional import interpolate, scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

from unalike.attach import guide
from unalike.attach.diffusers.prompts import Prompts
from unalike.attach.diffusers.regions.attention import WordMaps
from unalike.attach.diffusers.regions.places import Grid
from unalike.attach.diffusers.regions.words import word_tokens
from unalike.attach.diffusers.scoped import own_pipeline
from unalike.errors import UnsupportedError
from unalike.guidance.context import Context
from unalike.guidance.method import Method

pytestmark = [pytest.mark.filterwarnings(warning) for warning in WARNINGS]

CROSS = {
    "Stable Diffusion",
    "Stable Diffusion, image to image",
    "Stable Diffusion, inpainting",
    "Stable Diffusion XL",
    "Stable Diffusion, ControlNet",
    "Stable Diffusion XL, ControlNet",
    "Kandinsky 3",
    "PixArt-alpha",
    "PixArt-Sigma",
    "Sana",
    "Sana-Sprint",
}
CONTROLLED = {name for name in CROSS if "ControlNet" in name}
JOINT = {"Stable Diffusion 3", "Flux", "Qwen-Image"}
Read = Callable[[Family], Any]


@dataclass(frozen=True, kw_only=True)
class Looks(Method):
    """Shows a function where its region is, and corrects nothing."""

    name: ClassVar[str] = "looks"
    region: Any
    see: Callable[[Tensor], None]

    def x0_delta(self, x0: Tensor, context: Context) -> None:
        assert context.masks is not None
        self.see(context.masks(self.region).expand_as(x0))


def those(names: set[str]) -> Any:
    return pytest.mark.parametrize(
        "family", [f for f in FAMILIES if f.name in names], ids=lambda family: family.id
    )


def seen(pipe: Any, family: Family, region: Any) -> list[Tensor]:
    masks: list[Tensor] = []
    family.call(guide(pipe, Looks(region=region, see=masks.append)), ["cat", "a cat"], 1)
    return masks


@those({f.name for f in FAMILIES if "H, W)" in f.sample})
def test_box_is_a_half_when_it_says_so(family: Family, read: Read):
    for mask in seen(read(family), family, (0.0, 0.0, 0.5, 1.0)):
        middle = mask.shape[-1] // 2
        assert mask[..., :middle].all()
        assert not mask[..., middle:].any()


@those(CROSS | JOINT)
def test_words_are_somewhere_and_not_everywhere_when_a_box_is_of_that_shape(
    family: Family, read: Read
):
    pipe = read(family)
    (half, *_), words = seen(pipe, family, (0.0, 0.0, 1.0, 0.5)), seen(pipe, family, "cat")
    assert half.float().mean() == 0.5
    for mask in words:
        assert mask.shape == half.shape
        assert 0 < mask.float().mean() < 1


@those({f.name for f in FAMILIES} - CROSS - JOINT)
def test_words_are_refused_when_the_attention_cannot_be_read(family: Family, read: Read):
    with pytest.raises(
        UnsupportedError, match=r"give a mask or a box as region|has no places|is not known here"
    ):
        seen(read(family), family, "cat")


class Products(TorchFunctionMode):
    """Keeps the attention of fewer or more queries than there are keys, of as many keys as there
    are tokens.
    """

    def __init__(self, prompts: Prompts) -> None:
        super().__init__()
        self.prompts = prompts
        self.kept: list[Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is scaled_dot_product_attention and isinstance(self.prompts.positive, Tensor):
            q, k = (args if len(args) > 1 else (kwargs["query"], kwargs["key"]))[:2]
            if k.shape[-2] == self.prompts.positive.shape[1] and q.shape[-2] not in (
                1,
                k.shape[-2],
            ):
                scores, mask = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5, kwargs.get("attn_mask")
                if mask is not None:
                    scores = (
                        scores.masked_fill(~mask, -torch.inf)
                        if mask.dtype == torch.bool
                        else scores + mask
                    )
                self.kept.append(scores.softmax(-1).mean(1))
        return func(*args, **kwargs)


@those(CROSS - CONTROLLED)  # a ControlNet attends to the prompt too, by itself
def test_map_is_the_attention_that_is_paid_to_the_word(family: Family, read: Read):
    pipe = read(family)
    arguments = {**family.arguments, **family.ask(["a dog cat", "cat"], 1)}
    own = own_pipeline(pipe)
    prompts, grid = Prompts(own, arguments), Grid(pipe, arguments)
    tokens = word_tokens(pipe, arguments, ["cat"], append=True)
    with (
        WordMaps(own, tokens, grid.cells, prompts) as found,
        prompts,
        Products(prompts) as products,
    ):
        family.call(own, ["a dog cat", "cat"], 1)
    made = found.maps["cat"]
    layers = []
    for attention in products.kept:
        rows = [
            rows[:, places].mean(-1)
            for rows, places in zip(attention[-2:], tokens.words["cat"], strict=True)
        ]
        side = round(rows[0].shape[0] ** 0.5)
        layers.append(
            interpolate(
                torch.stack(rows).view(2, 1, side, side), size=made.shape[1:], mode="bilinear"
            )[:, 0]
        )
    torch.testing.assert_close(made, torch.stack(layers).mean(0), atol=1e-6, rtol=1e-4)


@those({"Stable Diffusion", "Stable Diffusion XL", "Qwen-Image"})
def test_tokens_of_a_word_begin_where_prompts_differ_when_the_encoder_reads_from_left_to_right(
    family: Family, read: Read
):
    pipe = read(family)
    tokens = [
        word_tokens(pipe, {**family.arguments, "prompt": f"a {word}"}, [word], append=False)
        for word in ("cat", "dog")
    ]
    cat, dog = (own.embeddings[0] for own in tokens)
    assert [own.words[word][0][0] for own, word in zip(tokens, ("cat", "dog"), strict=True)] == [
        next(
            i
            for i, (a, b) in enumerate(zip(cat, dog, strict=True))
            if not torch.allclose(a, b, atol=1e-5)
        )
    ] * 2


@those(JOINT)
def test_keys_of_the_text_are_the_same_when_only_the_image_differs(family: Family, read: Read):
    pipe, firsts = read(family), []
    for seed in (0, 1):
        keys: list[Tensor] = []
        own = own_pipeline(pipe)
        arguments = {**family.arguments, **family.ask(["cat"], 1)}
        tokens, prompts = (
            word_tokens(pipe, arguments, ["cat"], append=False),
            Prompts(own, arguments),
        )
        maps = WordMaps(own, tokens, Grid(pipe, arguments).cells, prompts)
        with pytest.MonkeyPatch.context() as patch, maps, prompts:
            patch.setattr(
                WordMaps,
                "_map",
                lambda self, q, k, scale, prompt, kept=keys: (
                    kept.append(k) or torch.zeros(1, q.shape[1])
                ),
            )
            family.call(own, ["cat"], 1, seed=seed)
        assert keys[0].shape[1] == tokens.length
        firsts.append(keys[0])
    torch.testing.assert_close(*firsts)

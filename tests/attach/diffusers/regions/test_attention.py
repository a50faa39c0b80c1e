import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from diffusers.models.attention_processor import Attention, AttnProcessor
from diffusers.models.embeddings import apply_rotary_emb
from tests.attach.conftest import prompted, seeded
from torch import Tensor
from torch.nn.functional import interpolate

from unalike.attach import guide
from unalike.attach.diffusers.prompts import Prompts
from unalike.attach.diffusers.regions.attention import WordMaps
from unalike.attach.diffusers.regions.places import Grid
from unalike.attach.diffusers.regions.words import word_tokens
from unalike.attach.diffusers.scoped import own_pipeline
from unalike.errors import OptionError, UnsupportedError
from unalike.guidance.cads import CADS
from unalike.guidance.context import Context
from unalike.guidance.method import Method

Pipelines = Callable[[str], Any]
CROSS, JOINT = ("sd", "sdxl"), ("sd3", "flux")
PROMPTS = ["a cat", "Cat dog"]


@dataclass(frozen=True, kw_only=True)
class Looks(Method):
    """Shows functions where its region is and what is predicted, and corrects nothing."""

    name: ClassVar[str] = "looks"
    region: Any
    see: Callable[[Tensor, int], object] = lambda mask, step: None
    predicted: Callable[[Tensor], None] = lambda x0: None

    def x0_delta(self, x0: Tensor, context: Context) -> None:
        assert context.masks is not None
        self.predicted(x0)
        mask = context.masks(self.region)
        assert mask.dtype == torch.bool
        assert mask.expand(len(x0), *x0.shape[1:]).shape == x0.shape
        self.see(mask, context.step)


def maps(
    pipe: Any, arguments: dict[str, Any], words: list[str], *, append: bool
) -> dict[str, Tensor]:
    """What was added up during a call."""
    own = own_pipeline(pipe)
    tokens, prompts = word_tokens(pipe, arguments, words, append=append), Prompts(own, arguments)
    with WordMaps(own, tokens, Grid(pipe, arguments).cells, prompts) as found, prompts:
        own(**arguments, generator=seeded(4))
    return found.maps


class Kept(AttnProcessor):
    """The plain attention of diffusers, which keeps the probabilities that it makes; those of other
    tokens where they are given.
    """

    def __init__(self, kept: list[Tensor], tokens: Tensor | None) -> None:
        super().__init__()
        self.kept = kept
        self.tokens = tokens

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        if encoder_hidden_states is not None:
            tokens = encoder_hidden_states if self.tokens is None else self.tokens
            q, k = (
                attn.head_to_batch_dim(attn.to_q(hidden_states)),
                attn.head_to_batch_dim(attn.to_k(tokens)),
            )
            self.kept.append(attn.get_attention_scores(q, k).unflatten(0, (-1, attn.heads)))
        plain: Any = super().__call__
        return plain(attn, hidden_states, encoder_hidden_states, *args, **kwargs)


@contextmanager
def probabilities(unet: Any, tokens: Tensor | None = None) -> Iterator[list[Tensor]]:
    """The attention (R, heads, cells, tokens) of all cross-attention layers at all steps."""
    kept: list[Tensor] = []
    before = unet.attn_processors
    unet.set_attn_processor({name: Kept(kept, tokens) for name in before})
    try:
        yield kept
    finally:
        unet.set_attn_processor(before)


def averaged(kept: list[Tensor], tokens: list[list[int]]) -> Tensor:
    """The map (B, 8, 8) of four images, two of each prompt, from the attention of positive rows,
    which are the last four.
    """
    layers = []
    for attention in kept:
        own = torch.stack(
            [a[..., tokens[i // 2]].mean((0, -1)) for i, a in enumerate(attention[-4:])]
        )
        side = round(own.shape[1] ** 0.5)
        layers.append(interpolate(own.view(4, 1, side, side), size=(8, 8), mode="bilinear")[:, 0])
    return torch.stack(layers).mean(0)


@pytest.mark.parametrize("name", CROSS)
def test_map_is_the_attention_that_the_unet_pays_to_the_word(pipelines: Pipelines, name: str):
    pipe, arguments = pipelines(name), prompted(name, PROMPTS, 2)
    with probabilities(pipe.unet) as kept:
        pipe(**arguments, generator=seeded(4))
    found = maps(pipe, arguments, ["cat"], append=True)["cat"]
    torch.testing.assert_close(found, averaged(kept, [[2, 3, 4], [1, 2, 3]]), atol=1e-6, rtol=1e-4)
    assert found.flatten(1).std(dim=1).min() > 0


def test_map_is_that_of_the_prompt_with_the_word_when_the_prompt_has_it_not(pipelines: Pipelines):
    pipe, arguments = pipelines("sd"), prompted("sd", PROMPTS, 2)
    longer, _ = pipe.encode_prompt(["a cat dog", "Cat dog"], "cpu", 2, False)
    with probabilities(pipe.unet, torch.cat([longer, longer])) as kept:
        pipe(**arguments, generator=seeded(4))
    found = maps(pipe, arguments, ["dog"], append=True)["dog"]
    torch.testing.assert_close(found, averaged(kept, [[5, 6, 7], [4, 5, 6]]), atol=1e-6, rtol=1e-4)


@contextmanager
def outputs(**modules: torch.nn.Module) -> Iterator[dict[str, list[Tensor]]]:
    """What modules return, in order, by the names given to them."""
    made: dict[str, list[Tensor]] = {name: [] for name in modules}

    def keeping(name: str) -> Callable[[Any, Any, Tensor], None]:
        return lambda module, args, out: made[name].append(out)

    handles = [module.register_forward_hook(keeping(name)) for name, module in modules.items()]
    try:
        yield made
    finally:
        for handle in handles:
            handle.remove()


def of_text(q: Tensor, k: Tensor) -> Tensor:
    """The attention (R, heads, cells, tokens) of queries (R, cells, heads, d) to keys (R, tokens,
    heads, d).
    """
    return torch.einsum("rchd,rthd->rhct", q, k).div(q.shape[-1] ** 0.5).softmax(-1)


def grid_of_tokens(attention: list[Tensor], tokens: list[list[int]]) -> Tensor:
    own = torch.stack([a.mean(1) for a in attention]).mean(0)[-4:]
    means = torch.stack([a[..., tokens[i // 2]].mean(-1) for i, a in enumerate(own)])
    return interpolate(means.view(4, 1, 4, 4), size=(8, 8), mode="bilinear")[:, 0]


def test_map_is_the_attention_to_the_text_when_the_transformer_has_the_image_first(
    pipelines: Pipelines,
):
    pipe, arguments = pipelines("sd3"), prompted("sd3", ["a cat", "cat dog"], 2)
    attn = pipe.transformer.transformer_blocks[0].attn
    with outputs(q=attn.to_q, k=attn.add_k_proj) as made:
        pipe(**arguments, generator=seeded(4))
    seen = [
        of_text(*(x.unflatten(-1, (attn.heads, -1)) for x in pair))
        for pair in zip(made["q"], made["k"], strict=True)
    ]
    found = maps(pipe, arguments, ["cat"], append=False)["cat"]
    expected = grid_of_tokens(seen, [[2, 3, 4, 15, 16, 17], [1, 2, 3, 13, 14, 15]])
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-4)


def test_map_is_the_attention_to_the_text_when_the_transformer_has_the_text_first(
    pipelines: Pipelines,
):
    pipe, arguments = pipelines("flux"), prompted("flux", ["a cat", "cat dog"], 2)
    double, single = (
        pipe.transformer.transformer_blocks[0].attn,
        pipe.transformer.single_transformer_blocks[0].attn,
    )
    rope = pipe.transformer.pos_embed
    with outputs(
        q=double.norm_q, k=double.norm_added_k, one_q=single.norm_q, one_k=single.norm_k, rope=rope
    ) as made:
        pipe(**arguments, generator=seeded(4))
    cos, sin = made["rope"][0]

    def turned(x: Tensor, places: slice) -> Tensor:
        by: Any = cos[places], sin[places]
        return torch.as_tensor(apply_rotary_emb(x, by, sequence_dim=1))

    text, image = slice(0, 12), slice(12, None)
    seen = [
        of_text(turned(q, image), turned(k, text))
        for q, k in zip(made["q"], made["k"], strict=True)
    ]
    both = zip(made["one_q"], made["one_k"], strict=True)
    seen += [of_text(turned(q[:, image], image), turned(k[:, text], text)) for q, k in both]
    found = maps(pipe, arguments, ["cat"], append=False)["cat"]
    torch.testing.assert_close(
        found, grid_of_tokens(seen, [[3, 4, 5], [1, 2, 3]]), atol=1e-6, rtol=1e-4
    )


@pytest.mark.parametrize("name", [*CROSS, *JOINT])
def test_images_are_bit_identical_when_attention_is_only_read(pipelines: Pipelines, name: str):
    pipe, arguments = pipelines(name), prompted(name, ["a cat", "cat dog"], 2)
    plain = torch.as_tensor(pipe(**arguments, generator=seeded(4))[0])
    guided = guide(pipe, Looks(region=("cat",)))
    assert torch.equal(torch.as_tensor(guided(**arguments, generator=seeded(4))[0]), plain)
    for module in (getattr(pipe, "unet", None) or pipe.transformer).modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks


class Sides(torch.nn.Module):
    """Queries +1 in the left half of an image and -1 in the right one, whatever is there."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, hidden: Tensor) -> Tensor:
        side = round(hidden.shape[1] ** 0.5)
        left = (torch.arange(hidden.shape[1]) % side < side // 2).float() * 2 - 1
        return left[:, None].expand(len(hidden), -1, self.width)


@pytest.fixture
def left_cat(pipelines: Pipelines) -> Iterator[Any]:
    """Stable Diffusion in which the tokens of the prompt "a cat" are attended to by the left half,
    those of "cat" alone.
    """
    pipe = pipelines("sd")
    tokens, _ = pipe.encode_prompt("a cat", "cpu", 1, False)
    wanted = torch.full((12,), -1.0)
    wanted[2:5] = 1
    direction = torch.linalg.lstsq(tokens[0].double(), wanted.double()).solution.float()
    assert torch.allclose(tokens[0] @ direction, wanted, atol=1e-3)
    parts: list[Any] = [
        m for m in pipe.unet.modules() if isinstance(m, Attention) and m.is_cross_attention
    ]
    before = [(m.to_q, m.to_k) for m in parts]
    for m in parts:
        m.to_q = Sides(m.inner_dim)
        m.to_k = torch.nn.Linear(16, m.inner_dim, bias=False)
        m.to_k.weight.data = direction.expand(m.inner_dim, -1).clone()
    yield pipe
    for m, (to_q, to_k) in zip(parts, before, strict=True):
        m.to_q, m.to_k = to_q, to_k


def test_region_is_the_left_half_when_the_word_is_attended_there(left_cat: Any):
    seen: list[Tensor] = []
    guided = guide(left_cat, Looks(region="CAT", see=lambda mask, step: seen.append(mask)))
    guided(**prompted("sd", ["a cat"], 2), generator=seeded(2))
    assert [mask.shape for mask in seen] == [(2, 1, 8, 8)] * 4
    for mask in seen:
        assert mask[..., :4].all()
        assert not mask[..., 4:].any()


def test_region_is_the_right_half_when_the_rest_of_the_prompt_is_attended_there(left_cat: Any):
    seen: list[Tensor] = []
    both: list[Tensor] = []
    methods = (
        Looks(region="a", see=lambda mask, _: seen.append(mask)),
        Looks(region=["cat", "a"], see=lambda mask, _: both.append(mask)),
    )
    guide(left_cat, *methods)(**prompted("sd", ["a cat"], 1), generator=seeded(1))
    assert seen[0][..., 4:].all()
    assert not seen[0][..., :4].any()
    assert both[0].all()


def test_negative_prompt_has_no_say_when_it_has_the_word_too(left_cat: Any):
    seen: dict[str, Tensor] = {}
    for negative in ("cat", "owl"):
        guided = guide(
            left_cat,
            Looks(region="cat", see=lambda mask, step, own=negative: seen.setdefault(own, mask)),
        )
        guided(**prompted("sd", ["a cat"], 1), negative_prompt=[negative], generator=seeded(1))
    assert torch.equal(seen["cat"], seen["owl"])


def test_words_are_looked_for_with_the_prompt_itself_when_a_method_anneals_it(left_cat: Any):
    seen: list[Tensor] = []
    guided = guide(
        left_cat,
        CADS(noise_scale=1.0),
        Looks(region="cat", see=lambda mask, step: seen.append(mask)),
    )
    guided(**prompted("sd", ["a cat"], 1), generator=seeded(1))
    assert seen[0][..., :4].all()
    assert not seen[0][..., 4:].any()


def test_map_is_an_average_over_the_steps_so_far(pipelines: Pipelines):
    pipe, arguments = pipelines("sd"), prompted("sd", ["a cat"], 1)
    own = own_pipeline(pipe)
    tokens, prompts = word_tokens(pipe, arguments, ["cat"], append=True), Prompts(own, arguments)
    so_far: list[Tensor] = []

    def look(pipe: Any, step: int, time: Any, values: Any) -> dict[str, Any]:
        so_far.append(found.maps["cat"])
        return {}

    with (
        WordMaps(own, tokens, Grid(pipe, arguments).cells, prompts) as found,
        prompts,
        probabilities(pipe.unet) as kept,
    ):
        own(**arguments, generator=seeded(1), callback_on_step_end=look)
    layers = len(kept) // 4
    for step, mean in enumerate(so_far, 1):
        layer_maps = [
            interpolate(
                a[-1:, :, :, 2:5].mean((1, 3)).view(1, 1, 4, 4), size=(8, 8), mode="bilinear"
            )[:, 0]
            for a in kept[: step * layers]
        ]
        torch.testing.assert_close(mean, torch.stack(layer_maps).mean(0), atol=1e-6, rtol=1e-4)
    assert not torch.equal(so_far[0], so_far[3])


@pytest.mark.parametrize("name", JOINT)
def test_error_lists_the_words_of_the_prompt_when_joint_attention_is_asked_for_another(
    pipelines: Pipelines, name: str
):
    pipe, calls = pipelines(name), []
    handle = pipe.transformer.register_forward_pre_hook(lambda module, args: calls.append(1))
    try:
        with pytest.raises(
            OptionError,
            match=r"the word 'owl', which is not among the tokens of the prompt 'a cat'; "
            r"its words are a, cat;",
        ):
            guide(pipe, Looks(region=["cat", "owl"]))(**prompted(name, ["a cat"], 1))
    finally:
        handle.remove()
    assert not calls


def test_error_says_so_when_there_is_no_room_for_the_word(pipelines: Pipelines):
    pipe = pipelines("sd")
    with pytest.raises(
        OptionError, match="the word 'abcdefghijklm', which is not among the tokens"
    ):
        guide(pipe, Looks(region="abcdefghijklm"))(**prompted("sd", ["cat"], 1))


def test_words_are_refused_when_there_is_no_prompt(pipelines: Pipelines, pixel_pipe: Any):
    with pytest.raises(
        UnsupportedError,
        match="DDIMPipeline has UNet2DModel, whose attention to words is not known here",
    ):
        guide(pixel_pipe, Looks(region="cat"))(num_inference_steps=2)
    with pytest.raises(UnsupportedError, match="DiTPipeline has DiTTransformer2DModel"):
        guide(pipelines("dit"), Looks(region="cat"))(**prompted("dit", ["cat"], 1))
    embeddings = torch.zeros(1, 12, 16)
    with pytest.raises(
        OptionError, match="names the words 'cat', and this call has no prompt as text"
    ):
        guide(pipelines("sd"), Looks(region="cat"))(prompt_embeds=embeddings, guidance_scale=1.0)


def test_words_are_refused_when_the_denoiser_is_compiled(tiny_sd: Any):
    tiny_sd.unet.compile(backend="eager")
    with pytest.raises(
        UnsupportedError,
        match=r"denoiser of StableDiffusionPipeline is compiled.*give a mask or a box as region",
    ):
        guide(tiny_sd, Looks(region="cat"))(**prompted("sd", ["cat"], 1))


def test_words_are_refused_when_no_method_named_them_before_the_call(pipelines: Pipelines):
    @dataclass(frozen=True, kw_only=True)
    class Asks(Method):
        name: ClassVar[str] = "asks"

        def x0_delta(self, x0: Tensor, context: Context) -> None:
            assert context.masks is not None
            context.masks("cat")

    with pytest.raises(
        OptionError, match="names the words 'cat', which no method of this call has as its region"
    ):
        guide(pipelines("sd"), Asks())(**prompted("sd", ["cat"], 1))


def test_no_hook_and_no_watch_is_left_when_a_call_fails(pipelines: Pipelines):
    pipe = pipelines("flux")

    def fail(*_: Any) -> None:
        raise RuntimeError("the norm fails")

    handle = pipe.transformer.norm_out.register_forward_pre_hook(fail)
    try:
        with pytest.raises(RuntimeError, match="the norm fails"):
            guide(pipe, Looks(region="cat"))(**prompted("flux", ["cat"], 1))
    finally:
        handle.remove()
    assert not torch.overrides._get_current_function_mode_stack()
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in pipe.transformer.modules())
    assert "encode_prompt" not in vars(pipe)
    assert inspect.ismethod(pipe.encode_prompt)

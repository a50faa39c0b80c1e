from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from diffusers import AutoencoderKLQwenImage, VQModel
from PIL.Image import Transpose
from tests.hosts.families import FAMILIES
from tests.hosts.family import (
    MIXED,
    ONE_EACH,
    POOLED,
    WARNINGS,
    Family,
    class_labels,
    repeated_prompts,
    several_prompts,
)
from torch import Tensor

from unalike.attach import encode_images, guide, shield_from_images
from unalike.attach.diffusers.decoding import Decoder
from unalike.attach.diffusers.host import Host
from unalike.errors import UnalikeError, UnsupportedError
from unalike.guidance.cads import CADS
from unalike.guidance.context import Context
from unalike.guidance.method import Method
from unalike.guidance.sparke import SPARKE
from unalike.guidance.spell import SPELL
from unalike.memory import Memory
from unalike.shields import Shield

pytestmark = [pytest.mark.filterwarnings(warning) for warning in WARNINGS]

every_family = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.id)
decoded_families = pytest.mark.parametrize(
    "family", [f for f in FAMILIES if f.decodes], ids=lambda family: family.id
)
Read = Callable[[Family], Any]


@dataclass(frozen=True, kw_only=True)
class Seen(Method):
    """Calls a function at each step and returns what it returns."""

    name: ClassVar[str] = "seen"
    act: Callable[[Tensor, Context], Tensor | None]

    def x0_delta(self, x0: Tensor, context: Context) -> Tensor | None:
        return self.act(x0, context)


NOTHING = Seen(act=lambda x0, context: None)


def size(family: Family) -> tuple[int | None, int | None]:
    return family.arguments.get("height"), family.arguments.get("width")


def reconstructed(pipe: Any, images: Tensor) -> Tensor:
    """Images (n, 3, h, w) in [0, 1] as the autoencoder itself gives them back."""
    vae = next(
        (m for name in ("vae", "vqvae", "movq") if (m := getattr(pipe, name, None)) is not None),
        None,
    )
    if vae is None:
        return images
    video = isinstance(vae, AutoencoderKLQwenImage)
    encoded = vae.encode((images * 2 - 1)[:, :, None] if video else images * 2 - 1)
    latents = encoded.latent_dist.mode() if hasattr(encoded, "latent_dist") else encoded[0]
    made = vae.decode(
        latents, **({"force_not_quantize": True} if isinstance(vae, VQModel) else {})
    ).sample
    return ((made[:, :, 0] if video else made) / 2 + 0.5).clamp(0, 1)


@every_family
def test_pipeline_is_of_the_class_that_the_table_names(family: Family, read: Read):
    assert type(read(family)).__name__ == family.pipeline


@every_family
def test_images_are_bit_identical_when_nothing_is_corrected(family: Family, read: Read):
    pipe = read(family)
    guided = guide(pipe, NOTHING, SPARKE(strength=0.0), memory=Memory())
    assert torch.equal(family.call(guided, ["cat"], 2), family.call(pipe, ["cat"], 2))


@every_family
def test_corrections_reach_every_image_when_guided(family: Family, read: Read):
    pipe, memory = read(family), Memory()
    plain = family.call(pipe, ["cat"], 2)
    guided = guide(pipe, SPARKE(strength=0.2), SPELL(radius=1.0), memory=memory)
    changed = (family.call(guided, ["cat"], 2) - plain).flatten(1).abs().amax(dim=1)
    assert len(changed) == len(memory) == 2
    assert changed.min() > 1e-3


@every_family
def test_prompt_groups_are_right_when_there_are_several_prompts_with_several_images(
    family: Family, read: Read
):
    seen: list[Context] = []
    family.call(
        guide(read(family), Seen(act=lambda x0, context: seen.append(context))),
        ["cat", "black dog"],
        2,
    )
    assert [context.step for context in seen] == list(range(len(seen)))
    assert seen
    for context in seen:
        assert len(context.x_t) == 4
        assert context.groups.tolist() == ([0, 0, 1, 1] if family.prompted else [0] * 4)
        if not family.prompted:
            assert context.prompts is None
            continue
        assert context.prompts is not None
        assert torch.allclose(context.prompts[0], context.prompts[1])
        assert not torch.allclose(context.prompts[1], context.prompts[2])


@every_family
def test_an_image_is_the_same_when_the_batch_is_larger(family: Family, read: Read):
    pipe = read(family)
    push = Seen(act=lambda x0, context: 0.1 * x0)
    together, alone = (family.call(guide(pipe, push), ["cat"], n) for n in (2, 1))
    assert torch.allclose(together[:1], alone, atol=2e-3, rtol=1e-3) == family.exact_batches
    if not family.exact_batches:  # then it is the pipeline's own doing
        together, alone = (family.call(pipe, ["cat"], n) for n in (2, 1))
        assert not torch.allclose(together[:1], alone, atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize(
    "family", [f for f in FAMILIES if f.prompted], ids=lambda family: family.id
)
def test_prompts_keep_their_images_when_several_are_asked_of_each_unless_that_is_a_limit(
    family: Family, read: Read
):
    pipe = read(family)
    numbers = [
        name
        for name in Host(pipe).parameters
        if name.startswith("num_") and name.endswith("_per_prompt")
    ]
    mixed = not {MIXED, POOLED}.isdisjoint(family.limits)
    several = (
        {"prompt": ["cat", "black dog"], **dict.fromkeys(numbers, 2)}
        if mixed
        else family.ask(["cat", "black dog"], 2)
    )
    assert (not several.keys().isdisjoint(numbers)) == (
        ONE_EACH not in family.limits and family.ask is not class_labels
    )
    if (
        numbers and ONE_EACH in family.limits
    ):  # what is asked for is ignored, so there is one generator too many
        with pytest.raises(ValueError, match="list of generators of length 2"):
            family.call(pipe, ["cat"], 2, prompt=["cat"], **dict.fromkeys(numbers, 2))
    if several.keys().isdisjoint(numbers):
        return
    two_of_each = family.call(pipe, ["cat", "black dog"], 2, **several)
    repeated = family.call(pipe, ["cat", "cat", "black dog", "black dog"], 1)
    assert torch.allclose(two_of_each, repeated, atol=2e-3, rtol=1e-3) == (not mixed)
    if mixed:  # then repeating them is what helps
        alone = family.call(pipe, ["black dog", "black dog"], 1, seed=2)
        assert torch.allclose(repeated[2:], alone, atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize(
    "family", [f for f in FAMILIES if not f.prompt_methods], ids=lambda family: family.id
)
def test_methods_that_act_on_prompts_are_refused_when_they_cannot_work(family: Family, read: Read):
    with pytest.raises(UnsupportedError, match=r"^CADS.*use methods that correct x0"):
        family.call(guide(read(family), CADS()), ["cat"], 2)


@decoded_families
def test_latents_are_decoded_as_the_pipeline_does_when_it_returns_images(
    family: Family, read: Read
):
    pipe = read(family)
    guided = guide(pipe, NOTHING)
    images = family.call(guided, ["cat"], 2, output_type="np").permute(0, 3, 1, 2)
    decoder = Decoder(pipe, size(family))
    assert guided.latents is not None
    with torch.no_grad(), decoder.open():
        torch.testing.assert_close(decoder.images(guided.latents), images, atol=1e-5, rtol=0)


@decoded_families
def test_images_are_encoded_into_the_space_of_the_pipelines_latents(family: Family, read: Read):
    pipe = read(family)
    guided = guide(pipe, NOTHING)
    images = family.call(guided, ["cat"], 2, output_type="np").permute(0, 3, 1, 2)
    assert guided.report is not None
    assert guided.latents is not None
    shield = shield_from_images(pipe, images, 1.0)
    assert guided.report.space.startswith(shield.space + " ")
    encoded, decoder = encode_images(pipe, images), Decoder(pipe, size(family))
    assert encoded.shape == guided.latents.shape
    with torch.no_grad(), decoder.open():
        torch.testing.assert_close(
            decoder.images(encoded), reconstructed(pipe, images), atol=1e-4, rtol=0
        )
    with decoder.open():
        leaf = encoded.requires_grad_()
        (gradient,) = torch.autograd.grad(decoder.images(leaf).square().sum(), leaf)
    assert gradient.isfinite().all()
    assert gradient.abs().max() > 0


@decoded_families
def test_images_are_those_of_the_certified_latents_when_a_shield_moves_one(
    family: Family, read: Read
):
    pipe, plain = read(family), guide(read(family), NOTHING)
    before = family.call(plain, ["cat"], 2, output_type="np")
    assert plain.report is not None
    assert plain.latents is not None
    shield = Shield(plain.latents[:1], space=plain.report.space.split()[0], radius=0.5)
    guided, decoder = guide(pipe, shield=shield, on_violation="move"), Decoder(pipe, size(family))
    after = family.call(guided, ["cat"], 2, output_type="np")
    assert guided.report is not None
    assert guided.latents is not None
    assert [image.certificate.moved for image in guided.report.images if image.certificate] == [
        True,
        False,
    ]
    with torch.no_grad(), decoder.open():
        torch.testing.assert_close(
            decoder.images(guided.latents), after.permute(0, 3, 1, 2), atol=1e-5, rtol=0
        )
    assert not torch.equal(after[0], before[0])
    assert torch.equal(after[1], before[1])


@pytest.mark.parametrize(
    "family",
    [f for f in FAMILIES if f.ask in (several_prompts, repeated_prompts)],
    ids=lambda family: family.id,
)
def test_prompts_are_remembered_as_they_were_given_when_a_pipeline_writes_into_their_list(
    family: Family, read: Read
):
    memory, prompts = Memory(), ["cat"]
    family.call(guide(read(family), memory=memory), ["cat"], 1, prompt=prompts)
    assert prompts == ["cat"]
    assert memory.texts(next(iter(memory.spaces()))) == ["cat"]


@pytest.mark.parametrize(
    "family", [f for f in FAMILIES if "ControlNet" in f.name], ids=lambda family: family.id
)
def test_images_follow_the_pose_when_there_is_one(family: Family, read: Read):
    pose = family.arguments["image"]
    upright, reversed_ = (
        family.call(read(family), ["cat"], 1, image=image)
        for image in (pose, pose.transpose(Transpose.FLIP_TOP_BOTTOM))
    )
    assert (upright - reversed_).abs().max() > 1e-3


@pytest.mark.parametrize(
    "family", [f for f in FAMILIES if f.name == "PixArt-Sigma"], ids=lambda family: family.id
)
def test_images_have_the_size_that_was_asked_for_when_they_are_drawn_at_another(
    family: Family, read: Read
):
    pipe, asked = read(family), {"height": 64, "width": 48, "use_resolution_binning": True}
    guided, decoder = guide(pipe, NOTHING), Decoder(read(family), (64, 48))
    images = family.call(guided, ["cat"], 1, output_type="np", **asked).permute(0, 3, 1, 2)
    assert guided.latents is not None
    assert guided.latents.shape[-2:] != (8, 6)
    with torch.no_grad(), decoder.open():
        torch.testing.assert_close(decoder.images(guided.latents), images, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "family",
    [f for f in FAMILIES if not f.decodes],
    ids=lambda family: family.id,
)
def test_decoding_is_refused_when_it_is_not_known(family: Family, read: Read):
    guided = guide(read(family), NOTHING)
    family.call(guided, ["cat"], 1)
    assert guided.latents is not None
    with pytest.raises(UnalikeError):
        Decoder(guided.pipe, size(family)).images(guided.latents)

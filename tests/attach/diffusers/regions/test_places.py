from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from tests.attach.conftest import prompted, seeded
from tests.attach.diffusers.regions.test_attention import Looks
from torch import Tensor

from unalike.attach import GuidedPipeline, guide
from unalike.attach.diffusers.prompts import Prompts
from unalike.attach.diffusers.regions.places import Places
from unalike.errors import OptionError, UnsupportedError
from unalike.guidance.sparke import SPARKE
from unalike.guidance.spell import SPELL
from unalike.guidance.vendi import VendiGuidance

Pipelines = Callable[[str], Any]
LEFT = (0.0, 0.0, 0.5, 1.0)


def seen(pipe: Any, arguments: dict[str, Any], region: Any, images: int = 1) -> list[Tensor]:
    """Where the region is at each step of a call."""
    found: list[Tensor] = []
    guide(pipe, Looks(region=region, see=lambda mask, step: found.append(mask)))(
        **arguments, generator=seeded(images)
    )
    return found


def asked(pipe: Any, arguments: dict[str, Any], *regions: Any) -> Places:
    return Places(
        pipe, arguments, [Looks(region=region) for region in regions], Prompts(pipe, arguments)
    )


@pytest.mark.parametrize("name", ["sd", "sdxl", "sd3", "dit"])
def test_box_is_where_it_says_when_latents_are_images(pipelines: Pipelines, name: str):
    masks = seen(pipelines(name), prompted(name, ["cat"], 2), LEFT, 2)
    assert len(masks) == 4
    for mask in masks:
        assert mask.shape == (1, 1, 8, 8)
        assert mask[..., :4].all()
        assert not mask[..., 4:].any()


@pytest.mark.parametrize("size", [(16, 16), (16, 32)])
def test_places_are_those_that_the_pipeline_unpacks_when_latents_are_packed(
    pipelines: Pipelines, size: tuple[int, int]
):
    pipe, (height, width) = pipelines("flux"), size
    mask = torch.rand(1, height // 2, width // 2, generator=torch.Generator().manual_seed(1)) > 0.6
    arguments = {**prompted("flux", ["cat"], 1), "height": height, "width": width}
    (first, *_) = seen(pipe, arguments, mask)
    unpacked = pipe._unpack_latents(first, height, width, pipe.vae_scale_factor)
    assert torch.equal(unpacked, mask[:, None].expand(-1, 4, -1, -1))


def test_places_are_the_same_in_every_frame_when_latents_are_a_video(pipelines: Pipelines):
    video = torch.zeros(2, 4, 3, 8, 8)
    mask = asked(pipelines("sd"), {}, LEFT).masks(video)(LEFT)
    assert mask.shape == (1, 1, 1, 8, 8)
    assert torch.equal(mask.expand_as(video)[1, 2, 2], mask[0, 0, 0])


def test_places_are_pixels_when_there_is_no_autoencoder(pixel_pipe: Any):
    mask = torch.rand(8, 8, generator=torch.Generator().manual_seed(0)) > 0.5
    (first, _) = seen(pixel_pipe, {"num_inference_steps": 2}, mask)
    assert torch.equal(first, mask[None, None])


def test_masks_agree_when_they_are_of_pixels_latents_and_different_kinds(pipelines: Pipelines):
    pipe, arguments = pipelines("sd"), {**prompted("sd", ["cat"], 2), "width": 24}
    cells = torch.rand(8, 12, generator=torch.Generator().manual_seed(0)) > 0.5
    pixels = cells.repeat_interleave(2, 0).repeat_interleave(2, 1)
    grey = (pixels * 128 + ~pixels * 127).to(torch.uint8)
    image = Image.frombytes("L", (24, 16), bytes(grey.flatten().tolist()))
    for region in (
        cells,
        pixels,
        pixels[None].expand(2, -1, -1),
        0.4 + 0.2 * cells.double(),
        grey,
        image,
        image.convert("RGB"),
    ):
        mask = seen(pipe, arguments, region, 2)[-1]
        assert torch.equal(mask, cells.expand(len(mask), 1, -1, -1))


def test_each_image_has_its_own_places_when_there_are_as_many_masks(pipelines: Pipelines):
    masks = torch.rand(4, 8, 8, generator=torch.Generator().manual_seed(0)) > 0.5
    masks[2] = False
    for name in ("sd", "dit"):
        mask = seen(pipelines(name), prompted(name, ["cat", "dog"], 2), masks, 4)[0]
        assert torch.equal(mask, masks[:, None])


def moved(
    pipe: Any, arguments: dict[str, Any], method: Any, images: int
) -> tuple[list[Tensor], list[Tensor], GuidedPipeline]:
    """How a method changes the prediction at each step, and where its region is then."""
    before, after, masks = [], [], []
    looks = Looks(
        region=method.region, see=lambda mask, step: masks.append(mask), predicted=before.append
    )
    guided = guide(pipe, looks, method, Looks(region=None, predicted=after.append))
    guided(**arguments, generator=seeded(images))
    return [b - a for a, b in zip(before, after, strict=True)], masks, guided


@pytest.mark.parametrize("name", ["sd", "flux"])
@pytest.mark.parametrize("kind", [SPARKE, VendiGuidance, SPELL])
@pytest.mark.parametrize("region", [LEFT, "cat"])
def test_correction_is_exactly_zero_outside_the_region(
    pipelines: Pipelines, name: str, kind: Any, region: Any
):
    method = (
        SPELL(radius=1000.0, region=region) if kind is SPELL else kind(strength=0.1, region=region)
    )
    deltas, masks, guided = moved(pipelines(name), prompted(name, ["a cat"], 3), method, 3)
    for delta, mask in zip(deltas, masks, strict=True):
        assert not delta[~mask.expand_as(delta)].any()
    assert torch.stack(deltas).abs().amax(dim=(0, *range(2, deltas[0].ndim + 1))).min() > 1e-3
    assert guided.report is not None
    shares = [report.regions for report in guided.report.images]
    expected = masks[-1].expand_as(deltas[0]).float().flatten(1).mean(1).tolist()
    assert shares == [
        {"looks": pytest.approx(share), method.name: pytest.approx(share)} for share in expected
    ]


def test_share_of_the_report_is_that_of_each_image_when_masks_differ(pipelines: Pipelines):
    masks = torch.zeros(2, 8, 8, dtype=torch.bool)
    masks[0, :2], masks[1, 0, 0] = True, True
    guided = guide(pipelines("sd"), SPARKE(region=masks), SPARKE())
    guided(**prompted("sd", ["cat"], 2), generator=seeded(2))
    assert guided.report is not None
    assert [image.regions for image in guided.report.images] == [
        {"sparke": 0.25},
        {"sparke": 1 / 64},
    ]


def test_size_is_that_of_the_image_when_the_pipeline_begins_with_one(pipelines: Pipelines):
    class FromImage:
        """The call of a pipeline that takes its size from an image."""

        def __call__(self, prompt: str, image: Any) -> None: ...

    pipe: Any = FromImage()
    pipe.vae_scale_factor = 8
    for image in (
        Image.new("RGB", (32, 48)),
        [Image.new("RGB", (32, 48))],
        torch.zeros(1, 3, 48, 32),
    ):
        for size in ((48, 32), (6, 4)):
            asked(pipe, {"prompt": "cat", "image": image}, torch.ones(size))
        with pytest.raises(
            OptionError, match="allowed: 48×32 of the images or 6×4 of their latents"
        ):
            asked(pipe, {"prompt": "cat", "image": image}, torch.ones(32, 48))


@pytest.mark.parametrize("name", ["sd", "flux"])
def test_error_names_the_sizes_before_any_denoising_when_a_mask_has_another(
    pipelines: Pipelines, name: str
):
    pipe, calls = pipelines(name), []
    denoiser = getattr(pipe, "unet", None) or pipe.transformer
    handle = denoiser.register_forward_pre_hook(lambda module, args: calls.append(1))
    message = (
        r"mask of 8×16 \(height × width\); allowed: 16×16 of the images or 8×8 of their latents; "
        r"resize it, as in region=image.resize"
    )
    try:
        with pytest.raises(OptionError, match=message):
            seen(pipe, prompted(name, ["cat"], 1), torch.ones(8, 16))
        with pytest.raises(
            OptionError,
            match="region has 3 masks and this call makes 2 images; give one mask for all, or one "
            "for each image",
        ):
            seen(pipe, prompted(name, ["cat"], 2), torch.ones(3, 8, 8), 2)
    finally:
        handle.remove()
    assert not calls


def test_mask_is_refused_when_it_has_nothing_inside(pipelines: Pipelines):
    with pytest.raises(
        OptionError,
        match="region is a mask with nothing inside, so that nothing would be done; leave the "
        "method out",
    ):
        asked(pipelines("sd"), prompted("sd", ["cat"], 1), torch.zeros(8, 8))


def test_everything_is_inside_when_a_method_asks_for_no_region(pipelines: Pipelines):
    assert asked(pipelines("sd"), {}).masks(torch.zeros(2, 4, 8, 8))(None).all()


def test_error_says_so_when_the_pipeline_does_not_tell_its_size(tiny_sd: Any):
    class Silent:
        def __call__(self, prompt: str) -> None: ...

    with pytest.raises(
        UnsupportedError,
        match="Silent does not say which size its images have; give height and width",
    ):
        asked(Silent(), {"prompt": "cat"}, torch.ones(8, 8))


def test_mask_is_measured_at_the_first_step_when_no_method_named_it_before(pipelines: Pipelines):
    masks = asked(pipelines("sd"), prompted("sd", ["cat"], 2)).masks(torch.zeros(2, 4, 8, 8))
    assert masks(torch.ones(16, 16)).all()
    with pytest.raises(
        OptionError,
        match=r"mask of 9×9 \(height × width\); allowed: 16×16 of the images or 8×8 of their",
    ):
        masks(torch.ones(9, 9))
    with pytest.raises(OptionError, match="region has 3 masks and this call makes 2 images"):
        masks(torch.ones(3, 8, 8))


def test_region_is_refused_when_there_are_no_places():
    class Sings:
        def __call__(self, prompt: str, audio_end_in_s: float = 1.0) -> None: ...

    class Packs:
        def _pack_latents(self, latents: Tensor, patch_size: int) -> Tensor:
            return latents

        def __call__(self, prompt: str, height: int = 16, width: int = 16) -> None: ...

    with pytest.raises(
        UnsupportedError,
        match="Sings makes sound, which has no places in an image; leave region out",
    ):
        asked(Sings(), {"prompt": "cat"}, LEFT)
    with pytest.raises(
        UnsupportedError, match="Packs packs its latents in a way that is not known here"
    ):
        asked(Packs(), {"prompt": "cat"}, LEFT)
    assert asked(Sings(), {"prompt": "cat"}, None)
    with pytest.raises(
        UnsupportedError,
        match=r"latents of SimpleNamespace have shape \(4, 9\), which has no places",
    ):
        asked(SimpleNamespace(), {}).masks(torch.zeros(1, 4, 9))(LEFT)


def test_error_asks_for_the_size_when_the_tokens_are_not_those_of_the_call(pipelines: Pipelines):
    masks = asked(pipelines("flux"), {"height": 16, "width": 16}).masks(torch.zeros(1, 24, 16))
    with pytest.raises(
        UnsupportedError,
        match="makes 24 tokens an image, which are not those of 16×16 pixels; give the call the",
    ):
        masks(LEFT)

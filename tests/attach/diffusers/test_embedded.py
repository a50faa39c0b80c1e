import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.attach.conftest import prompted, seeded
from torch import Tensor

from unalike.attach import guide
from unalike.attach.diffusers.decoding import Decoder
from unalike.attach.diffusers.embedded import EmbeddedGuard
from unalike.errors import NumericsError, OptionError, ShieldError, StoreError, UnsupportedError
from unalike.guidance.balls import Balls
from unalike.guidance.context import Context
from unalike.guidance.level import Level
from unalike.guidance.spell import SPELL
from unalike.shields import Shield

# some schedulers hand tensors to numpy in the way of numpy 1
pytestmark = pytest.mark.filterwarnings("ignore:__array_:DeprecationWarning")

Pipelines = Callable[[str], Any]
REPEL = SPELL(batch=False, memory=False)


def flat(images: Tensor) -> Tensor:
    """Where the latents of a pipeline without an autoencoder are the embedding."""
    return (2 * images - 1).flatten(1)


def bent(images: Tensor) -> Tensor:
    """A smooth embedding in 24 dimensions that is not linear."""
    return torch.tanh(images.flatten(1) @ noise(images[0].numel(), 24, seed=7) / 4) * 3


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def around(features: Tensor, radius: float, embed: Any = flat) -> Shield:
    name = getattr(embed, "fingerprint", None) or embed.__qualname__
    return Shield(features.detach(), space=f"{name}/{features.shape[1]}", radius=radius)


def at(x0: Tensor, shield: Any, **settings: Any) -> Context:
    settings = {
        "level": Level(0.6, 0.8, 1.0, 0.0),
        "x_t": noise(*x0.shape, seed=9),
        **settings,
    }
    return Context(
        step=0, steps=1, groups=torch.zeros(len(x0), dtype=torch.int64), shield=shield, **settings
    )


def unguided(pipe: Any, name: str, count: int) -> Tensor:
    arguments = prompted(name, ["cat"], count) | {"output_type": "pt"}
    return torch.as_tensor(pipe(**arguments, generator=seeded(count))[0])


def in_files(pictures: list[Any]) -> Tensor:
    """PIL images in [0, 1], read number by number."""
    values = [list(p.convert("RGB").tobytes()) for p in pictures]
    width, height = pictures[0].size
    return (
        (torch.tensor(values, dtype=torch.float32) / 255)
        .view(-1, height, width, 3)
        .permute(0, 3, 1, 2)
    )


@pytest.fixture
def extractors(clip_folder: Path, dinov2_folder: Path) -> Callable[[str], Any]:
    from unalike.extractors import extractor

    folders = {"clip": f"clip:{clip_folder}", "dinov2": f"dinov2:{dinov2_folder}"}
    return lambda name: extractor(folders.get(name, name), device="cpu")


# guided calls


@pytest.mark.parametrize(
    ("name", "features", "methods"),
    [
        ("sd", "pixels", ()),
        ("sd", "clip", (REPEL,)),
        ("sd", "dinov2", (replace(REPEL, overcompensation=1.6),)),
        ("sd", "emoji", (replace(REPEL, start=0.5),)),
        ("flux", "clip", ()),
        ("flux", "pixels", (REPEL,)),
        ("sd3", "dinov2", ()),
        ("sdxl", "pixels", (REPEL,)),
    ],
)
def test_returned_pictures_are_outside_when_they_would_be_the_protected_ones(
    pipelines: Pipelines,
    extractors: Callable[[str], Any],
    name: str,
    features: str,
    methods: tuple[SPELL, ...],
) -> None:
    pipe, own = pipelines(name), extractors(features)
    drawn = unguided(pipe, name, 3)
    known = own.features(drawn)
    radius = 0.5 * (known[0] - known[1:]).norm(dim=1).min().item()
    guided = guide(
        pipe, *methods, on_violation="move", shield=around(known[:1], radius, own), embed=own
    )
    pictures = in_files(
        guided(**prompted(name, ["cat"], 3) | {"output_type": "pil"}, generator=seeded(3))[0]
    )
    distances = (own.features(pictures).double() - known[0].double()).norm(dim=1)
    assert distances.min() > radius
    assert torch.equal(pictures[1:], (drawn[1:] * 255).round() / 255)  # nothing was near these
    assert guided.report is not None
    certificates = [image.certificate for image in guided.report.images if image.certificate]
    torch.testing.assert_close(
        torch.tensor([c.distance for c in certificates]).double(), distances, rtol=1e-5, atol=0
    )
    assert all(c.margin > 0 and c.radius == radius and c.nearest_id == "0" for c in certificates)
    assert [c.moved for c in certificates][1:] == [False, False]
    assert methods or certificates[0].moved
    assert [sum(image.active.values()) for image in guided.report.images][1:] == [0, 0]


def test_returned_pictures_are_outside_when_latents_are_the_image(
    pixel_pipe: Any, extractors: Callable[[str], Any]
) -> None:
    own, arguments = extractors("pixels"), {"batch_size": 2, "num_inference_steps": 4}
    drawn = in_files(pixel_pipe(**arguments, generator=seeded(2)).images)
    known = own.features(drawn)
    radius = 0.5 * (known[0] - known[1]).norm().item()
    for methods in ((), (REPEL,)):
        guided = guide(
            pixel_pipe,
            *methods,
            on_violation="move",
            shield=around(known[:1], radius, own),
            embed=own,
        )
        pictures = in_files(guided(**arguments, generator=seeded(2)).images)
        assert (own.features(pictures) - known[0]).norm(dim=1).min() > radius
        assert torch.equal(pictures[1], drawn[1])


def test_trajectories_are_bit_identical_when_no_ball_is_touched(sd: Any) -> None:
    arguments = prompted("sd", ["cat"], 2)
    guided = guide(
        sd, SPELL(radius=1e-6), shield=around(torch.full((1, 3 * 16 * 16), 9.0), 0.5), embed=flat
    )
    assert torch.equal(
        guided(**arguments, generator=seeded(2))[0], sd(**arguments, generator=seeded(2))[0]
    )
    assert guided.report is not None
    assert [image.active for image in guided.report.images] == [{"spell": 0.0}] * 2
    assert not sd.vae.is_gradient_checkpointing


def test_images_are_moved_out_when_the_call_runs_in_inference_mode(sd: Any) -> None:
    known = flat(unguided(sd, "sd", 1))
    guided = guide(sd, REPEL, on_violation="move", shield=around(known, 2.0), embed=flat)
    with torch.inference_mode():
        images = guided(**prompted("sd", ["cat"], 1) | {"output_type": "pt"}, generator=seeded(1))[
            0
        ]
    assert (flat(images) - known).norm() > 2


# the step


@pytest.mark.parametrize("embed", [flat, bent])
def test_step_is_the_linearised_way_when_compared_with_finite_differences(
    sd: Any, embed: Any
) -> None:
    x, h = 0.5 * noise(1, 4, 8, 8), 2e-3
    decoder = Decoder(sd)
    with torch.no_grad():
        z = embed(decoder.images(x)) + 0.3 * noise(
            1, 24 if embed is bent else 768, seed=3
        ) / math.sqrt(24 if embed is bent else 768)
        distance = (embed(decoder.images(x)) - z).norm().item()
        axes = torch.eye(256).view(256, 4, 8, 8)
        far, near = (
            (embed(decoder.images(x + side * h * axes)) - z).double().norm(dim=1)
            for side in (1, -1)
        )
    gradient = (far - near) / (2 * h)
    radius = 1.7 * distance
    short, step = EmbeddedGuard(around(z, radius, embed), sd, embed).step_out(x, radius)
    assert short == pytest.approx(0.7 * distance, rel=1e-4)
    assert step is not None
    expected = (radius - distance) / gradient.square().sum() * gradient
    torch.testing.assert_close(
        step.flatten().double(), expected, rtol=0.02, atol=0.02 * expected.abs().max().item()
    )


@pytest.mark.parametrize("overcompensation", [1.0, 1.6])
def test_correction_is_that_of_latents_when_the_embedding_is_the_latent_space(
    pixel_pipe: Any, overcompensation: float
) -> None:
    x0 = 0.2 * noise(4, 3, 4, 4)
    centres = torch.cat(
        [x0[:1] + 0.01 * noise(3, 3, 4, 4, seed=2), x0[1:2] + 0.02, 0.9 + torch.zeros(1, 3, 4, 4)]
    ).flatten(1)
    guard, method = (
        EmbeddedGuard(around(centres, 0.5), pixel_pipe, flat, pushes=1),
        replace(REPEL, overcompensation=overcompensation),
    )
    delta = method.x0_delta(x0, at(x0, guard.regions("", x0.device)))
    expected = method.x0_delta(x0, at(x0, Balls(centres, 0.5)))
    assert delta is not None
    assert expected is not None
    torch.testing.assert_close(delta, expected, rtol=1e-4, atol=1e-6)
    assert torch.equal(delta.flatten(1).any(dim=1), torch.tensor([True, True, False, False]))


def test_only_images_inside_are_differentiated_when_others_are_outside(pixel_pipe: Any) -> None:
    x0, differentiated = 0.2 * noise(5, 3, 4, 4), []

    def counted(images: Tensor) -> Tensor:
        if images.requires_grad:
            differentiated.append(len(images))
        return flat(images)

    guard = EmbeddedGuard(
        around(x0[2:3].flatten(1) + 0.05, 0.5, counted), pixel_pipe, counted, pushes=1
    )
    out = guard.regions("", x0.device).way_out(x0, at(x0, None))
    assert differentiated == [1]
    assert out is not None
    assert torch.equal(out.flatten(1).any(dim=1), torch.arange(5) == 2)
    assert guard.regions("", x0.device).way_out(x0[3:], at(x0[3:], None)) is None


def test_nothing_is_computed_when_the_shield_does_not_repel(pixel_pipe: Any) -> None:
    x0 = 0.2 * noise(1, 3, 4, 4)
    regions = EmbeddedGuard(around(x0.flatten(1), 0.5), pixel_pipe, flat).regions("", x0.device)
    assert replace(REPEL, shield=False).x0_delta(x0, at(x0, regions)) is None
    assert replace(REPEL, overcompensation=0.0).x0_delta(x0, at(x0, regions)) is None
    assert len(regions) == 1


def test_prediction_is_outside_when_it_was_the_protected_point_itself(pixel_pipe: Any) -> None:
    x0 = 0.2 * noise(1, 3, 4, 4).repeat(2, 1, 1, 1)
    context = at(
        x0, EmbeddedGuard(around(x0[:1].flatten(1), 0.5), pixel_pipe, flat).regions("", x0.device)
    )
    delta = REPEL.x0_delta(x0, context)
    assert delta is not None
    torch.testing.assert_close(
        delta.flatten(1).norm(dim=1), torch.full((2,), 0.5), rtol=1e-3, atol=0
    )
    directions = context.x_t - 0.6 * x0  # the noise of the step, which differs between images
    cosines = torch.cosine_similarity(delta.flatten(1), directions.flatten(1))
    assert cosines.min() > 0.999
    diagonal = REPEL.x0_delta(x0, replace(context, x_t=0.6 * x0))
    assert diagonal is not None
    torch.testing.assert_close(
        diagonal, torch.full_like(x0, 0.5 / math.sqrt(48)), rtol=1e-3, atol=0
    )


def test_way_leads_from_the_nearest_when_the_ways_cancel(pixel_pipe: Any) -> None:
    side = 0.1 * torch.ones(1, 48)
    guard = EmbeddedGuard(around(torch.cat([side, -side]), 1.0), pixel_pipe, flat)
    moved, was = guard.move_out(torch.zeros(1, 3, 4, 4))
    assert was.all()
    assert (moved.flatten(1) - torch.cat([side, -side])).norm(dim=1).min() > 1


# after the last step


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_latents_are_outside_every_ball_when_hundreds_overlap(
    pixel_pipe: Any, dtype: torch.dtype
) -> None:
    latents = (0.05 * noise(3, 3, 4, 4)).to(dtype)
    latents[2] += 0.9
    centres = 0.1 * noise(300, 48, seed=5)
    moved, was = EmbeddedGuard(around(centres, 1.2), pixel_pipe, flat).move_out(latents)
    assert moved.dtype == dtype
    assert was.tolist() == [True, True, False]
    assert torch.equal(moved[2], latents[2])
    returned = ((moved.float() / 2 + 0.5).clamp(0, 1) * 255).round() / 255
    assert torch.cdist(flat(returned).double(), centres.double()).min() > 1.2


def test_picture_leaves_when_it_is_a_protected_one(
    sd: Any, extractors: Callable[[str], Any]
) -> None:
    own, x = extractors("clip"), noise(1, 4, 8, 8)
    with torch.no_grad():
        known = own.features((Decoder(sd).images(x) * 255).round() / 255)
    guard = EmbeddedGuard(around(known, 0.2 * known.norm().item(), own), sd, own)
    assert guard.nearest(x)[1].item() == pytest.approx(0, abs=1e-5)
    moved, was = guard.move_out(x)
    assert was.all()
    assert guard.nearest(moved)[1].item() > guard.shield.radius
    assert not guard.inside(moved).any()
    assert (moved - x).norm() < 0.5 * x.norm()


def constant(images: Tensor) -> Tensor:
    return 0 * images.flatten(1) + 1


def rooted(images: Tensor) -> Tensor:
    """Which is 0 where images are grey, and its gradient infinite times 0."""
    return (0 * images.flatten(1)).sqrt() + images.flatten(1)


@pytest.mark.parametrize(
    ("embed", "error", "message"),
    [
        (constant, ShieldError, "the gradient does not lead out; use a smaller radius"),
        (
            rooted,
            ShieldError,
            "not be moved out of balls of radius 0.5: the gradient of rooted/48 with respect to "
            "the latents has NaN",
        ),
        (
            lambda images: images.detach().flatten(1),
            OptionError,
            "embed gives vectors without a gradient",
        ),
        (
            lambda images: images.flatten(1) / 0 * 0,
            NumericsError,
            "of the images have NaN or infinite values",
        ),
        (
            lambda images: images.flatten(1)[:, :7],
            StoreError,
            r"embed makes \(1, 7\) of 1 images and the shield protects",
        ),
    ],
    ids=["constant", "NaN gradient", "no gradient", "NaN", "another size"],
)
def test_image_is_refused_when_there_is_no_way_out(
    pixel_pipe: Any, embed: Any, error: type[Exception], message: str
) -> None:
    latents = 0.01 * noise(1, 3, 4, 4)
    centre = torch.ones(1, 48) if embed is constant else flat(latents / 4 + 0.5) / 2 + 0.51
    guard = EmbeddedGuard(around(centre, 0.5, embed), pixel_pipe, embed)
    with pytest.raises(error, match=message):
        guard.move_out(latents)


def test_picture_on_its_way_is_left_when_there_is_no_gradient(pixel_pipe: Any) -> None:
    x0 = 0.01 * noise(1, 3, 4, 4)
    guard = EmbeddedGuard(around(torch.ones(1, 48), 0.5, constant), pixel_pipe, constant)
    out = guard.regions("", x0.device).way_out(x0, at(x0, None))
    assert (
        out is not None
    )  # a few small steps along the noise, and the check after the last step refuses it
    assert torch.isfinite(out).all()


def test_distances_are_those_of_the_images_given_when_they_are_finished(pixel_pipe: Any) -> None:
    images = torch.rand(3, 3, 4, 4, generator=seeded(1)[0])
    centres = noise(5, 48, seed=1)
    index, distance = EmbeddedGuard(around(centres, 0.5), pixel_pipe, flat).nearest_to_images(
        images
    )
    brute = torch.stack([(flat(images).double() - z).norm(dim=1) for z in centres.double()], dim=1)
    assert torch.equal(index, brute.argmin(1))
    torch.testing.assert_close(distance, brute.amin(1))


# what fits together


def test_shield_is_refused_when_the_embedding_did_not_make_it(
    sd: Any, extractors: Callable[[str], Any]
) -> None:
    own, points = extractors("clip"), noise(2, 16)
    of_clip, of_function = around(points, 1.0, own), around(points, 1.0, bent)
    of_latents = Shield(noise(1, 4, 8, 8), space="AutoencoderKL-0/4x8x8", radius=1.0)
    with pytest.raises(
        OptionError,
        match=r"embedding 'clip/CLIPModel.*' and embed is None; "
        r".*embed=unalike.extractors.extractor\('clip'\)",
    ):
        guide(sd, shield=of_clip)
    with pytest.raises(StoreError, match=r"the embedding 'bent' and embed is 'clip/CLIPModel"):
        guide(sd, shield=of_function, embed=own)
    with pytest.raises(
        StoreError,
        match="the shield protects latents of 'AutoencoderKL-0', which need no embedding",
    ):
        guide(sd, shield=of_latents, embed=own)
    with pytest.raises(OptionError, match="embed is given and shield is None"):
        guide(sd, embed=own)
    with pytest.raises(OptionError, match="embed is a str; allowed: an extractor"):
        guide(sd, shield=of_clip, embed="clip")  # type: ignore[arg-type]
    assert guide(sd, shield=of_clip, embed=own).embed is own


def test_pipeline_is_refused_when_its_latents_cannot_be_decoded(sd: Any) -> None:
    class Other(type(sd)):
        def _pack_latents(self, latents: Tensor) -> Tensor:
            return latents

    other = Other(**sd.components)
    with pytest.raises(UnsupportedError, match="Other unpacks its latents"):
        guide(other, shield=around(noise(1, 16), 1.0, bent), embed=bent)

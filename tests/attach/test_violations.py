"""What `guide` does with images that end inside the protected set."""

from collections.abc import Callable
from importlib import import_module
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from tests.attach.conftest import prompted, seeded
from torch import Tensor

from unalike.attach import encode_images, guide, shield_from_images
from unalike.attach.run.guard import LatentGuard
from unalike.attach.run.randomness import derived_seed
from unalike.attach.run.report import Certificate
from unalike.attach.spaces import latent_model, latent_space
from unalike.errors import OptionError, RefusedError, ShieldError, UnsupportedError
from unalike.guidance.spell import SPELL
from unalike.memory import Memory
from unalike.shields import Shield

pytestmark = pytest.mark.filterwarnings("ignore:__array_:DeprecationWarning")

Pipelines = Callable[[str], Any]
SHAPES = {"sd": (4, 8, 8), "dit": (4, 8, 8), "flux": (16, 16), "sd3": (4, 8, 8)}


def drawn_latents(pipe: Any, arguments: dict[str, Any], seeds: list[int]) -> Tensor:
    """The final latents of unguided images with these seeds, each drawn by itself."""
    guided, rows = guide(pipe), []
    for seed in seeds:
        guided(**arguments, generator=seeded(1, seed))
        assert guided.latents is not None
        rows.append(guided.latents[0])
    return torch.stack(rows)


def shield_around(pipe: Any, latents: Tensor, radius: float) -> Shield:
    ids = [f"seed {i}" for i in range(len(latents))]
    return Shield(
        latents.float(),
        space=latent_space(latent_model(pipe), tuple(latents.shape[1:])),
        radius=radius,
        ids=ids,
    )


def certificates(guided: Any) -> list[Certificate]:
    found = [image.certificate for image in guided.report.images]
    assert None not in found
    return found


def again(seed: int, attempt: int) -> int:
    return derived_seed(torch.Generator().manual_seed(seed), attempt, None)


@pytest.mark.parametrize("name", ["sd", "dit", "flux"])
def test_image_is_drawn_again_and_the_others_stay_when_one_is_inside(
    pipelines: Pipelines, name: str
) -> None:
    pipe, memory = pipelines(name), Memory()
    one, two = prompted(name, ["cat"], 1), prompted(name, ["cat"], 2)
    protected, second = drawn_latents(pipe, one, [0]), drawn_latents(pipe, one, [again(0, 1)])
    plain = torch.as_tensor(pipe(**two, generator=seeded(2))[0])
    guided = guide(
        pipe, shield=shield_around(pipe, protected, 0.5), memory=memory, on_violation="regenerate"
    )
    images = torch.as_tensor(guided(**two, generator=seeded(2))[0])
    assert guided.report is not None
    assert [(image.attempts, image.refused) for image in guided.report.images] == [
        (2, False),
        (1, False),
    ]
    assert torch.equal(images[1], plain[1])
    assert guided.latents is not None
    torch.testing.assert_close(guided.latents[0], second[0], atol=2e-3, rtol=1e-4)
    assert all(
        certificate.distance >= 0.5 and not certificate.moved
        for certificate in certificates(guided)
    )
    space = guided.report.space
    assert memory.seeds(space) == [again(0, 1), 1]
    view = memory.view(space)
    assert view is not None
    assert torch.equal(view.latents, guided.latents.flatten(1))
    between = float((guided.latents[0] - guided.latents[1]).double().norm())
    assert [
        image.nearest.distance for image in guided.report.images if image.nearest
    ] == pytest.approx([between, between])


def test_draws_go_on_when_the_next_one_is_inside_too(sd: Any) -> None:
    one = prompted("sd", ["cat"], 1)
    protected = drawn_latents(sd, one, [0, again(0, 1)])
    guided = guide(
        sd, shield=shield_around(sd, protected, 0.5), on_violation="regenerate", attempts=2
    )
    guided(**one, generator=seeded(1))
    assert guided.report is not None
    assert guided.report.images[0].attempts == 3
    with pytest.raises(
        RefusedError, match=r"1 of 1 images .* drawn again 1 time\).*'seed 1'"
    ) as caught:
        guide(sd, shield=guided.shield, on_violation="regenerate", attempts=1)(
            **one, generator=seeded(1)
        )
    assert caught.value.report.images[0].attempts == 2


def test_images_are_as_without_the_policy_when_none_is_inside(sd: Any) -> None:
    arguments = prompted("sd", ["cat"], 2)
    shield = shield_around(sd, torch.full((1, 4, 8, 8), 100.0), 1.0)
    plain = sd(**arguments, generator=seeded(2)).images
    for policy in ("regenerate", "refuse", "move"):
        assert torch.equal(
            guide(sd, shield=shield, on_violation=policy)(**arguments, generator=seeded(2)).images,
            plain,
        )


@pytest.mark.parametrize("generator", [lambda: None, lambda: torch.Generator().manual_seed(0)])
def test_images_are_drawn_again_when_they_share_a_generator_or_have_none(
    sd: Any, generator: Callable[[], Any]
) -> None:
    arguments = prompted("sd", ["cat"], 2)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        plain = sd(**arguments, generator=generator()).images
        torch.manual_seed(5)
        guided = guide(sd, shield=shield_around(sd, plain[:1], 0.5), on_violation="regenerate")
        images = guided(**arguments, generator=generator()).images
    assert guided.report is not None
    assert [image.attempts for image in guided.report.images] == [2, 1]
    assert torch.equal(images[1], plain[1])
    assert float((images[0] - plain[0]).norm()) > 0.5


@pytest.mark.parametrize("output_type", ["pil", "np", "pt", "latent"])
@pytest.mark.parametrize("as_tuple", [False, True])
def test_output_is_of_the_same_kind_when_an_image_was_drawn_again(
    sd: Any, output_type: str, as_tuple: bool
) -> None:
    arguments = {
        **prompted("sd", ["cat"], 2),
        "num_inference_steps": 2,
        "output_type": output_type,
        "return_dict": not as_tuple,
    }
    latents = {**arguments, "output_type": "latent", "return_dict": True}
    protected = sd(**latents, generator=seeded(2)).images[:1]
    plain = sd(**arguments, generator=seeded(2))
    guided = guide(sd, shield=shield_around(sd, protected, 0.5), on_violation="regenerate")
    out = guided(**arguments, generator=seeded(2))
    assert type(out) is type(plain)
    assert type(out[0]) is type(plain[0])
    assert np.array_equal(np.asarray(out[0][1]), np.asarray(plain[0][1]))
    assert not np.array_equal(np.asarray(out[0][0]), np.asarray(plain[0][0]))
    with pytest.raises(RefusedError) as caught:
        guide(sd, shield=guided.shield, on_violation="refuse")(**arguments, generator=seeded(2))
    blank = caught.value.output
    assert type(blank) is type(plain)
    assert not np.asarray(blank[0][0]).any()
    assert np.array_equal(np.asarray(blank[0][1]), np.asarray(plain[0][1]))


def test_image_is_kept_back_and_the_rest_is_not_lost_when_refused(sd: Any) -> None:
    arguments, memory = prompted("sd", ["cat", "dog"], 2), Memory()
    plain = sd(**arguments, generator=seeded(4)).images
    guided = guide(
        sd, shield=shield_around(sd, plain[1:2], 0.5), memory=memory, on_violation="refuse"
    )
    with pytest.raises(
        RefusedError, match=r"1 of 4 images .*image 1 \('cat'\) is 0 from 'seed 0', radius 0\.5"
    ) as caught:
        guided(**arguments, generator=seeded(4))
    error = caught.value
    assert error.refused == [1]
    assert error.report is guided.report
    assert [image.refused for image in error.report.images] == [False, True, False, False]
    assert [certificate.margin < 0 for certificate in certificates(guided)] == [
        False,
        True,
        False,
        False,
    ]
    assert torch.equal(error.output.images[[0, 2, 3]], plain[[0, 2, 3]])
    assert not error.output.images[1].any()
    space = error.report.space
    assert memory.seeds(space) == [0, 2, 3]
    assert memory.texts(space) == ["cat", "dog", "dog"]
    neighbours = [image.nearest for image in error.report.images]
    assert neighbours[1] is None
    assert all(near.index != 1 for near in neighbours if near)
    assert guided.latents is not None
    assert torch.equal(guided.latents, error.output.images)


def test_images_are_refused_when_the_precision_leaves_no_way_out(sd: Any) -> None:
    arguments = prompted("sd", ["cat"], 2)
    try:
        sd.to(torch.float16)
        plain = sd(**arguments, generator=seeded(2)).images
        far = shield_around(sd, plain, 1e7)  # no way out in float16
        near = shield_around(sd, plain, 0.5)
        with pytest.raises(
            RefusedError,
            match=r"2 of 2 images .*could not be moved out.*in float16 could not be placed",
        ) as caught:
            guide(sd, on_violation="move", shield=far)(**arguments, generator=seeded(2))
        guided = guide(sd, on_violation="move", shield=near)
        guided(**arguments, generator=seeded(2))
    finally:
        sd.to(torch.float32)
    assert caught.value.refused == [0, 1]
    assert [certificate.moved for certificate in certificates(guided)] == [True, True]


class OneCannotMove(LatentGuard):
    """A shield of which the first image cannot be brought out."""

    def move_out(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        if 0 in self.shield.nearest(latents)[0].tolist():
            raise ShieldError("there is no way out")
        return super().move_out(latents)


def test_the_other_is_moved_when_one_cannot_be(sd: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments, memory = prompted("sd", ["cat"], 2), Memory()
    plain = sd(**arguments, generator=seeded(2)).images
    monkeypatch.setattr(
        import_module("unalike.attach.diffusers.guards"), "LatentGuard", OneCannotMove
    )
    guided = guide(sd, on_violation="move", shield=shield_around(sd, plain, 0.5), memory=memory)
    with pytest.raises(RefusedError, match="There is no way out") as caught:
        guided(**arguments, generator=seeded(2))
    assert caught.value.refused == [0]
    assert [certificate.moved for certificate in certificates(guided)] == [False, True]
    assert certificates(guided)[1].distance >= 0.5
    assert len(memory) == 1


@pytest.mark.parametrize("name", ["sd", "dit", "flux", "sd3"])
def test_finished_image_is_measured_when_there_is_a_shield(pipelines: Pipelines, name: str) -> None:
    pipe = pipelines(name)
    arguments = {**prompted(name, ["cat"], 2), "output_type": "pil"}
    images = pipe(**arguments, generator=seeded(2)).images
    protected = encode_images(pipe, [images[1], images[0].rotate(90)]).float()
    guided = guide(pipe, on_violation="move", shield=shield_around(pipe, protected, 1e-2))
    guided(**arguments, generator=seeded(2))
    first, second = (certificate.decoded for certificate in certificates(guided))
    assert first is not None
    assert second is not None
    assert (second.nearest_id, second.distance, second.inside) == (
        "seed 0",
        pytest.approx(0.0, abs=1e-4),
        True,
    )
    own = encode_images(pipe, images[:1]).float()[0]
    expected = (protected - own).double().flatten(1).norm(dim=1)
    assert first.distance == pytest.approx(float(expected.min()), rel=1e-5)
    assert first.inside is False


@pytest.mark.parametrize("output_type", ["np", "pt"])
def test_finished_image_is_measured_when_it_is_no_picture(sd: Any, output_type: str) -> None:
    arguments = {**prompted("sd", ["cat"], 1), "output_type": output_type}
    shield = shield_from_images(
        sd,
        sd(**arguments, generator=seeded(1)).images
        if output_type == "pt"
        else torch.rand(1, 3, 16, 16),
        1e-2,
    )
    guided = guide(sd, on_violation="move", shield=shield)
    guided(**arguments, generator=seeded(1))
    decoded = certificates(guided)[0].decoded
    assert decoded is not None
    assert decoded.inside is (output_type == "pt")


def test_nothing_is_measured_twice_when_there_is_no_image_or_no_encoder(
    sd: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = prompted("sd", ["cat"], 1)
    guided = guide(sd, on_violation="move", shield=shield_around(sd, torch.zeros(1, 4, 8, 8), 1e-3))
    guided(**arguments, generator=seeded(1))
    assert certificates(guided)[0].decoded is None
    monkeypatch.setattr(diffusers.AutoencoderKL, "encode", property())
    guided(**{**arguments, "output_type": "pil"}, generator=seeded(1))
    assert certificates(guided)[0].decoded is None


def test_guard_says_so_when_images_cannot_be_compared(sd: Any) -> None:
    guard = LatentGuard(shield_around(sd, torch.zeros(1, 4, 8, 8), 1.0), sd)
    with pytest.raises(UnsupportedError, match=r"shape \(4, 16, 16\)"):
        guard.nearest_to_images(torch.rand(1, 3, 32, 32))
    with pytest.raises(OptionError, match=r"image 0 of 1 cannot be read: .* numbers from nan"):
        guard.nearest_to_images(torch.full((1, 3, 16, 16), torch.nan))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autoencoder_encodes_in_full_precision_when_it_is_in_half(
    sd: Any, dtype: torch.dtype
) -> None:
    images = torch.rand(2, 3, 16, 16, generator=seeded(1)[0])
    try:
        sd.vae.to(dtype)
        halved = encode_images(sd, images)
        assert sd.vae.dtype == dtype
        assert halved.dtype == torch.float32
        sd.vae.to(torch.float32)  # the weights stay rounded
        assert torch.equal(halved, encode_images(sd, images))
    finally:
        sd.to(torch.float32)


def test_certificate_counts_the_steps_when_spell_moved_the_prediction(sd: Any) -> None:
    arguments = prompted("sd", ["cat"], 2)
    plain = sd(**arguments, generator=seeded(2)).images
    guided = guide(
        sd,
        SPELL(batch=False, memory=False),
        on_violation="move",
        shield=shield_around(sd, plain[:1], 2.0),
    )
    guided(**arguments, generator=seeded(2))
    assert guided.report is not None
    active = [image.active["spell"] for image in guided.report.images]
    assert [certificate.steps_moved for certificate in certificates(guided)] == [
        round(4 * share) for share in active
    ]
    assert active[0] > 0


def test_nothing_is_drawn_when_latents_are_given_and_would_have_to_change(sd: Any) -> None:
    steps: list[int] = []

    def count(pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        steps.append(step)
        return tensors

    guided = guide(
        sd, shield=shield_around(sd, torch.zeros(1, 4, 8, 8), 1e-3), on_violation="regenerate"
    )
    arguments = {
        **prompted("sd", ["cat"], 1),
        "latents": torch.randn(1, 4, 8, 8, generator=seeded(1)[0]),
        "callback_on_step_end": count,
    }
    with pytest.raises(OptionError, match="latents are given"):
        guided(**arguments)
    assert steps == []
    guide(sd, shield=guided.shield, on_violation="refuse")(**arguments)
    assert len(steps) == 4


def test_policy_is_refused_when_it_cannot_be_kept(sd: Any) -> None:
    class Fixed(diffusers.DiffusionPipeline):
        def __init__(self, vae: Any, scheduler: Any) -> None:
            super().__init__()
            self.register_modules(vae=vae, scheduler=scheduler)

        def __call__(self, prompt: str) -> None: ...

    fixed = Fixed(sd.vae, sd.scheduler)
    shield = shield_around(sd, torch.zeros(1, 4, 8, 8), 1.0)
    with pytest.raises(UnsupportedError, match="Fixed takes no generator"):
        guide(fixed, shield=shield, on_violation="regenerate")
    guide(fixed, shield=shield, on_violation="refuse")
    with pytest.raises(OptionError, match="there is no shield"):
        guide(sd, on_violation="refuse")
    with pytest.raises(OptionError, match="on_violation is 'redo'"):
        guide(sd, shield=shield, on_violation="redo")

import math
import subprocess
import sys
from itertools import pairwise
from typing import Any

import diffusers
import pytest
import torch
from tests.attach.functions.denoisers import (
    Network,
    OneImage,
    Shift,
    Watch,
    digits,
    emoji,
    noise,
    pipeline,
)
from tests.attach.functions.samplers import edm, euler
from torch import Tensor

from unalike import CADS, SPARKE, SPELL, Auto, Memory, ParticleGuidance, Shield, VendiGuidance
from unalike.attach import guide, guide_denoiser, karras_sigmas
from unalike.attach.spaces import latent_model
from unalike.errors import (
    AttachmentError,
    NumericsError,
    OptionError,
    RefusedError,
    ShieldError,
    StoreError,
    UnsupportedError,
)

SIGMAS = karras_sigmas(6, sigma_min=0.05, sigma_max=80).float()
CHURN = {"churn": 3.0, "low": 0.1, "high": 50.0}
BETAS = {
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "prediction_type": "v_prediction",
}
IMAGE = torch.linspace(-1, 1, 3 * 16).reshape(3, 4, 4)
LABELS = torch.tensor([3, 3, 8, 8])


def drawn(*methods: Any, seed: int = 0, **options: Any) -> Tensor:
    guided = guide_denoiser(digits(), *methods, sigmas=SIGMAS, groups=LABELS, **options)
    return guided.sample(edm, noise(4, 4, 8, 8, seed=seed), SIGMAS, LABELS)


@pytest.fixture(scope="module")
def plain() -> Tensor:
    return edm(digits(), noise(4, 4, 8, 8), SIGMAS, LABELS)


@pytest.mark.parametrize("churn", [{}, CHURN], ids=["deterministic", "churn"])
@pytest.mark.parametrize(
    "idle", [(), (SPARKE(strength=0.0), SPELL(radius=1e-3))], ids=["no methods", "idle methods"]
)
def test_samples_are_bit_identical_when_nothing_is_corrected(
    idle: tuple[Any, ...], churn: dict[str, float]
) -> None:
    x = noise(4, 4, 8, 8)
    guided = guide_denoiser(digits(), *idle, sigmas=SIGMAS)
    assert torch.equal(
        guided.sample(edm, x, SIGMAS, LABELS, **churn), edm(digits(), x, SIGMAS, LABELS, **churn)
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_prediction_is_the_very_object_when_nothing_is_corrected(dtype: torch.dtype) -> None:
    answer = torch.ones(2, 3, dtype=dtype)
    guided = guide_denoiser(lambda x, sigma: answer, sigmas=[2.0, 1.0]).begin()
    assert guided(torch.zeros(2, 3, dtype=dtype), 2.0) is answer


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_prediction_keeps_its_precision_when_corrected(dtype: torch.dtype) -> None:
    guided = guide_denoiser(OneImage(IMAGE), Shift(), sigmas=[2.0, 1.0]).begin()
    x0 = guided(torch.zeros(2, 3, 4, 4, dtype=dtype), 2.0)
    assert x0.dtype == dtype
    torch.testing.assert_close(
        x0.float(),
        (IMAGE + 0.7).expand(2, 3, 4, 4),
        atol=1e-2 if dtype == torch.bfloat16 else 1e-6,
        rtol=0,
    )


@pytest.mark.parametrize("churn", [{}, CHURN], ids=["deterministic", "churn"])
def test_result_moves_by_the_shift_when_every_prediction_does(churn: dict[str, float]) -> None:
    guided = guide_denoiser(OneImage(IMAGE), Shift(), sigmas=SIGMAS)
    x = guided.sample(edm, noise(2, 3, 4, 4), SIGMAS, **churn)
    torch.testing.assert_close(x, (IMAGE + 0.7).expand(2, 3, 4, 4), atol=1e-5, rtol=0)


def test_method_sees_the_levels_of_each_call_when_the_sampler_asks_twice_a_step() -> None:
    watch, steps = Watch(), len(SIGMAS) - 1
    guided = guide_denoiser(OneImage(IMAGE), watch, sigmas=SIGMAS)
    guided.sample(edm, noise(2, 3, 4, 4), SIGMAS)
    assert [c.step for c in watch.seen] == [0, *(i for i in range(1, steps) for _ in range(2))]
    for c in watch.seen:
        assert (c.level.alpha, c.level.sigma, c.level.next_alpha, c.steps) == (
            1,
            pytest.approx(SIGMAS[c.step].item()),
            1,
            steps,
        )
        assert c.level.next_sigma == pytest.approx(SIGMAS[c.step + 1].item())
    assert guided.report is not None
    assert guided.report.steps == 2 * steps - 1
    assert len(guided.report.images[0].corrections["shift"]) == 2 * steps - 1


def test_method_sees_the_raised_level_and_sample_when_there_is_churn() -> None:
    watch, asked = Watch(), []

    def denoiser(x: Tensor, sigma: Tensor) -> Tensor:
        asked.append((x, float(sigma)))
        return torch.zeros_like(x)

    guided = guide_denoiser(denoiser, watch, sigmas=SIGMAS, churn=3.0, churn_range=(0.1, 50.0))
    guided.sample(edm, noise(2, 3, 4, 4), SIGMAS, **CHURN)
    assert [c.level.sigma for c in watch.seen] == [sigma for _, sigma in asked]
    assert all(torch.equal(c.x_t, x) for c, (x, _) in zip(watch.seen, asked, strict=True))
    assert [c.step for c in watch.seen] == [0, *(i for i in range(1, 6) for _ in range(2))]
    assert any(c.level.sigma > 1.3 * SIGMAS[c.step] for c in watch.seen)


def test_methods_act_in_their_window_when_the_sampler_asks_twice_a_step() -> None:
    watch = Watch(start=0.5, stop=0.8)
    guide_denoiser(OneImage(IMAGE), watch, sigmas=SIGMAS).sample(edm, noise(2, 3, 4, 4), SIGMAS)
    assert [c.step for c in watch.seen] == [3, 3, 4, 4]  # 3 / 6 and 4 / 6


@pytest.mark.parametrize(
    "method",
    [
        SPARKE(strength=0.05, objective="rke"),
        SPELL(radius=25.0),
        ParticleGuidance(),
        VendiGuidance(),
    ],
    ids=lambda m: m.name,
)
def test_samples_of_a_group_are_further_apart_when_guided(method: Any, plain: Tensor) -> None:
    def apart(x: Tensor) -> Tensor:
        return torch.stack([(x[0] - x[1]).norm(), (x[2] - x[3]).norm()])

    guided = drawn(method)
    assert torch.isfinite(guided).all()
    assert (apart(guided) > apart(plain)).all()


def test_run_is_refused_when_a_sampler_turns_samples_into_noise() -> None:
    guided = guide_denoiser(OneImage(IMAGE), SPARKE(objective="rke"), sigmas=SIGMAS)

    def inversion(denoiser: Any, x: Tensor) -> Tensor:
        for here, there in pairwise(SIGMAS.flip(0)[1:]):
            x = x + (x - denoiser(x, here)) / here * (there - here)
        return x

    with pytest.raises(UnsupportedError, match="so that its noise rises"):
        guided.sample(inversion, noise(2, 3, 4, 4))


def test_samples_are_the_same_when_seeds_are() -> None:
    def drawn_with(seeds: list[int]) -> Tensor:
        guided = guide_denoiser(
            digits(),
            Auto(),
            sigmas=SIGMAS,
            deterministic_first_order=True,
            embeddings=torch.eye(10)[LABELS],
            seeds=seeds,
        )
        return guided.sample(euler, 80 * noise(4, 4, 8, 8), SIGMAS, LABELS)

    assert torch.equal(drawn_with([1, 2, 3, 4]), drawn_with([1, 2, 3, 4]))
    assert not torch.equal(drawn_with([1, 2, 3, 4]), drawn_with([5, 6, 7, 8]))


@pytest.mark.filterwarnings("ignore:__array_:DeprecationWarning")  # of the scheduler
@pytest.mark.parametrize("method", [SPARKE(strength=0.1), SPELL(radius=60.0)], ids=lambda m: m.name)
def test_samples_are_those_of_a_pipeline_when_its_model_and_noise_are_taken(method: Any) -> None:
    """Euler's method by diffusers and by hand, guided by what each host gives the method."""
    pipe, prompts, x = pipeline("emoji"), ["heart", "heart", "flag", "flag"], noise(4, 16, 8, 8)
    own = pipe.scheduler
    try:
        pipe.scheduler = scheduler = diffusers.EulerDiscreteScheduler(**BETAS)
        hosted = guide(pipe, method, prompt_encoder=lengths)
        expected = hosted(
            prompt=prompts,
            latents=x,
            num_inference_steps=5,
            guidance_scale=1.0,
            output_type="latent",
        ).images
        unguided = pipe(
            prompt=prompts,
            latents=x,
            num_inference_steps=5,
            guidance_scale=1.0,
            output_type="latent",
        ).images
        sigmas, start = scheduler.sigmas, x * scheduler.init_noise_sigma
    finally:
        pipe.scheduler = own
    guided = guide_denoiser(
        emoji(prompts), method, sigmas=sigmas, prompts=prompts, prompt_encoder=lengths
    )
    result = guided.sample(euler, start, sigmas)
    assert (expected - unguided).abs().max() > 0.1
    torch.testing.assert_close(result, expected, atol=5e-3, rtol=0)
    assert guided.report is not None
    assert hosted.report is not None
    for image, theirs in zip(guided.report.images, hosted.report.images, strict=True):
        assert image.corrections[method.name] == pytest.approx(
            theirs.corrections[method.name], abs=1e-3
        )
        assert (image.prompt, image.group) == (theirs.prompt, theirs.group)


def lengths(prompts: list[str]) -> Tensor:
    return torch.tensor([[1.0, float(len(p))] for p in prompts])


def test_later_samples_stay_away_from_the_memory_when_there_is_one(plain: Tensor) -> None:
    memory = Memory()
    options = {
        "space": "digits",
        "memory": memory,
        "prompts": ["3", "3", "8", "8"],
        "seeds": [5, 6, 7, 8],
    }
    first = drawn(SPELL(radius=1.0), **options)
    assert memory.spaces() == {"digits/4x8x8 labels/0": 4}
    assert memory.texts("digits/4x8x8 labels/0") == ["3", "3", "8", "8"]
    assert memory.seeds("digits/4x8x8 labels/0") == [5, 6, 7, 8]
    assert torch.equal(first, plain)
    again = drawn(SPELL(radius=5.0, batch=False), **options)  # from the same noise
    assert ((again - first).flatten(1).norm(dim=1) > 1).all()
    assert len(memory) == 8


def test_memory_is_shared_with_a_pipeline_when_the_space_is_its_own() -> None:
    pipe, memory = pipeline("emoji"), Memory()
    guide(pipe, memory=memory, prompt_encoder=lengths)(
        prompt="heart", num_inference_steps=1, output_type="latent"
    )
    guided = guide_denoiser(
        emoji(["heart"]),
        sigmas=[1.0],
        memory=memory,
        space=latent_model(pipe),
        prompts="heart",
        prompt_encoder=lengths,
    )
    guided.sample(euler, noise(1, 16, 8, 8), [1.0, 0.0])
    assert list(memory.spaces().values()) == [2]
    assert guided.report is not None
    nearest = guided.report.images[0].nearest
    assert nearest is not None
    assert nearest.source == "memory"


def test_samples_end_outside_with_certificates_when_there_is_a_shield(plain: Tensor) -> None:
    shield = Shield(plain[:1], space="digits/4x8x8", radius=6.0, ids=["first"])
    guided = guide_denoiser(digits(), sigmas=SIGMAS, shield=shield, space="digits")
    x = guided.sample(edm, noise(4, 4, 8, 8), SIGMAS, LABELS)
    assert (x[0] - plain[0]).norm() >= 6
    assert torch.equal(x[1:], plain[1:])
    assert guided.report is not None
    certificates = [image.certificate for image in guided.report.images]
    assert [c.moved for c in certificates if c] == [True, False, False, False]
    assert all(c and c.nearest_id == "first" and c.margin >= 0 for c in certificates)
    assert guided.latents is not None
    assert torch.equal(guided.latents, x)


def test_trajectory_is_moved_when_the_method_sees_the_shield(plain: Tensor) -> None:
    shield = Shield(plain[:1], space="digits/4x8x8", radius=6.0)
    guided = guide_denoiser(
        digits(), SPELL(batch=False, memory=False), sigmas=SIGMAS, shield=shield, space="digits"
    )
    x = guided.sample(edm, noise(4, 4, 8, 8), SIGMAS, LABELS)
    assert (x[0] - plain[0]).norm() >= 6
    certificate = guided.report.images[0].certificate if guided.report else None
    assert certificate is not None
    assert certificate.steps_moved > 0


def test_samples_are_withheld_and_others_kept_when_one_cannot_be_moved_out() -> None:
    """In float16 no number is far enough."""
    memory, image = Memory(), torch.zeros(1, 3, 4, 4)
    shield = Shield(image, space="pixels/3x4x4", radius=1e6)
    guided = guide_denoiser(
        OneImage(image[0]), sigmas=[1.0], shield=shield, memory=memory, space="pixels"
    )
    with pytest.raises(
        RefusedError, match=r"2 of 2 images are inside .*could not be placed outside"
    ) as refused:
        guided.sample(euler, noise(2, 3, 4, 4).half(), [1.0, 0.0])
    assert "on_violation=" not in str(refused.value)
    assert not refused.value.output.any()
    assert refused.value.refused == [0, 1]
    assert [i.refused for i in refused.value.report.images] == [True, True]
    assert isinstance(refused.value, ShieldError)
    assert len(memory) == 0


def test_nothing_is_remembered_when_the_sampler_fails() -> None:
    memory = Memory()
    guided = guide_denoiser(OneImage(IMAGE), Shift(), sigmas=SIGMAS, memory=memory, space="pixels")

    def failing(denoiser: Any, x: Tensor) -> Tensor:
        denoiser(x, SIGMAS[0])
        raise RuntimeError("out of luck")

    with pytest.raises(RuntimeError, match="out of luck"):
        guided.sample(failing, noise(2, 3, 4, 4))
    assert len(memory) == 0
    assert guided.report is None
    guided.sample(edm, noise(2, 3, 4, 4), SIGMAS)
    assert len(memory) == 1  # both samples are that image
    assert guided.report is not None
    assert guided.report.steps == 11


def test_nothing_is_remembered_when_the_samples_are_not_finite() -> None:
    memory = Memory()
    guided = guide_denoiser(OneImage(IMAGE), sigmas=[1.0], memory=memory, space="pixels").begin()
    x = guided(noise(2, 3, 4, 4), 1.0)
    with pytest.raises(NumericsError, match="NaN"):
        guided.finish(x * math.nan)
    assert len(memory) == 0


def test_run_by_hand_is_that_of_sample_when_begun_and_finished() -> None:
    guided = guide_denoiser(digits(), SPELL(radius=25.0), sigmas=SIGMAS, groups=LABELS)
    x = guided.finish(edm(guided.begin(), noise(4, 4, 8, 8), SIGMAS, LABELS))
    assert torch.equal(x, drawn(SPELL(radius=25.0)))


def test_call_is_refused_when_no_run_was_begun() -> None:
    guided = guide_denoiser(OneImage(IMAGE), sigmas=[1.0])
    for call in (lambda: guided(noise(2, 3, 4, 4), 1.0), lambda: guided.finish(noise(2, 3, 4, 4))):
        with pytest.raises(AttachmentError, match=r"begin\(\) before the sampler"):
            call()
    guided.sample(euler, noise(2, 3, 4, 4), [1.0, 0.0])
    with pytest.raises(AttachmentError, match="has no run"):
        guided(noise(2, 3, 4, 4), 1.0)


def test_finish_is_refused_when_the_denoiser_was_never_asked() -> None:
    guided = guide_denoiser(OneImage(IMAGE), sigmas=[1.0])
    with pytest.raises(AttachmentError, match="never asked"):
        guided.sample(lambda denoiser, x: x, noise(2, 3, 4, 4))


def test_samples_are_refused_when_their_shape_changes() -> None:
    guided = guide_denoiser(OneImage(IMAGE), sigmas=[2.0, 1.0]).begin()
    guided(noise(2, 3, 4, 4), 2.0)
    with pytest.raises(UnsupportedError, match="in one run"):
        guided(noise(1, 3, 4, 4), 1.0)
    with pytest.raises(OptionError, match=r"final samples have shape \(1, 3, 4, 4\)"):
        guided.finish(noise(1, 3, 4, 4))


def test_call_is_refused_when_images_have_noise_levels_of_their_own() -> None:
    guided = guide_denoiser(OneImage(IMAGE), sigmas=[2.0, 1.0]).begin()
    with pytest.raises(UnsupportedError, match="one level for the whole batch"):
        guided(noise(2, 3, 4, 4), torch.tensor([1.0, 2.0]))


@pytest.mark.parametrize(
    "answer", [(torch.zeros(2, 3), None), torch.zeros(2, 6)], ids=["tuple", "variance too"]
)
def test_prediction_is_refused_when_it_is_something_else(answer: Any) -> None:
    guided = guide_denoiser(lambda x, sigma: answer, sigmas=[1.0]).begin()
    with pytest.raises(UnsupportedError, match="it must be the clean samples alone"):
        guided(torch.zeros(2, 3), 1.0)


def test_sampler_is_refused_when_it_returns_more_than_samples() -> None:
    guided = guide_denoiser(OneImage(IMAGE), sigmas=[1.0])
    with pytest.raises(UnsupportedError, match=r"returned a tuple; .*begin\(\)"):
        guided.sample(lambda denoiser, x: (denoiser(x, 1.0), {}), noise(2, 3, 4, 4))


SHIELD = Shield(torch.zeros(1, 3, 4, 4), space="other/3x4x4", radius=1.0)


@pytest.mark.parametrize(
    ("methods", "options", "error", "message"),
    [
        ((SPARKE,), {}, OptionError, "is not a guidance method"),
        ((CADS(),), {}, UnsupportedError, "CADS acts on the prompts"),
        ((SPELL(),), {}, OptionError, r"use method\.calibrated\(samples, groups\)"),
        ((), {"memory": {}}, OptionError, "memory is a dict"),
        ((), {"memory": Memory()}, OptionError, "memory is given and space is not"),
        ((), {"shield": SHIELD}, OptionError, "shield is given and space is not"),
        ((), {"shield": SHIELD, "space": "pixels"}, StoreError, "protects points of 'other/3x4x4'"),
        ((), {"sigmas": []}, OptionError, "sigmas is "),
    ],
)
def test_arguments_are_refused_when_they_do_not_fit(
    methods: Any, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        guide_denoiser(OneImage(IMAGE), *methods, **{"sigmas": [1.0], **options})
    with pytest.raises(OptionError, match="denoiser is a Tensor"):
        guide_denoiser(IMAGE, sigmas=[1.0])  # type: ignore[arg-type]


def test_memory_is_refused_when_another_model_filled_it() -> None:
    memory = Memory()
    memory.add("other/3x4x4 labels/0", torch.zeros(1, 3, 4, 4))
    with pytest.raises(StoreError, match="holds samples of another model"):
        guide_denoiser(OneImage(IMAGE), sigmas=[1.0], memory=memory, space="pixels")


def test_shield_is_refused_when_its_samples_have_another_shape() -> None:
    shield = Shield(torch.zeros(1, 3, 8, 8), space="pixels/3x8x8", radius=1.0)
    guided = guide_denoiser(OneImage(IMAGE), sigmas=[1.0], shield=shield, space="pixels").begin()
    with pytest.raises(StoreError, match="'pixels/3x8x8' and this model makes 'pixels/3x4x4'"):
        guided(noise(2, 3, 4, 4), 1.0)


def test_radius_can_be_measured_when_samples_were_made_without_guidance(plain: Tensor) -> None:
    method = SPELL().calibrated(plain, LABELS)
    pairs = torch.stack([(plain[0] - plain[1]).norm(), (plain[2] - plain[3]).norm()])
    assert method.radius == pytest.approx(pairs.mean().item(), rel=1e-5)
    assert guide_denoiser(digits(), method, sigmas=SIGMAS).methods == (method,)


def test_model_of_pixels_is_guided_when_there_is_no_autoencoder(pixel_pipe: Any) -> None:
    """Simple Diffusion is such a model: the sample is the image."""
    network = Network(lambda x, t: pixel_pipe.unet(x, t).sample, pixel_pipe.scheduler)
    x = noise(3, 3, 8, 8)
    plain = edm(network, x, SIGMAS)
    method = SPELL(factor=1.5, overcompensation=1.6).calibrated(plain, torch.zeros(3))
    images = guide_denoiser(network, method, sigmas=SIGMAS).sample(edm, x, SIGMAS)
    assert (torch.pdist(images.flatten(1)) > torch.pdist(plain.flatten(1))).all()


def test_attributes_are_the_denoiser_s_own_when_asked_for() -> None:
    guided = guide_denoiser(OneImage(IMAGE), sigmas=[1.0])
    assert guided.sigma_min == 0.5
    assert guided.image is IMAGE
    with pytest.raises(AttributeError):
        guided.round_sigma  # noqa: B018
    assert repr(guide_denoiser(OneImage(IMAGE), Shift(), sigmas=[2.0, 1.0])).startswith(
        "GuidedDenoiser(2 steps, Shift("
    )


def test_diffusers_is_not_imported_when_a_function_is_guided() -> None:
    program = """
import sys
import torch
from unalike import SPARKE, SPELL, Memory, Shield
from unalike.attach import denoised_fn, guide_denoiser
memory, shield = Memory(), Shield(torch.ones(1, 3), space="pixels/3", radius=0.5)
methods = SPARKE(objective="rke"), SPELL(radius=1.0)
guided = guide_denoiser(
    lambda x, sigma: x / 2, *methods, sigmas=[1.0], memory=memory, shield=shield, space="pixels"
)
guided.sample(lambda denoiser, x: denoiser(x, 1.0), torch.eye(2, 3))
assert len(memory) == 2
print(sorted(name for name in sys.modules if name.split(".")[0] in ("diffusers", "transformers")))
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], check=True, capture_output=True, text=True
    )
    assert done.stdout == "[]\n"

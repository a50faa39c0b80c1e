import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tests.attach.functions.denoisers import Network, Shift, Watch, digits, noise, pipeline
from tests.attach.functions.samplers import Diffusion, euler
from torch import Tensor, nn

from unalike import SPARKE, SPELL, IntervalGuidance, Memory, Shield
from unalike.attach import denoised_fn, guide_denoiser
from unalike.attach.functions.predictions import Chain
from unalike.errors import AttachmentError, OptionError, RefusedError, UnsupportedError

IMAGE = torch.linspace(-0.2, 0.2, 3 * 16).reshape(3, 4, 4)
LABELS = torch.tensor([3, 3, 8, 8])
LOOPS = pytest.mark.parametrize("loop", ["p_sample_loop", "ddim_sample_loop"])


class OneImage(nn.Module):
    """The noise that a model of a single image sees."""

    def __init__(self, image: Tensor) -> None:
        super().__init__()
        self.image = nn.Parameter(image, requires_grad=False)
        self.asked: list[Tensor] = []

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        self.asked.append(t)
        alpha = (
            torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)[int(t[0])]
            .sqrt()
            .item()
        )
        return (x - alpha * self.image) / math.sqrt(1 - alpha**2)


class Digits(nn.Module):
    """The shipped model of digits, as DiT and MDT have it: the noise and, beside it, a variance."""

    def __init__(self) -> None:
        super().__init__()
        self.transformer = pipeline("digits").transformer

    @torch.no_grad()
    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        return self.transformer(x, t, class_labels=y).sample[:, :4]

    def forward_with_cfg(self, x: Tensor, t: Tensor, y: Tensor, scale: float) -> Tensor:
        """Classifier-free guidance from the first half of the batch; both halves get the answer."""
        half = x[: len(x) // 2]
        wanted, any_ = self.forward(torch.cat([half, half]), t, y).chunk(2)
        return (any_ + scale * (wanted - any_)).repeat(2, 1, 1, 1)

    def parameters(self, recurse: bool = True) -> Any:
        return self.transformer.parameters(recurse)


@LOOPS
@pytest.mark.parametrize("rescale", [False, True])
def test_samples_are_bit_identical_when_nothing_is_corrected(loop: str, rescale: bool) -> None:
    diffusion, x = Diffusion(6, rescale), noise(4, 4, 8, 8)
    options = {"clip_denoised": False, "model_kwargs": {"y": LABELS}}
    guided = denoised_fn(diffusion, SPARKE(strength=0.0), SPELL(radius=1e-3))
    result = guided.sample(getattr(diffusion, loop), Digits(), x.shape, x, **options)
    assert torch.equal(result, getattr(diffusion, loop)(Digits(), x.shape, x, **options))
    assert guided.report is not None
    assert guided.report.steps == 6


@LOOPS
def test_result_moves_by_the_shift_when_every_prediction_does(loop: str) -> None:
    diffusion, x = Diffusion(6), noise(2, 3, 4, 4)
    result = denoised_fn(diffusion, Shift()).sample(
        getattr(diffusion, loop), OneImage(IMAGE), x.shape, x
    )
    torch.testing.assert_close(result, (IMAGE + 0.7).expand(2, 3, 4, 4), atol=1e-4, rtol=0)


def test_run_is_refused_when_a_loop_turns_samples_into_noise() -> None:
    """As `ddim_reverse_sample` of guided-diffusion does, which takes a denoised_fn too."""
    diffusion, x = Diffusion(6), noise(2, 3, 4, 4)

    def reversed_loop(model: Any, x: Tensor, denoised_fn: Any) -> Tensor:
        for i in range(6):
            x = x + 0 * denoised_fn(model(x, torch.full((len(x),), diffusion.timestep_map[i])))
        return x

    guided = denoised_fn(diffusion, SPARKE())
    with pytest.raises(
        UnsupportedError, match=r"from step 5 .* back to 4, so that its noise rises"
    ):
        guided.sample(reversed_loop, OneImage(IMAGE), x)
    assert guided.report is None


def test_correction_is_clipped_when_the_loop_clips() -> None:
    diffusion, x = Diffusion(6), noise(2, 3, 4, 4)
    result = denoised_fn(diffusion, Shift(by=0.9)).sample(
        diffusion.p_sample_loop, OneImage(IMAGE), x.shape, x
    )
    torch.testing.assert_close(
        result, (IMAGE + 0.9).clamp(max=1).expand(2, 3, 4, 4), atol=1e-4, rtol=0
    )


@pytest.mark.parametrize("rescale", [False, True])
@pytest.mark.parametrize("hand_over", [False, True])
def test_method_sees_levels_and_samples_of_each_step(rescale: bool, hand_over: bool) -> None:
    diffusion, x, watch, model = Diffusion(6, rescale), noise(2, 3, 4, 4), Watch(), OneImage(IMAGE)
    guided = denoised_fn(diffusion, watch)
    guided.sample(diffusion.ddim_sample_loop, model, x.shape, x, hand_over=hand_over)
    assert [c.step for c in watch.seen] == list(range(6))
    assert torch.equal(watch.seen[0].x_t, x)
    alphas = [1.0, *diffusion.alphas_cumprod]
    for c in watch.seen:
        assert (c.level.alpha**2, c.level.next_alpha**2, c.steps) == (
            pytest.approx(alphas[6 - c.step]),
            pytest.approx(alphas[5 - c.step]),
            6,
        )
        assert c.level.alpha**2 + c.level.sigma**2 == pytest.approx(1)
        assert c.level.next_alpha**2 + c.level.next_sigma**2 == pytest.approx(1)
    assert model.asked[0].is_floating_point() == rescale


def test_samples_are_those_of_a_guided_denoiser_when_ddim_is_euler() -> None:
    """DDIM without noise is Euler's method on `x / alpha`; SPELL's edit depends on the prediction
    alone.
    """
    diffusion, x, method = Diffusion(6), noise(4, 4, 8, 8), SPELL(radius=30.0)
    options = {"clip_denoised": False, "model_kwargs": {"y": LABELS}}
    result = denoised_fn(diffusion, method, groups=LABELS).sample(
        diffusion.ddim_sample_loop, Digits(), x.shape, x, **options
    )
    alphas = torch.tensor(diffusion.alphas_cumprod).flip(0)
    sigmas = torch.cat([((1 - alphas) / alphas).sqrt(), torch.zeros(1)]).double()
    guided = guide_denoiser(digits(), method, sigmas=sigmas, groups=LABELS)
    other = guided.sample(euler, x.double() / alphas[0].sqrt(), sigmas, LABELS)
    assert (result - diffusion.ddim_sample_loop(Digits(), x.shape, x, **options)).abs().max() > 0.1
    torch.testing.assert_close(result, other.float(), atol=1e-2, rtol=0)


def test_digits_of_a_class_are_further_apart_when_the_batch_is_doubled() -> None:
    """As MDT's and DiT's own sampling has it, where only the first half is of interest."""
    diffusion, x = Diffusion(6), noise(4, 4, 8, 8)
    twice, memory = torch.cat([x, x]), Memory()
    options = {
        "clip_denoised": False,
        "model_kwargs": {"y": torch.cat([LABELS, torch.full((4,), 1000)]), "scale": 1.5},
    }
    plain = diffusion.p_sample_loop(Model(), twice.shape, twice, **options)[:4]
    guided = denoised_fn(
        diffusion, SPELL(radius=30.0), doubled=True, groups=LABELS, memory=memory, space="digits"
    )
    far = guided.sample(diffusion.p_sample_loop, Model(), twice.shape, twice, **options)
    assert far.shape == twice.shape
    assert len(memory) == 4
    assert torch.equal(memory.view("digits/4x8x8 labels/0").latents.view(4, 4, 8, 8), far[:4])  # type: ignore[union-attr]
    assert (far[0] - far[1]).norm() + (far[2] - far[3]).norm() > (plain[0] - plain[1]).norm() + (
        plain[2] - plain[3]
    ).norm()


class Model(Digits):
    """What the loop calls is a method of the network."""

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        return self.forward_with_cfg(*args, **kwargs)


@pytest.mark.parametrize("doubled", [False, True])
def test_samples_end_outside_when_there_is_a_shield(doubled: bool) -> None:
    diffusion, x = Diffusion(4), noise(2, 3, 4, 4)
    x = torch.cat([x, x]) if doubled else x
    shield = Shield(IMAGE[None], space="pixels/3x4x4", radius=2.0)
    guided = denoised_fn(diffusion, shield=shield, space="pixels", doubled=doubled)
    result = guided.sample(diffusion.ddim_sample_loop, OneImage(IMAGE), x.shape, x)
    assert ((result[:2] - IMAGE).flatten(1).norm(dim=1) >= 2).all()
    assert len(result) == len(x)
    assert guided.report is not None
    assert [i.certificate.moved for i in guided.report.images if i.certificate] == [True, True]


def test_refused_samples_are_blank_in_both_halves_when_the_batch_is_doubled() -> None:
    diffusion, x = Diffusion(4), noise(4, 3, 4, 4)
    shield = Shield(IMAGE[None], space="pixels/3x4x4", radius=1e6)
    guided = denoised_fn(diffusion, shield=shield, space="pixels", doubled=True)
    with pytest.raises(RefusedError) as refused:
        guided.finish(half_run(guided, diffusion, x).half())
    assert refused.value.output.shape == x.shape
    assert not refused.value.output.any()


def half_run(guided: Any, diffusion: Diffusion, x: Tensor) -> Tensor:
    guided.begin()
    return diffusion.ddim_sample_loop(
        guided.wrap_model(OneImage(IMAGE)), x.shape, x, denoised_fn=guided
    )


def test_run_by_hand_is_that_of_sample_when_begun_and_finished() -> None:
    diffusion, x = Diffusion(5), noise(2, 3, 4, 4)
    guided = denoised_fn(diffusion, SPELL(radius=1.0))
    by_hand = guided.finish(half_run(guided, diffusion, x))
    assert torch.equal(
        by_hand, guided.sample(diffusion.ddim_sample_loop, OneImage(IMAGE), x.shape, x)
    )


def test_call_is_refused_when_the_model_was_not_asked() -> None:
    guided = denoised_fn(Diffusion(5))
    with pytest.raises(AttachmentError, match=r"begin\(\) before the sampler"):
        guided(noise(2, 3, 4, 4))
    guided.begin()
    with pytest.raises(AttachmentError, match=r"wrap_model\(model\)"):
        guided(noise(2, 3, 4, 4))
    model = guided.wrap_model(OneImage(IMAGE))
    model(noise(2, 3, 4, 4), torch.tensor([0, 0]))
    guided(noise(2, 3, 4, 4))
    with pytest.raises(AttachmentError, match="the model was not asked before it"):
        guided(noise(2, 3, 4, 4))


def test_call_is_refused_when_its_timestep_is_none_of_the_chain_s() -> None:
    guided = denoised_fn(Diffusion(5)).begin()
    model = guided.wrap_model(OneImage(IMAGE))
    model(noise(2, 3, 4, 4), torch.tensor([100, 100]))
    with pytest.raises(UnsupportedError, match="timestep 100, which is none of the diffusion's 5"):
        guided(noise(2, 3, 4, 4))
    model(noise(2, 3, 4, 4), torch.tensor([999, 999]))
    with pytest.raises(
        UnsupportedError, match="called for step 3 and the model was asked for step 4"
    ):
        guided(noise(2, 3, 4, 4), torch.tensor([3, 3]))
    with pytest.raises(UnsupportedError, match="different timesteps in one batch"):
        model(noise(2, 3, 4, 4), torch.tensor([999, 0]))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (object(), "without alphas_cumprod"),
        (SPELL(radius=1.0), r"as in denoised_fn\(diffusion, SPELL"),
        (SimpleNamespace(alphas_cumprod=[]), "does not fall"),
        (SimpleNamespace(alphas_cumprod=[0.1, 0.9]), "does not fall"),
        (SimpleNamespace(alphas_cumprod=[1.1, 0.9]), "does not fall"),
        (
            SimpleNamespace(alphas_cumprod=[0.9, 0.1], timestep_map=[0]),
            "2 alphas_cumprod and a timestep_map of 1",
        ),
    ],
)
def test_diffusion_is_refused_when_it_has_no_chain(given: Any, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        denoised_fn(given)


def test_last_level_may_be_pure_noise_when_the_schedule_ends_there() -> None:
    level = Chain(SimpleNamespace(alphas_cumprod=[0.9, 0.0])).level(1)
    assert (level.alpha, level.sigma) == (0, 1)
    assert level.next_alpha == pytest.approx(math.sqrt(0.9))


def test_arguments_are_refused_as_those_of_a_denoiser_are() -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"memory": Memory()}, "space is not"),
        ({"prompt_encoder": len}, "prompts is None"),
    ]
    for options, message in cases:
        with pytest.raises(OptionError, match=message):
            denoised_fn(Diffusion(5), **options)
    with pytest.raises(UnsupportedError, match="IntervalGuidance acts on the prompts"):
        denoised_fn(Diffusion(5), IntervalGuidance())


def test_loop_is_refused_when_it_returns_more_than_samples() -> None:
    guided = denoised_fn(Diffusion(5))
    with pytest.raises(UnsupportedError, match=r"the loop returned a dict; .*begin\(\)"):
        guided.sample(lambda model, denoised_fn: {}, OneImage(IMAGE))


def test_model_is_itself_otherwise_when_it_is_wrapped() -> None:
    model = OneImage(IMAGE)
    wrapped = denoised_fn(Diffusion(5)).wrap_model(model)
    assert next(wrapped.parameters()) is model.image
    assert repr(denoised_fn(Diffusion(5), Shift())).startswith("GuidedPrediction(5 steps, Shift(")


def test_network_of_the_tests_is_its_own_denoiser() -> None:
    """The two hosts are compared through it: at a trained level it is the network itself."""
    pipe, x = pipeline("digits"), noise(4, 4, 8, 8)
    alpha = pipe.scheduler.alphas_cumprod[500]
    sigma = ((1 - alpha) / alpha).sqrt()
    predicted = Digits()((x / (1 + sigma**2).sqrt()), torch.full((4,), 500), LABELS)
    expected = x - sigma * predicted
    network = Network(lambda x, t: Digits()(x, t, LABELS), pipe.scheduler)
    torch.testing.assert_close(network(x, sigma), expected, atol=1e-2, rtol=0)

"""Methods that change the starting noise, the denoiser's features or its adapters, on tiny
pipelines of each architecture.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, ClassVar

import diffusers
import pytest
import torch
from peft import LoraConfig
from tests.attach.conftest import prompted, seeded
from torch import Tensor

from unalike import (
    DAVE,
    SPARKE,
    ContextualRepulsion,
    ContrastiveNoise,
    CoupledNoise,
    FirstStepBase,
    PinkNoise,
    SeedVariance,
)
from unalike.attach import denoised_fn, guide, guide_denoiser
from unalike.errors import NumericsError, OptionError, UnsupportedError
from unalike.guidance.context import Context, Layer
from unalike.guidance.level import Level
from unalike.guidance.method import Method

# some schedulers hand tensors to numpy in the way of numpy 1
pytestmark = pytest.mark.filterwarnings("ignore:__array_:DeprecationWarning")

Pipelines = Callable[[str], Any]
HOSTS = ["sd", "sdxl", "sd3", "flux", "dit"]
every_host = pytest.mark.parametrize("name", HOSTS)
ACTIVE: dict[str, Method] = {
    "coupled": CoupledNoise(),
    "coupled over calls": CoupledNoise(size=3),
    "pink": PinkNoise(alpha=1.0),
    "contrastive": ContrastiveNoise(rate=0.2),
    "contrastive, model held": ContrastiveNoise(rate=0.2, through_model=False),
    "dave": DAVE(),
    "contextual": ContextualRepulsion(),
    "seedvariance": SeedVariance(),
}
IDLE: dict[str, Method] = {
    "coupled": CoupledNoise(strength=0),
    "coupled over calls": CoupledNoise(strength=0, size=3),
    "pink": PinkNoise(alpha=0),
    "contrastive": ContrastiveNoise(iterations=0),
    "contrastive, model held": ContrastiveNoise(rate=0, through_model=False),
    "dave": DAVE(strength=0),
    "contextual": ContextualRepulsion(strength=0),
    "seedvariance": SeedVariance(strength=0),
}
BY_ITSELF = {"pink": PinkNoise(alpha=1.0), "dave": DAVE(), "seedvariance": SeedVariance()}


@dataclass(frozen=True, kw_only=True)
class Starts(Method):
    """Replaces the starting noise by what a function makes of it."""

    name: ClassVar[str] = "starts"
    act: Callable[[Tensor, Context], Tensor | None]

    def initial_noise(self, noise: Tensor, context: Context) -> Tensor | None:
        return self.act(noise, context)


@dataclass(frozen=True, kw_only=True)
class Sees(Method):
    """Replaces the features of a layer by what a function makes of them."""

    name: ClassVar[str] = "sees"
    act: Callable[[Tensor, Layer, Context], Tensor | None]

    def features(self, hidden: Tensor, layer: Layer, context: Context) -> Tensor | None:
        return self.act(hidden, layer, context)


def drawn(pipe: Any, name: str, *, each: int = 2, seed: int = 0, **more: Any) -> Tensor:
    arguments = {**prompted(name, ["cat", "dog"], each), **more}
    return torch.as_tensor(pipe(**arguments, generator=seeded(2 * each, seed))[0])


def with_lora(pipe: Any) -> Any:
    """The denoiser of a pipeline, with a random LoRA on its attention."""
    denoiser = getattr(pipe, "unet", None) or pipe.transformer
    targets = ["to_q", "to_k", "to_v", "to_out.0"]
    denoiser.add_adapter(LoraConfig(r=2, target_modules=targets, init_lora_weights=False), "few")
    return denoiser


@pytest.fixture(params=["sd", "sd3", "flux"])
def adapted(request: pytest.FixtureRequest, pipelines: Pipelines) -> Any:
    """A host's name and its pipeline, with a LoRA for this test alone."""
    pipe = pipelines(request.param)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        denoiser = with_lora(pipe)
    yield request.param, pipe
    denoiser.delete_adapters("few")


@every_host
@pytest.mark.parametrize("method", ACTIVE)
def test_every_image_changes_and_the_report_says_so_when_active(
    pipelines: Pipelines, name: str, method: str
) -> None:
    pipe = pipelines(name)
    plain, guided = drawn(pipe, name), guide(pipe, ACTIVE[method])
    changed = (drawn(guided, name) - plain).flatten(1).abs().amax(dim=1) > 1e-4
    first = method == "coupled over calls"  # then the first of a prompt is the plain one
    assert changed.tolist() == [not first, True, not first, True]
    assert guided.report is not None
    assert [image.active[ACTIVE[method].name] for image in guided.report.images] == [0.25] * 4
    assert torch.equal(drawn(pipe, name), plain)


@every_host
@pytest.mark.parametrize("method", IDLE)
def test_images_are_bit_identical_when_the_strength_is_0(
    pipelines: Pipelines, name: str, method: str
) -> None:
    guided = guide(pipelines(name), IDLE[method])
    assert torch.equal(drawn(guided, name), drawn(pipelines(name), name))
    assert guided.report is not None
    assert not any(image.active[IDLE[method].name] for image in guided.report.images)


@every_host
@pytest.mark.parametrize("method", BY_ITSELF)
def test_image_is_that_of_a_larger_batch_when_images_are_treated_one_by_one(
    pipelines: Pipelines, name: str, method: str
) -> None:
    arguments = prompted(name, ["cat"], 3)
    guided = guide(pipelines(name), BY_ITSELF[method])
    three = torch.as_tensor(guided(**arguments, generator=seeded(3))[0])
    one = torch.as_tensor(guided(**prompted(name, ["cat"], 1), generator=seeded(1))[0])
    torch.testing.assert_close(three[:1], one, rtol=1e-3, atol=2e-3)


SCHEDULERS = {
    "variance preserving": diffusers.DDIMScheduler,
    "variance exploding": diffusers.EulerDiscreteScheduler,
}


@pytest.mark.parametrize("kind", SCHEDULERS)
def test_first_latents_are_the_scaled_noise_when_it_is_replaced(sd: Any, kind: str) -> None:
    """Whatever the scheduler scales its noise by, the methods' has variance 1."""
    pipe, seen = type(sd)(**sd.components, requires_safety_checker=False), []
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = SCHEDULERS[kind].from_config(sd.scheduler.config)
    ones = Starts(act=lambda noise, context: torch.ones_like(noise))
    look = Sees(act=lambda hidden, layer, context: seen.append(context.x_t))
    drawn(guide(pipe, ones, look), "sd")
    expected = 1.0
    if kind == "variance exploding":  # which scales the model's input down again
        pipe.scheduler.set_timesteps(4)
        scale, sigma = pipe.scheduler.init_noise_sigma, pipe.scheduler.sigmas[0]
        assert scale > 2
        expected = float(scale / (sigma**2 + 1) ** 0.5)
    torch.testing.assert_close(seen[0], torch.full_like(seen[0], expected))


@pytest.mark.parametrize("name", ["sd", "sd3", "flux"])
def test_noise_that_the_caller_gives_is_replaced_too(pipelines: Pipelines, name: str) -> None:
    pipe, seen = pipelines(name), []
    given = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(9))
    if name == "flux":
        given = pipe._pack_latents(given, 2, 4, 8, 8)
    arguments = {**prompted(name, ["cat"], 2), "latents": given}

    def negated(noise: Tensor, context: Context) -> Tensor:
        seen.append(noise)
        return -noise

    changed = guide(pipe, Starts(act=negated))(**arguments)[0]
    assert torch.equal(seen[0], given)
    assert len(seen) == 1
    expected = pipe(**{**arguments, "latents": -given})[0]
    assert torch.equal(torch.as_tensor(changed), torch.as_tensor(expected))


@every_host
def test_noise_is_that_of_the_images_own_generators_and_knows_the_prompts(
    pipelines: Pipelines, name: str
) -> None:
    seen: list[tuple[Tensor, Context]] = []
    method = Starts(act=lambda noise, context: seen.append((noise, context)))
    drawn(guide(pipelines(name), method), name)
    noise, context = seen[0]
    for i, row in enumerate(noise):
        own = torch.Generator().manual_seed(i)
        assert torch.equal(row, torch.randn(row.shape, generator=own))
    assert context.groups.tolist() == [0, 0, 1, 1]
    assert (context.level.alpha, context.memory, context.shield) == (0.0, None, None)
    assert len(context.generators) == 4


def test_noise_that_is_added_to_an_image_is_replaced_when_a_pipeline_starts_from_one(
    sd: Any,
) -> None:
    pipe: Any = diffusers.StableDiffusionImg2ImgPipeline(
        **sd.components, requires_safety_checker=False
    )
    pipe.set_progress_bar_config(disable=True)
    image, seen = torch.zeros(1, 3, 16, 16), []
    arguments: dict[str, Any] = {
        "prompt": "cat", "num_images_per_prompt": 2, "image": image, "strength": 0.75,
        "num_inference_steps": 4, "output_type": "latent",
    }  # fmt: skip
    plain = pipe(**arguments, generator=seeded(2)).images
    kept = Starts(act=lambda noise, context: seen.append(noise))
    assert torch.equal(guide(pipe, kept)(**arguments, generator=seeded(2)).images, plain)
    assert [noise.shape for noise in seen] == [(2, 4, 8, 8)]
    coupled = guide(pipe, CoupledNoise())(**arguments, generator=seeded(2)).images
    assert not torch.allclose(coupled, plain, atol=1e-2)


def test_error_names_the_pipeline_before_any_work_when_its_noise_cannot_be_reached(
    sd: Any,
) -> None:
    class Silent(type(sd)):
        prepare_latents = staticmethod(lambda *_: pytest.fail("this is work"))

    pipe = Silent(**sd.components, requires_safety_checker=False)
    with pytest.raises(UnsupportedError, match="CoupledNoise: Silent does not draw its starting"):
        guide(pipe, CoupledNoise())("cat")


def test_error_names_the_method_when_its_noise_is_not_finite(sd: Any) -> None:
    broken = Starts(act=lambda noise, context: noise / 0 * 0)
    with pytest.raises(NumericsError, match="starts made NaN or infinite starting noise at step 0"):
        drawn(guide(sd, broken), "sd")


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("sd", [(name, "image", 4) for name in ("mid_block", "up_blocks.0", "up_blocks.1")]),
        ("dit", [("transformer_blocks.0", "image", 3)]),
        ("sd3", [("transformer_blocks.0", "image", 3)]),
        (
            "flux",
            [
                ("transformer_blocks.0", "text", 3),
                ("transformer_blocks.0", "image", 3),
                ("single_transformer_blocks.0", "text", 3),
                ("single_transformer_blocks.0", "image", 3),
            ],
        ),
    ],
)  # fmt: skip
def test_layers_are_shown_in_their_order_for_each_block_of_the_batch(
    pipelines: Pipelines, name: str, layers: list[tuple[str, str, int]]
) -> None:
    seen: list[tuple[Layer, int, int]] = []
    look = Sees(act=lambda hidden, layer, _: seen.append((layer, len(hidden), hidden.ndim)))
    drawn(guide(pipelines(name), look), name)
    blocks = 1 if name == "flux" else 2
    step = [(n, s, d, k) for n, s, d in layers for k in range(blocks)]
    assert [(la.name, la.stream, d, la.block) for la, _, d in seen] == step * 4
    assert {rows for _, rows, _ in seen} == {4}
    assert [la.index for la, _, _ in seen][::blocks][0] == 0
    assert all(la.count == len({n for n, _, _ in layers}) for la, _, _ in seen)


def test_blocks_are_counted_on_when_the_empty_prompts_have_a_call_of_their_own(
    pipelines: Pipelines,
) -> None:
    seen: list[int] = []
    look = Sees(act=lambda hidden, layer, _: seen.append(layer.block))
    guided = guide(pipelines("flux"), look)
    drawn(guided, "flux", true_cfg_scale=2.0, negative_prompt=["owl", "owl"])
    assert seen == [0] * 4 + [1] * 4 + ([0] * 4 + [1] * 4) * 3


@pytest.mark.parametrize("name", ["sd", "sd3", "flux", "dit"])
def test_features_that_a_method_returns_are_those_that_the_model_goes_on_with(
    pipelines: Pipelines, name: str
) -> None:
    """Negated by one method and again by the next they are as before."""
    pipe, plain = pipelines(name), drawn(pipelines(name), name)
    negated = Sees(act=lambda hidden, layer, context: -hidden)
    assert torch.equal(drawn(guide(pipe, negated, negated), name), plain)
    assert not torch.allclose(drawn(guide(pipe, negated), name), plain, atol=1e-3)


def test_features_are_refused_before_any_work_when_the_denoiser_is_compiled(
    sd: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sd.unet, "_compiled_call_impl", lambda *_: pytest.fail("this is work"))
    with pytest.raises(UnsupportedError, match="DAVE: the denoiser of StableDiffusionPipeline is"):
        guide(sd, DAVE())("cat")


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_first_step_is_the_base_models_when_the_lora_is_left_out(
    adapted: Any, scale: float
) -> None:
    name, pipe = adapted
    seen: list[Tensor] = []

    @dataclass(frozen=True, kw_only=True)
    class Looks(Method):
        name: ClassVar[str] = "looks"

        def x0_delta(self, x0: Tensor, context: Context) -> None:
            seen.append(x0)

    denoiser = getattr(pipe, "unet", None) or pipe.transformer
    more: Any = {"guidance_scale": scale}
    with_it = drawn(guide(pipe, Looks()), name, **more)
    mixed = drawn(guide(pipe, FirstStepBase(), Looks()), name, **more)
    denoiser.disable_adapters()
    without = drawn(guide(pipe, Looks()), name, **more)
    denoiser.enable_adapters()
    lora, ours, base = seen[:4], seen[4:8], seen[8:]
    assert torch.equal(ours[0], base[0])
    assert not torch.allclose(ours[0], lora[0], atol=1e-4)
    assert not torch.allclose(mixed, with_it, atol=1e-4)
    assert not torch.allclose(mixed, without, atol=1e-4)
    assert torch.equal(drawn(pipe, name, **more), with_it)


def test_other_calls_keep_the_lora_when_they_run_within_a_step_without_it(adapted: Any) -> None:
    name, pipe = adapted
    plain, seen = drawn(pipe, name, seed=7), []

    def elsewhere(hidden: Tensor, layer: Layer, context: Context) -> None:
        if context.step == 0 and layer.index == 0:
            with ThreadPoolExecutor(1) as threads:
                seen.append(threads.submit(drawn, pipe, name, seed=7).result())

    look = Sees(act=elsewhere)
    alone = drawn(guide(pipe, FirstStepBase()), name)
    assert torch.equal(drawn(guide(pipe, FirstStepBase(), look), name), alone)
    assert seen
    assert all(torch.equal(other, plain) for other in seen)


def test_the_lora_is_on_again_when_a_call_fails(adapted: Any) -> None:
    name, pipe = adapted
    plain = drawn(pipe, name)
    answer: Any = "no tensor"
    fails = Sees(act=lambda hidden, layer, context: answer)
    with pytest.raises((AttributeError, TypeError)):
        drawn(guide(pipe, FirstStepBase(), fails), name)
    assert torch.equal(drawn(pipe, name), plain)
    denoiser = getattr(pipe, "unet", None) or pipe.transformer
    assert not any(m._forward_hooks for m in denoiser.modules())


@pytest.mark.parametrize("state", ["none", "off", "fused"])
def test_error_says_what_to_call_before_any_work_when_there_is_no_lora_to_leave_out(
    sd: Any, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = {
        "none": "has none that is on; load one",
        "off": "has none that is on",
        "fused": "fused",
    }
    if state != "none":
        with_lora(sd)
    if state == "off":
        sd.unet.disable_adapters()
    if state == "fused":
        sd.unet.fuse_lora()
    monkeypatch.setattr(type(sd.unet), "forward", lambda *_: pytest.fail("this is work"))
    try:
        with pytest.raises(UnsupportedError, match=words[state]):
            guide(sd, FirstStepBase())("cat")
    finally:
        if state == "fused":
            sd.unet.unfuse_lora()
        if state != "none":
            sd.unet.delete_adapters("few")


@pytest.mark.parametrize(
    ("method", "place"),
    [
        (CoupledNoise(), "CoupledNoise acts on the noise that a sampler starts from"),
        (ContextualRepulsion(), "ContextualRepulsion acts on the layers inside a model"),
        (DAVE(), "DAVE acts on the layers inside a model"),
        (FirstStepBase(), "FirstStepBase acts on the adapters of a model"),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_error_says_what_a_function_does_not_show_when_a_method_needs_it(
    method: Method, place: str
) -> None:
    chain = type("Chain", (), {"alphas_cumprod": [0.9, 0.1]})()
    for attach in (
        lambda: guide_denoiser(lambda x, sigma: x, method, sigmas=[1.0, 0.0]),
        lambda: denoised_fn(chain, method),
    ):
        with pytest.raises(UnsupportedError, match=f"{place}, which a function of samples does"):
            attach()


@pytest.mark.parametrize("hook", ["coupled", "pink", "contrastive"])
@pytest.mark.parametrize("settings", [{"start": 0.5}, {"stop": 0.5}, {"every": 2}, {"limit": 0.5}])
def test_error_names_the_option_when_it_has_no_effect(hook: str, settings: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=rf"{next(iter(settings))} is .*; leave it out"):
        type(ACTIVE[hook])(**settings)


def test_methods_of_all_hooks_compose_with_a_correction_of_the_prediction(sd: Any) -> None:
    guided = guide(sd, CoupledNoise(), DAVE(), SPARKE(strength=0.2))
    drawn(guided, "sd")
    assert guided.report is not None
    active = guided.report.images[0].active
    assert active["coupled"] == active["dave"] == 0.25
    assert active["sparke"] > 0.5


@pytest.mark.parametrize(
    ("name", "prompt", "padded"),
    [
        # <|startoftext|> c a t <|endoftext|>, and as many again of the second encoder
        ("sd", "cat", [False] * 5 + [True] * 7),
        ("sdxl", "cat", [False] * 5 + [True] * 7),
        # the sequence of CLIP's, then that of T5: ▁ c a t </s>
        ("sd3", "cat", ([False] * 5 + [True] * 7) * 2),
        ("flux", "cat", [False] * 5 + [True] * 7),
    ],
)
def test_padding_is_left_alone_when_tokens_are_noised(
    pipelines: Pipelines, name: str, prompt: str, padded: list[bool]
) -> None:
    pipe, seen = pipelines(name), []

    @dataclass(frozen=True, kw_only=True)
    class Looks(Method):
        name: ClassVar[str] = "looks"

        def condition(self, embeddings: Tensor, context: Context) -> None:
            if context.step == 0 and embeddings.ndim == 3:
                seen.append((embeddings, context.padding))

    guide(pipe, Looks(), SeedVariance(share=1.0), Looks())(**prompted(name, [prompt], 2))
    (before, padding), (after, _) = seen
    assert padding.tolist() == [padded] * 2
    assert ((after != before).any(dim=2) == ~padding).all()


def test_noise_of_tokens_is_a_share_of_their_own_deviation() -> None:
    tokens = torch.randn(1, 3, 10_000, generator=torch.Generator().manual_seed(0))
    tokens = tokens * torch.tensor([1.0, 10.0, 100.0])[None, :, None]
    context = Context(
        step=0,
        steps=4,
        level=Level(0.1, 0.9, 0.5, 0.5),
        x_t=torch.zeros(1, 1),
        groups=torch.zeros(1),
        generators=[torch.Generator().manual_seed(1)],
    )
    changed = SeedVariance(strength=0.3, share=0.25).condition(tokens, context)
    assert changed is not None
    noise = (changed - tokens)[0]
    deviation = tokens[0].std(dim=1)
    torch.testing.assert_close(
        noise.abs().amax(dim=1) / deviation, torch.full((3,), 0.3), atol=1e-2, rtol=0
    )
    share = (noise != 0).float().mean(dim=1)
    torch.testing.assert_close(share, torch.full((3,), 0.25), atol=2e-2, rtol=0)


@every_host
def test_prediction_of_a_noise_is_that_of_the_call_and_has_its_gradient(
    pipelines: Pipelines, name: str
) -> None:
    """The gradient through the model by a difference of two calls; held, it is another one."""
    pipe, asked, seen = pipelines(name), [], []

    @dataclass(frozen=True, kw_only=True)
    class Asks(Method):
        name: ClassVar[str] = "asks"
        reads_predictions: ClassVar[bool] = True

        def initial_noise(self, noise: Tensor, context: Context) -> None:
            assert context.predict is not None
            draw = torch.Generator().manual_seed(0)
            with torch.enable_grad():
                leaf = noise.clone().requires_grad_()
                x0 = context.predict(leaf, True)
                weights = torch.randn(x0.shape, generator=draw)
                (gradient,) = torch.autograd.grad((weights * x0).sum(), leaf)
                (held,) = torch.autograd.grad((weights * context.predict(leaf, False)).sum(), leaf)
            along = gradient / gradient.norm()
            ends = [context.predict(leaf + e * along, True).detach() for e in (1e-2, -1e-2)]
            slope = (weights * (ends[0] - ends[1])).sum() / 2e-2
            asked.append((x0.detach(), slope, gradient.norm(), (held - gradient).norm()))

        def x0_delta(self, x0: Tensor, context: Context) -> None:
            seen.append(x0)

    plain, guided = drawn(pipe, name), guide(pipe, Asks())
    assert torch.equal(drawn(guided, name), plain)
    ((x0, slope, gradient, difference),) = asked
    torch.testing.assert_close(x0, seen[0])
    assert float(slope) == pytest.approx(float(gradient), rel=0.05)
    assert difference > 1e-3 * gradient
    assert guided.report is not None
    assert guided.report.calls == (4 + 4) * 4


def test_first_predictions_of_a_prompt_differ_more_when_noises_are_optimized(sd: Any) -> None:
    def alike(*methods: Method) -> float:
        seen: list[Tensor] = []

        @dataclass(frozen=True, kw_only=True)
        class Looks(Method):
            name: ClassVar[str] = "looks"

            def x0_delta(self, x0: Tensor, context: Context) -> None:
                seen.append(x0)

        guide(sd, *methods, Looks())(**prompted("sd", ["cat"], 3), generator=seeded(3))
        f = torch.nn.functional.avg_pool2d(seen[0], 2).flatten(1)
        f = f / f.norm(dim=1, keepdim=True)
        return float((f @ f.T).sum() - 3) / 6

    assert alike(ContrastiveNoise(rate=0.2)) < alike() - 0.05


def test_error_says_to_leave_latents_out_when_noises_are_to_be_optimized(sd: Any) -> None:
    with pytest.raises(UnsupportedError, match=r"ContrastiveNoise: .*leave latents out"):
        guide(sd, ContrastiveNoise())(**prompted("sd", ["cat"], 2), latents=torch.zeros(2, 4, 8, 8))


def test_error_says_that_there_is_no_gradient_when_the_model_hides_it(
    sd: Any,
) -> None:
    @dataclass(frozen=True, kw_only=True)
    class Cut(ContrastiveNoise):
        """Sees the predictions of a model that hides its gradient."""

        def initial_noise(self, noise: Tensor, context: Context) -> Tensor | None:
            own = context.predict
            assert own is not None
            context.predict = lambda noise, through_model: own(noise, through_model).detach()
            return super().initial_noise(noise, context)

    with pytest.raises(UnsupportedError, match="has no gradient in its starting noise"):
        guide(sd, Cut())(**prompted("sd", ["cat"], 2))

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import diffusers
import pytest
import torch
from tests.attach.conftest import prompted, seeded
from torch import Tensor

from unalike.attach import guide
from unalike.errors import NumericsError, UnsupportedError
from unalike.guidance.cads import CADS
from unalike.guidance.context import Context
from unalike.guidance.interval import IntervalGuidance
from unalike.guidance.method import Method
from unalike.guidance.sparke import SPARKE

# some schedulers hand tensors to numpy in the way of numpy 1
pytestmark = pytest.mark.filterwarnings("ignore:__array_:DeprecationWarning")

GUIDED = ["sd", "sdxl", "sd3", "dit"]  # flux has no classifier-free guidance
Pipelines = Callable[[str], Any]
NEVER = IntervalGuidance(sigma_low=1e-9, sigma_high=1e-8)
ALWAYS = IntervalGuidance(
    sigma_low=0, sigma_high=1e6, start=0.25
)  # at pure noise, where sd3 begins, there is no finite level
MIDDLE = {"sd": 2.0, "sdxl": 2.0, "sd3": 1.0, "dit": 2.0}


@dataclass(frozen=True, kw_only=True)
class Told(Method):
    """Does to the prompts what a function says."""

    name: ClassVar[str] = "told"
    act: Callable[[Tensor, Context], Tensor | None]

    def condition(self, embeddings: Tensor, context: Context) -> Tensor | None:
        return self.act(embeddings, context)


def drawn(pipe: Any, arguments: dict[str, Any], count: int = 4) -> Tensor:
    return torch.as_tensor(pipe(**arguments, generator=seeded(count))[0])


def denoiser(pipe: Any) -> torch.nn.Module:
    return getattr(pipe, "unet", None) or pipe.transformer


@pytest.mark.parametrize("name", GUIDED)
def test_images_are_those_of_a_scale_of_1_when_guidance_is_left_out(
    pipelines: Pipelines, name: str
) -> None:
    pipe, arguments = pipelines(name), prompted(name, ["cat", "dog"], 2)
    without = drawn(pipe, {**arguments, "guidance_scale": 1.0})
    torch.testing.assert_close(drawn(guide(pipe, NEVER), arguments), without, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(drawn(pipe, arguments), without, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("name", [*GUIDED, "flux"])
def test_images_are_bit_identical_when_guidance_stays_or_never_was(
    pipelines: Pipelines, name: str
) -> None:
    pipe, arguments = pipelines(name), prompted(name, ["cat", "dog"], 2)
    assert torch.equal(
        drawn(guide(pipe, ALWAYS if name in GUIDED else NEVER), arguments), drawn(pipe, arguments)
    )


@pytest.mark.parametrize("name", ["sd", "sdxl", "sd3", "flux"])
@pytest.mark.parametrize("method", [CADS(noise_scale=0.5), NEVER], ids=["cads", "interval"])
@pytest.mark.parametrize("negative", ["cat", "owl"])
def test_image_is_as_alone_when_its_prompt_is_the_negative_one_of_another(
    pipelines: Pipelines, name: str, method: Method, negative: str
) -> None:
    pipe, more = pipelines(name), {"true_cfg_scale": 3.0} if name == "flux" else {}
    both = {**prompted(name, ["cat", "dog"], 1), "negative_prompt": ["dog", negative], **more}
    one = {**prompted(name, ["dog"], 1), "negative_prompt": [negative], **more}
    together = guide(pipe, method)(**both, generator=seeded(2)).images
    alone = guide(pipe, method)(**one, generator=seeded(1, 1)).images
    torch.testing.assert_close(together[1:], alone, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", GUIDED)
def test_steps_are_left_out_by_their_own_noise_level(pipelines: Pipelines, name: str) -> None:
    pipe, arguments, seen = pipelines(name), prompted(name, ["cat"], 2), []

    def look(embeddings: Tensor, context: Context) -> None:
        seen.append(
            (context.step, context.steps, context.level.sigma / max(context.level.alpha, 1e-9))
        )

    guided = guide(pipe, Told(act=look), IntervalGuidance(sigma_low=0, sigma_high=MIDDLE[name]))
    drawn(guided, arguments, 2)
    levels = list(dict.fromkeys(seen))
    assert [(step, steps) for step, steps, _ in levels] == [(i, 4) for i in range(4)]
    assert [s for *_, s in levels] == sorted((s for *_, s in levels), reverse=True)
    outside = [s > MIDDLE[name] for *_, s in levels]
    assert 0 < sum(outside) < 4
    assert guided.report is not None
    assert guided.report.images[0].active == {"told": 0.0, "interval": sum(outside) / 4}
    assert guided.report.images[0].corrections["interval"] == [0.0] * 4


@pytest.mark.parametrize("name", ["sd", "sdxl", "sd3", "flux"])
def test_only_positive_prompts_are_changed_when_one_is(pipelines: Pipelines, name: str) -> None:
    pipe, arguments, given = pipelines(name), prompted(name, ["cat", "dog"], 2), []

    def sevens(embeddings: Tensor, context: Context) -> Tensor | None:
        assert len(embeddings) == 4
        return torch.full_like(embeddings, 7.0) if context.step == 1 else None

    handle = denoiser(pipe).register_forward_hook(
        lambda module, args, kwargs, out: given.append(kwargs), with_kwargs=True
    )
    try:
        drawn(guide(pipe, Told(act=sevens)), arguments)
    finally:
        handle.remove()
    tokens = [kwargs["encoder_hidden_states"] for kwargs in given]
    assert [(rows[-4:] == 7).all().item() for rows in tokens] == [False, True, False, False]
    for rows in tokens:
        assert len(rows) == (4 if name == "flux" else 8)
        assert torch.equal(rows[:-4], tokens[0][:-4])


def test_image_is_that_of_another_class_when_the_embeddings_are(pipelines: Pipelines) -> None:
    pipe, asked = pipelines("dit"), []
    parts = [m for m in pipe.transformer.modules() if type(m).__name__ == "LabelEmbedding"]

    def dogs(embeddings: Tensor, context: Context) -> Tensor:
        asked.append(context.step)
        return parts[(len(asked) - 1) % len(parts)](torch.ones(len(embeddings), dtype=torch.int64))

    cats = drawn(guide(pipe, Told(act=dogs)), prompted("dit", ["cat"], 2), 2)
    torch.testing.assert_close(cats, drawn(pipe, prompted("dit", ["dog"], 2), 2))
    assert not torch.allclose(cats, drawn(pipe, prompted("dit", ["cat"], 2), 2), atol=1e-4)


@pytest.mark.parametrize(
    ("name", "tensors"), [("sd", 1), ("sdxl", 2), ("sd3", 2), ("flux", 2), ("dit", 1)]
)
def test_pooled_embeddings_and_those_of_each_block_are_given_too(
    pipelines: Pipelines, name: str, tensors: int
) -> None:
    pipe, sizes = pipelines(name), []

    def look(embeddings: Tensor, context: Context) -> None:
        sizes.append(tuple(embeddings.shape[1:]))

    drawn(guide(pipe, Told(act=look)), prompted(name, ["cat"], 2), 2)
    assert len(sizes) == 4 * tensors
    assert sizes == sizes[:tensors] * 4


@pytest.mark.parametrize("name", [*GUIDED, "flux"])
def test_images_change_when_the_prompt_is_annealed(pipelines: Pipelines, name: str) -> None:
    pipe, arguments = pipelines(name), prompted(name, ["cat", "dog"], 2)
    guided = guide(pipe, CADS(noise_scale=1.0))
    images = drawn(guided, arguments)
    assert (images - drawn(pipe, arguments)).flatten(1).norm(dim=1).min() > 1e-4
    assert torch.equal(drawn(guided, arguments), images)
    assert guided.report is not None
    assert [image.active["cads"] for image in guided.report.images] == [
        0.5
    ] * 4  # at times 1 and 3/4, not at 1/2 and 1/4


@pytest.mark.parametrize("name", ["sd", "dit", "flux"])
def test_annealed_image_is_the_same_when_the_batch_is_larger(
    pipelines: Pipelines, name: str
) -> None:
    guided = guide(pipelines(name), CADS(noise_scale=1.0))
    alone = drawn(guided, prompted(name, ["cat"], 1), 1)
    torch.testing.assert_close(
        drawn(guided, prompted(name, ["cat"], 3), 3)[:1], alone, atol=2e-3, rtol=1e-4
    )


def test_methods_of_both_kinds_compose(pipelines: Pipelines) -> None:
    pipe, arguments = pipelines("sd"), prompted("sd", ["cat"], 2)
    guided = guide(pipe, CADS(), NEVER, SPARKE(strength=0.1))
    images = drawn(guided, arguments, 2)
    for fewer in ((CADS(), NEVER), (CADS(), SPARKE(strength=0.1)), (NEVER, SPARKE(strength=0.1))):
        assert not torch.allclose(images, drawn(guide(pipe, *fewer), arguments, 2))
    assert guided.report is not None
    assert guided.report.images[0].active == {"cads": 0.5, "interval": 1.0, "sparke": 0.75}


def test_nothing_happens_when_outside_the_window(pipelines: Pipelines) -> None:
    pipe, arguments = pipelines("sd"), prompted("sd", ["cat"], 1)
    late = IntervalGuidance(sigma_low=1e-9, sigma_high=1e-8, start=0.5)
    guided = guide(pipe, late)
    drawn(guided, arguments, 1)
    assert guided.report is not None
    assert guided.report.images[0].active == {"interval": 0.5}


def test_guidance_is_left_out_when_prompt_and_negative_prompt_are_equal(
    pipelines: Pipelines,
) -> None:
    pipe, arguments = pipelines("sd"), {**prompted("sd", ["cat"], 2), "negative_prompt": ["cat"]}
    annealed = drawn(guide(pipe, CADS(noise_scale=1.0), NEVER), arguments, 2)
    assert not torch.allclose(annealed, drawn(pipe, arguments, 2))
    assert torch.allclose(
        drawn(guide(pipe, NEVER), arguments, 2), drawn(pipe, arguments, 2), atol=1e-4
    )


@pytest.mark.parametrize(
    "scheduler",
    ["PNDMScheduler", "HeunDiscreteScheduler", "UniPCMultistepScheduler", "EulerDiscreteScheduler"],
)
def test_steps_are_known_when_solvers_ask_more_than_once(
    pipelines: Pipelines, scheduler: str
) -> None:
    pipe, seen = pipelines("sd"), []
    before = pipe.scheduler
    pipe.scheduler = getattr(diffusers, scheduler).from_config(before.config)
    try:
        guided = guide(
            pipe, Told(act=lambda embeddings, context: seen.append((context.step, context.steps)))
        )
        drawn(guided, prompted("sd", ["cat"], 1), 1)
    finally:
        pipe.scheduler = before
    assert guided.report is not None
    assert seen == [(i, guided.report.steps) for i in range(guided.report.steps)]


@pytest.mark.parametrize("fails", [False, True])
def test_no_hook_is_left_when_a_call_has_ended(pipelines: Pipelines, fails: bool) -> None:
    pipe, arguments = pipelines("dit"), prompted("dit", ["cat"], 1)
    act = (
        (lambda embeddings, context: embeddings / 0)
        if fails
        else (lambda embeddings, context: None)
    )
    guided = guide(pipe, Told(act=act))
    if fails:
        with pytest.raises(
            NumericsError, match="told made NaN or infinite prompt embeddings at step 0 of 4"
        ):
            drawn(guided, arguments, 1)
    else:
        drawn(guided, arguments, 1)
    for module in pipe.transformer.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks


def test_denoiser_is_left_alone_when_no_method_acts_on_prompts(pipelines: Pipelines) -> None:
    pipe, hooks = pipelines("sd"), []

    def look(x0: Tensor) -> None:
        hooks.append(len(pipe.unet._forward_hooks) + len(pipe.unet._forward_pre_hooks))

    @dataclass(frozen=True, kw_only=True)
    class Looks(Method):
        name: ClassVar[str] = "looks"

        def x0_delta(self, x0: Tensor, context: Context) -> None:
            look(x0)

    drawn(guide(pipe, Looks()), prompted("sd", ["cat"], 1), 1)
    assert hooks == [0] * 4


class Separate(diffusers.DiffusionPipeline):
    """Asks its denoiser for each prompt and for the empty one in calls of their own, in the order
    that it is told.
    """

    def __init__(self, unet: Any, scheduler: Any) -> None:
        super().__init__()
        self.register_modules(unet=unet, scheduler=scheduler)

    def encode_prompt(self, prompt: list[str]) -> Tensor:
        return torch.stack(
            [torch.full((3, self.unet.config.cross_attention_dim), float(len(p))) for p in prompt]
        )

    @torch.no_grad()
    def __call__(
        self, prompt: list[str], order: str, guidance_scale: float = 3.0, generator: Any = None
    ) -> tuple[Tensor]:
        texts = {"prompt": self.encode_prompt(prompt)}
        texts["empty"] = torch.zeros_like(texts["prompt"])
        self.scheduler.set_timesteps(4)
        x = torch.stack([torch.randn(4, 8, 8, generator=g) for g in generator])
        for t in self.scheduler.timesteps:
            made = {
                name: self.unet(x, t, encoder_hidden_states=texts[name]).sample
                for name in order.split()
            }
            output = (
                made["prompt"]
                if guidance_scale == 1
                else made["empty"] + guidance_scale * (made["prompt"] - made["empty"])
            )
            x = self.scheduler.step(output, t, x).prev_sample
        return (x,)


def test_guidance_is_left_out_when_the_empty_prompt_is_asked_for_afterwards(
    pipelines: Pipelines,
) -> None:
    sd = pipelines("sd")
    pipe, arguments = (
        Separate(sd.unet, sd.scheduler),
        {"prompt": ["cat", "horse"], "order": "prompt empty"},
    )
    without = drawn(pipe, {**arguments, "guidance_scale": 1.0}, 2)
    torch.testing.assert_close(
        drawn(guide(pipe, NEVER), arguments, 2), without, rtol=1e-4, atol=1e-4
    )
    assert not torch.allclose(drawn(pipe, arguments, 2), without, rtol=1e-2, atol=1e-2)


def test_error_says_so_when_the_empty_prompt_is_asked_for_first(pipelines: Pipelines) -> None:
    sd = pipelines("sd")
    pipe, arguments = Separate(sd.unet, sd.scheduler), {"prompt": ["cat"], "order": "empty prompt"}
    with pytest.raises(
        UnsupportedError,
        match=r"IntervalGuidance: UNet2DConditionModel is asked without the prompt before",
    ):
        drawn(guide(pipe, NEVER), arguments, 1)
    assert not torch.allclose(
        drawn(guide(pipe, CADS(noise_scale=5.0, mixing=0.0)), arguments, 1),
        drawn(pipe, arguments, 1),
    )


class Refined(Separate):
    """Gives its denoiser something else than the prompts that it encoded."""

    @torch.no_grad()
    def __call__(  # type: ignore[override]
        self, prompt: list[str], steps: int, generator: Any = None
    ) -> tuple[Tensor]:
        text = self.encode_prompt(prompt) * 2
        self.scheduler.set_timesteps(steps)
        x = torch.stack([torch.randn(4, 8, 8, generator=g) for g in generator])
        for t in self.scheduler.timesteps:
            output = self.unet(x, t, encoder_hidden_states=text).sample
            x = self.scheduler.step(output, t, x).prev_sample
        return (x,)


@pytest.mark.parametrize("steps", [1, 4])
def test_error_says_so_when_the_denoiser_never_gets_the_prompts(
    pipelines: Pipelines, steps: int
) -> None:
    sd = pipelines("sd")
    guided = guide(Refined(sd.unet, sd.scheduler), CADS(noise_scale=0.5))
    with pytest.raises(UnsupportedError, match="CADS: the denoiser is not given the prompt emb"):
        drawn(guided, {"prompt": ["cat"], "steps": steps}, 1)


def test_error_names_the_pipeline_when_it_has_two_denoisers(pipelines: Pipelines) -> None:
    sd = pipelines("sd")

    class Two(Separate):
        def __init__(self, unet: Any, scheduler: Any, transformer: Any) -> None:
            super().__init__(unet, scheduler)
            self.register_modules(transformer=transformer)

    with pytest.raises(
        UnsupportedError,
        match="CADS needs a pipeline with one denoiser, unet or transformer, and Two has 2",
    ):
        drawn(
            guide(Two(sd.unet, sd.scheduler, sd.unet), CADS()),
            {"prompt": ["cat"], "order": "prompt empty"},
            1,
        )


def test_error_says_so_when_the_embeddings_are_not_those_of_the_pipeline(
    pipelines: Pipelines,
) -> None:
    sd = pipelines("sd")

    class Silent(Separate):
        encode_prompt: Any = None  # pyright: ignore[reportAssignmentType]

        def __call__(
            self, prompt: list[str], order: str, guidance_scale: float = 3.0, generator: Any = None
        ) -> tuple[Tensor]:
            self.scheduler.set_timesteps(4)
            self.unet(
                torch.zeros(1, 4, 8, 8),
                self.scheduler.timesteps[0],
                torch.zeros(1, 3, self.unet.config.cross_attention_dim),
            )
            raise AssertionError

    with pytest.raises(
        UnsupportedError,
        match="CADS: UNet2DConditionModel is not given the prompt embeddings that Silent made",
    ):
        drawn(guide(Silent(sd.unet, sd.scheduler), CADS()), {"prompt": ["cat"], "order": ""}, 1)


def test_error_names_the_timestep_when_it_is_not_in_the_schedule(pipelines: Pipelines) -> None:
    sd = pipelines("sd")

    class Odd(Separate):
        def __call__(
            self, prompt: list[str], order: str, guidance_scale: float = 3.0, generator: Any = None
        ) -> tuple[Tensor]:
            self.scheduler.set_timesteps(4)
            self.unet(torch.zeros(1, 4, 8, 8), 617, self.encode_prompt(prompt))
            raise AssertionError

    with pytest.raises(
        UnsupportedError, match="the model is asked at timestep 617, which is none of those"
    ):
        drawn(guide(Odd(sd.unet, sd.scheduler), CADS()), {"prompt": ["cat"], "order": ""}, 1)

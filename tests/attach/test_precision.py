"""Pipelines in half precision, offloaded, with a LoRA, and compiled."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import cpu_offload
from diffusers import DiffusionPipeline
from diffusers.utils import convert_state_dict_to_diffusers
from peft import LoraConfig, get_peft_model_state_dict
from tests import tiny
from tests.attach.conftest import prompted, seeded
from torch import Tensor

from unalike.attach import encode_images, guide, shield_from_images
from unalike.attach.spaces import latent_model, prompt_model
from unalike.errors import StoreError, UnsupportedError
from unalike.fingerprint import Weights
from unalike.guidance.cads import CADS
from unalike.guidance.interval import IntervalGuidance
from unalike.guidance.method import Method
from unalike.guidance.sparke import SPARKE
from unalike.guidance.spell import SPELL
from unalike.memory import Memory

# some schedulers hand tensors to numpy in the way of numpy 1
pytestmark = pytest.mark.filterwarnings("ignore:__array_:DeprecationWarning")

Fresh = Callable[..., Any]
NEVER = IntervalGuidance(sigma_low=1e-9, sigma_high=1e-8)
HALVES = [torch.bfloat16, torch.float16]


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    folder, written = tmp_path_factory.mktemp("precision"), {}

    def write(name: str) -> Path:
        if name not in written:
            written[name] = tiny.write(name, folder)
        return written[name]

    return write


@pytest.fixture
def fresh(folders: Callable[[str], Path]) -> Fresh:
    """A tiny pipeline by its name, read anew, in a precision."""

    def read(name: str, dtype: torch.dtype = torch.float32) -> Any:
        pipe = DiffusionPipeline.from_pretrained(folders(name), dtype=dtype)
        pipe.set_progress_bar_config(disable=True)
        return pipe

    return read


def drawn(pipe: Any, arguments: dict[str, Any], count: int = 2) -> Tensor:
    return torch.as_tensor(pipe(**arguments, generator=seeded(count))[0])


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("name", ["sd", "sdxl", "sd3", "dit", "flux"])
def test_images_are_bit_identical_when_nothing_is_corrected_in_half_precision(
    fresh: Fresh, name: str, dtype: torch.dtype
) -> None:
    pipe, arguments = fresh(name, dtype), prompted(name, ["cat"], 2)
    assert torch.equal(
        drawn(guide(pipe, SPARKE(strength=0.0), memory=Memory()), arguments), drawn(pipe, arguments)
    )


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("name", ["sd", "sdxl", "sd3", "dit", "flux"])
def test_corrections_reach_every_image_and_leave_its_type_in_half_precision(
    fresh: Fresh, name: str, dtype: torch.dtype
) -> None:
    pipe, memory, arguments = fresh(name, dtype), Memory(), prompted(name, ["cat"], 2)
    plain, guided = (
        drawn(pipe, arguments),
        guide(pipe, SPARKE(strength=0.3), SPELL(radius=2.0), CADS(), memory=memory),
    )
    images = drawn(guided, arguments)
    assert images.dtype == plain.dtype
    assert (images - plain).flatten(1).abs().amax(dim=1).min() > 1e-2
    assert len(memory) == 2
    view = memory.view(next(iter(memory.spaces())))
    assert view is not None
    assert view.latents.dtype == torch.float32
    assert images.isfinite().all()


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_guided_images_are_near_those_of_full_precision_in_half(
    fresh: Fresh, dtype: torch.dtype
) -> None:
    arguments = prompted("flux", ["cat"], 2)
    full, half = (
        drawn(guide(fresh("flux", d), SPARKE(strength=0.3)), arguments)
        for d in (torch.float32, dtype)
    )
    plain = drawn(fresh("flux"), arguments)
    assert (half.float() - full).norm() < 0.1 * (full - plain).norm()


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_guidance_is_left_out_in_half_precision(fresh: Fresh, dtype: torch.dtype) -> None:
    pipe, arguments = fresh("sdxl", dtype), prompted("sdxl", ["cat", "dog"], 1)
    without = drawn(pipe, {**arguments, "guidance_scale": 1.0}).float()
    off = (drawn(guide(pipe, NEVER), arguments).float() - without).norm()
    assert off < 0.1 * (drawn(pipe, arguments).float() - without).norm()


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_shield_holds_in_half_precision(fresh: Fresh, dtype: torch.dtype) -> None:
    pipe, arguments = fresh("sd", dtype), {**prompted("sd", ["cat"], 2), "output_type": "pt"}
    images = drawn(pipe, arguments)
    shield = shield_from_images(pipe, images[:1].float(), radius=8.0)
    guided = guide(pipe, SPELL(), shield=shield, on_violation="move")
    drawn(guided, arguments)
    assert guided.report is not None
    for image in guided.report.images:
        assert image.certificate is not None
        assert image.certificate.distance >= 8.0


def offloaded(pipe: Any, how: str) -> Any:
    """The pipeline, its models brought to where they run and taken away again by accelerate's
    hooks; here both is the CPU.
    """
    if how == "model":
        pipe.enable_model_cpu_offload(device="cpu")
    else:  # as enable_sequential_cpu_offload does: weights are on the device only while needed
        for part in (pipe.text_encoder, pipe.unet, pipe.vae):
            cpu_offload(part, torch.device("cpu"))
    return pipe


@pytest.mark.parametrize("how", ["model", "sequential"])
def test_images_are_the_same_when_models_are_offloaded(fresh: Fresh, how: str) -> None:
    arguments = {**prompted("sd", ["cat"], 2), "output_type": "pt"}
    shield = shield_from_images(
        fresh("sd"),
        torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0)),
        radius=1.0,
    )
    methods = (CADS(), SPARKE(strength=0.3), SPELL())
    stores: dict[str, Any] = {"shield": shield, "on_violation": "move"}
    expected = guide(fresh("sd"), *methods, memory=Memory(), **stores)
    guided = guide(fresh("sd"), *methods, memory=Memory(), **stores)
    offloaded(guided.pipe, how)
    assert torch.equal(drawn(guided, arguments), drawn(expected, arguments))
    assert guided.report is not None
    assert expected.report is not None
    assert [i.certificate for i in guided.report.images] == [
        i.certificate for i in expected.report.images
    ]
    assert [i.certificate.decoded is not None for i in guided.report.images if i.certificate] == [
        True,
        True,
    ]


def test_no_other_model_runs_between_the_steps_when_latents_are_guided(fresh: Fresh) -> None:
    """Each model that runs sends the one before it away, so the denoiser would have to come back at
    each step.
    """
    pipe, ran = fresh("sd"), []
    shield = shield_from_images(pipe, torch.zeros(1, 3, 16, 16), radius=1.0)
    memory = Memory()
    guided = guide(
        pipe,
        CADS(),
        SPARKE(strength=0.3),
        SPELL(memory=True),
        memory=memory,
        shield=shield,
        on_violation="move",
    )
    drawn(guided, prompted("sd", ["cat"], 2))
    offloaded(pipe, "model")
    for name in ("text_encoder", "unet", "vae"):
        hook = getattr(pipe, name)._hf_hook
        hook.pre_forward = noted(hook.pre_forward, name, ran)
    drawn(guided, {**prompted("sd", ["cat"], 2), "output_type": "pt"})
    assert ran[: ran.index("unet")] == ["text_encoder"] * ran.index("unet")
    assert ran[ran.index("unet") :][:4] == ["unet"] * 4
    assert set(ran[ran.index("unet") + 4 :]) == {"vae"}


def noted(own: Any, name: str, ran: list[str]) -> Any:
    def pre_forward(*args: Any, **kwargs: Any) -> Any:
        ran.append(name)
        return own(*args, **kwargs)

    return pre_forward


def test_images_are_encoded_where_the_autoencoder_runs_when_its_weights_are_elsewhere(
    fresh: Fresh,
) -> None:
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    pipe = fresh("sd")
    expected = encode_images(pipe, images)
    assert torch.equal(encode_images(offloaded(pipe, "sequential"), images), expected)


def test_autoencoder_is_sent_away_again_when_images_were_encoded(fresh: Fresh) -> None:
    pipe = offloaded(fresh("sd"), "model")
    before = pipe.vae._hf_hook
    encode_images(pipe, torch.zeros(1, 3, 16, 16))
    assert (
        pipe.vae._hf_hook is not before
    )  # as at the end of each call, all models are sent away and hooked anew


def test_error_says_in_which_order_when_weights_are_not_in_memory(fresh: Fresh) -> None:
    with pytest.raises(
        UnsupportedError,
        match=r"call guide\(pipe, …\) first and pipe.enable_sequential_cpu_offload\(\) after it",
    ):
        guide(offloaded(fresh("sd"), "sequential"))


@pytest.fixture(scope="session")
def loras(folders: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two LoRAs: `unet`, and `both` with one of the text encoder besides."""
    folder = tmp_path_factory.mktemp("loras")
    config = {"r": 2, "lora_alpha": 8, "init_lora_weights": False}
    with torch.random.fork_rng():
        torch.manual_seed(1)
        pipe = tiny.load(folders("sd"))
        pipe.unet.add_adapter(
            LoraConfig(**config, target_modules=["to_q", "to_k", "to_v", "to_out.0"])
        )
        pipe.text_encoder.add_adapter(LoraConfig(**config, target_modules=["q_proj", "v_proj"]))
    unet, text = (
        convert_state_dict_to_diffusers(get_peft_model_state_dict(part))
        for part in (pipe.unet, pipe.text_encoder)
    )
    type(pipe).save_lora_weights(folder / "unet", unet_lora_layers=unet)
    type(pipe).save_lora_weights(
        folder / "both", unet_lora_layers=unet, text_encoder_lora_layers=text
    )
    return folder


@pytest.mark.parametrize("name", ["unet", "both"])
def test_images_are_bit_identical_when_nothing_is_corrected_and_a_lora_is_loaded(
    fresh: Fresh, loras: Path, name: str
) -> None:
    pipe, arguments = fresh("sd"), prompted("sd", ["cat"], 2)
    without = drawn(pipe, arguments)
    pipe.load_lora_weights(loras / name)
    plain = drawn(pipe, arguments)
    assert torch.equal(drawn(guide(pipe, SPARKE(strength=0.0), memory=Memory()), arguments), plain)
    assert not torch.allclose(plain, without, atol=1e-2)
    assert not torch.allclose(drawn(guide(pipe, SPARKE(strength=0.3)), arguments), plain, atol=1e-2)
    assert not torch.allclose(drawn(guide(pipe, CADS()), arguments), plain, atol=1e-2)


def test_memory_goes_on_when_a_lora_of_the_denoiser_is_loaded(fresh: Fresh, loras: Path) -> None:
    pipe, arguments, memory = fresh("sd"), prompted("sd", ["cat"], 2), Memory()
    names = latent_model(pipe), prompt_model(pipe)
    guided = guide(pipe, SPARKE(strength=0.3), memory=memory)
    drawn(guided, arguments)
    pipe.load_lora_weights(loras / "unet")
    assert (latent_model(pipe), prompt_model(pipe)) == names
    drawn(guided, arguments)
    assert len(memory) == 4
    assert len(memory.spaces()) == 1
    pipe.fuse_lora()
    assert (latent_model(pipe), prompt_model(pipe)) == names


def test_memory_is_another_when_a_lora_changes_the_text_encoder(fresh: Fresh, loras: Path) -> None:
    pipe, arguments, memory = fresh("sd"), prompted("sd", ["cat"], 2), Memory()
    guided = guide(pipe, SPARKE(strength=0.3), memory=memory)
    drawn(guided, arguments)
    pipe.load_lora_weights(loras / "both")
    with pytest.raises(StoreError, match="holds samples of another model"):
        drawn(guided, arguments)
    assert len(memory) == 2
    pipe.unload_lora_weights()
    drawn(guided, arguments)
    assert len(memory) == 4


def _negated(pipe: Any) -> None:
    pipe.text_encoder.load_state_dict(
        {name: -value for name, value in pipe.text_encoder.state_dict().items()}
    )


def _grown(pipe: Any) -> None:
    embedding = {"<me>": torch.ones(pipe.text_encoder.config.hidden_size)}
    pipe.load_textual_inversion(embedding, token="<me>")


def _nudged(pipe: Any) -> None:
    list(pipe.text_encoder.parameters())[-1].data.add_(1e-3)


def _scaled(pipe: Any) -> None:
    with torch.no_grad():
        pipe.text_encoder.get_input_embeddings().weight[5].mul_(1.5)


def _vae(pipe: Any) -> None:
    with torch.no_grad():
        pipe.vae.encoder.conv_in.weight.mul_(1.01)


@pytest.mark.parametrize("change", [_negated, _grown, _nudged, _scaled, _vae])
def test_memory_is_not_mixed_when_weights_change_in_place(
    fresh: Fresh, change: Callable[[Any], None]
) -> None:
    pipe, arguments, memory = fresh("sd"), prompted("sd", ["cat"], 2), Memory()
    guided = guide(pipe, SPARKE(strength=0.3), memory=memory)
    drawn(guided, arguments)
    before = {key: value.clone() for key, value in pipe.text_encoder.state_dict().items()}
    change(pipe)
    for _ in range(2):
        with pytest.raises(StoreError, match=r"samples of another model|changed in place"):
            drawn(guided, arguments)
    assert len(memory) == 2
    guided.memory = Memory()
    drawn(guided, arguments)
    drawn(guided, arguments)
    assert len(guided.memory) == 4
    if change in (_nudged, _scaled, _negated):
        pipe.text_encoder.load_state_dict(before)
        if change is _negated:  # which the name tells
            guided.memory = memory
            drawn(guided, arguments)
            assert len(memory) == 4


def test_shield_is_refused_when_the_autoencoder_changes_in_place(fresh: Fresh) -> None:
    pipe, arguments = fresh("sd"), prompted("sd", ["cat"], 2)
    shield = shield_from_images(pipe, torch.zeros(1, 3, 16, 16), radius=1e-3)
    guided = guide(pipe, shield=shield)
    drawn(guided, arguments)
    _nudged(pipe)  # of which a shield of latents does not depend
    drawn(guided, arguments)
    _vae(pipe)
    with pytest.raises(StoreError, match="the weights of vae were changed in place"):
        drawn(guided, arguments)


def test_weights_are_the_same_when_they_move_or_lose_precision(fresh: Fresh) -> None:
    encoder = fresh("sd").text_encoder
    weights = Weights.of(encoder)
    assert weights is not None
    encoder.load_state_dict(encoder.state_dict())
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        again = Weights.of(encoder.to(dtype))
        assert again is not None
        assert again.same_as(weights)
    assert Weights.of(encoder.to("meta")) is None


@pytest.fixture
def compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def compiled(pipe: Any, how: str, name: str) -> Any:
    """The pipeline, its denoiser compiled as one graph."""
    if how == "wrapped":
        setattr(pipe, name, torch.compile(getattr(pipe, name), backend="eager", fullgraph=True))
    else:
        getattr(pipe, name).compile(backend="aot_eager", fullgraph=True)
    return pipe


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize("how", ["wrapped", "in place"])
def test_images_are_the_same_when_the_denoiser_is_compiled(fresh: Fresh, how: str) -> None:
    plain, pipe, arguments = (
        fresh("sd3"),
        compiled(fresh("sd3"), how, "transformer"),
        prompted("sd3", ["cat", "dog"], 1),
    )
    kinds: list[tuple[Method, ...]] = [
        (),
        (CADS(noise_scale=1.0),),
        (SPARKE(strength=0.3),),
        (NEVER,),
        (),
    ]  # first without hooks and last
    images = []
    for methods in kinds:
        images.append(drawn(guide(pipe, *methods), arguments))
        torch.testing.assert_close(
            images[-1], drawn(guide(plain, *methods), arguments), atol=1e-4, rtol=1e-4
        )
    assert all(not torch.allclose(images[0], other, atol=1e-2) for other in images[1:-1])
    assert torch.equal(images[0], images[-1])


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize("how", ["wrapped", "in place"])
def test_classes_are_refused_to_be_annealed_when_the_denoiser_is_compiled(
    fresh: Fresh, how: str
) -> None:
    plain, pipe, arguments = (
        fresh("dit"),
        compiled(fresh("dit"), how, "transformer"),
        prompted("dit", ["cat", "dog"], 1),
    )
    for methods in ((), (SPARKE(strength=0.3),), (NEVER,)):
        torch.testing.assert_close(
            drawn(guide(pipe, *methods), arguments),
            drawn(guide(plain, *methods), arguments),
            atol=1e-4,
            rtol=1e-4,
        )
    with pytest.raises(
        UnsupportedError, match="CADS: DiTPipeline embeds its classes inside of a compiled model"
    ):
        drawn(guide(pipe, CADS()), arguments)


def test_hooks_of_a_compiled_denoiser_are_gone_when_a_call_has_failed(fresh: Fresh) -> None:
    pipe = compiled(fresh("sd"), "in place", "unet")
    before = pipe.unet._compiled_call_impl
    with pytest.raises(ValueError, match="divisible by 8"):
        guide(pipe, CADS())(**{**prompted("sd", ["cat"], 1), "height": 17})
    assert pipe.unet._compiled_call_impl is before

"""Certificates, memory and `guided.latents` are of the latents that are decoded or returned."""

import copy
from collections.abc import Callable
from typing import Any, ClassVar

import diffusers
import pytest
import torch
from diffusers.callbacks import PipelineCallback
from tests import tiny
from tests.attach.conftest import prompted, seeded
from tests.hosts.videos import wan
from torch import Tensor

from unalike.attach import guide
from unalike.attach.diffusers.vae import scaled
from unalike.attach.spaces import latent_model, latent_space
from unalike.errors import RefusedError, UnsupportedError
from unalike.memory import Memory
from unalike.shields import Shield

pytestmark = pytest.mark.filterwarnings(
    "ignore:__array_:DeprecationWarning", "ignore:.*deprecated:FutureWarning"
)

Pipelines = Callable[[str], Any]
Callback: Any = PipelineCallback
Unconditional: Any = diffusers.DDIMPipeline
TextToImage: Any = diffusers.StableDiffusionPipeline
STEPS = 3
SIZE = {"height": 16, "width": 16}
IMAGE = torch.linspace(0, 1, 16).expand(1, 3, 16, 16).clone()
MASK = torch.zeros(1, 1, 16, 16)
MASK[..., 8:] = 1


def soften(at: int) -> Callable[..., dict[str, Any]]:
    """A callback that pulls the latents together after step `at`."""

    def callback(pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        return {"latents": tensors["latents"] * 0.5} if step == at else {}

    return callback


def soften_in_place(pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
    """The same after the last step, written into the latents that the callback is given."""
    if step == STEPS - 1:
        tensors["latents"].mul_(0.5)
    return {}


class Softening(Callback):
    """The same as an object of diffusers."""

    tensor_inputs: ClassVar = ["latents"]

    def __init__(self) -> None:
        super().__init__(cutoff_step_ratio=None, cutoff_step_index=STEPS - 1)

    def callback_fn(
        self, pipeline: Any, step_index: int, timestep: Any, callback_kwargs: dict[str, Any]
    ) -> dict[str, Any]:
        return soften(STEPS - 1)(pipeline, step_index, timestep, callback_kwargs)


def decoded(pipe: Any, call: Callable[[], Any]) -> Tensor:
    """What the call gives the pipeline's decoder, as its scheduler has it; the class is watched, so
    that whatever is done to the object does not matter.
    """
    seen, own = [], type(pipe.vae).decode

    def decode(self: Any, z: Tensor, *args: Any, **kwargs: Any) -> Any:
        seen.append(z.detach().clone())
        return own(self, z, *args, **kwargs)

    type(pipe.vae).decode = decode
    try:
        call()
    finally:
        type(pipe.vae).decode = own
    z = scaled(pipe, seen[0])  # what is decoded later measures the finished images
    return pipe._pack_latents(z, *z.shape) if hasattr(pipe, "_pack_latents") else z


def shield_at(pipe: Any, latents: Tensor, radius: float) -> Shield:
    space = latent_space(latent_model(pipe), tuple(latents.shape[1:]))
    return Shield(latents.float(), space=space, radius=radius)


def require_honest(pipe: Any, arguments: dict[str, Any], radius: float = 1.0) -> None:
    """A shield around what the call ends in without guidance: it is found, moved out and
    remembered.
    """
    plain = decoded(pipe, lambda: pipe(**arguments, generator=seeded(1)))
    memory = Memory()
    free = guide(pipe, memory=memory)
    same = decoded(pipe, lambda: free(**arguments, generator=seeded(1)))
    assert torch.equal(same, plain)
    assert free.latents is not None
    torch.testing.assert_close(free.latents, plain, atol=1e-4, rtol=1e-5)
    view = memory.view(next(iter(memory.spaces())))
    assert view is not None
    assert torch.equal(view.latents, free.latents.flatten(1))

    guided = guide(
        pipe, on_violation="move", shield=shield_at(pipe, plain, radius), memory=Memory()
    )
    moved = decoded(pipe, lambda: guided(**arguments, generator=seeded(1)))
    distance = float((moved - plain).double().norm())
    assert distance >= radius * (1 - 1e-5)
    assert guided.report is not None
    certificate = guided.report.images[0].certificate
    assert certificate is not None
    assert certificate.moved
    assert certificate.distance == pytest.approx(distance, rel=1e-4)
    assert guided.latents is not None
    torch.testing.assert_close(guided.latents, moved, atol=1e-4, rtol=1e-5)

    with pytest.raises(RefusedError) as caught:
        guide(pipe, shield=shield_at(pipe, plain, radius), on_violation="refuse")(
            **arguments, generator=seeded(1)
        )
    assert caught.value.refused == [0]


def call(name: str, **more: Any) -> dict[str, Any]:
    common = prompted(name, ["cat"], 1)
    return {**common, "num_inference_steps": STEPS, "output_type": "pt", **more}


@pytest.mark.parametrize("name", ["sd", "sdxl", "sd3", "flux"])
@pytest.mark.parametrize(
    "callback",
    [soften(STEPS - 1), soften(0), soften_in_place, Softening()],
    ids=["last", "first", "in place", "object"],
)
def test_certificate_is_of_what_is_decoded_when_a_callback_edits_it(
    pipelines: Pipelines, name: str, callback: Any
) -> None:
    require_honest(pipelines(name), call(name, callback_on_step_end=callback))


def test_certificate_is_right_when_a_callback_writes_into_latents_that_were_moved_out(
    sd: Any,
) -> None:
    plain = sd(**{**call("sd"), "output_type": "latent"}, generator=seeded(1)).images

    def undo(step: int, timestep: Any, latents: Tensor) -> None:
        latents.copy_(plain)

    guided = guide(sd, on_violation="move", shield=shield_at(sd, plain, 1.0))
    arguments = call("sd", callback=undo, callback_steps=1)
    moved = decoded(sd, lambda: guided(**arguments, generator=seeded(1)))
    assert float((moved - plain).double().norm()) >= 1 - 1e-5
    assert guided.latents is not None
    torch.testing.assert_close(guided.latents, moved, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("output_type", ["latent", "pil", "np"])
def test_certificate_is_right_when_the_output_is_of_any_type(sd: Any, output_type: str) -> None:
    arguments = call("sd", callback_on_step_end=soften(STEPS - 1))
    latent = {**arguments, "output_type": "latent"}
    plain = sd(**latent, generator=seeded(1)).images
    guided = guide(sd, on_violation="move", shield=shield_at(sd, plain, 1.0))
    for as_tuple in (False, True):
        asked = {**arguments, "output_type": output_type, "return_dict": not as_tuple}
        out = guided(**asked, generator=seeded(1))
        assert isinstance(out, tuple) is as_tuple
        assert guided.latents is not None
        assert float((guided.latents - plain).double().norm()) >= 1 - 1e-6
        if output_type == "latent":
            assert torch.equal(out[0], guided.latents)


def test_only_the_edited_image_is_moved_when_the_autoencoder_decodes_slices(sd: Any) -> None:
    def edit(pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        if step < STEPS - 1:
            return {}
        latents = tensors["latents"].clone()
        latents[1] *= 0.5
        return {"latents": latents}

    arguments = {**prompted("sd", ["cat"], 3), "num_inference_steps": STEPS}
    arguments |= {"callback_on_step_end": edit}
    plain = sd(**arguments, generator=seeded(3)).images
    sd.vae.enable_slicing()
    try:
        guided = guide(sd, on_violation="move", shield=shield_at(sd, plain[1:2], 1.0))
        z = decoded(sd, lambda: guided(**{**arguments, "output_type": "pt"}, generator=seeded(3)))
    finally:
        sd.vae.disable_slicing()
    assert guided.report is not None
    found = [image.certificate for image in guided.report.images]
    assert [c.moved for c in found if c] == [False, True, False]
    torch.testing.assert_close(z[[0, 2]], plain[[0, 2]], atol=1e-5, rtol=1e-5)
    assert float((z[1] - plain[1]).double().norm()) >= 1 - 1e-5


def test_shield_is_refused_when_a_callback_adds_images_to_those_of_the_call(sd: Any) -> None:
    def add(pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        latents = tensors["latents"]
        return {"latents": torch.cat([latents, 0 * latents])} if step == STEPS - 1 else {}

    guided = guide(sd, on_violation="move", shield=shield_at(sd, torch.zeros(1, 4, 8, 8), 1.0))
    arguments = call("sd", output_type="latent", callback_on_step_end=add)
    with pytest.raises(UnsupportedError, match="cannot be read"):
        guided(**arguments, generator=seeded(1))


def test_preview_of_a_callback_is_not_taken_for_the_result(sd: Any) -> None:
    def preview(pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        pipe.vae.decode(tensors["latents"][:1] * 7, return_dict=False)
        return {}

    arguments = call("sd")
    guided = guide(sd, memory=Memory())
    images = guided(**arguments, callback_on_step_end=preview, generator=seeded(1)).images
    assert torch.equal(images, sd(**arguments, generator=seeded(1)).images)
    assert guided.latents is not None
    plain = sd(**{**arguments, "output_type": "latent"}, generator=seeded(1)).images
    assert torch.equal(guided.latents, plain)


def test_certificate_is_right_when_an_old_callback_writes_into_the_latents(sd: Any) -> None:
    pipe = diffusers.StableDiffusionDiffEditPipeline(
        **{k: v for k, v in sd.components.items() if k != "image_encoder"},
        inverse_scheduler=diffusers.DDIMInverseScheduler(),  # type: ignore[arg-type]
        requires_safety_checker=False,
    )
    pipe.set_progress_bar_config(disable=True)

    def halve(step: int, timestep: Any, latents: Tensor) -> None:
        latents *= 0.9

    start = torch.randn(1, STEPS, 4, 8, 8, generator=seeded(1)[0])
    arguments = {
        "prompt": "cat",
        "mask_image": MASK[:, :, ::2, ::2].clone(),
        "image_latents": start,
        "inpaint_strength": 1.0,
        "num_inference_steps": STEPS,
        "output_type": "pt",
    }
    require_honest(pipe, arguments)
    require_honest(pipe, {**arguments, "callback": halve})


def inpainting(pipelines: Pipelines, name: str) -> Any:
    """An inpainting pipeline of the models of an ordinary one."""
    kinds = {
        "sd": diffusers.StableDiffusionInpaintPipeline,
        "sdxl": diffusers.StableDiffusionXLInpaintPipeline,
        "sd3": diffusers.StableDiffusion3InpaintPipeline,
        "flux": diffusers.FluxInpaintPipeline,
    }
    more: dict[str, Any] = {"requires_safety_checker": False} if name == "sd" else {}
    parts = pipelines(name).components
    if name == "sd3":  # the class demands 16 channels
        with torch.random.fork_rng():
            torch.manual_seed(0)
            parts["vae"] = tiny.vae(16, shift_factor=0.06, scaling_factor=1.5)
            config = {**parts["transformer"].config, "in_channels": 16, "out_channels": 16}
            parts["transformer"] = diffusers.SD3Transformer2DModel.from_config(config)
    pipe = kinds[name](**parts, **more)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.mark.parametrize("name", ["sd", "sdxl", "sd3", "flux"])
def test_certificate_is_of_the_pasted_latents_when_inpainting(
    pipelines: Pipelines, name: str
) -> None:
    class Renamed(type(inpainting(pipelines, name))):  # a class name is never the test
        pass

    pipe = inpainting(pipelines, name)
    arguments = call(name, image=IMAGE, mask_image=MASK, strength=1.0)
    require_honest(pipe, arguments)
    pipe.__class__ = Renamed
    require_honest(pipe, arguments)


def test_certificate_is_right_when_the_unet_sees_the_mask(sd: Any) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        unet = tiny.unet(cross_attention_dim=16, attention_head_dim=4)
        config = {**unet.config, "in_channels": 9}
        unet = diffusers.UNet2DConditionModel.from_config(config)
    components = {**sd.components, "unet": unet}
    pipe = diffusers.StableDiffusionInpaintPipeline(**components, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    require_honest(pipe, call("sd", image=IMAGE, mask_image=MASK, strength=1.0))


def test_shield_is_refused_when_finished_images_are_pasted_together(sd: Any) -> None:
    pipe = diffusers.StableDiffusionInpaintPipeline(**sd.components, requires_safety_checker=False)
    guided = guide(pipe, on_violation="move", shield=shield_at(sd, torch.zeros(1, 4, 8, 8), 1.0))
    with pytest.raises(UnsupportedError, match="padding_mask_crop pastes"):
        guided(**call("sd", image=IMAGE, mask_image=MASK, padding_mask_crop=2))


def test_shield_is_refused_before_the_first_step_when_the_call_ends_before_the_last(
    pipelines: Pipelines,
) -> None:
    asked: list[Any] = []

    def note(pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        asked.append(step)
        return {}

    pipe = pipelines("sdxl")
    guided = guide(pipe, on_violation="move", shield=shield_at(pipe, torch.zeros(1, 4, 8, 8), 1.0))
    arguments = call("sdxl", denoising_end=0.5, callback_on_step_end=note)
    with pytest.raises(UnsupportedError, match=r"denoising_end is 0\.5, so the call ends before"):
        guided(**arguments, generator=seeded(1))
    assert not asked


def image_to_video(tmp_path: Any) -> Any:
    """Wan 2.2's small model, which is given the first frame, and pastes it after the last step."""
    from diffusers import FlowMatchEulerDiscreteScheduler, WanImageToVideoPipeline

    with torch.random.fork_rng():
        torch.manual_seed(0)
        parts = wan(tmp_path).components
    parts["scheduler"] = FlowMatchEulerDiscreteScheduler(shift=3.0)
    parts = {k: v for k, v in parts.items() if k != "transformer_2"}
    pipe = WanImageToVideoPipeline(**parts, expand_timesteps=True)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.mark.parametrize("output_type", ["latent", "pt"])
def test_certificate_is_right_when_a_video_gets_its_first_frame_at_the_end(
    tmp_path: Any, output_type: str
) -> None:
    pipe = image_to_video(tmp_path)
    arguments = {
        "image": IMAGE,
        "prompt_embeds": torch.ones(1, 12, 32),
        "negative_prompt_embeds": torch.zeros(1, 12, 32),
        "num_frames": 5,
        "num_inference_steps": STEPS,
        "output_type": output_type,
        **SIZE,
    }
    if output_type == "pt":
        require_honest(pipe, arguments)
        return
    plain = pipe(**arguments, generator=seeded(1)).frames
    guided = guide(pipe, on_violation="move", shield=shield_at(pipe, plain, 1.0))
    frames = guided(**arguments, generator=seeded(1)).frames
    assert guided.latents is not None
    assert torch.equal(frames, guided.latents)
    assert float((frames - plain).double().norm()) >= 1 - 1e-6


def test_images_without_an_autoencoder_are_read_when_something_changed_them(
    pixel_pipe: Any,
) -> None:
    class Inverted(Unconditional):
        def __call__(self, **arguments: Any) -> Any:
            out = super().__call__(**arguments)
            return type(out)(images=1 - out.images)

    plain = pixel_pipe(num_inference_steps=2, output_type="np", generator=seeded(1)[0]).images
    pipe = Inverted(unet=pixel_pipe.unet, scheduler=copy.deepcopy(pixel_pipe.scheduler))
    pipe.set_progress_bar_config(disable=True)
    inverted = torch.as_tensor(1 - plain).permute(0, 3, 1, 2) * 2 - 1
    guided = guide(pipe, on_violation="move", shield=shield_at(pipe, inverted, 0.5))
    with pytest.raises(RefusedError):
        guided(num_inference_steps=2, output_type="np", generator=seeded(1)[0])
    assert guided.report is not None
    certificate = guided.report.images[0].certificate
    assert certificate is not None
    assert certificate.distance == pytest.approx(0, abs=1e-4)


def test_call_is_refused_before_decoding_when_the_latents_cannot_be_read(sd: Any) -> None:
    class Odd(TextToImage):
        def __call__(self, **arguments: Any) -> Any:
            latents = super().__call__(**{**arguments, "output_type": "latent"}).images
            return self.vae.decode(latents.flatten(0, 0)[:, :, :4] ** 3, return_dict=False)

    pipe = Odd(**sd.components, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    stores: list[dict[str, Any]] = [
        {"memory": Memory()},
        {"shield": shield_at(sd, torch.ones(1, 4, 8, 8), 1.0), "on_violation": "move"},
    ]
    for store in stores:
        with pytest.raises(UnsupportedError, match="cannot be read"):
            guide(pipe, **store)(prompt="cat", num_inference_steps=2, generator=seeded(1)[0])
    guided = guide(pipe)
    guided(prompt="cat", num_inference_steps=2, generator=seeded(1)[0])
    assert guided.latents is None
    assert guided.report is not None
    assert guided.report.finished

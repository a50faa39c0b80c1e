"""Answer every question about a diffusers pipeline in one place."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from unalike.errors import Option, OptionError, UnsupportedError, named

_AUTOENCODERS = ("vae", "vqvae", "vqgan", "movq")
_DENOISERS = ("unet", "transformer", "transformer_2")
_TEXT_ENCODERS = ("text_encoder", "text_encoder_2", "text_encoder_3")
_FACTORS = (
    "vae_scale_factor",
    "vae_scale_factor_spatial",
    "vae_spatial_scale_factor",
    "vae_spatial_compression_ratio",
    "movq_scale_factor",
)
_PACKING = ["latents", "batch_size", "num_channels_latents", "height", "width"]
_UNPACKING = ["latents", "height", "width", "vae_scale_factor"]


class Host:
    """A pipeline's call, models, latents and images, as the rest of the package asks for them.

    Nothing is kept but the pipeline, so that a host stays right when parts are exchanged.

    Args:
        pipe: a diffusers pipeline, or a stand-in of one.

    Example:
        >>> class Pipe:
        ...     def __call__(self, prompt, steps=4): ...
        >>> Host(Pipe()).parameters
        ['prompt', 'steps']
    """

    def __init__(self, pipe: Any) -> None:
        self.pipe = pipe

    def part(self, name: str) -> Any:
        """An attribute of the pipeline, such as a model or its scheduler; None where there is
        none.
        """
        return getattr(self.pipe, name, None)

    @property
    def name(self) -> str:
        """The name of the pipeline's class."""
        return type(self.pipe).__name__

    @property
    def components(self) -> dict[str, Any]:
        """Models, tokenizers, scheduler, by name."""
        return getattr(self.pipe, "components", {})

    # How it is called

    @property
    def call(self) -> Callable[..., Any]:
        """The call of the pipeline's class, with the pipeline as first argument.

        A class whose call is guided by itself, as those of `unalike.pipelines.guided`, has the call
        without as `unguided`.
        """
        kind = type(self.pipe)
        return getattr(kind, "unguided", kind.__call__)

    @property
    def parameters(self) -> list[str]:
        """The names of the arguments of the call."""
        return list(inspect.signature(self.call).parameters)[1:] + self.block_inputs

    @property
    def block_inputs(self) -> list[str]:
        """The arguments that a modular pipeline takes besides those of its signature."""
        return list(self.pipe.blocks.input_names) if self.is_modular else []

    @property
    def defaults(self) -> dict[str, Any]:
        """The arguments of the call that have a default."""
        parameters = inspect.signature(self.call).parameters.values()
        return {p.name: p.default for p in parameters if p.default is not p.empty}

    def named(self, args: Sequence[Any], kwargs: dict[str, Any]) -> dict[str, Any]:
        """The arguments of a call by name; TypeError, as from the call itself, for those that it
        has not.
        """
        arguments = inspect.signature(self.call).bind(self.pipe, *args, **kwargs).arguments
        return {
            name: value for name, value in list(arguments.items())[1:] if name != "kwargs"
        } | arguments.get("kwargs", {})

    @property
    def is_modular(self) -> bool:
        """Whether the pipeline is one of diffusers' modular ones."""
        return hasattr(self.pipe, "_blocks") and hasattr(self.pipe, "blocks")

    @property
    def draws_videos(self) -> bool:
        """Whether the call asks for a number of frames."""
        return not {"num_frames", "video_length"}.isdisjoint(self.parameters)

    @property
    def prompts_frames(self) -> bool:
        """Whether the frames of a video have prompts of their own, as with FreeNoise."""
        return bool(self.part("free_noise_enabled"))

    @property
    def makes_sound(self) -> bool:
        """Whether the call asks for the length of a sound."""
        return any(name.startswith("audio_") for name in self.parameters)

    @property
    def guider(self) -> tuple[str, float | None] | None:
        """The kind and the scale of a modular pipeline's guider, which takes no scale as an
        argument.
        """
        guider = self.part("guider")
        return None if guider is None else (type(guider).__name__, guider_scale(guider))

    # Its models

    @property
    def denoisers(self) -> dict[str, torch.nn.Module]:
        """The networks that predict, by name: one, or two that take turns."""
        found = {name: self.part(name) for name in _DENOISERS}
        return {name: part for name, part in found.items() if isinstance(part, torch.nn.Module)}

    @property
    def autoencoder(self) -> tuple[str, Any]:
        """The name and the module of the autoencoder; "" and None where there is none."""
        for name in _AUTOENCODERS:
            module = self.components.get(name) or self.part(name)
            if module is not None:
                return name, module
        return "", None

    @property
    def text_encoders(self) -> list[str]:
        """The names of the text encoders of `encode_prompt`."""
        return [name for name in _TEXT_ENCODERS if isinstance(self.part(name), torch.nn.Module)]

    @property
    def own_text_encoder(self) -> str | None:
        """The text encoder that a pipeline without `encode_prompt` calls itself."""
        names = ("text_encoder", "bert")
        return next((n for n in names if isinstance(self.part(n), torch.nn.Module)), None)

    @property
    def prompt_parts(self) -> dict[str, Any]:
        """Everything that embeds prompts, by name."""
        return {
            name: part
            for name, part in self.components.items()
            if name.startswith("text_encoder") or name == "bert"
        }

    @property
    def token_sequences(self) -> list[list[str]]:
        """The text encoders whose tokens the denoiser is given, one after the other; those in one
        list share their places.
        """
        if self.part("unet") is not None:
            return [self.text_encoders]
        if hasattr(self.pipe, "tokenizer_3"):
            return [["text_encoder", "text_encoder_2"], ["text_encoder_3"]]
        return [["text_encoder_2" if hasattr(self.pipe, "tokenizer_2") else "text_encoder"]]

    @property
    def template_length(self) -> int:
        """The number of template tokens before the prompt that the denoiser is not given."""
        return getattr(self.pipe, "prompt_template_encode_start_idx", 0)

    @property
    def class_names(self) -> dict[str, int]:
        """The number of each class name of a class-conditional pipeline."""
        return self.part("labels") or {}

    @property
    def class_count(self) -> int:
        """The number of classes that the denoiser knows; 0 where that is not known."""
        return int(getattr(self.part("transformer"), "config", {}).get("num_embeds_ada_norm") or 0)

    @property
    def perturbs_attention(self) -> bool:
        """Whether the running call has a second block of the prompts, with perturbed attention."""
        return bool(getattr(self.pipe, "do_perturbed_attention_guidance", False))

    @property
    def upcasts(self) -> bool:
        """Whether the pipeline decodes in float32 what float16 would overflow in."""
        return hasattr(self.pipe, "upcast_vae")

    def free_models(self) -> None:
        """Lets models that are offloaded leave the device."""
        if hasattr(self.pipe, "maybe_free_model_hooks"):
            self.pipe.maybe_free_model_hooks()

    # Its latents and images

    @property
    def latent_scale(self) -> float:
        """The factor of the scheduler's latents over those of the autoencoder's own scaling.

        σ_data of SCM, else 1.
        """
        scheduler: Any = self.part("scheduler")
        scaled = any(kind.__name__ == "SCMScheduler" for kind in type(scheduler).__mro__)
        return float(scheduler.config.sigma_data) if scaled else 1.0

    @property
    def scale_factor(self) -> int | None:
        """The pixels of an image along the side of one latent cell.

        None where the pipeline does not tell.
        """
        known = next((value for name in _FACTORS if (value := self.part(name))), None)
        if known:
            return known
        vae = self.autoencoder[1]
        if vae is None:
            return 1 if self.latent_scale == 1 else None
        blocks = getattr(getattr(vae, "config", None), "block_out_channels", None)
        return 2 ** (len(blocks) - 1) if blocks else None

    @property
    def size_multiple(self) -> int:
        """What height and width of an image in pixels have to be multiples of."""
        config = getattr(self.processor, "config", None)
        multiple = int(getattr(config, "vae_scale_factor", None) or self.scale_factor or 1)
        patch = getattr(getattr(self.part("transformer"), "config", None), "patch_size", None)
        return math.lcm(
            multiple, (self.scale_factor or 1) * (patch if isinstance(patch, int) else 1)
        )

    @property
    def processor(self) -> Any:
        """The pipeline's image processor; None where it has none."""
        return self.part("image_processor")

    def image_size(self, asked: tuple[int, int] | None = None) -> tuple[int, int]:
        """Height and width in pixels that images are to have: those asked for, or the pipeline's
        own.

        Raises:
            OptionError: for a size that its autoencoder cannot encode as it is.
            UnsupportedError: where none is asked for and the pipeline does not tell.
        """
        if asked is not None:
            multiple = self.size_multiple
            if any(n < 1 or n % multiple for n in asked):
                raise OptionError(
                    named(
                        "{size} is {} {}; allowed: multiples of {} for height and width, as in {}",
                        *asked,
                        multiple,
                        Option("size", (512, 512)),
                    )
                )
            return asked
        denoiser = self.part("unet") or self.part("transformer")
        own = self.part("default_sample_size")
        sample = own or getattr(getattr(denoiser, "config", None), "sample_size", None)
        factor = self.scale_factor
        if sample is None or factor is None:
            raise UnsupportedError(
                named(
                    "{} does not say which size its images have; give height and width, as in {}",
                    self.name,
                    Option("size", (512, 512)),
                )
            )
        height, width = (sample, sample) if isinstance(sample, int) else sample
        return height * factor, width * factor

    def call_size(self, arguments: dict[str, Any]) -> tuple[int, int]:
        """Height and width in pixels of the images of a call: as it asks for, of the image that it
        starts from, or the pipeline's own.

        Args:
            arguments: of the call, by name.

        Raises:
            UnsupportedError: where neither the call nor the pipeline tells.
        """
        usual = [self.defaults.get(name) for name in ("height", "width")]
        height, width = (
            arguments.get(name) or (own if isinstance(own, int) else None)
            for name, own in zip(("height", "width"), usual, strict=True)
        )
        if height is not None and width is not None:
            return height, width
        asks = "height" in inspect.signature(self.call).parameters
        given = None if asks else _given_size(arguments.get("image"))
        own_height, own_width = self.image_size() if given is None else given
        return height or own_height, width or own_width

    def latent_size(self, size: tuple[int, int]) -> tuple[int, int] | None:
        """Height and width of the latents of images of this size in pixels; None where the pipeline
        does not tell.
        """
        factor = self.scale_factor
        return None if factor is None else (size[0] // factor, size[1] // factor)

    @property
    def packs(self) -> bool:
        """Whether latents are packed into tokens (B, S, C)."""
        return hasattr(self.pipe, "_pack_latents")

    @property
    def packs_as_images(self) -> bool:
        """Whether packed latents are those of images: (B, C, h, w) of two by two places a token, as
        Flux does.
        """
        return _parameters(self.part("_pack_latents")) == _PACKING

    @property
    def unpacks_as_images(self) -> bool:
        """Whether packed latents are unpacked by the size of the images alone."""
        return _parameters(self.part("_unpack_latents")) == _UNPACKING

    def packed_cells(self, size: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of the tokens of images of this size in pixels."""
        factor = 2 * self.pipe.vae_scale_factor
        return size[0] // factor, size[1] // factor

    def pack(self, latents: Tensor) -> Tensor:
        """Latents (B, C, h, w) as tokens (B, S, C)."""
        return self.pipe._pack_latents(latents, *latents.shape)

    def unpack(self, latents: Tensor, size: tuple[int, int]) -> Tensor:
        """Tokens (B, S, C) of images of this size in pixels as latents."""
        return self.pipe._unpack_latents(latents, *size, self.pipe.vae_scale_factor)


def guider_scale(guider: Any) -> float | None:
    """The guidance scale of a modular pipeline's guider; None where it has none."""
    return getattr(guider, "guidance_scale", None)


def _parameters(function: Any) -> list[str]:
    return [] if function is None else list(inspect.signature(function).parameters)


def _given_size(image: Any) -> tuple[int, int] | None:
    first: Any = image[0] if isinstance(image, list | tuple) and image else image
    if hasattr(first, "convert"):
        return first.height, first.width
    shape = tuple(getattr(first, "shape", ()))
    return (shape[-2], shape[-1]) if len(shape) >= 2 else None

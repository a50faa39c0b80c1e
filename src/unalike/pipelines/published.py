"""The arguments of the published SPARKE and SPALE pipelines, and the guidance method that they ask
for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from unalike.errors import OptionError, did_you_mean
from unalike.guidance.method import Method
from unalike.guidance.sparke import SPARKE
from unalike.guidance.vendi import VendiGuidance

CLIP = "openai/clip-vit-base-patch32"
CRITERIA = ("vscore_clip",)
ALGORITHMS = ("cond-rke", "rke", "cond-vendi", "vendi")
KERNELS = ("gaussian", "cosine")

_ELSEWHERE = {
    "F_M": "the pipeline keeps the memory itself: pipe.memory, pipe.reset_memory(), "
    "pipe.memory.save(file), pipe.open_memory(file)",
    "F_T": "the pipeline keeps the prompts of its memory itself: see pipe.memory",
    "F_M_real": "give the latents of the reference set as reference=",
    "F_T_real": "give the prompt embeddings of the reference set as reference_prompts=",
    "rke_guided_sampler": "its settings are arguments of the call: algorithm, kernel, "
    "sigma_image, sigma_text, max_bank_size",
    "return_kernels": "the stored latents and prompts are in pipe.memory",
    "region": "give it as regions_list=[region]",
    "logger_": "pipe.report says what was done",
    "contextual_weight": "it is called beta",
}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The guidance arguments of a call of a published pipeline.

    Every argument has the meaning that it has there.

    Args:
        criteria: "vscore_clip", the one that the published code has; None for the pipeline without
            guidance, which then remembers nothing.
        algorithm: the score that is ascended: "cond-rke" and "rke" (SPARKE with and without
            prompts), "cond-vendi" and "vendi".
        criteria_guidance_scale: size of a step as a share of the norm of the noisy latent, 0.02 to
            0.4.
        kernel: "gaussian" or "cosine", on images and prompts.
        sigma_image, sigma_text: bandwidths of the Gaussian kernel on vectors of length 1.
        guidance_freq: every how many steps, the first included.
        use_latents_for_guidance: whether images are compared by their latents; else by CLIP's
            embedding of the decoded prediction, with the gradient through both networks, which
            costs many times more.
        clip_for_guidance: the CLIP that embeds images then, and prompts: an extractor, a folder, or
            a hub id. None for "openai/clip-vit-base-patch32", the published one, where one is
            needed, and for the pipeline's own text encoder for prompts.
        prompt_encoder: what embeds prompts for the prompt kernel in its place: "clip" as published,
            or a function from N prompts to (N, p).
        regularize: whether the term that holds the norm of the latent is added to the score.
        regularize_weight: its weight, on the scale of a direction between unit vectors.
        regions_list: where the guidance acts: words, each of them a part of the image; or one box
            or mask. None or empty for everywhere.
        max_bank_size: how many earlier images are remembered; None for as many as the memory holds.
        beta: weight of a reference set: above 0 towards it (contextualised guidance, Askari Hemmat
            et al. 2024), below 0 away from it.
        reference: its latents (m, …).
        reference_prompts: embeddings (m, p) of its prompts, by the encoder of the call; None where
            it counts the same for every prompt.

    Raises:
        OptionError: for anything else, before a pipeline runs.

    Example:
        >>> Settings(algorithm="rke", criteria_guidance_scale=0.4).method().objective
        'rke'
        >>> Settings(sigma_image=0)
        Traceback (most recent call last):
            ...
        unalike.errors.OptionError: sigma_image is 0; allowed: a number above 0, as in ...
    """

    criteria: str | None = CRITERIA[0]
    algorithm: str = ALGORITHMS[0]
    criteria_guidance_scale: float = 0.03
    kernel: str = KERNELS[0]
    sigma_image: float = 0.6
    sigma_text: float = 0.3
    guidance_freq: int = 10
    use_latents_for_guidance: bool = True
    clip_for_guidance: Any = None
    prompt_encoder: Any = None
    regularize: bool = False
    regularize_weight: float = 1e-4
    regions_list: Sequence[Any] | None = None
    max_bank_size: int | None = None
    beta: float = 0.0
    reference: Tensor | None = None
    reference_prompts: Tensor | None = None

    def __post_init__(self) -> None:
        _require_one_of("algorithm", self.algorithm, ALGORITHMS)
        _require_one_of("kernel", self.kernel, KERNELS)
        if self.criteria is not None:
            _require_one_of("criteria", self.criteria, CRITERIA)
        _require_number(
            "criteria_guidance_scale", self.criteria_guidance_scale, low=0, example=0.03
        )
        _require_number("sigma_image", self.sigma_image, above=0, example=0.6)
        _require_number("sigma_text", self.sigma_text, above=0, example=0.3)
        _require_number("regularize_weight", self.regularize_weight, low=0, example=1e-4)
        _require_number("beta", self.beta, example=0.5)
        _require_number("guidance_freq", self.guidance_freq, low=1, example=10, whole=True)
        if self.max_bank_size is not None:
            _require_number("max_bank_size", self.max_bank_size, low=1, example=4000, whole=True)
        for name, usual in (("use_latents_for_guidance", True), ("regularize", False)):
            if not isinstance(getattr(self, name), bool):
                raise OptionError(
                    f"{name} is {getattr(self, name)!r}; allowed: True or False, as in "
                    f"{name}={usual}"
                )
        if (self.beta == 0) != (self.reference is None):
            given, missing = (
                ("beta", "reference") if self.reference is None else ("reference", "beta")
            )
            raise OptionError(
                f"{given} is given without {missing}, so it would do nothing; give both, as in "
                "reference=latents, beta=0.5, or neither"
            )
        self.region()

    @property
    def prompts_by_clip(self) -> bool:
        """Whether CLIP embeds the prompts."""
        return (
            self.prompt_encoder == "clip"
            if self.prompt_encoder is not None
            else self.clip_for_guidance is not None
        )

    @property
    def conditional(self) -> bool:
        """Whether prompts count."""
        return self.algorithm.startswith("cond-")

    def region(self) -> Any:
        """The region that the guidance acts on, as the methods take it; None for everywhere.

        Raises:
            OptionError: for a list of something else than words, or of several boxes or masks.
        """
        if self.regions_list is None or (
            isinstance(self.regions_list, list | tuple) and not self.regions_list
        ):
            return None
        if isinstance(self.regions_list, str):
            return [self.regions_list]
        regions = (
            list(self.regions_list)
            if isinstance(self.regions_list, list | tuple)
            else [self.regions_list]
        )
        if all(isinstance(region, str) for region in regions):
            return regions
        if len(regions) != 1:
            raise OptionError(
                f"regions_list has {len(regions)} entries that are not all words; allowed: words, "
                "as in ['face', 'hair'], or one box, or "
                "one mask"
            )
        return regions[0]

    def method(self, embed: Any = None) -> Method:
        """The guidance method: SPARKE, or Vendi guidance for the algorithms of that name.

        Args:
            embed: embeds images, where `use_latents_for_guidance` is False.

        Raises:
            OptionError: for what does not fit, such as a reference that is no tensor.
        """
        shared: dict[str, Any] = {
            "strength": self.criteria_guidance_scale,
            "kernel": self.kernel,
            "bandwidth": self.sigma_image,
            "prompt_bandwidth": self.sigma_text,
            "every": self.guidance_freq,
            "target": "x_t",
            "regularizer": self.regularize_weight if self.regularize else 0.0,
            "region": self.region(),
            "embed": embed,
            "reference": self.reference,
            "reference_prompts": self.reference_prompts,
            "reference_weight": -self.beta
            if self.reference is not None
            else 0.0,  # published: score - beta · score with the reference
        }
        if self.algorithm.endswith("vendi"):
            return VendiGuidance(conditional=self.conditional, **shared)
        return SPARKE(objective=self.algorithm, **shared)


def settings(arguments: dict[str, Any], defaults: Mapping[str, Any]) -> Settings:
    """The settings of a call: its guidance arguments, which are taken out of `arguments`, over a
    model's own defaults.

    Raises:
        OptionError: as `Settings`, and for arguments of the published code that have another place
            here.
    """
    for name, place in _ELSEWHERE.items():
        given = arguments.pop(name, None)
        if not (given is None or given is False):  # which ask for nothing
            raise OptionError(f"{name} is not taken here: {place}")
    own = {
        name: arguments.pop(name)
        for name in list(arguments)
        if name in Settings.__dataclass_fields__
    }
    return Settings(**{**defaults, **own})


def _require_one_of(name: str, value: Any, allowed: Sequence[str]) -> None:
    if value in allowed:
        return
    raise OptionError(
        f"{name} is {value!r}; {did_you_mean(value, allowed)}allowed: "
        f"{', '.join(map(repr, allowed))}, as in {name}={allowed[0]!r}"
    )


def _require_number(
    name: str,
    value: Any,
    *,
    low: float | None = None,
    above: float | None = None,
    example: float,
    whole: bool = False,
) -> None:
    kinds = int if whole else int | float
    fits = isinstance(value, kinds) and not isinstance(value, bool) and math.isfinite(value)
    if fits and (low is None or value >= low) and (above is None or value > above):
        return
    bound = (
        f" of at least {low:g}"
        if low is not None
        else f" above {above:g}"
        if above is not None
        else ""
    )
    raise OptionError(
        f"{name} is {value!r}; allowed: a {'whole ' if whole else ''}number{bound}, as in "
        f"{name}={example:g}"
    )

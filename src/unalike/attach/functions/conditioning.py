"""The conditions of a run as the caller states them, where no pipeline tells."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from unalike.attach.run import encoders
from unalike.attach.run.conditions import Conditions, encode_prompts, given_groups, grouped
from unalike.attach.run.encoders import PromptEncoder
from unalike.attach.spaces import prompt_model
from unalike.errors import OptionError
from unalike.kernels import unit_rows


class Conditioning:
    """Prompts, embeddings, groups and seeds of the images of a run.

    Args:
        prompts: a text for each image, or one for all of them.
        prompt_encoder: embeds the prompts; see `unalike.attach.run.encoders.prompt_encoder`.
        embeddings: (B, p) in place of an encoder.
        groups: a number for each image, equal for images of the same prompt; equal prompts, else
            equal embeddings, tell them unless given.
        seeds: a whole number for each image.
        doubled: whether the samples come twice, for classifier-free guidance.

    Attributes:
        images: how many images there are; None where nothing given tells.
        seeds: as given, or None.
        model: the name of what embeds the prompts, as a memory keeps it.

    Raises:
        OptionError: for arguments that do not fit each other.
    """

    def __init__(
        self,
        prompts: str | Sequence[str] | None = None,
        prompt_encoder: PromptEncoder | None = None,
        embeddings: Tensor | None = None,
        groups: Sequence[int] | Tensor | None = None,
        seeds: Sequence[int] | None = None,
        doubled: bool = False,
    ) -> None:
        self._encoder = encoders.prompt_encoder(prompt_encoder)
        _require_texts(prompts)
        _require_embeddings(embeddings)
        if self._encoder is not None and (prompts is None or embeddings is not None):
            reason = "prompts is None" if prompts is None else "embeddings are given too"
            raise OptionError(
                f"prompt_encoder is given and {reason}; "
                "pass prompts with an encoder, or embeddings alone"
            )
        self._texts = (
            [prompts] if isinstance(prompts, str) else None if prompts is None else list(prompts)
        )
        self._embeddings = (
            None if embeddings is None else unit_rows(embeddings.detach().float().cpu())
        )
        self._groups = given_groups(groups)
        self._one_for_all = isinstance(prompts, str)
        self._doubled = doubled
        self.seeds = None if seeds is None else [int(seed) for seed in seeds]
        self.model = "embeddings" if embeddings is not None else prompt_model(None, self._encoder)
        self.images = self._agreed()

    def conditions(self, sample: Tensor) -> Conditions:
        """The conditions of the images of `sample` (R, …).

        Raises:
            OptionError: where it has another number of images than what was given.
        """
        rows = len(sample)
        images = rows if self.images is None else self.images
        if self._doubled:
            images = rows // 2 if self.images is None else self.images
        if rows != images * (2 if self._doubled else 1):
            hint = (
                ""
                if self._doubled or rows != 2 * images
                else ", or doubled=True where the second half is that of classifier-free guidance"
            )
            twice = ", each twice," if self._doubled else ""
            raise OptionError(
                f"the sampler has a batch of {rows} and prompts, embeddings, groups or seeds are "
                "for "
                f"{images} images{twice}; give one for each image of the batch{hint}"
            )
        texts = (
            self._texts * images if self._texts is not None and self._one_for_all else self._texts
        )
        embeddings = self._embeddings
        if self._encoder is not None and texts is not None:
            embeddings = encode_prompts(self._encoder, texts)
        groups = grouped(images, self._groups, texts, embeddings)
        return Conditions(images, groups, texts, embeddings)

    def _agreed(self) -> int | None:
        texts = None if self._one_for_all else self._texts
        given = {
            "prompts": texts,
            "embeddings": self._embeddings,
            "groups": self._groups,
            "seeds": self.seeds,
        }
        sizes = {name: len(value) for name, value in given.items() if value is not None}
        if len(set(sizes.values())) > 1:
            listed = ", ".join(f"{size} {name}" for name, size in sizes.items())
            raise OptionError(
                f"there are {listed}; give one of each for each image, "
                "or one prompt as a str for all images"
            )
        return next(iter(sizes.values()), None)


def _require_texts(prompts: object) -> None:
    if prompts is None or isinstance(prompts, str):
        return
    if (
        not isinstance(prompts, list | tuple)
        or not prompts
        or not all(isinstance(text, str) for text in prompts)
    ):
        raise OptionError(
            f"prompts is {prompts!r}; allowed: a str for all images, or a list with one for each, "
            "as in prompts=['cat', 'dog']"
        )


def _require_embeddings(embeddings: object) -> None:
    if embeddings is None:
        return
    if (
        not isinstance(embeddings, Tensor)
        or embeddings.ndim != 2
        or not torch.isfinite(embeddings).all()
    ):
        got = (
            f"of shape {tuple(embeddings.shape)}"
            if isinstance(embeddings, Tensor)
            else f"a {type(embeddings).__name__}"
        )
        raise OptionError(
            f"embeddings is {got}; allowed: a finite tensor (B, p) with a row for each image, "
            "such as one-hot classes"
        )

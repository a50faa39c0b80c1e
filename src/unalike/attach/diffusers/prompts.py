"""Read the prompts of a running call: texts, embeddings and groups of its images."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import torch
from torch import Tensor

from unalike.attach.diffusers.host import Host
from unalike.attach.diffusers.modular import listen
from unalike.attach.diffusers.pooling import (
    first_part,
    parts,
    pooled,
    spread_rows,
    without_negative,
)
from unalike.attach.diffusers.rows import image_count
from unalike.attach.diffusers.scoped import own_model
from unalike.attach.diffusers.tokenizers import reads
from unalike.attach.run.conditions import Conditions, encode_prompts, given_groups, grouped, spread
from unalike.attach.run.encoders import Encoder
from unalike.errors import OptionError
from unalike.kernels import unit_rows


class Prompts:
    """Context manager that listens to `pipe.encode_prompt` during a call.

    The first tensor of the first call is the embedding of the positive prompts; a pipeline without
    that method has its text encoder heard instead, and the call with the token ids of the prompts
    is theirs. (R, L, p) is averaged over its L tokens, those of a mask only where the pipeline
    returns one, and scaled to norm 1. The average, and not the L · p numbers themselves, because
    its size does not depend on the padding and a memory of 10,000 prompts stays small. Little is
    lost: padding follows the prompt, has read all of it and summarises it, so that for CLIP-like
    encoders the cosines between prompts are close to those of the flattened tokens. Class labels
    become one-hot vectors. A `prompt_encoder` replaces all of that.

    Args:
        pipe: the pipeline of this call alone, from `own_pipeline`.
        arguments: the arguments of the call by name.
        encoder: embeds the texts instead of the pipeline's own encoder, or None.
        groups: one number for each image, equal for images of the same prompt, or None to group
            equal prompts.

    Attributes:
        padding: from the number of tokens of a prompt to those that are padding (P, L), bool, or
            None; set by `Padding` for methods that ask.
        positive: what the model is given for the positive prompts, as the pipeline encoded it: (R,
            …) embeddings, or (R,) class labels.
    """

    def __init__(
        self,
        pipe: Any,
        arguments: dict[str, Any],
        encoder: Encoder | None = None,
        groups: Sequence[int] | Tensor | None = None,
    ) -> None:
        self._pipe = pipe
        self._encoder = encoder
        self._groups = given_groups(groups)
        self._labels = _labels(arguments)
        self._keys: Sequence[Hashable] | None = self._labels
        self._texts = (
            _class_names(pipe, self._labels)
            if self._labels is not None
            else prompt_texts(arguments.get("prompt"))
        )
        self._each = next(
            (
                v
                for k, v in arguments.items()
                if k.startswith("num_") and k.endswith("_per_prompt") and v
            ),
            1,
        )
        self._rows: Tensor | None = None
        self.positive: Tensor | None = None if self._labels is None else torch.tensor(self._labels)
        if self._labels is None and self._texts is not None:
            self._keys = list(_keys(arguments, len(self._texts)))
        self._arguments = arguments
        self.padding: Callable[[int], Tensor | None] = lambda length: None
        self._others: list[Any] = []  # what else was encoded: negative prompts among it
        self._heard = False
        self._counted = True  # whether there is one embedding for each image

    def __enter__(self) -> Prompts:
        host = Host(self._pipe)
        own = host.part("encode_prompt")
        if self._labels is not None:
            return self
        if host.is_modular:
            listen(self._pipe, self._hear)
            return self
        if own is None:
            name = host.own_text_encoder
            if name is not None:
                encoder = own_model(self._pipe, name)
                encoder.register_forward_hook(self._overhear, with_kwargs=True)
                self.positive = arguments_embeds(self._arguments)
            return self

        @functools.wraps(own)
        def encode_prompt(*args: Any, **kwargs: Any) -> Any:
            bound = inspect.signature(own).bind(*args, **kwargs)
            bound.apply_defaults()
            arguments = bound.arguments
            texts = prompt_texts(
                arguments.get("prompt")
            )  # before the call: some pipelines write a template into the list
            keys = None if texts is None else list(_keys(arguments, len(texts)))
            encoded = own(*args, **kwargs)
            if self._heard or (texts is not None and self._is_negative(texts)):
                self._others += parts(encoded)
            else:
                self._heard = True
                if texts is not None:
                    self._texts, self._keys = texts, keys
                self._listen(arguments, encoded)
                if host.prompts_frames:
                    self._join_frames()
            return encoded

        self._pipe.encode_prompt = encode_prompt
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def _listen(self, arguments: dict[str, Any], encoded: Any) -> None:
        numbers = [
            v for k, v in arguments.items() if k.startswith("num_") and k.endswith("_per_prompt")
        ]
        self._counted = bool(numbers)
        if arguments.get("do_classifier_free_guidance"):
            given = arguments.get("prompt_embeds") if self._texts is None else self._texts
            count = 0 if given is None else len(given) * (numbers[0] if numbers else 1)
            both, encoded = encoded, without_negative(encoded, count)
            if both is not encoded:
                self._others.append(first_part(both)[:count])
        self._take(encoded)

    def _join_frames(self) -> None:
        """Count the prompts of a video's frames as one."""
        if self._texts is not None:
            self._texts = [", ".join(dict.fromkeys(self._texts))]
            self._keys = [tuple(self._texts)]
        if self._rows is not None:
            self._rows = self._rows.mean(dim=0, keepdim=True)

    def _is_negative(self, texts: list[str]) -> bool:
        negative = prompt_texts(self._arguments.get("negative_prompt"))
        return texts == negative and texts != self._texts

    def _hear(self, state: Any) -> None:
        """Takes what a modular pipeline has made of the prompts so far; in the end there is one
        embedding for each image.
        """
        embeddings, texts = state.get("prompt_embeds"), prompt_texts(state.get("prompt"))
        if texts is not None:
            self._texts, self._keys = texts, list(_keys(state.values, len(texts)))
        if embeddings is not None and embeddings is not self.positive:
            self._take((embeddings, state.get("prompt_embeds_mask")))
        negative = state.get("negative_prompt_embeds")
        if all(negative is not other for other in self._others):
            self._others.append(negative)

    def _take(self, encoded: Any) -> None:
        self.positive = first_part(encoded)
        self._others += [part for part in parts(encoded) if part is not self.positive]
        if self._encoder is None:
            self._rows = pooled(encoded, self._each)

    def _overhear(
        self, module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
    ) -> None:
        """Takes what a text encoder that the pipeline calls itself made of its prompts, which its
        token ids tell from negative ones.
        """
        ids = args[0] if args else kwargs.get("input_ids")
        if self.positive is None and reads(self._pipe, ids, self._texts):
            self._take([output[0]])
        else:
            self._others.append(output[0])

    @property
    def asked(self) -> int | None:
        """The number of images that the arguments ask for; None where they do not tell."""
        return self._known_images(0) or None

    @property
    def labelled(self) -> bool:
        """True where the prompts are class labels."""
        return self._labels is not None

    @property
    def others(self) -> list[Tensor]:
        """Encodings of anything besides the prompts, such as of the negative prompts."""
        return [other for other in self._others if isinstance(other, Tensor)]

    @property
    def negative_is_equal(self) -> bool:
        """True where the negative prompts have the embeddings of the prompts."""
        own = self.positive
        return isinstance(own, Tensor) and any(
            other.shape == own.shape and torch.equal(other, own) for other in self.others
        )

    def images(self, sample: Tensor, channels: int | None = None) -> int:
        """Count the images that the rows of `sample` (R, …) stand for.

        The rows have one block for each prompt that the model is given: a positive and a negative
        one for classifier-free guidance.

        Args:
            sample: a denoiser's or a scheduler's input.
            channels: see `image_count`.
        """
        rows = len(sample)
        return image_count(sample, self._known_images(rows), channels)

    def conditions(self, sample: Tensor) -> Conditions:
        """The conditions of the images of `sample` (R, …).

        The sample has each image twice where the batch is doubled.

        Raises:
            OptionError: when `groups` or the encoder's result does not fit the number of images.
            UnsupportedError: when the number of prompts and that of images do not go together.
        """
        images = self.images(sample)
        if self._groups is not None and len(self._groups) != images:
            raise OptionError(
                f"groups has {len(self._groups)} entries and this call makes {images} images; "
                "give one number for each image"
            )
        texts = None if self._texts is None else spread(self._texts, images, "prompts")
        embeddings = self._embeddings(images)
        keys = None if self._keys is None else spread(self._keys, images, "prompts")
        groups = grouped(images, self._groups, keys, embeddings)
        return Conditions(images, groups, texts, embeddings, self._padding(images))

    def _padding(self, images: int) -> Tensor | None:
        """The tokens of each image's prompt that are padding: (B, L) bool; None if unknown."""
        tokens = self.positive
        if not isinstance(tokens, Tensor) or tokens.ndim != 3:  # some pipelines have lists
            return None
        rows = self.padding(tokens.shape[1])
        return None if rows is None or images % len(rows) else spread_rows(rows, images)

    def _known_images(self, rows: int) -> int:
        for known in (
            self._groups,
            self._labels,
            self._rows if self._counted or self._texts is None else None,
        ):
            if known is not None:
                return len(known)
        return rows if self._texts is None else len(self._texts) * self._each

    def _embeddings(self, images: int) -> Tensor | None:
        if self._encoder is not None:
            if self._texts is None:
                raise OptionError(
                    "prompt_encoder needs prompts as text, and this call has none; "
                    "pass prompt=, or leave prompt_encoder out"
                )
            return encode_prompts(self._encoder, spread(self._texts, images, "prompts"))
        if self._labels is not None:
            count = 1 + max(Host(self._pipe).class_count, *self._labels)
            one_hot = torch.nn.functional.one_hot(torch.tensor(self._labels), count).float()
            return spread_rows(one_hot, images)
        return None if self._rows is None else unit_rows(spread_rows(self._rows, images))


def arguments_embeds(arguments: dict[str, Any]) -> Tensor | None:
    """The embeddings of the prompts that a call is given in place of texts."""
    given = arguments.get("prompt_embeds")
    return given if isinstance(given, Tensor) else None


def prompt_texts(prompt: Any) -> list[str] | None:
    """The prompts of an argument, one or a list of them; None where they are no texts."""
    if isinstance(prompt, str):
        return [prompt]
    if isinstance(prompt, list | tuple) and prompt and all(isinstance(p, str) for p in prompt):
        return list(prompt)
    return None


def _keys(arguments: dict[str, Any], count: int) -> zip[tuple[str, ...]]:
    """Keys that tell prompts apart: `prompt` with `prompt_2` and `prompt_3` where given."""
    columns = [prompt_texts(arguments.get(name)) for name in ("prompt", "prompt_2", "prompt_3")]
    full = [
        c * count if len(c) == 1 else c for c in columns if c is not None and len(c) in (1, count)
    ]
    return zip(*full, strict=True)


def _labels(arguments: dict[str, Any]) -> list[int] | None:
    labels = arguments.get("class_labels")
    if labels is None:
        return None
    return [
        int(i)
        for i in (
            labels.reshape(-1).tolist()
            if isinstance(labels, Tensor)
            else [labels]
            if isinstance(labels, int)
            else labels
        )
    ]


def _class_names(pipe: Any, labels: list[int]) -> list[str]:
    names = {index: name for name, index in reversed(Host(pipe).class_names.items())}
    return [str(names.get(label, label)) for label in labels]

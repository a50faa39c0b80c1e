"""Find the tokens of words in a prompt."""

from __future__ import annotations

import inspect
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unalike.attach.diffusers.host import Host
from unalike.attach.diffusers.prompts import prompt_texts
from unalike.attach.diffusers.scoped import original, own_model, own_pipeline
from unalike.attach.diffusers.tokenizers import own_tokenizers
from unalike.errors import OptionError, UnsupportedError

_PROMPTS = ("prompt", "prompt_2", "prompt_3")


@dataclass(frozen=True)
class Tokens:
    """The tokens that words are looked for among: those of `P` prompts, each of `L`, and which of
    them are the words'.

    Attributes:
        embeddings: (P, L, p), as the pipeline's text encoders make them.
        padded: (P, L) bool, which of them the model does not see; None where it sees all.
        words: for each word the numbers of its tokens in each prompt.
    """

    embeddings: Tensor
    padded: Tensor | None
    words: dict[str, list[list[int]]]

    @property
    def prompts(self) -> int:
        """P."""
        return self.embeddings.shape[0]

    @property
    def length(self) -> int:
        """L."""
        return self.embeddings.shape[1]


def word_tokens(
    pipe: Any, arguments: dict[str, Any], words: Sequence[str], *, append: bool
) -> Tokens:
    """The tokens of a call's prompts, encoded by the pipeline's own text encoders, and which of
    them belong to words.

    Case does not matter, and a word may be several ("red hair"). All of its occurrences count.
    Where the appended words are cut off, for the prompt fills the encoder's length, the words alone
    are encoded in the place of that prompt.

    Args:
        pipe: a diffusers pipeline.
        arguments: of the call, by name.
        words: that are looked for.
        append: whether words that are not in a prompt are appended to it here; the call itself is
            not changed.

    Raises:
        OptionError: without prompts as text, and for a word that a prompt has not.
        UnsupportedError: for a pipeline whose tokens cannot be told.

    Cost: the prompts are encoded once more.
    """
    names = ", ".join(map(repr, words))
    texts = {name: prompt_texts(arguments.get(name)) for name in _PROMPTS}
    prompts = texts["prompt"]
    if prompts is None:
        raise OptionError(
            f"region names the words {names}, and this call has no prompt as text; pass prompt=, "
            "or give a mask or a box"
        )
    asked = {
        name: [_with(words, text) for text in column] if append else column
        for name, column in texts.items()
        if column is not None
    }
    tokens = _tokens(pipe, arguments, words, asked)
    if append and any(
        not row for rows in tokens.words.values() for row in rows
    ):  # cut off where the encoder's length ends
        lost = [
            i for i in range(len(prompts)) if any(not rows[i] for rows in tokens.words.values())
        ]
        asked = {
            name: [_with(words, "") if i in lost else t for i, t in enumerate(column)]
            for name, column in asked.items()
        }
        tokens = _tokens(pipe, arguments, words, asked)
    for word, rows in tokens.words.items():
        for row, prompt in zip(rows, asked["prompt"], strict=True):
            if not row:
                own = ", ".join(re.findall(r"\w+", prompt)) or "none"
                raise OptionError(
                    f"region names the word {word!r}, which is not among the tokens of the prompt "
                    f"{prompt!r}; its words are {own}; name "
                    "one of them, or give a mask or a box"
                )
    return tokens


def _tokens(
    pipe: Any, arguments: dict[str, Any], words: Sequence[str], prompts: dict[str, list[str]]
) -> Tokens:
    """The tokens of prompts, with no numbers for the words that are not among them."""
    encoded, ids = _encoded(pipe, arguments, prompts)
    parts, count = (
        encoded if isinstance(encoded, list | tuple) else [encoded],
        len(prompts["prompt"]),
    )
    embeddings = parts[0]
    if not isinstance(embeddings, Tensor) or embeddings.ndim != 3 or len(embeddings) != count:
        raise UnsupportedError(
            f"{type(pipe).__name__} does not encode prompts into tokens (P, L, p); give a mask or "
            "a box as region"
        )
    padded = next(
        (
            p
            for p in parts[1:]
            if isinstance(p, Tensor)
            and p.shape == embeddings.shape[:2]
            and not p.is_floating_point()
        ),
        None,
    )
    found = {
        word: [_places(pipe, ids, row, word, embeddings.shape[1]) for row in range(count)]
        for word in words
    }
    return Tokens(embeddings, None if padded is None else padded == 0, found)


def _with(words: Sequence[str], prompt: str) -> str:
    return " ".join(
        [prompt, *(word for word in words if not _pattern(word).search(prompt))]
    ).strip()


def _pattern(word: str) -> re.Pattern[str]:
    """Finds a word in a text, whole, whatever its case and the space around its parts."""
    parts = re.findall(r"\w+|[^\w\s]", word)
    spaced = [unicodedata.east_asian_width(c) not in "WF" for c in (parts[0][0], parts[-1][-1])]
    before, after = (r"(?<!\w)" if spaced[0] else ""), (r"(?!\w)" if spaced[1] else "")
    return re.compile(before + r"\s*".join(map(re.escape, parts)) + after, re.IGNORECASE)


def _encoded(
    pipe: Any, arguments: dict[str, Any], prompts: dict[str, list[str]]
) -> tuple[Any, dict[str, Tensor]]:
    """Encode the positive prompts with `encode_prompt`, and note the ids that were read.

    Returns the encoding, and the ids (P, L) by text encoder.
    """
    own = own_pipeline(original(pipe))
    host = Host(own)
    encode = host.part("encode_prompt")
    if encode is None:
        raise UnsupportedError(
            f"{type(pipe).__name__} has no encode_prompt, so that words cannot be found; give a "
            "mask or a box as region"
        )
    accepted = inspect.signature(encode).parameters
    shared = {
        name: value
        for name, value in {**host.defaults, **arguments}.items()
        if name in accepted and _concerns_text(name)
    }
    columns = {name: prompts.get(name) for name in _PROMPTS if name in accepted}
    fixed = {
        "do_classifier_free_guidance": False,
        "num_images_per_prompt": 1,
        "device": host.part("_execution_device"),
    }
    ids: dict[str, Tensor] = {}

    def read(name: str) -> Any:
        def hook(module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            given = args[0] if args else kwargs.get("input_ids")
            if isinstance(given, Tensor):
                ids.setdefault(name, given.detach().cpu())

        return hook

    for name in host.text_encoders:
        own_model(own, name).register_forward_pre_hook(read(name), with_kwargs=True)
    with own_tokenizers(own), torch.no_grad():
        return encode(
            **{
                **shared,
                **columns,
                **{name: value for name, value in fixed.items() if name in accepted},
            }
        ), ids


def _concerns_text(name: str) -> bool:
    return (
        name not in _PROMPTS
        and not name.startswith(("negative", "num_", "do_"))
        and not name.endswith(("embeds", "mask"))
    )


def _places(pipe: Any, ids: dict[str, Tensor], row: int, word: str, length: int) -> list[int]:
    """The numbers of a word's tokens in the sequence of `length` tokens that the denoiser is given
    for prompt `row`.
    """
    host, found, begin = Host(pipe), set(), 0
    for names in host.token_sequences:
        read = {name: ids[name] for name in names if name in ids}
        for name, rows in read.items():
            dropped = max(
                0, begin + rows.shape[1] - length
            )  # of a template that stands before the prompt
            if len(rows) <= row or dropped != (host.template_length if dropped else 0):
                raise UnsupportedError(
                    f"{type(pipe).__name__} gives its denoiser {length} tokens of a prompt, which "
                    f"are not those that its {name} reads "
                    f"({rows.shape[1]}), so that words cannot be found; give a mask or a box as "
                    "region"
                )
            tokenizer = host.part(name.replace("text_encoder", "tokenizer"))
            found |= {
                begin + place - dropped
                for place in tokens_of(tokenizer, rows[row].tolist(), word)
                if place >= dropped
            }
        begin += max((rows.shape[1] for rows in read.values()), default=0)
    return sorted(found)


def tokens_of(tokenizer: Any, ids: Sequence[int], word: str) -> list[int]:
    """The numbers of the tokens that spell a word, at each of its occurrences, however a tokenizer
    cuts it.

    Args:
        tokenizer: of transformers.
        ids: of the tokens of a text, special ones and padding included.
        word: that is looked for.
    """
    special = set(tokenizer.all_special_ids)
    kept = [place for place, token in enumerate(ids) if token not in special]
    texts = [
        tokenizer.decode([ids[p] for p in kept[:n]], clean_up_tokenization_spaces=False)
        for n in range(len(kept) + 1)
    ]
    spans = [match.span() for match in _pattern(word).finditer(texts[-1])]
    return [
        place
        for place, before, upto in zip(kept, texts, texts[1:], strict=False)
        if any(len(before) < end and len(upto) > start for start, end in spans)
        and texts[-1][len(before) : len(upto)].strip()
    ]

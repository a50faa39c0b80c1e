"""The emoji model's tokenizer, and the captions that its training draws."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer
from transformers import CLIPTokenizer

from unalike.models.emoji.data import Captions, captions, entries, normalised

START, END = "<|startoftext|>", "<|endoftext|>"


def train_tokenizer(folder: Path, *, vocabulary: int, length: int) -> CLIPTokenizer:
    """A CLIP tokenizer (lower-case byte-pair encoding) learnt from all captions, written to
    `folder` and returned.
    """
    pattern = (
        CLIPTokenizer()._tokenizer
    )  # its normaliser and word splitting are the ones that the finished tokenizer will apply
    trainer = BpeTrainer(
        vocab_size=vocabulary - 2,
        end_of_word_suffix="</w>",
        initial_alphabet=sorted(ByteLevel.alphabet()),
        show_progress=False,
        special_tokens=[],
    )
    texts = [
        text
        for own in captions()
        for text in (own.full, *own.toneless, *own.neutral, *own.concepts, *own.keywords)
    ]
    pattern.train_from_iterator(texts, trainer)
    learnt = json.loads(pattern.to_str())["model"]
    vocab = dict(learnt["vocab"]) | {START: len(learnt["vocab"]), END: len(learnt["vocab"]) + 1}
    merges: Any = [tuple(m) for m in learnt["merges"]]
    tokenizer = CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=length)
    tokenizer.save_pretrained(folder)
    (folder / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False), encoding="utf-8")
    (folder / "merges.txt").write_text(
        "#version: 0.2\n" + "\n".join(" ".join(m) for m in merges) + "\n", encoding="utf-8"
    )
    return tokenizer


class CaptionSampler:
    """Draws training captions: the kind by its probability among those that an emoji has, then one
    of that kind.

    Args:
        probabilities: weight of each kind, of `empty` too; kinds that an emoji lacks fall to
            `full`.
    """

    KINDS = ("empty", "toneless", "neutral", "concepts", "keywords")

    def __init__(self, probabilities: dict[str, float]) -> None:
        self.probabilities = probabilities
        self.captions = captions()
        self.all_texts = sorted(
            {"", *(t for own in self.captions for kind in self._texts(own).values() for t in kind)}
        )
        index = {text: i for i, text in enumerate(self.all_texts)}
        self._choices = [
            {kind: [index[t] for t in texts] for kind, texts in self._texts(own).items()}
            for own in self.captions
        ]

    @staticmethod
    def _texts(own: Captions) -> dict[str, list[str]]:
        plain = normalised(own.full)
        return {
            "empty": [""],
            "full": [own.full, own.full, own.full, plain],
            "toneless": list(own.toneless),
            "neutral": list(own.neutral),
            "concepts": list(own.concepts),
            "keywords": list(own.keywords),
        }

    def draw(self, entry_indices: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Indices (B,) into `all_texts` of one caption for each entry (B,)."""
        amounts = torch.rand(len(entry_indices), 2, generator=generator).tolist()
        drawn = []
        for entry, (kind_at, text_at) in zip(entry_indices.tolist(), amounts, strict=True):
            choices = self._choices[entry]
            options = choices["full"]
            for kind in self.KINDS:
                kind_at -= self.probabilities[kind]
                if kind_at < 0:
                    options = choices[kind] or options
                    break
            drawn.append(options[int(text_at * len(options))])
        return torch.tensor(drawn)


def entry_weights(*, exponent: float, groups: dict[str, float]) -> torch.Tensor:
    """Sampling weight (3664,) of each entry: `n^exponent` for one of `n` skin tones of an emoji,
    times the factor of its group, if any.
    """
    tones = Counter(entry.toneless for entry in entries())
    return torch.tensor(
        [tones[entry.toneless] ** exponent * groups.get(entry.group, 1.0) for entry in entries()]
    )

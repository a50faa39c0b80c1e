"""Find the padding among the tokens of the prompts of a running call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from unalike.attach.diffusers.host import Host
from unalike.attach.diffusers.prompts import Prompts
from unalike.attach.diffusers.scoped import own_model
from unalike.guidance.method import Method


class Padding:
    """Context manager: while it is open, `prompts` tell which of their tokens are padding.

    The text encoders are heard; the first ids that each reads are those of the prompts. Padding is
    the run of the tokenizer's padding ids at the end; where that is the mark of the end of a text
    too, as in CLIP's, the first one is that mark.

    Args:
        pipe: the pipeline of this call alone, from `own_pipeline`.
        methods: nothing is heard where none of them has `reads_padding`.
        prompts: are told.
    """

    def __init__(self, pipe: Any, methods: Sequence[Method], prompts: Prompts) -> None:
        self._host = Host(pipe)
        self._reads = any(getattr(method, "reads_padding", False) for method in methods)
        self._prompts = prompts
        self._ids: dict[str, Tensor] = {}

    def __enter__(self) -> Padding:
        if self._reads:
            for name in self._host.text_encoders:
                encoder = own_model(self._host.pipe, name)
                encoder.register_forward_pre_hook(self._read(name), with_kwargs=True)
            self._prompts.padding = self._rows
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def _read(self, name: str) -> Callable[..., None]:
        def hook(module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            given = args[0] if args else kwargs.get("input_ids")
            if isinstance(given, Tensor):
                self._ids.setdefault(name, given.detach().cpu())

        return hook

    def _rows(self, length: int) -> Tensor | None:
        """(P, length) bool for P prompts; None where the tokens are not those that were read."""
        parts: list[Tensor] = []
        for names in self._host.token_sequences:
            read = [padded for name in names if (padded := self._padded(name)) is not None]
            if read and all(part.shape == read[0].shape for part in read):
                parts.append(torch.stack(read).all(dim=0))
        if not parts or any(len(part) != len(parts[0]) for part in parts):
            return None
        rows = torch.cat(parts, dim=1)
        if rows.shape[1] == length + self._host.template_length:
            rows = rows[:, self._host.template_length :]
        return rows if rows.shape[1] == length else None

    def _padded(self, name: str) -> Tensor | None:
        """(P, L) bool of the tokens that one text encoder read; None where it read none."""
        tokenizer = self._host.part(name.replace("text_encoder", "tokenizer"))
        ids, pad = self._ids.get(name), getattr(tokenizer, "pad_token_id", None)
        if ids is None or pad is None:
            return None
        trailing = (ids == pad).flip(1).cumprod(dim=1).flip(1).bool()
        if pad == tokenizer.eos_token_id:
            trailing[:, 1:] = trailing[:, 1:] & trailing[:, :-1]
            trailing[:, 0] = False
        return trailing

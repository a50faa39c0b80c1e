"""Give a guided call its own tokenizers, and recognise its prompts by their token ids.

A tokenizer of transformers sets padding and truncation on its backend, and then encodes: with one
tokenizer in two threads a call can get the padding of another. The backend of a guided call is a
copy, so that it neither disturbs nor is disturbed.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

from unalike.attach.diffusers.host import Host

_spares: WeakKeyDictionary[Any, list[Any]] = WeakKeyDictionary()
"""Copies of backends that no call uses now: a copy of a large vocabulary takes a second."""


@contextmanager
def own_tokenizers(own: Any) -> Iterator[None]:
    """While it is open, a stand-in pipeline has tokenizers of its own, where other threads run.

    Args:
        own: from `own_pipeline`.
    """
    taken: list[tuple[str, Any, Any]] = []
    if _other_threads_run():
        for name, value in vars(own).items():
            if name.startswith("tokenizer") and hasattr(value, "_tokenizer"):
                taken.append((name, value, _spare(value)))
    for name, tokenizer, backend in taken:
        stand_in = object.__new__(type(tokenizer))
        vars(stand_in).update(vars(tokenizer), _tokenizer=backend)
        vars(own)[name] = stand_in
    try:
        yield
    finally:
        for name, tokenizer, backend in taken:
            vars(own)[name] = tokenizer
            _spares.setdefault(tokenizer, []).append(backend)


def reads(pipe: Any, ids: Any, texts: list[str] | None) -> bool:
    """Whether token ids that a text encoder is given are those of texts, one row or more for each.

    Args:
        pipe: a diffusers pipeline with a `tokenizer`.
        ids: (R, L).
        texts: None stands for unknown ones, which nothing is.
    """
    tokenizer = Host(pipe).part("tokenizer")
    if tokenizer is None or not texts or not hasattr(ids, "shape") or len(ids.shape) != 2:
        return False
    if hasattr(pipe, "maybe_convert_prompt"):  # textual inversion with several vectors a word
        texts = [pipe.maybe_convert_prompt(text, tokenizer) for text in texts]
    rows, length = ids.tolist(), ids.shape[1]
    if len(rows) % len(texts):
        return False
    own = tokenizer(texts, truncation=True, max_length=length).input_ids
    padding = getattr(tokenizer, "pad_token_id", None)
    wanted = [_unpadded(row, padding) for row in own]
    given = [_unpadded(row, padding) for row in rows]
    each = len(rows) // len(texts)
    return given == [row for row in wanted for _ in range(each)] or given == wanted * each


def _unpadded(ids: list[int], padding: int | None) -> list[int]:
    ids = list(ids)
    while ids and ids[-1] == padding:
        ids.pop()
    while ids and ids[0] == padding:
        ids.pop(0)
    return ids


def _spare(tokenizer: Any) -> Any:
    own = tokenizer._tokenizer
    spares = _spares.setdefault(tokenizer, [])
    while True:
        try:
            backend = spares.pop()
        except IndexError:  # another thread may have taken the last one
            return copy.deepcopy(own)
        if backend.get_vocab_size() == own.get_vocab_size():  # tokens may have been added
            return backend


def _other_threads_run() -> bool:
    """Whether there are threads that may use a tokenizer; the one of progress bars does not."""
    mine = threading.current_thread()
    return any(
        thread is not mine and type(thread).__name__ != "TMonitor"
        for thread in threading.enumerate()
    )

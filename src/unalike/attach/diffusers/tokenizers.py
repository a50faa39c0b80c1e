"""Tokenizers of a guided call, which no other thread uses.

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

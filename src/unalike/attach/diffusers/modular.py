"""Listen to the state of a modular pipeline while it runs."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any


def listen(own: Any, hear: Callable[[Any], None]) -> None:
    """Calls `hear` with the state of a modular pipeline each time that one of its blocks has
    changed it.

    Args:
        own: the pipeline of one call, from `own_pipeline`; it gets blocks of its own.
        hear: is given the `PipelineState`; it may read it with `get`.
    """
    own._blocks = copy.deepcopy(own._blocks)
    for block in _blocks(own._blocks):
        block.set_block_state = _heard(block.set_block_state, hear)


def _heard(own: Any, hear: Callable[[Any], None]) -> Any:
    @functools.wraps(own)
    def set_block_state(state: Any, block_state: Any) -> None:
        own(state, block_state)
        hear(state)

    return set_block_state


def _blocks(block: Any) -> list[Any]:
    """The block and all below it, each once."""
    found = {id(block): block}
    for part in getattr(block, "sub_blocks", {}).values():
        found.update((id(b), b) for b in _blocks(part))
    return list(found.values())

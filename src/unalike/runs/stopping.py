"""Signals that ask a run to stop."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


class Stop:
    """Whether a run was asked to stop after the batch that it is drawing."""

    def __init__(self) -> None:
        self.asked = False


@contextmanager
def stop_on_signals(tell: Callable[[str], None] = lambda sentence: None) -> Iterator[Stop]:
    """Within the block SIGINT (Ctrl-C) and SIGTERM ask for a stop; the second one raises
    KeyboardInterrupt at once. In another thread than the main one signals stay as they are.

    Args:
        tell: told a sentence at the first signal.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def ask(number: int, frame: FrameType | None) -> None:
        if stop.asked:
            raise KeyboardInterrupt
        stop.asked = True
        tell("finishing the batch; press Ctrl-C again to stop at once")

    signals = [signal.SIGINT, signal.SIGTERM]
    earlier: dict[signal.Signals, Any] = {}
    try:
        for number in signals:
            if signal.getsignal(number) is signal.SIG_IGN:
                continue  # as of a command that a shell put into the background
            earlier[number] = signal.signal(number, ask)
        yield stop
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)

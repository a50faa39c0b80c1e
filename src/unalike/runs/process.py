"""A process with a worker of its own, and the calls to it."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from unalike.errors import UnalikeError, WorkerError, shown
from unalike.runs.settings import DrawSettings

_PATIENCE = 10.0
_SPAWN = multiprocessing.get_context("spawn")


@dataclass(frozen=True)
class Member:
    """What a process needs to open its worker.

    Args:
        settings: of the run, with the device of this worker.
        prompts: that will be drawn.
        threads: of torch on the CPU.
    """

    settings: DrawSettings
    prompts: tuple[str, ...]
    threads: int


class Process:
    """A process that draws; it can be started again after it died. One thread calls it at a time.

    Args:
        member: what it opens.
    """

    def __init__(self, member: Member) -> None:
        self._member = member
        self._process: Any = None
        self._connection: Connection | None = None
        self._calling = False

    @property
    def device(self) -> str:
        """The device of its worker."""
        return self._member.settings.device

    def start(self) -> None:
        """Start the process, which loads the model; the first call waits for that."""
        ours, theirs = _SPAWN.Pipe()
        process = _SPAWN.Process(target=_serve, args=(theirs, self._member), daemon=True)
        process.start()
        theirs.close()
        self._process, self._connection = process, ours

    def call(self, name: str, *arguments: Any, told: Callable[[], None] = lambda: None) -> Any:
        """What a method of the worker returns.

        Args:
            name: of the method of `_Served`.
            arguments: of the call.
            told: called after each step.

        Raises:
            WorkerError: where the process died; `start` makes another. Other errors are those of
                the worker.
        """
        process, connection = self._process, self._connection
        assert process is not None
        assert connection is not None
        self._calling = True
        try:
            connection.send((name, arguments))
            while True:
                wait([connection, process.sentinel])
                if not connection.poll():
                    raise EOFError  # it died, and nothing that it sent is left
                kind, value = connection.recv()
                if kind == "step":
                    told()
                elif kind == "done":
                    return value
                else:
                    break
        except (EOFError, OSError) as error:
            process.join(_PATIENCE)
            raise WorkerError(
                f"the worker on {self.device} died ({_how(process.exitcode)}); make sure that the "
                "machine and the device have enough memory, as with a smaller batch size"
            ) from error
        finally:
            self._calling = False
        failure, cause = value
        raise failure from cause

    def end(self) -> None:
        """End the process, even while it draws."""
        process, connection = self._process, self._connection
        if process is None or connection is None:
            return
        if self._calling:
            process.kill()
        connection.close()  # at which an idle one ends by itself
        process.join(_PATIENCE)
        if process.is_alive():
            process.kill()
            process.join()
        self._process = self._connection = None


def _how(code: int | None) -> str:
    """How a process ended, in words."""
    if code is not None and code < 0:
        with suppress(ValueError):
            return f"killed by {signal.Signals(-code).name}"
    return f"exit code {code}"


class _Served:
    """The methods that the other process calls.

    Args:
        member: what is opened.
    """

    def __init__(self, member: Member) -> None:
        import torch

        from unalike.pipelines.loading import quieten_hosts
        from unalike.runs.worker import Worker

        quieten_hosts(downloads=True)
        torch.set_num_threads(member.threads)
        self.worker = Worker.open(member.settings, member.prompts, None)

    def describe(self, told: Callable[[], None], first: Sequence[Any], command: Any) -> Any:
        """The description of the worker."""
        from unalike.runs.description import Description

        return Description.of(self.worker, first, command)

    def begin(
        self, told: Callable[[], None], memory: Path, folder: Path, run: str, carried: bytes | None
    ) -> dict[str, Any]:
        """Use the memory in a file; returns what the images of this worker depend on."""
        from unalike.memory import Memory
        from unalike.runs.fence import hold_lock
        from unalike.runs.identity import image_settings

        hold_lock(folder)
        self.worker.remember(Memory.open(memory), run, carried)
        return image_settings(self.worker)

    def draw(self, told: Callable[[], None], batch: Sequence[Any]) -> Any:
        """Draw a batch, see `Worker.draw`."""
        return self.worker.draw(batch, told)


def _serve(connection: Connection, member: Member) -> None:
    """What the process does: open the worker, then answer calls until there are no more."""
    for number in (signal.SIGINT, signal.SIGTERM):  # the process of the run decides
        signal.signal(number, signal.SIG_IGN)
    _end_with_parent()
    served: Any = None
    failure: Exception | None = None
    try:
        served = _Served(member)
    except Exception as error:
        failure = error
    with suppress(EOFError, OSError):
        while True:
            name, arguments = connection.recv()
            try:
                if failure is not None:
                    raise failure
                told = _teller(connection)
                connection.send(("done", getattr(served, name)(told, *arguments)))
            except Exception as error:
                connection.send(("failed", _sendable(error)))


def _teller(connection: Connection) -> Callable[[], None]:
    return lambda: connection.send(("step", None))


def _end_with_parent() -> None:
    """End this process when that of the run ends, in whatever way."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _sendable(error: Exception) -> tuple[Exception, BaseException | None]:
    """The error and its cause, or their words where they cannot be sent to another process."""
    try:
        found = error, error.__cause__
        pickle.loads(pickle.dumps(found))
        return found
    except Exception:
        return UnalikeError(f"{type(error).__name__}: {shown(str(error))}"), None

"""Connect to a Ray cluster, and find out how many workers it has room for."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

from unalike.errors import Option, OptionError, UnsupportedError, named
from unalike.runs.run_settings import LOCAL, RunSettings
from unalike.runs.settings import AUTO

_PATIENCE = 10.0


@dataclass(frozen=True)
class Room:
    """The workers of a run on a cluster.

    Attributes:
        workers: how many.
        gpus: that each has; 0 for the CPU.
    """

    workers: int
    gpus: float

    @classmethod
    def of(cls, settings: RunSettings, resources: dict[str, float]) -> Self:
        """The workers that the settings ask for, or that the cluster has room for.

        Args:
            settings: of the run.
            resources: of the whole cluster, as Ray tells them.

        Raises:
            OptionError: where there is too little room.
        """
        there = {"GPU": resources.get("GPU", 0.0), "CPU": resources.get("CPU", 0.0)}
        gpus = settings.ray_gpus
        if gpus is None:
            gpus = 1.0 if there["GPU"] else 0.0
        kind, each = ("GPU", gpus) if gpus else ("CPU", 1.0)
        shared = int(1 / each + 1e-9)  # workers on one GPU
        most = int(there[kind]) * shared if shared else int(there[kind] // each)
        wanted = settings.ray_workers or most
        if not 1 <= wanted <= most:
            which = "ray_workers" if settings.ray_workers and most else "ray_gpus"
            raise OptionError(
                named(
                    "{} is {}, and the cluster has {:g} {}s, room for {} workers of {:g}; ask for "
                    "less, or add machines",
                    Option(which),
                    settings.ray_workers if which == "ray_workers" else f"{gpus:g}",
                    there[kind],
                    kind,
                    most,
                    each,
                )
            )
        return cls(wanted, gpus)

    @property
    def options(self) -> dict[str, float]:
        """The resources of each worker, as Ray takes them."""
        return {"num_gpus": self.gpus} if self.gpus else {"num_cpus": 1}


def imported() -> Any:
    """The `ray` package with its datasets.

    Raises:
        UnsupportedError: where it is not installed.
    """
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise UnsupportedError(
            named(
                "{ray} needs Ray, which is not installed; pip install 'unalike[ray]', or leave it "
                "out"
            )
        ) from error
    return ray


@contextmanager
def connected(address: str) -> Iterator[Any]:
    """Within the block this process is connected to a cluster.

    Args:
        address: "auto", "local", or HOST:PORT.

    Raises:
        OptionError: where there is none.
    """
    ray = imported()
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    if ray.is_initialized():
        yield ray
        return
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # lines that tell a user nothing
    try:
        _require_answer(os.environ.get("RAY_ADDRESS", AUTO) if address == AUTO else address)
        ray.init(
            address=address,
            log_to_driver=False,
            logging_level=logging.ERROR,
            configure_logging=True,
            **({"include_dashboard": False} if address == LOCAL else {}),
        )
    except (ConnectionError, ValueError, RuntimeError, OSError) as error:
        raise OptionError(
            named(
                "{ray} is {!r}, and there is no cluster ({}); start one with `ray start --head`, "
                "or draw on this machine alone, as in {ray='local'}",
                address,
                " ".join(str(error).split())[:200],
            )
        ) from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _require_answer(address: str) -> None:
    """Make sure that something listens at HOST:PORT; Ray itself would try for minutes.

    Raises:
        OSError: where nothing does.
    """
    host, colon, port = address.rpartition(":")
    if colon and port.isdigit() and "/" not in host:
        socket.create_connection((host, int(port)), timeout=_PATIENCE).close()

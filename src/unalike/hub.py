"""Whether the Hugging Face hub can be asked for a file, before a library tries for a minute."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies

_SECONDS = 4.0


def offline_options(source: str, file: str) -> dict[str, bool]:
    """Options of `from_pretrained` that keep it from waiting for a hub that does not answer.

    Args:
        source: a folder, or the id of a repository.
        file: one that the repository has to have.

    Returns:
        `local_files_only` where the hub does not answer and the file was downloaded before;
        nothing otherwise.

    Raises:
        ConnectionError: where the hub does not answer and the file is not here.
    """
    import huggingface_hub

    if Path(source).is_dir() or _answers(huggingface_hub.constants.ENDPOINT):
        return {}
    try:
        cached = huggingface_hub.try_to_load_from_cache(source, file)
    except ValueError:  # it is no name of a repository, and whoever loads it says so
        return {}
    if isinstance(cached, str):
        return {"local_files_only": True}
    raise ConnectionError(
        f"there is no folder {source!r}, it was not downloaded before, and the Hugging Face hub "
        f"cannot be reached: {_reason()}"
    )


def _reason() -> str:
    if _told_offline():
        return "HF_HUB_OFFLINE is set"
    return "there is no network, or it is down"


def _told_offline() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def _answers(endpoint: str) -> bool:
    """Whether the hub answers; what is behind a proxy is taken to do so."""
    if _told_offline():
        return False
    place = urlsplit(endpoint)
    if getproxies().get(place.scheme):
        return True
    port = place.port or (443 if place.scheme == "https" else 80)
    try:
        with socket.create_connection((place.hostname or "", port), timeout=_SECONDS):
            return True
    except OSError:
        return False

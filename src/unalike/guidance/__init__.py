"""Guidance methods: they correct predicted clean latents, or the model's input, so that images are
unlike each other.

One file a method; `methods` is the table of them, `method` their base, `context` what they see at a
step, and `run` one guided generation on any host. Names are imported when they are first used.
"""

from __future__ import annotations

from collections.abc import Mapping

from unalike.lazy import lazy_names

_HOMES = {
    "Balls": "balls",
    "Call": "run",
    "Context": "context",
    "Layer": "context",
    "Level": "level",
    "METHODS": "methods",
    "Method": "method",
    "Prepared": "run",
    "Protected": "protocols",
    "ProtectedFeatures": "protocols",
    "References": "protocols",
    "Run": "run",
    "Trace": "trace",
    "UpcomingCall": "run",
    "build": "methods",
    "options": "methods",
}


def _homes() -> Mapping[str, str]:
    """Name → the module that defines it; those of methods follow from their table."""
    from unalike.guidance.methods import class_homes

    own = {name: f"unalike.guidance.{home}" for name, home in _HOMES.items()}
    return own | {"option": "unalike.options"} | class_homes()


__getattr__, __dir__ = lazy_names("unalike.guidance", _homes)

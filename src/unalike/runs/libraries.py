"""Versions of what results may depend on, for records."""

from __future__ import annotations

import platform
from importlib import metadata

_LIBRARIES = ("torch", "diffusers", "transformers", "safetensors", "numpy", "pillow")


def library_versions() -> dict[str, str]:
    """Python and the libraries that images and scores are computed with: name → version."""
    return {
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in _LIBRARIES},
    }

"""Makes images of a diffusion model unlike each other and unlike a protected set, without training.

Names and submodules are imported when they are first used, so that `import unalike` and the command
line's help stay quick.
"""

from __future__ import annotations

from collections.abc import Mapping

from unalike.lazy import lazy_names

__version__ = "0.1.0"

_MODULES = (
    "attach",
    "errors",
    "extractors",
    "guidance",
    "kernels",
    "memory",
    "metrics",
    "pipelines",
    "scores",
    "selection",
    "shields",
)


def _homes() -> Mapping[str, str]:
    """Name → the module that defines it; those of methods follow from their table."""
    from unalike.guidance.methods import class_homes

    return {
        "Choice": "unalike.attach",
        "GuidedPipeline": "unalike.attach",
        "Memory": "unalike.memory",
        "Shield": "unalike.shields",
        "__version__": "unalike",
        "choose": "unalike.attach",
        "guide": "unalike.attach",
        "load": "unalike.pipelines",
        **{name: f"unalike.{name}" for name in _MODULES},
        **class_homes(),
    }


__getattr__, __dir__ = lazy_names("unalike", _homes)

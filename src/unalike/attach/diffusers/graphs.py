"""Tell compiled models from others."""

from __future__ import annotations

from torch.nn import Module


def is_compiled(module: Module) -> bool:
    """Whether the module itself was compiled, wrapped (`torch.compile(module)`) or in place
    (`module.compile()`).
    """
    return hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None) is not None


def unwrapped(module: Module) -> Module:
    """The module that `torch.compile` has wrapped, or the module itself."""
    return getattr(module, "_orig_mod", module)

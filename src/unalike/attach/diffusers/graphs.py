"""Hooks on models that `torch.compile` may have compiled: around their graph they work, inside of
it they would be forgotten.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.nn import Module


def is_compiled(module: Module) -> bool:
    """Whether the module itself was compiled, wrapped (`torch.compile(module)`) or in place
    (`module.compile()`).
    """
    return hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None) is not None


def unwrapped(module: Module) -> Module:
    """The module that `torch.compile` has wrapped, or the module itself."""
    return getattr(module, "_orig_mod", module)


def hook_around(
    module: Module, before: Callable[..., Any], after: Callable[..., Any]
) -> Callable[[], None]:
    """Hooks before and after a model, outside of its graph where it is compiled; returns what takes
    them away again.

    Hooks that are registered with a module that was compiled in place would become part of its
    graph: it would be compiled anew, or not at all where the whole of it must be one.

    Args:
        module: the model.
        before: `(module, args, kwargs) -> (args, kwargs)`.
        after: `(module, args, output) -> output`.
    """
    compiled = getattr(module, "_compiled_call_impl", None)
    if compiled is None:
        handles = (
            module.register_forward_pre_hook(before, with_kwargs=True),
            module.register_forward_hook(after),
        )

        def take_away() -> None:
            for handle in handles:
                handle.remove()

        return take_away

    def call(*args: Any, **kwargs: Any) -> Any:
        args, kwargs = before(module, args, kwargs)
        return after(module, args, compiled(*args, **kwargs))

    module._compiled_call_impl = call

    def put_back() -> None:
        module._compiled_call_impl = compiled

    return put_back

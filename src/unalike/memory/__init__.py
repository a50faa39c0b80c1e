"""A bounded bank of earlier generations, and its file."""

from unalike.memory.memory import Memory

__all__ = ["Memory"]

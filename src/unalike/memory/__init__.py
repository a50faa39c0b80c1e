"""A bounded bank of earlier generations, in RAM or in a file."""

from unalike.memory.memory import Memory
from unalike.memory.view import View

__all__ = ["Memory", "View"]

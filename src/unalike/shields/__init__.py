"""Protected sets, exact search in them, and the files that hold them."""

from unalike.shields.shield import Shield

__all__ = ["Shield"]

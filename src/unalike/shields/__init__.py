"""Protected sets: regions of latent space that no image may end in, and certificates that none
did.
"""

from unalike.shields.shield import Shield

__all__ = ["Shield"]

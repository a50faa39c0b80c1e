"""The work of `unalike memory`: look into memories, and change them."""

"""Jobs of `unalike shield`: build, extend, show and use protected sets on disk."""

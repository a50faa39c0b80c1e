"""Protected sets on disk, as `unalike shield` builds, extends, shows and uses them."""

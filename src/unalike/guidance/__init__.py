"""Guidance methods: corrections of a sampler's predicted clean latents that make images unlike each other and unlike stored ones.

`methods` is the table of all of them, `base` what a method is, `run` one guided generation on any host, and one file a method.
"""

from unalike.guidance.base import Balls, Context, Method, References
from unalike.guidance.methods import METHODS, build, options
from unalike.guidance.run import Run, Trace
from unalike.guidance.sparke import SPARKE
from unalike.guidance.spell import SPELL
from unalike.guidance.vendi import VendiGuidance

__all__ = ["METHODS", "SPARKE", "SPELL", "Balls", "Context", "Method", "References", "Run", "Trace", "VendiGuidance", "build", "options"]

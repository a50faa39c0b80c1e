"""Guidance methods: corrections of a solver's predicted clean latents, or of the model's input, that
make images unlike each other.

One file a method; `methods` is the table of them, `method` their base, `context` what they see at a
step, and `run` one guided generation on any host.
"""

from unalike.guidance.auto import Auto
from unalike.guidance.balls import Balls
from unalike.guidance.cads import CADS
from unalike.guidance.context import Context
from unalike.guidance.interval import IntervalGuidance
from unalike.guidance.level import Level
from unalike.guidance.method import Method
from unalike.guidance.methods import METHODS, build, options
from unalike.guidance.particle import ParticleGuidance
from unalike.guidance.protocols import Protected, ProtectedFeatures, References
from unalike.guidance.run import Call, Prepared, Run, Trace, UpcomingCall
from unalike.guidance.sparke import SPARKE
from unalike.guidance.spell import SPELL
from unalike.guidance.vendi import VendiGuidance
from unalike.options import option

__all__ = [
    "CADS",
    "METHODS",
    "SPARKE",
    "SPELL",
    "Auto",
    "Balls",
    "Call",
    "Context",
    "IntervalGuidance",
    "Level",
    "Method",
    "ParticleGuidance",
    "Prepared",
    "Protected",
    "ProtectedFeatures",
    "References",
    "Run",
    "Trace",
    "UpcomingCall",
    "VendiGuidance",
    "build",
    "option",
    "options",
]

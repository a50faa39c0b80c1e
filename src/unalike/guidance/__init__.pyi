"""Written by `python docs/generate.py`: the names of unalike.guidance."""

from unalike.guidance.auto import Auto as Auto
from unalike.guidance.balls import Balls as Balls
from unalike.guidance.cads import CADS as CADS
from unalike.guidance.context import Context as Context
from unalike.guidance.interval import IntervalGuidance as IntervalGuidance
from unalike.guidance.level import Level as Level
from unalike.guidance.method import Method as Method
from unalike.guidance.methods import METHODS as METHODS
from unalike.guidance.methods import build as build
from unalike.guidance.methods import options as options
from unalike.guidance.particle import ParticleGuidance as ParticleGuidance
from unalike.guidance.protocols import Protected as Protected
from unalike.guidance.protocols import ProtectedFeatures as ProtectedFeatures
from unalike.guidance.protocols import References as References
from unalike.guidance.run import Call as Call
from unalike.guidance.run import Prepared as Prepared
from unalike.guidance.run import Run as Run
from unalike.guidance.run import UpcomingCall as UpcomingCall
from unalike.guidance.sparke import SPARKE as SPARKE
from unalike.guidance.spell import SPELL as SPELL
from unalike.guidance.trace import Trace as Trace
from unalike.guidance.vendi import VendiGuidance as VendiGuidance
from unalike.options import option as option

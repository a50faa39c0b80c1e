"""Written by `python docs/generate.py`: the names of unalike."""

from unalike import attach as attach
from unalike import errors as errors
from unalike import extractors as extractors
from unalike import guidance as guidance
from unalike import kernels as kernels
from unalike import memory as memory
from unalike import metrics as metrics
from unalike import pipelines as pipelines
from unalike import scores as scores
from unalike import selection as selection
from unalike import shields as shields
from unalike.attach import Choice as Choice
from unalike.attach import GuidedPipeline as GuidedPipeline
from unalike.attach import choose as choose
from unalike.attach import guide as guide
from unalike.guidance.auto import Auto as Auto
from unalike.guidance.cads import CADS as CADS
from unalike.guidance.contextual_repulsion import ContextualRepulsion as ContextualRepulsion
from unalike.guidance.contrastive_noise import ContrastiveNoise as ContrastiveNoise
from unalike.guidance.coupled_noise import CoupledNoise as CoupledNoise
from unalike.guidance.dave import DAVE as DAVE
from unalike.guidance.first_step_base import FirstStepBase as FirstStepBase
from unalike.guidance.interval import IntervalGuidance as IntervalGuidance
from unalike.guidance.particle import ParticleGuidance as ParticleGuidance
from unalike.guidance.pink_noise import PinkNoise as PinkNoise
from unalike.guidance.seed_variance import SeedVariance as SeedVariance
from unalike.guidance.sparke import SPARKE as SPARKE
from unalike.guidance.spell import SPELL as SPELL
from unalike.guidance.tsr import TSR as TSR
from unalike.guidance.vendi import VendiGuidance as VendiGuidance
from unalike.memory import Memory as Memory
from unalike.pipelines import load as load
from unalike.shields import Shield as Shield

__version__: str

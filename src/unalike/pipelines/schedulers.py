"""The schedulers by the short names that other tools know them by.

Neither torch nor diffusers is imported until a scheduler is exchanged.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from unalike.errors import OptionError, did_you_mean, named

_KARRAS = {"use_karras_sigmas": True}
_SDE = {"algorithm_type": "sde-dpmsolver++"}
_FLOW = "FlowMatch"
_SHARED = ("LCMScheduler", "TCDScheduler")
"""They step the same models as diffusers' `KarrasDiffusionSchedulers`, which does not list them."""


@dataclass(frozen=True)
class Row:
    """A scheduler of diffusers.

    Args:
        kind: the name of its class.
        changes: what is set in the configuration of the model's own scheduler.
    """

    kind: str
    changes: Mapping[str, Any] = field(default_factory=dict)


_MULTISTEP = {"algorithm_type": "dpmsolver++", "solver_order": 2, "use_karras_sigmas": False}

SCHEDULERS: dict[str, Row] = {
    "ddim": Row("DDIMScheduler"),
    "ddpm": Row("DDPMScheduler"),
    "deis": Row("DEISMultistepScheduler"),
    "dpm2": Row("KDPM2DiscreteScheduler"),
    "dpm2_a": Row("KDPM2AncestralDiscreteScheduler"),
    "dpm2_karras": Row("KDPM2DiscreteScheduler", _KARRAS),
    "dpmpp_2m": Row("DPMSolverMultistepScheduler", _MULTISTEP),
    "dpmpp_2m_karras": Row("DPMSolverMultistepScheduler", _MULTISTEP | _KARRAS),
    "dpmpp_2m_sde": Row("DPMSolverMultistepScheduler", _MULTISTEP | _SDE),
    "dpmpp_2m_sde_karras": Row("DPMSolverMultistepScheduler", _MULTISTEP | _SDE | _KARRAS),
    "dpmpp_2s": Row("DPMSolverSinglestepScheduler", _MULTISTEP),
    "euler": Row("EulerDiscreteScheduler"),
    "euler_a": Row("EulerAncestralDiscreteScheduler"),
    "euler_karras": Row("EulerDiscreteScheduler", _KARRAS),
    "flow_euler": Row("FlowMatchEulerDiscreteScheduler"),
    "flow_lcm": Row("FlowMatchLCMScheduler"),
    "heun": Row("HeunDiscreteScheduler"),
    "lcm": Row("LCMScheduler"),
    "lms": Row("LMSDiscreteScheduler"),
    "pndm": Row("PNDMScheduler"),
    "tcd": Row("TCDScheduler"),
    "unipc": Row("UniPCMultistepScheduler"),
}
"""Short name → class and settings. All can be guided, and draw their noise from the generator of
each image: DPM++ SDE is left out, since diffusers' `DPMSolverSDEScheduler` draws it from a global
seed.
"""


def find_scheduler(name: str) -> Row:
    """The scheduler of a short name, or of the name of a class in the table, as diffusers has it.

    Raises:
        OptionError: for any other name; the message lists the short ones.

    Example:
        >>> find_scheduler("euler_a").kind, find_scheduler("EulerDiscreteScheduler").changes
        ('EulerAncestralDiscreteScheduler', {})
        >>> find_scheduler("euler-a")
        Traceback (most recent call last):
            ...
        unalike.errors.OptionError: scheduler is 'euler-a'; did you mean 'euler_a'? allowed: ...
    """
    classes = {row.kind: Row(row.kind) for row in SCHEDULERS.values()}
    row = SCHEDULERS.get(name) or classes.get(name)
    if row is None:
        raise OptionError(
            named(
                "{scheduler} is {!r}; {}allowed: {}, or the class of one of these in diffusers, as "
                "in {scheduler='euler'}",
                name,
                did_you_mean(name, [*SCHEDULERS, *classes]),
                ", ".join(SCHEDULERS),
            )
        )
    return row


def exchange_scheduler(pipe: Any, name: str) -> None:
    """Give a pipeline another scheduler, with the configuration of its own one.

    Args:
        pipe: a diffusers pipeline.
        name: see `find_scheduler`.

    Raises:
        OptionError: for an unknown name, and for a scheduler that the model is not made for; the
            message lists those that it takes.
    """
    import diffusers

    row = find_scheduler(name)
    usable = [n for n, other in SCHEDULERS.items() if _fits(pipe.scheduler, other.kind)]
    if not _fits(pipe.scheduler, row.kind):
        raise OptionError(
            named(
                "{scheduler} is {!r}, and {} steps with {}, whose model it is not made for; "
                "allowed: {}",
                name,
                type(pipe).__name__,
                type(pipe.scheduler).__name__,
                ", ".join(usable) or "leave it out",
            )
        )
    kind = getattr(diffusers, row.kind)
    pipe.scheduler = kind.from_config(pipe.scheduler.config, **row.changes)


def _fits(scheduler: Any, kind: str) -> bool:
    """Whether a model that steps with `scheduler` can be stepped by a class.

    Noise is predicted on another scale by EDM's, SCM's and video models' own schedulers, which take
    no other; and a solver that is to step a flow has to know flows.
    """
    import diffusers
    from diffusers.schedulers import KarrasDiffusionSchedulers

    own = type(scheduler).__name__
    if own == kind:
        return True
    if own.startswith(_FLOW) or kind.startswith(_FLOW):
        return own.startswith(_FLOW) and kind.startswith(_FLOW)
    family = {*KarrasDiffusionSchedulers.__members__, *_SHARED}
    if own not in family or kind not in family:
        return False
    if scheduler.config.get("prediction_type") != "flow_prediction":
        return True
    return "use_flow_sigmas" in inspect.signature(getattr(diffusers, kind)).parameters

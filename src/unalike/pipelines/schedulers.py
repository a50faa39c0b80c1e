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
_SHARED = ("LCMScheduler", "TCDScheduler")
"""They step the same models as diffusers' `KarrasDiffusionSchedulers`, which does not list them."""


@dataclass(frozen=True)
class Row:
    """A scheduler of diffusers.

    Args:
        kind: the name of its class.
        changes: what is set in the configuration of the model's own scheduler.
        plain: whether it starts from noise of size 1 and adds none, so that a pipeline has nothing
            to do for it but call it.
    """

    kind: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    plain: bool = False


_MULTISTEP = {"algorithm_type": "dpmsolver++", "solver_order": 2, "use_karras_sigmas": False}

SCHEDULERS: dict[str, Row] = {
    "ddim": Row("DDIMScheduler", plain=True),
    "ddpm": Row("DDPMScheduler"),
    "deis": Row("DEISMultistepScheduler", plain=True),
    "dpm2": Row("KDPM2DiscreteScheduler"),
    "dpm2_a": Row("KDPM2AncestralDiscreteScheduler"),
    "dpm2_karras": Row("KDPM2DiscreteScheduler", _KARRAS),
    "dpmpp_2m": Row("DPMSolverMultistepScheduler", _MULTISTEP, plain=True),
    "dpmpp_2m_karras": Row("DPMSolverMultistepScheduler", _MULTISTEP | _KARRAS, plain=True),
    "dpmpp_2m_sde": Row("DPMSolverMultistepScheduler", _MULTISTEP | _SDE),
    "dpmpp_2m_sde_karras": Row("DPMSolverMultistepScheduler", _MULTISTEP | _SDE | _KARRAS),
    "dpmpp_2s": Row("DPMSolverSinglestepScheduler", _MULTISTEP, plain=True),
    "euler": Row("EulerDiscreteScheduler"),
    "euler_a": Row("EulerAncestralDiscreteScheduler"),
    "euler_karras": Row("EulerDiscreteScheduler", _KARRAS),
    "flow_euler": Row("FlowMatchEulerDiscreteScheduler"),
    "heun": Row("HeunDiscreteScheduler"),
    "lcm": Row("LCMScheduler"),
    "lms": Row("LMSDiscreteScheduler"),
    "pndm": Row("PNDMScheduler", plain=True),
    "tcd": Row("TCDScheduler"),
    "unipc": Row("UniPCMultistepScheduler", plain=True),
}
"""Short name → class and settings. All can be guided, and the noise of an image follows from its
seed: `DPMSolverSDEScheduler` and `FlowMatchLCMScheduler` are left out, since diffusers draws
theirs from a global seed.
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
    classes = {row.kind: Row(row.kind, plain=row.plain) for row in SCHEDULERS.values()}
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
        OptionError: for an unknown name, and for a scheduler that the pipeline cannot use; the
            message lists those that it can.
    """
    import diffusers

    row = find_scheduler(name)
    if not _fits(pipe, row):
        usable = [known for known, other in SCHEDULERS.items() if _fits(pipe, other)]
        raise OptionError(
            named(
                "{scheduler} is {!r}, which {} cannot use in place of {}; allowed: {}",
                name,
                type(pipe).__name__,
                type(pipe.scheduler).__name__,
                ", ".join(usable) or "none, so leave it out",
            )
        )
    kind = getattr(diffusers, row.kind)
    pipe.scheduler = kind.from_config(pipe.scheduler.config, **row.changes)


def _fits(pipe: Any, row: Row) -> bool:
    """Whether a pipeline's model can be stepped by a scheduler.

    EDM's, SCM's and video models' own schedulers predict noise on another scale and are exchanged
    for no other. A pipeline without `prepare_extra_step_kwargs` hands its generators to no
    scheduler, and may not scale its first noise.
    """
    import diffusers
    from diffusers.schedulers import KarrasDiffusionSchedulers

    own, config = type(pipe.scheduler).__name__, pipe.scheduler.config
    if own == row.kind and not row.changes:
        return True
    family = {*KarrasDiffusionSchedulers.__members__, *_SHARED}
    if own not in family or row.kind not in family:
        return False
    if not (row.plain or hasattr(pipe, "prepare_extra_step_kwargs")):
        return False
    if config.get("prediction_type") != "flow_prediction":
        return True
    return "use_flow_sigmas" in inspect.signature(getattr(diffusers, row.kind)).parameters

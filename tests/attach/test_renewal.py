"""Reports say how much noise was drawn anew, not how much was asked for."""

from dataclasses import dataclass
from typing import Any, ClassVar, Self

import diffusers
import pytest
import torch

import unalike
from unalike.guidance.context import Context
from unalike.guidance.method import Method
from unalike.options import option

pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation:DeprecationWarning"
)  # of diffusers' schedulers


@dataclass(frozen=True, kw_only=True)
class Anew(Method):
    """Has part of the noise drawn anew, and nothing else."""

    name: ClassVar[str] = "anew"
    summary: ClassVar[str] = "draws noise anew"
    citation: ClassVar[str] = ""

    part: float = option(0.5, "how much of the noise", low=0, high=1)

    def renewal(self, context: Context) -> float:
        return self.part

    def without_renewal(self) -> Self:
        return type(self)(part=0.0)


def used(pipe: Any, scheduler: str, *methods: Method) -> list[dict[str, Any]]:
    pipe.scheduler = getattr(diffusers, scheduler).from_config(pipe.scheduler.config)
    guided = unalike.guide(pipe, *methods)
    guided(
        prompt="cat",
        num_images_per_prompt=2,
        num_inference_steps=4,
        generator=torch.Generator().manual_seed(0),
        output_type="latent",
    )
    assert guided.report is not None
    return guided.report.methods


@pytest.mark.parametrize(
    "scheduler",
    ["DPMSolverMultistepScheduler", "UniPCMultistepScheduler", "HeunDiscreteScheduler"],
)
def test_report_says_that_no_noise_was_renewed_when_the_solver_drops_it(
    tiny_sd: Any, scheduler: str
) -> None:
    auto, own = used(tiny_sd, scheduler, unalike.Auto(), Anew())
    assert auto["options"]["eta"] == 0.0
    assert auto["options"]["strength"] == unalike.Auto().strength
    assert auto["renewal"] == {"asked": 1.0, "used": 0.0, "steps": 0}
    assert own["options"]["part"] == 0.0
    assert own["renewal"] == {"asked": 0.5, "used": 0.0, "steps": 0}


@pytest.mark.parametrize("scheduler", ["DDIMScheduler", "EulerDiscreteScheduler"])
def test_report_says_how_much_noise_was_renewed_when_the_solver_can(
    tiny_sd: Any, scheduler: str
) -> None:
    (auto,) = used(tiny_sd, scheduler, unalike.Auto(eta=0.75))
    assert auto["options"]["eta"] == 0.75
    assert auto["renewal"] == {"asked": 0.75, "used": 0.75, "steps": 4}  # not at the first of few


def test_report_has_no_renewal_when_none_was_asked_for(tiny_sd: Any) -> None:
    for method in (unalike.SPARKE(), unalike.Auto(eta=0.0)):
        (entry,) = used(tiny_sd, "DDIMScheduler", method)
        assert "renewal" not in entry

"""Every scheduler of the table, with pipelines of diffusers' own classes."""

from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers import DPMSolverMultistepScheduler
from tests import tiny

from unalike import guide
from unalike.attach.diffusers.schedulers import BUILT_IN
from unalike.errors import OptionError
from unalike.guidance import SPARKE
from unalike.memory import Memory
from unalike.pipelines.schedulers import SCHEDULERS, exchange_scheduler, find_scheduler

pytestmark = [  # of numpy, about diffusers' schedulers
    pytest.mark.filterwarnings(f"ignore:__{name}__:DeprecationWarning")
    for name in ("array", "array_wrap")
]
PLAIN = [name for name, row in SCHEDULERS.items() if row.plain]
STEPPED = [name for name in SCHEDULERS if name != "flow_euler"]


@pytest.fixture(scope="module")
def dit_folder(tmp_path_factory):
    return tiny.write("dit", tmp_path_factory.mktemp("dit"))


def drawn(call, **prompts) -> np.ndarray:
    generators = [torch.Generator().manual_seed(seed) for seed in range(2)]
    images = call(**prompts, num_inference_steps=4, generator=generators).images
    return np.stack([np.asarray(image) for image in images])


def test_every_row_is_a_class_that_can_be_guided():
    for name, row in SCHEDULERS.items():
        assert issubclass(getattr(diffusers, row.kind), diffusers.SchedulerMixin), name
        assert row.kind in BUILT_IN, name


@pytest.mark.parametrize("name", STEPPED)
def test_seeds_decide_the_images_when_a_scheduler_is_exchanged(tiny_sd, name):
    exchange_scheduler(tiny_sd, name)
    assert type(tiny_sd.scheduler).__name__ == SCHEDULERS[name].kind
    for option, value in SCHEDULERS[name].changes.items():
        assert tiny_sd.scheduler.config[option] == value
    plain = drawn(tiny_sd, prompt=["cat", "cat"])
    assert (plain == drawn(tiny_sd, prompt=["cat", "cat"])).all()
    guided = guide(tiny_sd, SPARKE(strength=0.3), memory=Memory())
    assert (plain != drawn(guided, prompt=["cat", "cat"])).any()


@pytest.mark.parametrize("name", PLAIN)
def test_seeds_decide_the_images_when_the_pipeline_hands_no_generator_on(dit_folder, name):
    pipe = tiny.load(dit_folder)
    exchange_scheduler(pipe, name)
    first, second = (drawn(pipe, class_labels=[0, 1]) for _ in range(2))
    assert (first == second).all()


@pytest.mark.parametrize("name", [n for n in SCHEDULERS if n not in PLAIN])
def test_scheduler_is_refused_when_the_pipeline_hands_no_generator_on(dit_folder, name):
    pipe = tiny.load(dit_folder)
    with pytest.raises(OptionError, match="DiTPipeline cannot use in place of DDIMScheduler"):
        exchange_scheduler(pipe, name)


@pytest.mark.parametrize("name", ["sd3", "flux"])
def test_only_its_own_scheduler_is_left_when_the_model_is_a_flow(tmp_path, name):
    pipe = tiny.load(tiny.write(name, tmp_path))
    with pytest.raises(OptionError, match="allowed: flow_euler"):
        exchange_scheduler(pipe, "euler")
    exchange_scheduler(pipe, "flow_euler")
    assert pipe.scheduler.config.shift == (3.0 if name == "sd3" else 1.0)


def test_solvers_that_know_flows_are_left_when_a_solver_of_them_steps_a_flow(tiny_sd):
    config = tiny_sd.scheduler.config
    flow: Any = {"prediction_type": "flow_prediction", "use_flow_sigmas": True}
    tiny_sd.scheduler = DPMSolverMultistepScheduler.from_config(config, **flow)
    with pytest.raises(OptionError, match=r"'euler'.* allowed: deis, .*unipc"):
        exchange_scheduler(tiny_sd, "euler")
    exchange_scheduler(tiny_sd, "unipc")
    changed: Any = tiny_sd.scheduler
    assert changed.config.use_flow_sigmas


def test_class_of_diffusers_is_a_name_too():
    assert find_scheduler("HeunDiscreteScheduler").kind == "HeunDiscreteScheduler"


@pytest.mark.parametrize("name", ["Euler", "euler-a", "DPM++ 2M", "", "EDMEulerScheduler"])
def test_names_are_listed_when_one_is_unknown(name):
    with pytest.raises(OptionError, match=r"allowed: ddim, .*unipc"):
        find_scheduler(name)

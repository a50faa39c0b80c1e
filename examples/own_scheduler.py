"""Register a scheduler of your own, so that every method works with it."""

from diffusers import DDIMScheduler

import unalike
from unalike.attach.diffusers import levels


class MyScheduler(DDIMScheduler):
    """A class with a step of its own, which needs a map of its own."""

    def step(self, model_output, timestep, sample, eta=0.0, generator=None, return_dict=True):
        """As in DDIM."""
        return super().step(
            model_output, timestep, sample, eta=eta, generator=generator, return_dict=return_dict
        )


def my_level(scheduler, timestep):
    """The level of the current call, with the x0 map of v-prediction."""
    stride = scheduler.config.num_train_timesteps // scheduler.num_inference_steps
    here, there = int(timestep), int(timestep) - stride
    alpha, sigma = (
        float(v) ** 0.5
        for v in (scheduler.alphas_cumprod[here], 1 - scheduler.alphas_cumprod[here])
    )
    after = scheduler.alphas_cumprod[there] if there >= 0 else scheduler.final_alpha_cumprod
    return levels.SchedulerLevel(
        alpha,
        sigma,
        a=alpha,
        b=-sigma,
        next_alpha=float(after) ** 0.5,
        next_sigma=float(1 - after) ** 0.5,
    )


levels.register(MyScheduler, my_level, deterministic_first_order=True)

pipe = unalike.load("emoji")
pipe.scheduler = MyScheduler.from_config(pipe.scheduler.config)
guided = unalike.guide(pipe, unalike.SPARKE(strength=0.1))
guided(prompt="flag", num_images_per_prompt=4, num_inference_steps=10)
print(guided.report.steps, "steps,", len(guided.report.images), "images")

"""What every guidance method has to do, whatever it computes, shown on a sampler whose denoiser is
exact.

Subclass `MethodConformance` and give `method`, `active` and `idle`; pytest then runs all of it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import MISSING, dataclass
from typing import Any, ClassVar

import pytest
import torch
from tests.guidance.places import Decoded, boxes
from torch import Tensor

from unalike.errors import OptionError
from unalike.guidance.balls import Balls
from unalike.guidance.level import Level
from unalike.guidance.method import Method
from unalike.guidance.methods import build, options
from unalike.guidance.protocols import Images, References
from unalike.guidance.run import Call, Run

SHAPE = (3, 2, 2)
STEPS = 9
PATHS = ("vp", "ve", "flow")


def level(path: str, step: int) -> tuple[float, float]:
    """`alpha, sigma` before the step, from nearly pure noise (pure noise on the flow path) to none
    at all.
    """
    time = 1 - step / STEPS
    if path == "vp":
        return (math.cos(1.5 * time), math.sin(1.5 * time))
    return (1.0, 20 * time**3) if path == "ve" else (1 - time, time)


def posterior_mean(x_t: Tensor, alpha: float, sigma: float) -> Tensor:
    """`E[x0 | x_t]` where x0 is a mixture of four normal distributions: the exact denoiser."""
    means = torch.randn(4, math.prod(SHAPE), generator=torch.Generator().manual_seed(7))
    x, variance = x_t.flatten(1).float(), 0.5**2
    spread = alpha**2 * variance + sigma**2
    share = torch.softmax(-torch.cdist(x, alpha * means).square() / (2 * spread), dim=1)
    return (
        (share @ means) * (1 - alpha**2 * variance / spread) + x * (alpha * variance / spread)
    ).view_as(x_t)


@dataclass
class Sampled:
    """The latents before each step and after the last one, and the run that guided them."""

    trajectory: list[Tensor]
    run: Run

    @property
    def images(self) -> Tensor:
        return self.trajectory[-1]

    def active_steps(self) -> list[int]:
        """Steps at which the first method changed any image."""
        return [i for i, size in enumerate(self.run.traces[0].of_x0) if (size > 0).any()]


def sample(
    *methods: Method,
    noise: Tensor,
    groups: Tensor | None = None,
    prompts: Tensor | None = None,
    memory: References | None = None,
    shield: Balls | None = None,
    images: Images | None = None,
    masks: Callable[[Any], Tensor] | None = None,
    path: str = "vp",
) -> Sampled:
    """Deterministic sampling from `noise` (B, …), in its dtype, with the methods' corrections added
    to the exact prediction.
    """
    groups = torch.zeros(len(noise), dtype=torch.int64) if groups is None else groups
    generators = [
        torch.Generator().manual_seed(int(abs(float(row.flatten()[0])) * 1e6)) for row in noise
    ]  # an image's own, wherever it stands
    stores: dict[str, Any] = {"memory": memory, "shield": shield, "images": images, "masks": masks}
    run = Run(methods, groups=groups, prompts=prompts, generators=generators, **stores)
    trajectory = [noise * level(path, 0)[1]]
    for step in range(STEPS):
        x_t, (alpha, sigma), (next_alpha, next_sigma) = (
            trajectory[-1],
            level(path, step),
            level(path, step + 1),
        )
        x0 = posterior_mean(x_t, alpha, sigma).to(noise.dtype)
        here = Level(alpha, sigma, next_alpha, next_sigma)
        delta = run.correct(
            Call(
                x0=x0,
                x_t=x_t,
                level=here,
                step=step,
                steps=STEPS,
                deterministic_first_order=True,
            )
        )
        if delta is not None:
            x0 = x0 + delta.to(x0.dtype)
        trajectory.append(next_alpha * x0 + next_sigma * (x_t - alpha * x0) / sigma)
    return Sampled(trajectory, run)


def scene(batch: int = 4) -> dict[str, Any]:
    """Noise for images of two prompts with their embeddings, a memory of three earlier images of
    each, and what knows places and images.
    """
    generator = torch.Generator().manual_seed(3)
    embeddings = torch.randn(2, 5, generator=generator)
    groups = torch.arange(batch) // 2 % 2
    noise = torch.randn(batch, *SHAPE, generator=generator)
    memory = References(
        torch.randn(6, math.prod(SHAPE), generator=generator), embeddings.repeat(3, 1)
    )
    return {
        "noise": noise,
        "groups": groups,
        "prompts": embeddings[groups],
        "memory": memory,
        "images": Decoded(memory.latents, size=math.prod(SHAPE)),
        "masks": boxes(SHAPE),
    }


def refused(method: type[Method]) -> list[tuple[str, Any]]:
    """For each option values just outside of what its declaration allows, or of another type."""
    cases: list[tuple[str, Any]] = []
    for f in options(method):
        rule = f.metadata
        cases.append((f.name, object()))
        if rule["low"] is not None:
            cases.append((f.name, rule["low"] - 1))
        if rule["above"] is not None:
            cases.append((f.name, rule["above"]))
        if rule["high"] is not None:
            cases.append((f.name, rule["high"] + 1))
        if isinstance(f.default, float):
            cases += [(f.name, math.nan), (f.name, math.inf), (f.name, True)]
        elif isinstance(f.default, int) and not isinstance(f.default, bool):
            cases.append((f.name, f.default + 0.5))
        if rule["choices"]:
            cases.append((f.name, "no such choice"))
    return cases


class OptionConformance:
    """What holds for every method: `active` are settings that it acts with."""

    method: ClassVar[str]
    active: ClassVar[dict[str, Any]]

    def build(self, **settings: Any) -> Method:
        return build(self.method, **{**self.active, **settings})

    def test_error_names_the_option_when_its_value_is_not_allowed(self) -> None:
        cases = refused(type(self.build()))
        assert len(cases) > 8
        for name, value in cases:
            with pytest.raises(
                OptionError, match=rf"\b{name} is {re.escape(repr(value))}; allowed: "
            ):
                self.build(**{name: value})

    def test_error_names_start_and_stop_when_the_window_is_empty(self) -> None:
        with pytest.raises(OptionError, match="start must be below stop"):
            self.build(start=0.5, stop=0.5)

    def test_every_option_has_a_help_text_and_a_default(self) -> None:
        for f in options(type(self.build())):
            assert f.metadata["help"]
            assert f.default is not MISSING

    def test_class_is_described_for_the_table(self) -> None:
        method = type(self.build())
        assert method.name == self.method
        assert method.summary
        assert "\n" not in method.summary
        assert method.citation.startswith("@")
        assert "title = {" in method.citation


class MethodConformance(OptionConformance):
    """For methods that correct x0.

    `active` are settings that change every image of `scene` at every step, `idle` settings (one or
    several) that change none.
    """

    idle: ClassVar[tuple[dict[str, Any], ...]]

    def test_result_is_bit_identical_when_idle(self) -> None:
        for settings in self.idle:
            guided = sample(self.build(**settings), **scene())
            assert guided.active_steps() == []
            for a, b in zip(guided.trajectory, sample(**scene()).trajectory, strict=True):
                assert torch.equal(a, b)

    def test_every_image_changes_at_every_step_when_active(self) -> None:
        guided, plain = sample(self.build(), **scene()), sample(**scene())
        assert guided.active_steps() == list(range(STEPS - self.build().repaired))
        assert ((guided.images - plain.images).flatten(1).norm(dim=1) > 1e-3).all()

    @pytest.mark.parametrize("path", PATHS)
    def test_result_is_finite_and_changed_when_on_any_path(self, path: str) -> None:
        guided, plain = sample(self.build(), **scene(), path=path), sample(**scene(), path=path)
        assert torch.isfinite(guided.images).all()
        assert ((guided.images - plain.images).flatten(1).norm(dim=1) > 1e-3).all()

    def test_result_is_permuted_when_batch_is_permuted(self) -> None:
        order, setting = torch.tensor([2, 0, 3, 1]), scene()
        turned = {**setting, **{k: setting[k][order] for k in ("noise", "groups", "prompts")}}
        torch.testing.assert_close(
            sample(self.build(), **turned).images,
            sample(self.build(), **setting).images[order],
            rtol=1e-4,
            atol=1e-4,
        )

    def test_nothing_changes_when_outside_the_window(self) -> None:
        guided, plain = sample(self.build(start=0.5, stop=0.75), **scene()), sample(**scene())
        assert guided.active_steps() == [5, 6]
        for a, b in zip(guided.trajectory[:5], plain.trajectory[:5], strict=True):
            assert torch.equal(a, b)

    def test_only_every_third_step_changes_when_every_is_3(self) -> None:
        assert sample(self.build(every=3), **scene()).active_steps() == [0, 3, 6]

    def test_correction_is_at_most_the_limit_when_one_is_set(self) -> None:
        sizes = torch.stack(sample(self.build(limit=0.01), **scene()).run.traces[0].of_step)
        assert (sizes <= 0.01 * (1 + 1e-5)).all()
        assert (sizes > 0.01 * (1 - 1e-5)).any()

    def test_correction_is_at_most_the_limit_of_the_prediction_when_alpha_is_0(self) -> None:
        sizes = sample(self.build(limit=0.01), **scene(), path="flow").run.traces[0].of_x0
        assert (sizes[0] <= 0.01 * (1 + 1e-5)).all()

    def test_result_is_bit_identical_when_there_is_nothing_to_be_unlike(self) -> None:
        setting = {**scene(1), "memory": None}
        assert torch.equal(sample(self.build(), **setting).images, sample(**setting).images)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_correction_is_that_of_float32_when_inputs_are_of_half_precision(
        self, dtype: torch.dtype
    ) -> None:
        setting = scene()
        x_t = setting.pop("noise").to(dtype)
        x0 = posterior_mean(x_t, *level("vp", 2)).to(dtype)
        here = Level(*level("vp", 2), *level("vp", 3))
        halves, full = (
            Run([self.build()], **setting).correct(
                Call(x0=x0.to(t), x_t=x_t.to(t), level=here, step=2, steps=STEPS)
            )
            for t in (dtype, torch.float32)
        )
        assert halves is not None
        assert full is not None
        assert halves.dtype == torch.float32
        assert torch.equal(halves, full)
        assert torch.isfinite(
            sample(self.build(), **{**scene(), "noise": scene()["noise"].to(dtype)}).images
        ).all()

    def test_result_is_the_same_when_the_method_served_another_run_before(self) -> None:
        method, first = self.build(), sample(self.build(), **scene()).images
        other = scene(3)
        sample(
            method,
            **{**other, "memory": References(other["memory"].latents * 2, other["memory"].prompts)},
        )
        assert torch.equal(sample(method, **scene()).images, first)

    def test_inputs_are_unchanged_when_guided(self) -> None:
        setting, untouched = scene(), scene()
        sample(self.build(), **setting)
        assert torch.equal(setting["noise"], untouched["noise"])
        assert torch.equal(setting["prompts"], untouched["prompts"])
        assert torch.equal(setting["memory"].latents, untouched["memory"].latents)
        assert torch.equal(setting["memory"].prompts, untouched["memory"].prompts)


class RegionConformance(MethodConformance):
    """What every method does that is told to act in the left half of the images only."""

    def test_nothing_is_corrected_outside_of_the_region(self) -> None:
        setting = scene()
        x_t = setting.pop("noise")
        here = Level(*level("vp", 2), *level("vp", 3))
        run = Run([self.build()], **setting)
        x0 = posterior_mean(x_t, *level("vp", 2))
        delta = run.correct(Call(x0=x0, x_t=x_t, level=here, step=2, steps=STEPS))
        assert delta is not None
        assert (delta[..., 0] != 0).all()
        assert (delta[..., 1] == 0).all()


class MemoryConformance(MethodConformance):
    """What every method that sees a memory too has to do; it has the options `batch` and
    `memory`.
    """

    def test_result_changes_when_alone_with_a_memory(self) -> None:
        assert not torch.equal(sample(self.build(), **scene(1)).images, sample(**scene(1)).images)

    def test_image_is_that_of_a_batch_of_one_when_the_batch_is_not_seen(self) -> None:
        setting = scene()
        together = sample(self.build(batch=False), **setting).images
        for i in range(len(together)):
            alone = {
                **setting,
                **{k: setting[k][i : i + 1] for k in ("noise", "groups", "prompts")},
            }
            torch.testing.assert_close(
                sample(self.build(batch=False), **alone).images[0],
                together[i],
                rtol=1e-4,
                atol=1e-4,
            )

    def test_result_differs_when_batch_or_memory_is_left_out(self) -> None:
        images = [
            sample(self.build(**s), **scene()).images
            for s in ({}, {"batch": False}, {"memory": False})
        ]
        assert not torch.allclose(images[0], images[1])
        assert not torch.allclose(images[0], images[2])
        neither = sample(self.build(batch=False, memory=False), **scene()).images
        assert torch.equal(neither, sample(**scene()).images)

    def test_error_names_both_sizes_when_the_memory_is_of_another_model(self) -> None:
        setting = scene()
        setting["memory"] = References(torch.randn(3, 20), setting["prompts"][:3])
        with pytest.raises(OptionError, match=r"20.*12"):
            sample(self.build(), **setting)

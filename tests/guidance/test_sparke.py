import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from unalike.errors import OptionError
from unalike.guidance import sparke
from unalike.guidance.context import Context
from unalike.guidance.level import Level
from unalike.guidance.noise import x0_edit
from unalike.guidance.protocols import References
from unalike.guidance.sparke import SPARKE

ORACLE = json.loads((Path(__file__).parents[1] / "oracles" / "sparke_steps.json").read_text())[
    "cases"
]
RKE_CASES = [case for case in ORACLE if case["algorithm"] in ("rke", "cond-rke")]
BOTH_KERNELS = pytest.mark.parametrize("kernel", ["gaussian", "cosine"])
BOTH_OBJECTIVES = pytest.mark.parametrize("objective", ["rke", "cond-rke"])


def at(
    x_t: Tensor,
    *,
    prompts: Tensor | None = None,
    memory: References | None = None,
    groups: Tensor | None = None,
    alpha: float = 1.0,
    sigma: float = 1.0,
    next_alpha: float = 1.0,
    next_sigma: float = 0.0,
) -> Context:
    """The last step of a variance exploding sampler, where a shift of the noisy latent is the edit
    of x0, unless levels are given.
    """
    return Context(
        step=0,
        steps=1,
        level=Level(alpha, sigma, next_alpha, next_sigma),
        x_t=x_t,
        groups=torch.zeros(len(x_t), dtype=torch.int64) if groups is None else groups,
        prompts=prompts,
        memory=memory,
    )


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def directions(delta: Tensor | None, x: Tensor, strength: float) -> Tensor:
    """The unit directions of corrections made with that strength to latents `x`, which is what
    losses are compared with.
    """
    assert delta is not None
    return delta / (strength * x.norm(dim=1, keepdim=True))


def gram(kernel: str, a: Tensor, b: Tensor, bandwidth: float) -> Tensor:
    a, b = a / a.norm(dim=1, keepdim=True), b / b.norm(dim=1, keepdim=True)
    return (
        a @ b.T
        if kernel == "cosine"
        else torch.exp(-(a[:, None] - b[None]).square().sum(2) / (2 * bandwidth**2))
    )


def loss(kernel: str, z: Tensor, y: Tensor | None) -> Tensor:
    """`||K_Z / n||_F²` or `||K_Z ∘ K_Y||_F² / ||K_Y||_F²` of all samples at once, from whole Gram
    matrices.
    """
    k_z = gram(kernel, z, z, 0.8)
    if y is None:
        return (k_z / len(z)).square().sum()
    k_y = gram(kernel, y, y, 0.35)
    return (k_z * k_y).square().sum() / k_y.square().sum()


@pytest.mark.parametrize(
    "case", RKE_CASES, ids=lambda case: f"{case['algorithm']}-{case['kernel']}"
)
def test_delta_is_that_of_the_published_code_when_given_its_latents(case):
    tensors = {
        k: torch.tensor(case[k])
        for k in ("latents", "bank", "prompt_embeds", "prompt_embed", "delta")
    }
    method = SPARKE(
        strength=case["scale"],
        objective=case["algorithm"],
        kernel=case["kernel"],
        bandwidth=case["sigma_image"],
        prompt_bandwidth=case["sigma_text"],
        target="x_t",
    )
    memory = References(tensors["bank"], tensors["prompt_embeds"])
    x0 = torch.full_like(
        tensors["latents"], 3.0
    )  # not read: a batch of one, and the noisy latent is what moves
    delta = method.x0_delta(
        x0, at(tensors["latents"], prompts=tensors["prompt_embed"][None], memory=memory)
    )
    assert delta is not None
    assert (delta - tensors["delta"]).norm() < 1e-4 * tensors["delta"].norm()


def test_oracle_has_both_objectives_and_both_kernels():
    assert {(c["algorithm"], c["kernel"]) for c in RKE_CASES} == {
        (a, k) for a in ("rke", "cond-rke") for k in ("gaussian", "cosine")
    }


@BOTH_KERNELS
@BOTH_OBJECTIVES
def test_direction_descends_the_loss_when_measured_by_finite_differences(kernel, objective):
    x, bank, y, y_bank = (
        normal(1, 6) * 3,
        normal(4, 6, seed=1),
        normal(1, 3, seed=2),
        normal(4, 3, seed=3),
    )
    y_bank[0] = y
    method = SPARKE(strength=0.1, objective=objective, kernel=kernel)
    direction = directions(
        method.x0_delta(x, at(x, prompts=y, memory=References(bank, y_bank))), x, 0.1
    )

    def value(point: Tensor) -> Tensor:
        return loss(
            kernel, torch.cat([point, bank]), None if objective == "rke" else torch.cat([y, y_bank])
        )

    steps = 1e-5 * torch.eye(6, dtype=torch.float64)
    gradient = torch.stack([(value(x + h) - value(x - h)) / 2e-5 for h in steps])[None]
    torch.testing.assert_close(direction, -gradient / gradient.norm(), rtol=1e-6, atol=1e-7)


@BOTH_KERNELS
@BOTH_OBJECTIVES
@pytest.mark.parametrize("target", ["x0", "x_t"])
def test_directions_descend_each_images_loss_when_a_batch_of_several_prompts_has_a_memory(
    kernel, objective, target
):
    x0, x_t, bank = normal(4, 6), normal(4, 6, seed=5) * 2, normal(3, 6, seed=1)
    y, y_bank = normal(2, 3, seed=2)[[0, 1, 0, 1]], normal(3, 3, seed=3)
    y_bank[2] = y[1]
    method = SPARKE(strength=0.1, objective=objective, kernel=kernel, target=target)
    context = at(x_t, prompts=y, memory=References(bank, y_bank), groups=torch.tensor([0, 1, 0, 1]))
    moved = x0 if target == "x0" else x_t
    found = directions(method.x0_delta(x0, context), moved, 0.1)
    for i in range(4):
        others = [j for j in range(4) if j != i]
        point = moved[i : i + 1].clone().requires_grad_()
        prompts = None if objective == "rke" else torch.cat([y[i : i + 1], y[others], y_bank])
        (gradient,) = torch.autograd.grad(
            loss(kernel, torch.cat([point, x0[others], bank]), prompts), point
        )
        torch.testing.assert_close(found[i], -gradient[0] / gradient.norm(), rtol=1e-9, atol=1e-9)


@BOTH_KERNELS
def test_batch_equals_images_one_by_one_when_batch_is_false(kernel):
    x0, y, memory = (
        normal(3, 4, 2),
        normal(3, 3, seed=2),
        References(normal(5, 8, seed=1), normal(5, 3, seed=3)),
    )
    method = SPARKE(batch=False, kernel=kernel)
    together = method.x0_delta(x0, at(x0, prompts=y, memory=memory, groups=torch.arange(3)))
    assert together is not None
    for i in range(3):
        alone = method.x0_delta(
            x0[i : i + 1], at(x0[i : i + 1], prompts=y[i : i + 1], memory=memory)
        )
        torch.testing.assert_close(alone, together[i : i + 1], rtol=1e-12, atol=1e-14)


def test_size_is_the_strength_times_the_norm_when_either_target_is_moved():
    x0, x_t, memory = normal(3, 6), normal(3, 6, seed=4) * 5, References(normal(4, 6, seed=1))
    for target, moved in (("x0", x0), ("x_t", x_t)):
        delta = SPARKE(strength=0.2, objective="rke", target=target).x0_delta(
            x0, at(x_t, memory=memory)
        )
        assert delta is not None
        torch.testing.assert_close(delta.norm(dim=1), 0.2 * moved.norm(dim=1))
        torch.testing.assert_close(
            (delta * moved).sum(1), torch.zeros(3, dtype=torch.float64), atol=1e-12, rtol=0
        )


@pytest.mark.parametrize(
    ("alpha", "sigma", "next_alpha", "next_sigma"),
    [(0.6, 0.8, 0.8, 0.6), (0.1, 0.995, 1.0, 0.0), (1.0, 9.0, 1.0, 4.0)],
)
def test_next_latent_is_that_of_the_shifted_one_when_the_predicted_noise_is_kept(
    alpha, sigma, next_alpha, next_sigma
):
    x_t, noise, shift = normal(2, 5), normal(2, 5, seed=1), normal(2, 5, seed=2)
    context = at(x_t, alpha=alpha, sigma=sigma, next_alpha=next_alpha, next_sigma=next_sigma)

    published = next_alpha * (x_t + shift - sigma * noise) / alpha + next_sigma * noise
    edit = x0_edit(shift, context)
    assert edit is not None
    x0 = (x_t - sigma * noise) / alpha + edit
    torch.testing.assert_close(next_alpha * x0 + next_sigma * (x_t - alpha * x0) / sigma, published)


@pytest.mark.parametrize(("time", "next_time"), [(1.0, 0.75), (0.75, 0.5), (0.25, 0.0)])
def test_next_latent_is_that_of_the_shifted_one_when_the_velocity_of_a_flow_is_kept(
    time, next_time
):
    x_t, velocity, shift = normal(2, 5), normal(2, 5, seed=1), normal(2, 5, seed=2)
    context = at(x_t, alpha=1 - time, sigma=time, next_alpha=1 - next_time, next_sigma=next_time)
    edit = x0_edit(shift, context)
    assert edit is not None
    x0 = x_t - time * velocity + edit
    stepped = (1 - next_time) * x0 + next_time * (x_t - (1 - time) * x0) / time
    torch.testing.assert_close(stepped, x_t + shift + (next_time - time) * velocity)


def test_edit_is_finite_when_alpha_or_sigma_is_0():
    shift = normal(1, 4)
    torch.testing.assert_close(
        x0_edit(shift, at(shift, alpha=0.0, sigma=1.0, next_alpha=0.6, next_sigma=0.8)), shift / 0.6
    )
    torch.testing.assert_close(
        x0_edit(shift, at(shift, alpha=0.5, sigma=0.0, next_alpha=1.0, next_sigma=0.0)), shift * 2
    )


@pytest.mark.parametrize("levels", [(0.6, 0.8, 0.6, 0.8), (0.8, 0.6, 0.6, 0.8)])
def test_nothing_is_edited_when_the_noise_level_does_not_fall(levels):
    names = ("alpha", "sigma", "next_alpha", "next_sigma")
    x = normal(2, 4)
    assert SPARKE(target="x_t").x0_delta(x, at(x, **dict(zip(names, levels, strict=True)))) is None


def test_direction_has_norm_1_when_all_kernels_underflow():
    x0 = torch.eye(4)
    method = SPARKE(strength=1.0, bandwidth=0.01, prompt_bandwidth=0.01)
    delta = method.x0_delta(x0, at(x0, prompts=torch.eye(4)))
    assert delta is not None
    torch.testing.assert_close(delta.norm(dim=1), torch.ones(4))


@BOTH_KERNELS
def test_images_are_left_alone_when_they_coincide(kernel):
    x0 = normal(1, 48).float().repeat(5, 1)
    delta = SPARKE(kernel=kernel).x0_delta(x0, at(x0))
    assert delta is not None
    assert torch.equal(delta, torch.zeros_like(x0))


def test_image_is_left_alone_when_it_is_zero():
    x0 = torch.tensor([[0.0, 0.0, 0.0], [1.0, 2.0, 0.0], [2.0, 1.0, 0.0]])
    delta = SPARKE().x0_delta(x0, at(x0))
    assert delta is not None
    assert torch.equal(delta[0], torch.zeros(3))
    assert torch.isfinite(delta).all()


def test_nothing_is_done_when_cosine_finds_only_prompts_at_right_angles():
    x0 = normal(2, 4)
    delta = SPARKE(kernel="cosine").x0_delta(
        x0, at(x0, prompts=torch.eye(2), groups=torch.arange(2))
    )
    assert delta is not None
    assert torch.equal(delta, torch.zeros_like(x0))


def test_result_is_that_of_rke_when_a_single_prompt_has_no_embeddings():
    x0 = normal(3, 6)
    torch.testing.assert_close(
        SPARKE().x0_delta(x0, at(x0)), SPARKE(objective="rke").x0_delta(x0, at(x0)), rtol=0, atol=0
    )


@pytest.mark.parametrize("prompts", [None, torch.ones(2, 3)])
def test_error_names_the_encoder_when_prompts_are_missing(prompts):
    x0 = normal(2, 4)
    memory = References(normal(2, 4), None if prompts is not None else torch.ones(2, 3))
    with pytest.raises(OptionError, match=r"pass prompt_encoder= .*objective='rke'"):
        SPARKE().x0_delta(x0, at(x0, prompts=prompts, memory=memory))
    with pytest.raises(OptionError, match="several prompts"):
        SPARKE().x0_delta(x0, at(x0, groups=torch.arange(2)))
    assert (
        SPARKE(objective="rke").x0_delta(x0, at(x0, groups=torch.arange(2), memory=memory))
        is not None
    )


def test_error_names_both_sizes_when_embeddings_are_of_another_encoder():
    x0 = normal(2, 4)
    with pytest.raises(OptionError, match=r"size 7 .* generation 3"):
        SPARKE().x0_delta(
            x0, at(x0, prompts=torch.ones(2, 3), memory=References(normal(2, 4), torch.ones(2, 7)))
        )


def test_memory_is_not_copied_when_a_run_goes_on():
    x0, memory = (
        torch.randn(2, 6, generator=torch.Generator().manual_seed(0)),
        References(torch.ones(3, 6)),
    )
    context = at(x0, memory=memory)
    SPARKE(objective="rke").x0_delta(x0, context)
    assert context.state["memory"].rows is memory.latents


@BOTH_KERNELS
@pytest.mark.parametrize("spread", [1.0, 40.0])
def test_result_is_the_same_when_the_memory_comes_in_blocks(kernel, spread, monkeypatch):
    """A narrow kernel's largest weight comes late, so that the running sum has to be rescaled."""
    x0, y, memory = (
        normal(3, 4, 2),
        normal(3, 3, seed=2),
        References(normal(50, 8, seed=1), normal(50, 3, seed=3)),
    )
    method = SPARKE(kernel=kernel, bandwidth=0.8 / spread, prompt_bandwidth=0.35)
    whole = method.x0_delta(x0, at(x0, prompts=y, memory=memory, groups=torch.arange(3)))
    monkeypatch.setattr(sparke, "_BLOCK", 8)  # one row at a time
    assert whole is not None
    torch.testing.assert_close(
        method.x0_delta(x0, at(x0, prompts=y, memory=memory, groups=torch.arange(3))), whole
    )


# Reference sets and the regulariser


def log_sums(x: Tensor, sets: list[tuple[Tensor, float]], kernel: str) -> Tensor:
    """What is descended with several sets: `σ²/2 · log Σ k_Z²` (Gaussian) or half the mean of
    `k_Z²` (cosine), with a weight each.
    """
    total = x.new_zeros(())
    for rows, weight in sets:
        squared = gram(kernel, x, rows, 0.8).square()
        total = total + weight * (
            0.32 * squared.sum().log() if kernel == "gaussian" else squared.mean() / 2
        )
    return total


@BOTH_KERNELS
@pytest.mark.parametrize("weight", [0.7, -1.5])
def test_direction_descends_both_losses_when_there_is_a_reference_set(kernel, weight):
    x, bank, reference = normal(1, 6), normal(4, 6, seed=1), normal(3, 6, seed=2)
    method = SPARKE(
        strength=0.1,
        objective="rke",
        kernel=kernel,
        reference=reference.view(3, 2, 3),
        reference_weight=weight,
    )
    found = directions(method.x0_delta(x, at(x, memory=References(bank))), x, 0.1)
    point = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(
        log_sums(point, [(bank, 1.0), (reference, weight)], kernel), point
    )
    torch.testing.assert_close(found, -gradient / gradient.norm())


@pytest.mark.parametrize(("weight", "nearer"), [(1.0, False), (-1.0, True)])
def test_image_moves_as_the_weight_says_when_only_a_reference_acts(weight, nearer):
    x, reference = normal(1, 6), normal(1, 6, seed=2)
    delta = SPARKE(objective="rke", reference=reference, reference_weight=weight).x0_delta(x, at(x))
    assert delta is not None
    before, after = (
        torch.cosine_similarity(x, reference),
        torch.cosine_similarity(x + delta, reference),
    )
    assert (after > before).item() is nearer


def test_result_does_not_change_when_the_reference_set_is_repeated():
    x, reference = normal(2, 6), normal(3, 6, seed=2)
    once, twice = (
        SPARKE(objective="rke", reference=r, reference_weight=0.5).x0_delta(x, at(x))
        for r in (reference, reference.repeat(2, 1))
    )
    torch.testing.assert_close(once, twice)


def test_reference_of_the_same_prompt_counts_most_when_it_has_prompts():
    x, y = normal(1, 6), torch.eye(3, dtype=torch.float64)
    reference = normal(2, 6, seed=2)
    both, first = (
        SPARKE(
            prompt_bandwidth=0.05, reference=r, reference_prompts=p, reference_weight=1.0
        ).x0_delta(x, at(x, prompts=y[:1]))
        for r, p in ((reference, y[:2]), (reference[:1], y[:1]))
    )
    torch.testing.assert_close(both, first)


@BOTH_KERNELS
def test_direction_ascends_the_regularised_score_when_there_is_a_regulariser(kernel):
    x, bank, weight = normal(1, 6) * 2, normal(4, 6, seed=1), 0.05
    method = SPARKE(strength=0.1, objective="rke", kernel=kernel, target="x_t", regularizer=weight)
    found = directions(method.x0_delta(x * 0 + 1, at(x, memory=References(bank))), x, 0.1)
    point = x.clone().requires_grad_()
    norm = point.norm()
    score = -log_sums(point, [(bank, 1.0)], kernel) + weight * (-norm.square() / 2 + 5 * norm.log())
    (gradient,) = torch.autograd.grad(score, point)
    torch.testing.assert_close(found, gradient / gradient.norm())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reference": [1.0, 2.0], "reference_weight": 1.0}, "reference is a list"),
        ({"reference": torch.ones(4), "reference_weight": 1.0}, r"reference is of shape \(4,\)"),
        ({"reference": torch.full((2, 4), torch.nan), "reference_weight": 1.0}, "finite latents"),
        ({"reference": torch.ones(2, 4)}, "reference_weight is 0"),
        ({"reference_weight": 0.5}, r"reference_weight 0\.5 is given without reference"),
        ({"reference_prompts": torch.ones(2, 3)}, "reference_prompts is given without reference"),
        (
            {
                "reference": torch.ones(2, 4),
                "reference_weight": 1.0,
                "reference_prompts": torch.ones(3, 3),
            },
            r"reference_prompts is of shape \(3, 3\)",
        ),
        (
            {
                "reference": torch.ones(2, 4),
                "reference_weight": 1.0,
                "reference_prompts": torch.ones(2, 3),
                "objective": "rke",
            },
            "reads no prompts",
        ),
    ],
)
def test_error_says_what_is_missing_when_the_reference_is_incomplete(options, message):
    with pytest.raises(OptionError, match=message):
        SPARKE(**options)


# Properties


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10_000),
    batch=st.integers(1, 4),
    stored=st.integers(1, 5),
    kernel=st.sampled_from(["gaussian", "cosine"]),
)
def test_correction_rotates_with_the_latents(seed, batch, stored, kernel):
    everything = normal(batch + stored, 7, seed=seed)
    rotation = torch.linalg.qr(normal(7, 7, seed=seed + 1)).Q
    method = SPARKE(objective="rke", kernel=kernel)
    plain, rotated = (
        method.x0_delta(z[:batch], at(z[:batch], memory=References(z[batch:])))
        for z in (everything, everything @ rotation)
    )
    assert plain is not None
    torch.testing.assert_close(rotated, plain @ rotation, rtol=1e-8, atol=1e-9)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10_000),
    scale=st.floats(1e-3, 1e3),
    kernel=st.sampled_from(["gaussian", "cosine"]),
)
def test_correction_scales_with_the_image_and_not_with_the_stored_ones(seed, scale, kernel):
    x, bank = normal(1, 5, seed=seed), normal(3, 5, seed=seed + 1)
    method = SPARKE(objective="rke", kernel=kernel)
    plain = method.x0_delta(x, at(x, memory=References(bank)))
    assert plain is not None
    torch.testing.assert_close(
        method.x0_delta(scale * x, at(x, memory=References(bank))), scale * plain
    )
    torch.testing.assert_close(method.x0_delta(x, at(x, memory=References(scale * bank))), plain)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10_000),
    objective=st.sampled_from(["rke", "cond-rke"]),
    kernel=st.sampled_from(["gaussian", "cosine"]),
)
def test_loss_falls_after_a_small_step(seed, objective, kernel):
    x, bank, y = normal(1, 6, seed=seed), normal(4, 6, seed=seed + 1), normal(5, 3, seed=seed + 2)
    delta = SPARKE(strength=1e-4, objective=objective, kernel=kernel).x0_delta(
        x, at(x, prompts=y[:1], memory=References(bank, y[1:]))
    )
    assert delta is not None
    prompts = None if objective == "rke" else y
    assert loss(kernel, torch.cat([x + delta, bank]), prompts) < loss(
        kernel, torch.cat([x, bank]), prompts
    )


@BOTH_KERNELS
@pytest.mark.parametrize("spread", [0.0, 0.4])
def test_samples_of_unlike_prompts_are_left_out_when_even_at_worst_they_weigh_nothing(
    kernel, spread
):
    each, tolerance = 16, 1e-3
    themes = torch.eye(12, dtype=torch.float64)[:8]
    y = themes.repeat_interleave(each, dim=0) + spread * normal(8 * each, 12) / 12
    x = normal(1, 40)
    stored = x + 1e-3 * normal(
        8 * each, 40, seed=1
    )  # unlike prompts have all but the same latents,
    stored[:each] = -x + 0.3 * normal(each, 40, seed=2)  # like ones are as far away as can be
    means, kept = [], []
    for share in (0.0, tolerance):
        method, context = (
            SPARKE(kernel=kernel, tolerance=share),
            at(x, prompts=themes[:1], memory=References(stored, y)),
        )
        method.x0_delta(x, context)
        kept.append(len(context.state["memory"].rows))
        means.append(method._mean(x / x.norm(), [context.state["memory"]]))
    assert kept[0] == (
        each if spread == 0 and kernel == "cosine" else 8 * each
    )  # there prompts at right angles weigh exactly nothing
    assert kept[1] == each if spread == 0 else kept[1] >= each
    assert (means[0] - means[1]).norm() <= 2 * tolerance


def test_samples_of_every_prompt_of_the_batch_are_kept_when_others_are_left_out():
    themes = torch.eye(9, dtype=torch.float64)
    memory = References(normal(90, 20), themes.repeat_interleave(10, dim=0))
    context = at(normal(3, 20, seed=1), prompts=themes[[4, 2, 4]], memory=memory)
    SPARKE().x0_delta(context.x_t, context)
    assert torch.equal(
        context.state["memory"].rows, torch.cat([memory.latents[20:30], memory.latents[40:50]])
    )


@BOTH_KERNELS
def test_each_image_reads_only_what_matters_to_it_when_a_batch_has_many_prompts(kernel):
    themes, each = torch.eye(12, dtype=torch.float64)[:8], 16
    latents, prompts = normal(8 * each, 40, seed=1), themes.repeat_interleave(each, dim=0)
    x, order = normal(8, 40), torch.randperm(8, generator=torch.Generator().manual_seed(0))
    method, context = (
        SPARKE(kernel=kernel),
        at(x, prompts=themes[order], memory=References(latents, prompts), groups=order),
    )
    together = method.x0_delta(x, context)
    read = {int(images): index for images, index in context.state["memory"].parts}
    assert {image: index.tolist() for image, index in read.items()} == {
        i: list(range(each * theme, each * (theme + 1))) for i, theme in enumerate(order.tolist())
    }
    assert context.state["memory"].rows is latents
    assert together is not None
    for i, theme in enumerate(order.tolist()):  # the batch counts too, whatever its prompts
        rest = [j for j in range(8) if j != i]
        stored = References(
            torch.cat([latents[read[i]], x[rest]]),
            torch.cat([prompts[read[i]], themes[order[rest]]]),
        )
        alone = method.x0_delta(
            x[i : i + 1], at(x[i : i + 1], prompts=themes[theme][None], memory=stored)
        )
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-5, atol=1e-8)


def test_everything_is_read_when_like_prompts_turn_out_to_have_far_latents():
    themes, unlike = torch.eye(3, dtype=torch.float64), 1_000
    y = torch.cat([themes[:1].repeat(16, 1), themes[1:2].repeat(unlike, 1)])
    x = normal(1, 40)
    near, far = x + 1e-3 * normal(unlike, 40, seed=1), -x + 0.3 * normal(16, 40, seed=2)
    deltas, read = {}, {}
    for name, like in (("far", far), ("near", -far)):
        for share in (0.0, 1e-3):
            context = at(x, prompts=themes[:1], memory=References(torch.cat([like, near]), y))
            deltas[name, share] = SPARKE(tolerance=share).x0_delta(x, context)
            read[name, share] = len(context.state["memory"].rows)
    assert read["far", 1e-3] == read["near", 1e-3] == 16
    assert torch.equal(deltas["far", 1e-3], deltas["far", 0.0])
    assert not torch.equal(deltas["near", 1e-3], deltas["near", 0.0])

"""The step that SPARKE and Vendi guidance share: regions, targets, reference sets and the
regulariser, against scores written out here.
"""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.guidance.places import at, masks_of, normal
from torch import Tensor

from unalike.errors import OptionError
from unalike.guidance import SPARKE, Call, Level, Run, VendiGuidance
from unalike.guidance.directed import Directed
from unalike.guidance.protocols import References

KINDS = {
    "rke": (SPARKE, {"objective": "rke"}),
    "cond-rke": (SPARKE, {}),
    "vendi": (VendiGuidance, {}),
    "cond-vendi": (VendiGuidance, {"conditional": True}),
    "vendi of order 2": (VendiGuidance, {"order": 2}),
}
EVERY_KIND = pytest.mark.parametrize("kind", KINDS)
BOTH_KERNELS = pytest.mark.parametrize("kernel", ["gaussian", "cosine"])


def method(kind: str, **options: Any) -> Directed:
    cls, own = KINDS[kind]
    return cls(**{"strength": 0.1, **own, **options})


def gram(kernel: str, a: Tensor, bandwidth: float) -> Tensor:
    a = a / a.norm(dim=1, keepdim=True)
    return (
        a @ a.T
        if kernel == "cosine"
        else torch.exp(-(a[:, None] - a[None]).square().sum(2) / (2 * bandwidth**2))
    )


def score(kind: str, kernel: str, z: Tensor, y: Tensor) -> Tensor:
    """What the method ascends over all samples `z` (n, e) with prompts `y` (n, p), the moved one
    first, from whole Gram matrices.
    """
    k = gram(kernel, z, 0.8)
    if kind.startswith("cond"):
        k = k * gram(kernel, y, 0.35)
    if kind.endswith("vendi"):
        values = torch.linalg.eigvalsh(k / len(k)).clamp_min(1e-300)
        return -(values * values.log()).sum()
    return -k.square().sum()


def uphill(value: Any, point: Tensor) -> Tensor:
    """The unit direction (d,) in which a function of a point (d,) rises, by finite differences."""
    steps = 1e-5 * torch.eye(len(point), dtype=point.dtype)
    gradient = torch.stack([(value(point + h) - value(point - h)) / 2e-5 for h in steps])
    return gradient / gradient.norm()


def prompts(n: int, *, of: Tensor | None = None) -> Tensor:
    """Embeddings of so many prompts that differ a little; those of `of` first."""
    y = torch.ones(n, 3, dtype=torch.float64) + 0.4 * normal(n, 3, seed=9)
    return y if of is None else torch.cat([of, y])[:n]


# Regions


@BOTH_KERNELS
@EVERY_KIND
def test_direction_ascends_the_score_inside_when_each_image_has_its_own_region(kind, kernel):
    x0, bank, y = normal(3, 8), normal(4, 8, seed=1), prompts(7)
    masks = torch.tensor(
        [[1, 1, 1, 0, 0, 1, 0, 1], [0, 1, 1, 1, 1, 1, 0, 0], [1, 0, 1, 0, 1, 0, 1, 0]],
        dtype=torch.bool,
    )
    context = at(
        x0,
        prompts=y[:3],
        memory=References(bank, y[3:]),
        groups=torch.arange(3),
        masks=masks_of(masks),
    )
    delta = method(kind, kernel=kernel, region="cat").x0_delta(x0, context)
    assert delta is not None
    assert torch.equal(delta == 0, ~masks)
    for i in range(3):
        own, others = masks[i], [j for j in range(3) if j != i]
        rest, order = torch.cat([x0[others], bank])[:, own], [i, *others, 3, 4, 5, 6]
        found = uphill(
            lambda point, rest=rest, order=order: score(
                kind, kernel, torch.cat([point[None], rest]), y[order]
            ),
            x0[i, own],
        )
        torch.testing.assert_close(
            delta[i, own], 0.1 * x0[i, own].norm() * found, rtol=1e-5, atol=1e-7
        )


@BOTH_KERNELS
@EVERY_KIND
@pytest.mark.parametrize("target", ["x0", "x_t"])
def test_result_is_that_of_cropped_latents_when_a_region_is_the_same_for_all(kind, kernel, target):
    x0, x_t, bank, y = (
        normal(3, 2, 3, 2),
        normal(3, 2, 3, 2, seed=4),
        normal(9, 12, seed=1),
        prompts(12),
    )
    reference, known = (
        normal(5, 2, 3, 2, seed=2),
        prompts(5, of=y[:2]) if kind.startswith("cond") else None,
    )
    mask = torch.tensor([[True, False], [True, True], [False, True]])
    options = {
        "kernel": kernel,
        "target": target,
        "regularizer": 0.01,
        "reference_prompts": known,
        "reference_weight": -0.5,
    }

    def delta(crop: Any, **more: Any) -> Tensor:
        context = at(
            crop(x_t),
            prompts=y[:3],
            memory=References(crop(bank.view(9, 2, 3, 2)).flatten(1), y[3:]),
            groups=torch.arange(3),
        )
        context.masks = masks_of(mask[None, None])
        found = method(kind, reference=crop(reference), **options, **more).x0_delta(
            crop(x0), context
        )
        assert found is not None
        return found

    guided = delta(lambda x: x, region="cat")
    torch.testing.assert_close(
        guided[:, :, mask], delta(lambda x: x[:, :, mask]), rtol=1e-9, atol=1e-11
    )
    assert (guided[:, :, ~mask] == 0).all()


@BOTH_KERNELS
@EVERY_KIND
def test_result_is_that_without_a_region_when_everything_is_inside(kind, kernel):
    x0, y = normal(3, 2, 4), prompts(8)
    for rows in (1, 3):
        context = at(
            x0,
            prompts=y[:3],
            memory=References(normal(5, 8, seed=1), y[3:]),
            groups=torch.arange(3),
        )
        plain = method(kind, kernel=kernel).x0_delta(x0, context)
        context.masks, context.state = masks_of(torch.ones(rows, 1, 4, dtype=torch.bool)), {}
        torch.testing.assert_close(
            method(kind, kernel=kernel, region="cat").x0_delta(x0, context),
            plain,
            rtol=1e-9,
            atol=1e-12,
        )


@EVERY_KIND
def test_nothing_changes_when_nothing_is_inside(kind):
    x0, y = normal(2, 6), prompts(6)
    context = at(
        x0,
        prompts=y[:2],
        memory=References(normal(4, 6, seed=1), y[2:]),
        masks=masks_of(torch.zeros(1, 6, dtype=torch.bool)),
    )
    assert method(kind, region="cat").x0_delta(x0, context) is None
    context.masks = masks_of(torch.tensor([[True], [False]]).expand(2, 6))
    delta = method(kind, region="cat").x0_delta(x0, context)
    assert delta is not None
    assert delta[0].norm() > 0
    assert torch.equal(delta[1], torch.zeros_like(delta[1]))


@EVERY_KIND
def test_region_is_followed_when_it_moves_from_step_to_step(kind):
    x0, y = normal(2, 6), prompts(6)
    masks = [torch.tensor([[1, 1, 1, 1, 0, 0]]) > 0, torch.tensor([[0, 0, 1, 1, 1, 1]]) > 0]

    def context(mask: Tensor) -> Any:
        return at(
            x0, prompts=y[:2], memory=References(normal(4, 6, seed=1), y[2:]), masks=masks_of(mask)
        )

    moving, found = context(masks[0]), []
    for mask in (*masks, masks[0]):
        moving.masks = masks_of(mask)
        found.append(method(kind, region="cat").x0_delta(x0, moving))
        torch.testing.assert_close(
            found[-1], method(kind, region="cat").x0_delta(x0, context(mask)), rtol=0, atol=0
        )
    assert not torch.equal(found[0], found[1])


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10_000),
    kind=st.sampled_from(sorted(KINDS)),
    kernel=st.sampled_from(["gaussian", "cosine"]),
    target=st.sampled_from(["x0", "x_t"]),
    batch=st.integers(1, 3),
    per_image=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.float16]),
)
def test_correction_is_exactly_zero_outside_and_of_the_step_size_inside(
    seed, kind, kernel, target, batch, per_image, dtype
):
    x0, x_t, bank, y = (
        t.to(dtype)
        for t in (
            normal(batch, 3, 9, seed=seed),
            normal(batch, 3, 9, seed=seed + 1),
            normal(4, 27),
            prompts(7),
        )
    )
    mask = normal(batch if per_image else 1, 1, 9, seed=seed + 2) > 0
    guided = method(kind, kernel=kernel, target=target, region="cat", regularizer=0.01)
    context = at(
        x_t,
        prompts=y[:batch].float(),
        memory=References(bank.float(), y[3:].float()),
        masks=masks_of(mask),
    )
    delta = guided.x0_delta(x0, context)
    if not mask.any():
        assert delta is None
        return
    assert delta is not None
    assert delta.dtype == torch.float32
    everywhere = mask.expand_as(x0)
    assert (delta[~everywhere] == 0).all()
    moved = (
        torch.where(everywhere, (x0 if target == "x0" else x_t).float(), 0).flatten(1).norm(dim=1)
    )
    free = (
        everywhere.flatten(1).sum(dim=1) > 1
    )  # a single number inside has no direction on its sphere but the regulariser's
    torch.testing.assert_close(
        delta.flatten(1).norm(dim=1)[free], 0.1 * moved[free], rtol=1e-3, atol=1e-6
    )


@EVERY_KIND
def test_result_is_the_same_when_stored_rows_are_squared_in_blocks(kind, monkeypatch):
    from unalike.guidance import stored

    x0, y, mask = normal(2, 6), prompts(32), normal(2, 6, seed=3) > -0.5
    context = at(
        x0, prompts=y[:2], memory=References(normal(30, 6, seed=1), y[2:]), masks=masks_of(mask)
    )
    whole = method(kind, region="cat").x0_delta(x0, context)
    monkeypatch.setattr(stored, "_BLOCK", 12)
    context.state = {}
    torch.testing.assert_close(method(kind, region="cat").x0_delta(x0, context), whole)


def test_memory_is_not_copied_when_there_is_a_region():
    x0, memory = normal(2, 6), References(normal(4, 6, seed=1))
    context = at(
        x0, memory=memory, masks=masks_of(torch.tensor([[True, True, True, False, False, True]]))
    )
    SPARKE(objective="rke", region="cat").x0_delta(x0, context)
    assert context.state["memory"].rows is memory.latents


def test_each_image_reads_what_matters_to_it_when_regions_and_prompts_differ():
    themes, each = torch.eye(12, dtype=torch.float64)[:8], 16
    latents, y = normal(8 * each, 40, seed=1), themes.repeat_interleave(each, dim=0)
    x, masks = normal(8, 40), normal(8, 40, seed=2) > 0
    context = at(
        x,
        prompts=themes,
        memory=References(latents, y),
        groups=torch.arange(8),
        masks=masks_of(masks),
    )
    together = SPARKE(region="cat").x0_delta(x, context)
    assert together is not None
    assert len(context.state["memory"].parts) == 8
    for i in range(8):
        rest, own = [j for j in range(8) if j != i], masks[i]
        stored = References(torch.cat([latents, x[rest]])[:, own], torch.cat([y, themes[rest]]))
        alone = SPARKE(tolerance=0).x0_delta(
            x[i : i + 1, own], at(x[i : i + 1, own], prompts=themes[i : i + 1], memory=stored)
        )
        assert alone is not None
        torch.testing.assert_close(together[i, own], alone[0], rtol=1e-2, atol=1e-3)


def test_everything_is_read_inside_the_region_when_like_prompts_have_far_latents():
    themes, unlike = torch.eye(3, dtype=torch.float64), 1_000
    y = torch.cat([themes[:1].repeat(16, 1), themes[1:2].repeat(unlike, 1)])
    x, mask = normal(1, 40), torch.arange(40)[None] < 30
    stored = References(
        torch.cat([-x + 0.3 * normal(16, 40, seed=2), x + 1e-3 * normal(unlike, 40, seed=1)]), y
    )
    deltas = []
    for share in (0.0, 1e-3):
        context = at(x, prompts=themes[:1], memory=stored, masks=masks_of(mask))
        deltas.append(SPARKE(tolerance=share, region="cat").x0_delta(x, context))
    assert len(context.state["memory"].rows) == 16
    assert torch.equal(deltas[0], deltas[1])


def test_run_reports_a_change_only_of_images_with_something_inside():
    x0, mask = (
        normal(2, 6).float(),
        torch.tensor([[True, True, False, True, True, True], [False] * 6]),
    )
    run = Run(
        [SPARKE(region="cat")],
        groups=torch.zeros(2, dtype=torch.int64),
        masks=masks_of(mask),
    )
    delta = run.correct(Call(x0=x0, x_t=x0, level=Level(1.0, 1.0, 1.0, 0.0), step=0, steps=1))
    assert delta is not None
    assert run.traces[0].active[0].tolist() == [True, False]


# What is moved, reference sets and the regulariser, of Vendi guidance; SPARKE's are in test_sparke


@BOTH_KERNELS
@pytest.mark.parametrize("kind", ["vendi", "cond-vendi", "vendi of order 2"])
@pytest.mark.parametrize("batch", [False, True])
def test_noisy_latents_ascend_the_score_among_clean_ones_when_they_are_the_target(
    kind, kernel, batch
):
    x0, x_t, bank, y = normal(3, 6), 2 * normal(3, 6, seed=5), normal(4, 6, seed=1), prompts(7)
    context = at(x_t, prompts=y[:3], memory=References(bank, y[3:]), groups=torch.arange(3))
    delta = method(kind, kernel=kernel, target="x_t", batch=batch).x0_delta(x0, context)
    assert delta is not None
    for i in range(3):
        others = [j for j in range(3) if j != i] if batch else []
        rest, order = torch.cat([x0[others], bank]), [i, *others, 3, 4, 5, 6]
        found = uphill(
            lambda point, rest=rest, order=order: score(
                kind, kernel, torch.cat([point[None], rest]), y[order]
            ),
            x_t[i],
        )
        torch.testing.assert_close(delta[i], 0.1 * x_t[i].norm() * found, rtol=1e-5, atol=1e-7)


def unit(kind: str, kernel: str, z: Tensor, y: Tensor) -> float:
    """What the slope of the score in the first sample is multiplied by to be the mean of unit
    vectors that the method has.

    A kernel's slope is `(f_i - f) k / σ²` or `f_i`, each of its values stands in the Gram matrix
    twice, and is squared at order 2.
    """
    k, k_y = (
        gram(kernel, z, 0.8)[0, 1:],
        gram(kernel, y, 0.35)[0, 1:] if kind.startswith("cond") else torch.ones(len(z) - 1),
    )
    mass = (k * k_y if kernel == "gaussian" else k_y).square().sum().item()
    return (
        (0.64 if kernel == "gaussian" else 1.0)
        / mass
        * (len(z) / 2 if kind.endswith("vendi") else 1 / 4)
    )


@BOTH_KERNELS
@pytest.mark.parametrize("kind", ["vendi", "cond-vendi", "vendi of order 2"])
@pytest.mark.parametrize("weight", [0.7, -1.5])
def test_direction_ascends_both_scores_and_the_regulariser_when_there_is_a_reference_set(
    kind, kernel, weight
):
    x, bank, reference, y = normal(2, 6), normal(4, 6, seed=1), normal(3, 6, seed=2), prompts(9)
    known = {"reference_prompts": y[6:]} if kind.startswith("cond") else {}
    guided = method(
        kind,
        kernel=kernel,
        reference=reference.view(3, 2, 3),
        reference_weight=weight,
        regularizer=0.05,
        **known,
    )
    delta = guided.x0_delta(x, at(x, prompts=y[:2], memory=References(bank, y[2:6])))
    assert delta is not None
    for i in range(2):
        sets = [
            (torch.cat([x[1 - i][None], bank]), [i, 1 - i, 2, 3, 4, 5], 1.0),
            (reference, [i, 6, 7, 8], weight),
        ]

        units = [
            unit(kind, kernel, torch.cat([x[i : i + 1], rows]), y[order]) for rows, order, _ in sets
        ]

        def value(point: Tensor, sets=sets, units=units) -> Tensor:
            total = 0.05 * (-point.square().sum() / 2 + 5 * point.norm().log())
            for (rows, order, share), scale in zip(sets, units, strict=True):
                total = total + share * scale * score(
                    kind, kernel, torch.cat([point[None], rows]), y[order]
                )
            return total

        torch.testing.assert_close(
            delta[i], 0.1 * x[i].norm() * uphill(value, x[i]), rtol=1e-5, atol=1e-7
        )


@pytest.mark.parametrize("conditional", [False, True])
@pytest.mark.parametrize("target", ["x0", "x_t"])
@pytest.mark.parametrize("region", [None, "cat"])
@BOTH_KERNELS
def test_vendi_guidance_of_order_2_is_sparke_when_all_else_is_the_same(
    conditional, target, region, kernel
):
    x0, x_t, y = normal(3, 8), normal(3, 8, seed=5), prompts(12)
    options: dict[str, Any] = {
        "target": target,
        "region": region,
        "regularizer": 0.02,
        "strength": 0.2,
        "kernel": kernel,
    }
    options |= {
        "reference": normal(5, 8, seed=2),
        "reference_weight": -0.4,
        "reference_prompts": y[7:] if conditional else None,
    }
    context = at(
        x_t,
        prompts=y[:3],
        memory=References(normal(4, 8, seed=1), y[3:7]),
        masks=masks_of(normal(3, 8, seed=6) > -0.5),
    )
    sparke = SPARKE(
        objective="cond-rke" if conditional else "rke", tolerance=0, **options
    ).x0_delta(x0, context)
    context.state = {}
    torch.testing.assert_close(
        VendiGuidance(order=2, conditional=conditional, **options).x0_delta(x0, context), sparke
    )


def test_reference_without_prompts_counts_the_same_for_every_prompt_when_conditional():
    x, reference = normal(2, 6), normal(3, 6, seed=2)
    options = {"reference": reference, "reference_weight": 1.0, "batch": False}
    conditional = VendiGuidance(conditional=True, **options).x0_delta(
        x, at(x, prompts=torch.eye(2, dtype=torch.float64))
    )
    torch.testing.assert_close(
        conditional, VendiGuidance(**options).x0_delta(x, at(x)), rtol=0, atol=0
    )


@pytest.mark.parametrize(("weight", "nearer"), [(1.0, False), (-1.0, True)])
@pytest.mark.parametrize("order", [1, 2])
def test_image_moves_as_the_weight_says_when_only_a_reference_acts(weight, nearer, order):
    x, reference = normal(1, 6), normal(1, 6, seed=2)
    delta = VendiGuidance(order=order, reference=reference, reference_weight=weight).x0_delta(
        x, at(x)
    )
    assert delta is not None
    before, after = (
        torch.cosine_similarity(x, reference),
        torch.cosine_similarity(x + delta, reference),
    )
    assert (after > before).item() is nearer


def test_reference_has_its_gram_computed_once_when_a_run_goes_on():
    x = normal(2, 6)
    context = at(x)
    guided = VendiGuidance(reference=normal(3, 6, seed=2), reference_weight=1.0)
    guided.x0_delta(x, context)
    prepared = context.state["reference"]
    guided.x0_delta(2 * x, context)
    assert context.state["reference"] is prepared


@pytest.mark.parametrize("cls", [SPARKE, VendiGuidance])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reference": torch.ones(2, 4)}, "reference is given and reference_weight is 0"),
        ({"reference_weight": math.pi}, r"reference_weight 3\.14159 is given without reference"),
        ({"embed": 3}, r"embed is a int; allowed: a function .* as in \w+\(embed=function\)"),
    ],
)
def test_error_names_the_method_when_an_option_is_refused(cls, options, message):
    with pytest.raises(OptionError, match=f"{cls.__name__}: {message}"):
        cls(**options)


def test_error_names_the_option_of_the_method_when_reference_prompts_are_not_read():
    options = {
        "reference": torch.ones(2, 4),
        "reference_weight": 1.0,
        "reference_prompts": torch.ones(2, 3),
    }
    with pytest.raises(
        OptionError,
        match=r"VendiGuidance\(conditional=False\) reads no prompts; .* set conditional=True",
    ):
        VendiGuidance(**options)


def test_error_names_both_sizes_when_the_reference_is_of_another_model():
    x = normal(2, 6)
    for cls in (SPARKE, VendiGuidance):
        with pytest.raises(
            OptionError,
            match=r"the reference holds latents of shape \(7,\) and this generation has 6",
        ):
            cls(reference=normal(3, 7), reference_weight=1.0).x0_delta(x, at(x))

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from unalike import scores
from unalike.errors import OptionError
from unalike.guidance.context import Context
from unalike.guidance.level import Level
from unalike.guidance.protocols import References
from unalike.guidance.vendi import VendiGuidance, entropy_gradient
from unalike.kernels import Gaussian


def rows(n: int, d: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def context(x0: Tensor, prompts: Tensor | None = None, memory: References | None = None) -> Context:
    return Context(
        step=0,
        steps=4,
        level=Level(0.8, 0.6, 0.9, 0.4),
        x_t=x0,
        groups=torch.zeros(len(x0), dtype=torch.int64),
        prompts=prompts,
        memory=memory,
    )


def score(z: Tensor, y: Tensor | None, order: int = 1) -> Tensor:
    """The Vendi score, at order 2 the RKE score, of latents scaled to norm 1, bandwidths 0.7 and
    0.9, written out pair by pair.
    """

    def gram(x: Tensor, bandwidth: float) -> Tensor:
        f = x / x.norm(dim=1, keepdim=True)
        return torch.exp(-((f[:, None] - f[None]) ** 2).sum(2) / (2 * bandwidth**2))

    K = gram(z, 0.7) if y is None else gram(z, 0.7) * gram(y, 0.9)
    if order == 2:
        return 1 / (K / len(K)).square().sum()
    eigenvalues = torch.linalg.eigvalsh(K / len(K))
    return torch.exp(-(eigenvalues * eigenvalues.log()).sum())


@pytest.mark.parametrize("conditional", [False, True])
@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize("n", [0, 5])
@pytest.mark.parametrize("order", [1, 2])
def test_direction_is_the_gradient_of_the_score_when_differentiated_automatically(
    conditional: bool, batch: bool, n: int, order: int
):
    x0, y, stored, stored_y = rows(3, 8, 0), rows(3, 4, 1), rows(n, 8, 2), rows(n, 4, 3)
    method = VendiGuidance(
        strength=0.1,
        order=order,
        conditional=conditional,
        batch=batch,
        bandwidth=0.7,
        prompt_bandwidth=0.9,
    )
    delta = method.x0_delta(x0.view(3, 2, 2, 2), context(x0, y, References(stored, stored_y)))
    if n == 0 and not batch:
        assert delta is None
        return
    assert delta is not None
    for b in range(3):
        others = [i for i in range(3) if i != b] if batch else []
        x = x0[b : b + 1].clone().requires_grad_()
        prompts = torch.cat([stored_y, y[others], y[b : b + 1]]) if conditional else None
        (gradient,) = torch.autograd.grad(
            score(torch.cat([stored, x0[others], x]), prompts, order), x
        )
        expected = 0.1 * x0[b].norm() * gradient[0] / gradient.norm()
        torch.testing.assert_close(delta[b].flatten(), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("order", [1, 2])
def test_direction_follows_finite_differences_when_stored_samples_repeat(order: int):
    x0, stored = (
        rows(1, 5, 0),
        rows(3, 5, 1).repeat(3, 1),
    )  # six eigenvalues are 0, where the logarithm has no value
    delta = VendiGuidance(strength=1.0, order=order, bandwidth=0.7).x0_delta(
        x0, context(x0, memory=References(stored))
    )
    assert delta is not None

    def at(x: Tensor) -> float:
        z = torch.cat([stored, x])
        return scores.vendi(z / z.norm(dim=1, keepdim=True), order, kernel=Gaussian(0.7))

    steps = 1e-5 * torch.eye(5, dtype=torch.float64)
    gradient = torch.tensor([(at(x0 + h) - at(x0 - h)) / 2e-5 for h in steps], dtype=torch.float64)
    torch.testing.assert_close(
        delta[0], x0.norm() * gradient / gradient.norm(), rtol=1e-5, atol=1e-7
    )


def test_entropy_gradient_follows_finite_differences_when_entries_move():
    x = rows(5, 3, 0)
    K = Gaussian(1.0)(x, x)

    def entropy(gram: Tensor) -> float:
        eigenvalues = torch.linalg.eigvalsh(gram / 5)
        return -(eigenvalues * eigenvalues.log()).sum().item()

    gradient = entropy_gradient(K)
    for i, j in [(0, 1), (4, 2), (3, 0)]:
        h = torch.zeros_like(K)
        h[i, j] = h[j, i] = 1e-6
        assert 2 * gradient[i, j].item() == pytest.approx(
            (entropy(K + h) - entropy(K - h)) / 2e-6, rel=1e-5
        )
    torch.testing.assert_close(entropy_gradient(K, slice(3, None)), gradient[3:])


def test_directions_differ_when_orders_do():
    x0, memory = rows(2, 6, 0), References(rows(9, 6, 1))
    one, two = (
        VendiGuidance(order=order).x0_delta(x0, context(x0, memory=memory)) for order in (1, 2)
    )
    assert one is not None
    assert two is not None
    assert torch.cosine_similarity(one, two, dim=1).max() < 0.999


def test_memory_has_no_gram_when_the_order_needs_none():
    x0, used = rows(2, 6, 0), context(rows(2, 6, 0), memory=References(rows(4, 6, 1)))
    VendiGuidance(order=2).x0_delta(x0, used)
    assert used.state["memory"].gram is None


@pytest.mark.parametrize("batch", [False, True])
def test_corrections_have_the_size_of_the_strength_when_there_is_a_direction(batch: bool):
    x0 = rows(4, 32, 0, torch.float32) * torch.tensor([[0.1], [1.0], [5.0], [40.0]])
    delta = VendiGuidance(strength=0.03, batch=batch).x0_delta(
        x0, context(x0, memory=References(rows(6, 32, 1, torch.float32)))
    )
    assert delta is not None
    torch.testing.assert_close(delta.norm(dim=1), 0.03 * x0.norm(dim=1))


def test_score_rises_when_the_correction_is_added():
    x0, memory = rows(4, 6, 0, torch.float32), References(rows(5, 6, 1, torch.float32))
    delta = VendiGuidance(strength=0.02, bandwidth=0.7).x0_delta(x0, context(x0, memory=memory))
    assert delta is not None

    def at(x: Tensor) -> float:
        return score(torch.cat([memory.latents, x]).double(), None).item()

    assert at(x0 + delta) > at(x0) > at(x0 - delta)


def test_images_move_from_those_of_their_own_prompt_when_conditional():
    x0, stored = rows(1, 6, 0), rows(2, 6, 1)
    y = torch.eye(2, dtype=torch.float64)
    for same in (0, 1):
        delta = VendiGuidance(conditional=True).x0_delta(
            x0, context(x0, y[same : same + 1], References(stored, y))
        )
        assert delta is not None
        f, other = x0[0] / x0.norm(), stored[same] / stored[same].norm()
        away = -(other - (other @ f) * f)
        assert torch.cosine_similarity(delta[0], away, dim=0) > 0.999


def test_prompts_change_nothing_when_not_conditional():
    x0, memory = rows(2, 6, 0), rows(3, 6, 1)
    alone = VendiGuidance().x0_delta(x0, context(x0, memory=References(memory)))
    prompted = VendiGuidance().x0_delta(
        x0, context(x0, rows(2, 3, 2), References(memory, rows(3, 3, 3)))
    )
    torch.testing.assert_close(prompted, alone, rtol=0, atol=0)


def test_corrections_follow_their_images_when_the_batch_is_permuted():
    x0, y, order = rows(4, 6, 0), rows(4, 3, 1), torch.tensor([2, 0, 3, 1])
    memory, method = References(rows(3, 6, 2), rows(3, 3, 3)), VendiGuidance(conditional=True)
    straight, turned = (
        method.x0_delta(x0, context(x0, y, memory)),
        method.x0_delta(x0[order], context(x0[order], y[order], memory)),
    )
    assert straight is not None
    torch.testing.assert_close(turned, straight[order], rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_single_precision_agrees_with_double_when_samples_are_many_and_alike(dtype: torch.dtype):
    common = rows(1, 256, 0)
    x0, stored = (
        (common + 0.3 * rows(3, 256, 1)).to(dtype),
        (common + 0.3 * rows(60, 256, 2)).float(),
    )
    exact = VendiGuidance().x0_delta(
        x0.double(), context(x0.double(), memory=References(stored.double()))
    )
    single = VendiGuidance().x0_delta(x0, context(x0, memory=References(stored)))
    assert single is not None
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), exact, rtol=1e-3, atol=1e-4)


def test_memory_is_prepared_once_when_a_run_has_several_steps():
    x0, moved = rows(2, 6, 0), rows(2, 6, 1)
    first = context(x0, memory=References(rows(4, 6, 2)))
    method = VendiGuidance()
    method.x0_delta(x0, first)
    prepared = first.state["memory"]
    again = method.x0_delta(moved, first)
    assert first.state["memory"] is prepared
    torch.testing.assert_close(
        again, method.x0_delta(moved, context(moved, memory=first.memory)), rtol=0, atol=0
    )


def test_memory_is_prepared_anew_when_it_is_another_one():
    x0, other = rows(2, 6, 0), References(rows(3, 6, 3))
    used = context(x0, memory=References(rows(4, 6, 2)))
    VendiGuidance().x0_delta(x0, used)
    used.memory = other
    torch.testing.assert_close(
        VendiGuidance().x0_delta(x0, used),
        VendiGuidance().x0_delta(x0, context(x0, memory=other)),
        rtol=0,
        atol=0,
    )


def test_nothing_is_done_when_the_strength_is_zero_or_no_other_sample_is_seen():
    x0, memory = rows(2, 6, 0), References(rows(3, 6, 1))
    assert VendiGuidance(strength=0).x0_delta(x0, context(x0, memory=memory)) is None
    assert VendiGuidance(batch=False, memory=False).x0_delta(x0, context(x0, memory=memory)) is None
    assert VendiGuidance(batch=False).x0_delta(x0, context(x0)) is None
    assert VendiGuidance().x0_delta(x0[:1], context(x0[:1])) is None


def test_images_stay_when_they_are_identical():
    x0 = rows(1, 64, 0, torch.float32).repeat(3, 1)
    delta = VendiGuidance().x0_delta(x0, context(x0))
    assert delta is not None
    assert delta.eq(0).all()


def test_images_of_zeros_stay_when_others_move():
    x0 = torch.cat([torch.zeros(1, 8), rows(2, 8, 0, torch.float32)])
    delta = VendiGuidance().x0_delta(x0, context(x0))
    assert delta is not None
    assert delta[0].eq(0).all()
    assert delta[1:].norm(dim=1).gt(0).all()


@pytest.mark.parametrize(
    ("prompts", "memory", "message"),
    [
        (
            None,
            None,
            r"VendiGuidance\(conditional=True\) needs prompt embeddings, .* generation has none",
        ),
        (
            rows(2, 3, 0),
            References(rows(2, 6, 1)),
            "needs prompt embeddings, and the memory has none",
        ),
        (
            rows(2, 3, 0),
            References(rows(2, 7, 1), rows(2, 3, 2)),
            "the memory holds latents of shape .*7.* 6 values an image",
        ),
        (
            rows(2, 3, 0),
            References(rows(2, 6, 1), rows(2, 5, 2)),
            "prompt embeddings have size 5 and those of this generation 3",
        ),
    ],
)
def test_guidance_is_refused_when_prompts_or_memory_do_not_fit(
    prompts: Tensor | None, memory: References | None, message: str
):
    x0 = rows(2, 6, 3)
    with pytest.raises(OptionError, match=message):
        VendiGuidance(conditional=True).x0_delta(x0, context(x0, prompts, memory))


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("strength", -0.1),
        ("bandwidth", 0),
        ("prompt_bandwidth", -1),
        ("strength", math.nan),
        ("batch", "yes"),
        ("order", 3),
    ],
)
def test_options_are_refused_when_out_of_range(option: str, value: Any):
    with pytest.raises(OptionError, match=f"VendiGuidance: {option} is "):
        VendiGuidance(**{option: value})


ORACLE = json.loads((Path(__file__).parents[1] / "oracles" / "sparke_steps.json").read_text())[
    "cases"
]
VENDI_CASES = [case for case in ORACLE if case["algorithm"] in ("vendi", "cond-vendi")]


@pytest.mark.parametrize(
    "case", VENDI_CASES, ids=lambda case: f"{case['algorithm']}-{case['kernel']}"
)
def test_delta_is_that_of_the_published_code_when_given_its_latents(case: dict[str, Any]):
    tensors = {
        k: torch.tensor(case[k])
        for k in ("latents", "bank", "prompt_embeds", "prompt_embed", "delta")
    }
    method = VendiGuidance(
        strength=case["scale"],
        conditional=case["algorithm"] == "cond-vendi",
        kernel=case["kernel"],
        bandwidth=case["sigma_image"],
        prompt_bandwidth=case["sigma_text"],
        target="x_t",
    )
    memory = References(tensors["bank"], tensors["prompt_embeds"])
    published = replace(
        context(tensors["latents"], tensors["prompt_embed"][None], memory),
        level=Level(1, 1, 1, 0),
    )
    delta = method.x0_delta(torch.full_like(tensors["latents"], 3.0), published)
    assert delta is not None
    assert (delta - tensors["delta"]).norm() < 1e-4 * tensors["delta"].norm()

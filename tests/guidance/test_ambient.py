"""Guidance among embeddings of images, through a decoder and an embedding that torch
differentiates.
"""

from typing import Any

import pytest
import torch
from tests.guidance.places import Decoded, at, features, masks_of, normal
from tests.guidance.test_directed import (
    BOTH_KERNELS,
    EVERY_KIND,
    method,
    prompts,
    score,
    unit,
    uphill,
)
from torch import Tensor

from unalike.errors import NumericsError, OptionError
from unalike.guidance import SPARKE, Call, Level, Run, VendiGuidance
from unalike.guidance.protocols import References


def e_of(x: Tensor) -> Tensor:
    return features(Decoded().images(x))


@BOTH_KERNELS
@EVERY_KIND
@pytest.mark.parametrize("region", [None, "cat"])
def test_direction_ascends_the_score_of_embeddings_when_measured_by_finite_differences(
    kind, kernel, region
):
    x0, bank, reference, y = (
        normal(2, 8),
        normal(3, 8, seed=1),
        normal(3, 2, 2, 2, seed=2),
        prompts(8),
    )
    masks = torch.tensor([[1, 1, 1, 0, 0, 1, 0, 1], [0, 1, 1, 1, 1, 1, 0, 0]], dtype=torch.bool)
    inside = masks if region else torch.ones_like(masks)
    options: dict[str, Any] = {
        "kernel": kernel,
        "regularizer": 0.02,
        "reference": reference,
        "reference_weight": -0.6,
        "tolerance": 0,
    }
    if kind.startswith("cond"):
        options["reference_prompts"] = y[5:]
    if kind.endswith("vendi") or "order" in kind:
        del options["tolerance"]
    context = at(
        x0.view(2, 2, 2, 2), prompts=y[:2], memory=References(bank, y[2:5]), groups=torch.arange(2)
    )
    context.images, context.masks = Decoded(bank), masks_of(masks.view(2, 2, 2, 2))
    delta = method(kind, embed=features, region=region, **options).x0_delta(
        x0.view(2, 2, 2, 2), context
    )
    assert delta is not None
    delta = delta.flatten(1)
    assert torch.equal(delta == 0, ~inside)
    for i in range(2):
        own, e = inside[i], e_of(x0[i : i + 1])
        sets = [
            (e_of(torch.cat([x0[1 - i : 2 - i], bank])), [i, 1 - i, 2, 3, 4], 1.0),
            (e_of(reference.flatten(1)), [i, 5, 6, 7], -0.6),
        ]
        units = [unit(kind, kernel, torch.cat([e, rows]), y[order]) for rows, order, _ in sets]

        def value(point: Tensor, i=i, own=own, sets=sets, units=units) -> Tensor:
            moved = e_of(x0[i].index_put((own.nonzero().flatten(),), point)[None])
            total = 0.02 * (-point.square().sum() / 2 + (len(point) - 1) * point.norm().log())
            for (rows, order, share), scale in zip(sets, units, strict=True):
                total = total + share * scale * score(
                    kind, kernel, torch.cat([moved, rows]), y[order]
                )
            return total

        torch.testing.assert_close(
            delta[i, own], 0.1 * x0[i, own].norm() * uphill(value, x0[i, own]), rtol=1e-5, atol=1e-7
        )


@EVERY_KIND
def test_noisy_latents_move_as_the_prediction_would_when_they_are_the_target(kind):
    x0, x_t, bank, y = normal(3, 8), normal(3, 8, seed=5), normal(3, 8, seed=1), prompts(6)
    context = at(
        x_t,
        prompts=y[:3],
        memory=References(bank, y[3:]),
        groups=torch.arange(3),
        images=Decoded(bank),
    )
    plain, noisy = (
        method(kind, embed=features, target=target).x0_delta(x0, context)
        for target in ("x0", "x_t")
    )
    assert plain is not None
    torch.testing.assert_close(
        noisy, plain * x_t.norm(dim=1, keepdim=True) / x0.norm(dim=1, keepdim=True)
    )


@pytest.mark.parametrize("cls", [SPARKE, VendiGuidance])
def test_result_is_that_of_latents_when_the_embedding_is_linear_and_keeps_angles(cls):
    """With orthogonal maps nothing but the way differs."""
    x0, bank = normal(2, 12), normal(3, 12, seed=1)
    turn = torch.linalg.qr(normal(12, 12, seed=2)).Q

    class Turned(Decoded):
        def images(self, x0: Tensor) -> Tensor:
            return (x0 @ turn).view(-1, 3, 2, 2)

    def flat(images: Tensor) -> Tensor:
        return 3.0 * images.flatten(1)

    context = at(x0, memory=References(bank), images=Turned(bank))
    options: dict[str, Any] = {"objective": "rke"} if cls is SPARKE else {}
    options |= {"regularizer": 0.03, "strength": 0.2}
    plain = cls(**options).x0_delta(x0, context)
    context.state = {}
    torch.testing.assert_close(cls(embed=flat, **options).x0_delta(x0, context), plain)


@pytest.mark.parametrize("kind", ["cond-rke", "cond-vendi"])
def test_memory_and_reference_are_embedded_once_when_a_run_goes_on(kind):
    x0, bank, y = normal(2, 8), normal(3, 8, seed=1), prompts(5)
    images = Decoded(bank)
    context = at(x0, prompts=y[:2], memory=References(bank, y[2:]), images=images)
    guided = method(kind, embed=features, reference=normal(5, 2, 4, seed=2), reference_weight=0.5)
    for step in range(3):
        guided.x0_delta(x0 + step, context)
    assert images.remembered_times == 1
    reference = [(2, False), (2, False), (1, False)]  # as many at a time as the batch has
    assert images.decoded == [
        (2, False),
        *reference,
        (1, True),
        (1, True),
        *[(2, False), (1, True), (1, True)] * 2,
    ]


def test_image_alone_is_decoded_once():
    bank = normal(3, 8, seed=1)
    images = Decoded(bank)
    SPARKE(objective="rke", embed=features).x0_delta(
        normal(1, 8), at(normal(1, 8), memory=References(bank), images=images)
    )
    assert images.decoded == [(1, True)]


def test_nothing_is_decoded_when_there_is_nothing_to_be_unlike():
    images = Decoded()
    for strength in (0.1, 0):
        assert (
            SPARKE(embed=features, strength=strength).x0_delta(
                normal(1, 8), at(normal(1, 8), images=images)
            )
            is None
        )
    assert images.decoded == []


@pytest.mark.parametrize("kind", ["rke", "vendi"])
def test_image_stays_when_its_gradient_is_zero(kind):
    def saturated(images: Tensor) -> Tensor:
        return images.flatten(1)[:, :2].clamp(0, 0.5) + 0.1

    weights = Decoded().images(torch.eye(8, dtype=torch.float64)).logit().flatten(1)[:, :2]
    x0 = torch.linalg.lstsq(
        weights.T, torch.tensor([[4.0, 4.0], [-0.3, -1.0]], dtype=torch.float64).T
    ).solution.T  # beyond the clamp, below
    delta = method(kind, embed=saturated).x0_delta(x0, at(x0, images=Decoded()))
    assert delta is not None
    assert torch.equal(delta[0], torch.zeros_like(delta[0]))
    torch.testing.assert_close(delta[1].norm(), 0.1 * x0[1].norm())


@pytest.mark.parametrize("kind", ["rke", "vendi"])
def test_images_stay_when_their_embeddings_coincide_or_are_zero(kind):
    x0 = normal(2, 8)
    for embed in (
        lambda images: images.flatten(1)[:, :3] * 0 + 1,
        lambda images: images.flatten(1)[:, :3] * 0,
    ):
        delta = method(kind, embed=embed).x0_delta(x0, at(x0, images=Decoded()))
        assert delta is not None
        assert torch.equal(delta, torch.zeros_like(x0))


@pytest.mark.parametrize("kind", ["rke", "vendi"])
@pytest.mark.parametrize("target", ["x0", "x_t"])
def test_run_reports_a_gradient_or_an_embedding_that_is_not_finite(kind, target):
    def steep(images: Tensor) -> Tensor:
        return (
            images.flatten(1)[:, :3] - images.flatten(1)[:, :3].detach()
        ).sqrt() + images.flatten(1)[:, 3:6]  # at 0: infinite

    def broken(images: Tensor) -> Tensor:
        return images.flatten(1)[:, :3] / 0

    x0 = normal(2, 8).float()
    for embed in (steep, broken):
        run = Run(
            [method(kind, embed=embed, target=target)],
            groups=torch.zeros(2, dtype=torch.int64),
            images=Decoded(),
        )
        with pytest.raises(NumericsError, match="at step 0 of 1"):
            run.correct(Call(x0=x0, x_t=x0, level=Level(1.0, 1.0, 1.0, 0.0), step=0, steps=1))


@pytest.mark.parametrize("kind", ["cond-rke", "cond-vendi"])
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("batch", [1, 3])
def test_result_is_the_same_when_the_host_has_gradients_off(kind, mode, batch):
    bank, y = normal(3, 8, seed=1), prompts(6)
    network, images = torch.nn.Linear(12, 5, dtype=torch.float64), Decoded(bank)

    def embed(images: Tensor) -> Tensor:
        return network(images.flatten(1))

    def delta() -> Tensor | None:
        x0 = normal(batch, 8)
        context = at(
            x0,
            prompts=y[:batch],
            memory=References(bank, y[3:]),
            groups=torch.arange(batch),
            images=images,
        )
        return method(
            kind, embed=embed, reference=normal(2, 8, seed=4), reference_weight=1.0
        ).x0_delta(x0, context)

    with mode():
        off = delta()
    assert off is not None
    assert not off.requires_grad
    torch.testing.assert_close(off, delta())
    assert network.weight.grad is None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_correction_is_that_of_float32_when_latents_or_embeddings_are_of_half_precision(dtype):
    x0, bank = normal(2, 8).to(dtype), normal(3, 8, seed=1).float()
    context = at(x0, memory=References(bank), images=Decoded(bank))
    guided, half = (
        SPARKE(objective="rke", embed=e).x0_delta(
            x0, at(x0, memory=References(bank), images=Decoded(bank))
        )
        for e in (features, lambda images: features(images).to(dtype))
    )
    assert guided is not None
    assert guided.dtype == torch.float32
    torch.testing.assert_close(
        SPARKE(objective="rke", embed=features).x0_delta(x0.float(), context),
        guided,
        rtol=0,
        atol=0,
    )
    torch.testing.assert_close(half, guided, rtol=0.2, atol=0.01)


@pytest.mark.parametrize("cls", [SPARKE, VendiGuidance])
@pytest.mark.parametrize(
    ("embed", "message"),
    [
        (
            lambda images: images,
            r"embed made \(2, 3, 2, 2\) of 2 images; allowed: one vector for each",
        ),
        (lambda images: features(images)[:1], r"embed made \(1, 5\) of 2 images"),
        (lambda images: features(images).tolist(), "embed made list of 2 images"),
        (lambda images: features(images).detach(), "embed gives vectors without a gradient"),
        (
            lambda images: features(images.detach()) * torch.ones(5, requires_grad=True),
            "embed gives vectors without a gradient",
        ),
    ],
)
def test_error_says_what_an_embedding_has_to_give_when_it_does_not(cls, embed, message):
    x0 = normal(2, 8)
    with pytest.raises(OptionError, match=f"{cls.__name__}: {message}"):
        cls(embed=embed).x0_delta(x0, at(x0, images=Decoded()))


@pytest.mark.parametrize("cls", [SPARKE, VendiGuidance])
def test_error_says_what_to_do_when_the_host_has_no_images(cls):
    x0 = normal(2, 8)
    with pytest.raises(
        OptionError,
        match=rf"{cls.__name__}: embed is given, .* images= .* or set {cls.__name__}\(embed=None",
    ):
        cls(embed=features).x0_delta(x0, at(x0))


def test_error_names_the_function_when_an_extractor_is_given():
    class Extractor:
        def embed(self, images: Tensor) -> Any: ...

    with pytest.raises(
        OptionError, match=r"embed is a Extractor; .* as in SPARKE\(embed=extractor\.embed\)"
    ):
        SPARKE(embed=Extractor())  # pyright: ignore[reportArgumentType]


def test_error_names_both_sizes_when_the_reference_is_of_another_model():
    x0 = normal(2, 8)
    with pytest.raises(
        OptionError, match=r"the reference holds latents of shape \(7,\) and this generation has 8"
    ):
        SPARKE(embed=features, reference=normal(3, 7), reference_weight=1.0).x0_delta(
            x0, at(x0, images=Decoded())
        )

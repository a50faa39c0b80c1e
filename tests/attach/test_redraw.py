"""Finished images that are inside the protected set: restarted, drawn from other seeds, refused."""

from typing import Any

import pytest
import torch
from tests.attach.conftest import prompted, seeded
from torch import Tensor

import unalike
from unalike.attach import encode_images, guide, shield_from_images
from unalike.attach.diffusers.again import SEEDS, steered
from unalike.attach.diffusers.passes import Order
from unalike.attach.run.policy import RESTARTS, Policy, Redraw
from unalike.attach.run.randomness import derived_seed
from unalike.errors import OptionError, RefusedError
from unalike.guidance import SPARKE, SPELL
from unalike.memory import Memory
from unalike.models import emoji
from unalike.models.emoji.data import load_images, truth
from unalike.shields import Shield

FOUR = {"num_inference_steps": 4, "guidance_scale": 1.0, "output_type": "pt"}
pytestmark = pytest.mark.filterwarnings("ignore:__array_:DeprecationWarning")


@pytest.fixture(scope="module")
def turbo() -> Any:
    pipe = unalike.load("emoji-turbo")
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def hearts(turbo: Any) -> Shield:
    return shield_from_images(turbo, list(load_images()[truth("heart")]), 12.0)


def distances(turbo: Any, images: Tensor, protected: Tensor) -> Tensor:
    """Of images as 8 bits, encoded again, to the nearest of some protected ones."""
    found, known = (
        encode_images(turbo, part).flatten(1).double()
        for part in ((images * 255).round() / 255, protected)
    )
    return torch.cdist(found, known).amin(dim=1)


def test_order_of_a_restart_leaves_out_the_steps_between():
    assert Order.restart(4, 2) == Order(4, [0, 2, 3], [0])
    assert Order.restart(4, 1) == Order(4, [0, 1, 2, 3], [0])


def test_no_finished_image_is_inside_when_protected_things_are_asked_for(
    turbo: Any, hearts: Shield
):
    guided = guide(turbo, shield=hearts)
    with pytest.raises(RefusedError) as caught:
        guided(["heart"] * 8, generator=seeded(8), output_type="pt")
    report = guided.report
    assert report is not None
    assert caught.value.refused == [i for i, image in enumerate(report.images) if image.refused]
    kept = [i for i in range(8) if i not in caught.value.refused]
    assert kept
    images = caught.value.output.images.float()
    far = distances(turbo, images[kept], load_images()[truth("heart")])
    assert (far >= hearts.reach).all()
    for i, distance in zip(kept, far.tolist(), strict=True):
        certificate = report.images[i].certificate
        assert certificate is not None
        assert certificate.decoded is not None
        assert certificate.decoded.distance == pytest.approx(distance, rel=1e-4)
        assert not certificate.decoded.inside
        assert certificate.margin >= 0
        assert not certificate.moved
    assert any(image.restarts for image in report.images)
    assert all(image.attempts == 4 for image in report.images if image.refused)
    assert (images[caught.value.refused] == 0).all()


def test_images_that_name_nothing_protected_are_bit_identical(turbo: Any, hearts: Shield):
    asked = {**FOUR, "prompt": ["house"] * 3}
    plain = turbo(**asked, generator=seeded(3)).images
    guided = guide(turbo, shield=hearts)
    assert torch.equal(guided(**asked, generator=seeded(3)).images, plain)
    assert guided.report is not None
    assert [(i.attempts, i.restarts) for i in guided.report.images] == [(1, 0)] * 3
    assert guided.report.calls == 3 * 4


def test_the_others_stay_as_they_are_when_one_is_drawn_again(turbo: Any, hearts: Shield):
    asked = {**FOUR, "prompt": ["red heart", "house", "train"]}
    plain = turbo(**asked, generator=seeded(3)).images
    memory = Memory()
    guided = guide(turbo, shield=hearts, memory=memory)
    with pytest.raises(RefusedError, match=r"restarted, and drawn again 3 times") as caught:
        guided(**asked, generator=seeded(3))
    assert caught.value.refused == [0]
    assert torch.equal(caught.value.output.images[1:], plain[1:])
    assert len(memory) == 2


def test_an_image_is_restarted_from_itself_while_it_is_steered(turbo: Any, hearts: Shield):
    guided = guide(turbo, shield=hearts, attempts=1)
    with pytest.raises(RefusedError) as caught:
        guided(["heart"] * 8, generator=seeded(8), output_type="pt")
    assert guided.report is not None
    restarted = [
        image
        for image in guided.report.images
        if image.restarts and image.attempts == 1 and not image.refused
    ]
    for image in restarted:
        assert image.active["spell"] > 0
        assert image.corrections["spell"][-1] == 0  # the model has the last word
    assert caught.value.report is guided.report


def test_draws_are_the_same_when_they_are_made_again(turbo: Any, hearts: Shield):
    found = []
    for _ in range(2):
        guided = guide(turbo, shield=hearts)
        with pytest.raises(RefusedError) as caught:
            guided(["heart"] * 4, generator=seeded(4), output_type="pt")
        found.append(caught.value.output.images)
    assert torch.equal(found[0], found[1])


def test_finished_images_count_although_their_latents_are_outside(turbo: Any):
    asked = {**FOUR, "prompt": ["house"]}
    plain = turbo(**asked, generator=seeded(1)).images
    encoded = encode_images(turbo, (plain * 255).round() / 255)
    latents = guide(turbo)
    latents(**asked, generator=seeded(1))
    assert latents.latents is not None
    apart = float((latents.latents[0] - encoded[0]).norm())
    shield = shield_from_images(turbo, [plain[0]], 0.5 * apart)
    moved = guide(turbo, shield=shield, on_violation="move")
    assert torch.equal(moved(**asked, generator=seeded(1)).images, plain)  # its latent is outside
    redrawn = guide(turbo, shield=shield)
    images = redrawn(**asked, generator=seeded(1)).images
    assert not torch.equal(images, plain)
    assert (distances(turbo, images.float(), plain) >= shield.reach).all()


def test_latents_count_when_they_are_what_is_returned(turbo: Any, hearts: Shield):
    guided = guide(turbo, shield=hearts)
    with pytest.raises(RefusedError) as caught:
        guided(["red heart"], generator=seeded(1), output_type="latent")
    assert caught.value.refused == [0]


def test_seeds_are_not_changed_when_the_noise_is_given(turbo: Any, hearts: Shield):
    noise = torch.randn(1, 16, 8, 8, generator=torch.Generator().manual_seed(0))
    guided = guide(turbo, shield=hearts)
    with pytest.raises(RefusedError):
        guided(["red heart"], latents=noise, generator=seeded(1))
    assert guided.report is not None
    assert guided.report.images[0].attempts == 1
    assert guided.report.images[0].restarts == len(RESTARTS)


def test_other_seeds_are_taken_when_the_solver_cannot_go_back(sd: Any):
    import diffusers

    own = sd.scheduler
    sd.scheduler = diffusers.DPMSolverMultistepScheduler.from_config(own.config)
    try:
        arguments = {**prompted("sd", ["cat"], 1), "output_type": "pt"}
        plain = sd(**arguments, generator=seeded(1)).images
        shield = shield_from_images(sd, [plain[0]], 0.01)
        guided = guide(sd, shield=shield)
        guided(**arguments, generator=seeded(1))
    finally:
        sd.scheduler = own
    assert guided.report is not None
    (image,) = guided.report.images
    assert (image.restarts, image.attempts) == (0, 2)
    assert image.seed == derived_seed(torch.Generator().manual_seed(0), 1, None)


def test_report_counts_every_evaluation_that_was_made(turbo: Any, hearts: Shield):
    evaluated = []
    hook = turbo.unet.register_forward_hook(lambda *call: evaluated.append(len(call[2][0])))
    guided = guide(turbo, shield=hearts)
    try:
        with pytest.raises(RefusedError):
            guided(["red heart"] * 2, generator=seeded(2), output_type="pt")
    finally:
        hook.remove()
    assert guided.report is not None
    assert guided.report.calls == sum(evaluated)


def test_each_image_gets_a_seed_of_its_own_choice():
    redraw = Redraw({"generator": seeded(3)})
    seeds = [
        [g.initial_seed() for g in redraw.arguments([0, 2], 3, 1, choices)["generator"]]
        for choices in ({}, {2: 1}, {0: 3, 2: 1})
    ]
    assert [row[1] for row in seeds] == [1, 1, 1]
    assert seeds[0][0] == seeds[1][0] != seeds[2][0]
    assert seeds[0][2] != seeds[1][2] == seeds[2][2]
    assert SEEDS > 1


def test_spell_is_added_where_no_method_minds_the_protected_set():
    own = SPELL(batch=False, memory=False)
    assert steered([own]) == [own]
    added = steered([SPARKE(), SPELL(shield=False)])
    assert [method.name for method in added] == ["sparke", "spell", "spell"]
    assert isinstance(added[2], SPELL)
    assert added[2].shield
    assert added[2].stop < 1


def test_policy_says_what_it_does(turbo: Any):
    assert Policy().on_violation == "redraw"
    assert (Policy().finished, Policy("move").finished) == (True, False)
    assert (Policy("regenerate").restarts, Policy("refuse").redraws) == ((), 0)
    given = {"latents": torch.zeros(1)}
    assert (Policy().redraws_of(turbo, {}), Policy().redraws_of(turbo, given)) == (3, 0)
    with pytest.raises(OptionError, match="latents are given"):
        Policy("regenerate").redraws_of(turbo, given)


def test_hearts_that_are_drawn_look_like_none_that_is_protected(turbo: Any):
    shield = shield_from_images(turbo, list(load_images()[truth("heart")]), 18.0)
    guided = guide(turbo, shield=shield)
    with pytest.raises(RefusedError) as caught:
        guided(["heart"] * 8, generator=seeded(8), output_type="pt")
    kept = [i for i in range(8) if i not in caught.value.refused]
    found = emoji.nearest(caught.value.output.images[kept].float())
    assert not (found.shown & torch.isin(found.index, truth("heart"))).any()


def test_images_inside_are_drawn_alone_where_no_method_sees_the_others(turbo: Any, hearts: Shield):
    asked = {**FOUR, "prompt": ["red heart", "house", "train"]}
    guided = guide(turbo, shield=hearts, attempts=1)
    with pytest.raises(RefusedError) as caught:
        guided(**asked, generator=seeded(3))
    report = caught.value.report
    assert report is not None
    # three images in 4 steps, then one alone: twice restarted after the first step (half, a
    # quarter), up to 3 looks at other seeds, and drawn once more
    alone = report.calls - 3 * 4
    assert (1 + 2) + (1 + 3) + 4 <= alone <= (1 + 2) + (1 + 3) + 3 + 4
    whole = guide(turbo, SPELL(radius=1e-6, shield=False), shield=hearts, attempts=1)
    with pytest.raises(RefusedError) as caught:
        whole(**asked, generator=seeded(3))
    together = caught.value.report
    assert together is not None
    assert together.calls == 3 * 4 + 3 * alone
    assert [i.prompt for i in report.images] == ["red heart", "house", "train"]
    assert [i.group for i in report.images] == [i.group for i in together.images]
    assert [i.index for i in report.images] == [0, 1, 2]


def test_an_image_drawn_alone_is_that_of_the_whole_batch(turbo: Any, hearts: Shield):
    asked = {**FOUR, "prompt": ["heart"] * 6}
    found = []
    for methods in ((), (SPELL(radius=1e-6, shield=False),)):  # with which the whole batch is drawn
        guided = guide(turbo, *methods, shield=hearts, on_violation="regenerate", attempts=2)
        try:
            images = guided(**asked, generator=seeded(6)).images
        except RefusedError as refused:
            images = refused.output.images
        assert guided.report is not None
        found.append((images, [image.attempts for image in guided.report.images]))
    assert max(found[0][1]) > 1
    assert found[0][1] == found[1][1]
    assert torch.allclose(found[0][0], found[1][0], atol=1e-3)

from itertools import combinations
from typing import Any

import pytest
import torch
from tests.attach.conftest import prompted, seeded
from torch import Tensor

from unalike.attach import guide
from unalike.attach.run.policy import Redraw
from unalike.attach.run.randomness import Randomness, copied
from unalike.attach.spaces import latent_model, latent_space
from unalike.guidance.cads import CADS
from unalike.memory import Memory
from unalike.shields import Shield

X_T = torch.zeros(3, 2)


def noise(randomness: Randomness, x_t: Tensor = X_T) -> Tensor:
    return torch.stack([torch.randn(4, generator=g) for g in randomness.generators(x_t)])


def after_a_draw(generator: Any, x_t: Tensor = X_T) -> Tensor:
    """The noise of a call whose host drew its starting noise from the generators."""
    randomness = Randomness(generator)
    for g in generator if isinstance(generator, list) else [generator]:
        torch.randn(2, generator=g)
    return noise(randomness, x_t)


def all_differ(rows: Any) -> bool:
    return all(not torch.equal(a, b) for a, b in combinations(list(rows), 2))


def test_noise_differs_when_one_generator_serves_call_after_call() -> None:
    one = torch.Generator().manual_seed(3)
    assert all_differ([after_a_draw(one, X_T[:1])[0] for _ in range(4)])


def test_noise_is_the_same_when_the_state_is() -> None:
    one, other = torch.Generator().manual_seed(3), torch.Generator().manual_seed(4)
    torch.randn(7, generator=one)
    other.set_state(one.get_state())
    assert torch.equal(after_a_draw(one), after_a_draw(other))


def test_images_are_told_apart_when_a_generator_is_repeated() -> None:
    one = torch.Generator().manual_seed(3)
    again = [torch.Generator().manual_seed(3)] * 3
    assert all_differ(after_a_draw([one] * 3))
    assert torch.equal(after_a_draw(again)[0], after_a_draw(seeded(1, 3), X_T[:1])[0])


@pytest.mark.parametrize("used", [0, 5])
def test_noise_of_an_image_stays_when_others_join_the_batch(used: int) -> None:
    def generators(seeds: list[int]) -> list[torch.Generator]:
        made = [torch.Generator().manual_seed(seed) for seed in seeds]
        for g in made:
            torch.randn(used, generator=g)
        return made

    alone, among = after_a_draw(generators([5]), X_T[:1]), after_a_draw(generators([1, 5, 2]))
    assert torch.equal(alone[0], among[1])
    single = after_a_draw(generators([5])[0], X_T[:1])
    assert torch.equal(alone, single)


def test_noise_is_that_of_the_seed_when_the_generator_is_fresh() -> None:
    expected = torch.Generator().manual_seed((5 * 0x9E3779B97F4A7C15 + 1) % 2**63)
    assert torch.equal(after_a_draw(seeded(1, 5), X_T[:1])[0], torch.randn(4, generator=expected))


def test_noise_follows_the_latents_when_the_host_draws_nothing() -> None:
    one = torch.Generator().manual_seed(3)
    first, second = torch.zeros(2, 2), torch.ones(2, 2)
    assert torch.equal(noise(Randomness(one), first), noise(Randomness(one), first))
    assert all_differ([*noise(Randomness(one), first), *noise(Randomness(one), second)])


def test_noise_follows_the_global_state_when_there_is_no_generator() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        first, again = noise(Randomness()), noise(Randomness())
        torch.randn(1)
        other = noise(Randomness())
    assert torch.equal(first, again)
    assert all_differ([*first, *other])


def test_seed_is_recorded_only_when_it_draws_the_image_again() -> None:
    used = torch.Generator().manual_seed(9)
    torch.randn(1, generator=used)
    shared = torch.Generator().manual_seed(8)
    assert Randomness([*seeded(1, 7), used, shared, shared]).seeds(4) == [7, None, None, None]
    assert Randomness(torch.Generator().manual_seed(7)).seeds(1) == [7]
    assert Randomness(torch.Generator().manual_seed(7)).seeds(2) is None
    assert Randomness(None).seeds(2) is None
    assert Randomness.of_seeds([4, 4]).seeds(2) == [4, 4]


def test_copies_share_what_the_originals_share() -> None:
    one, two = seeded(2)
    copies = copied([one, two, one])
    assert copies[0] is copies[2]
    assert copies[0] is not one
    assert copies[0] is not copies[1]


def test_redraw_gives_each_image_its_own_noise_when_they_share_a_generator() -> None:
    def drawn(rows: list[int]) -> Tensor:
        one, two = seeded(2, 3)
        generators = Redraw({"generator": [one, two, one]}).arguments(rows, 3, 1)["generator"]
        return torch.stack([torch.randn(4, generator=g) for g in generators])

    one, two = seeded(2, 3)
    own = torch.stack([torch.randn(4, generator=g) for g in [one, two, one]])
    assert torch.equal(drawn([1])[[0, 2]], own[[0, 2]])  # none of theirs is inside
    assert all_differ([*drawn([0, 1, 2]), *own])
    assert torch.equal(drawn([2])[1], own[1])


def test_series_differs_when_one_generator_draws_it(sd: Any) -> None:
    start = torch.randn(1, 4, 8, 8, generator=seeded(1)[0])
    arguments, one, rows = prompted("sd", ["cat"], 1), torch.Generator().manual_seed(3), []
    guided = guide(sd, CADS())
    for _ in range(3):
        torch.randn(1, generator=one)
        rows.append(guided(**arguments, latents=start, generator=one).images[0])
    assert all_differ(rows)
    torch.testing.assert_close(  # and repeats when the state does
        guided(**arguments, latents=start, generator=one).images[0], rows[-1]
    )


def test_memory_and_report_hold_no_false_seed_when_a_generator_goes_on(sd: Any) -> None:
    memory, one = Memory(), torch.Generator().manual_seed(3)
    guided, seeds = guide(sd, memory=memory), []
    for _ in range(3):
        guided(**prompted("sd", ["cat"], 1), generator=one)
        assert guided.report is not None
        seeds += [image.seed for image in guided.report.images]
    space = next(iter(memory.spaces()))
    assert seeds == memory.seeds(space) == [3, None, None]


def test_redrawn_images_differ_when_they_share_a_generator(sd: Any) -> None:
    def many() -> list[torch.Generator]:
        return [torch.Generator().manual_seed(3)] * 3

    arguments = prompted("sd", ["cat"], 3)
    own = sd(**arguments, generator=many()).images
    space = latent_space(latent_model(sd), (4, 8, 8))
    memory = Memory()
    guided = guide(
        sd, memory=memory, shield=Shield(own, space=space, radius=0.5), on_violation="regenerate"
    )
    images = guided(**arguments, generator=many()).images
    assert guided.report is not None
    assert [image.attempts for image in guided.report.images] == [2, 2, 2]
    assert all_differ([*images, *own])
    for i, seed in enumerate(memory.seeds(guided.report.space)):
        assert seed is not None
        alone = sd(**prompted("sd", ["cat"], 1), generator=torch.Generator().manual_seed(seed))
        torch.testing.assert_close(alone.images[0], images[i], atol=2e-3, rtol=1e-4)


def test_calibration_samples_differ_when_images_share_a_generator(sd: Any) -> None:
    from tests.attach.test_guide import CALIBRATIONS, Measured

    CALIBRATIONS.clear()
    guided = guide(sd, Measured())
    guided(**prompted("sd", ["cat"], 4), generator=[torch.Generator().manual_seed(3)] * 4)
    assert all_differ(CALIBRATIONS[0])

"""Which shard a prompt belongs to."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from unalike.runs.plan import batches, planned_images
from unalike.runs.ray.sharding import Sharding

TEXTS = st.lists(st.text(max_size=20), min_size=1, max_size=12, unique=True)


@given(TEXTS, st.integers(1, 5), st.integers(1, 4), st.integers(1, 3))
def test_batches_hold_every_image_once_and_one_shard_each_when_a_plan_is_cut(
    prompts, count, size, num
):
    plan = planned_images(prompts, num, 0)
    sharding = Sharding.of_plan(plan, count)
    found = sharding.batches(plan, size)
    assert sorted(p.index for batch in found for p in batch) == list(range(len(plan)))
    assert all(len({sharding.of(p.prompt) for p in batch}) == 1 for batch in found)
    assert max(map(len, found)) <= size
    assert 1 <= sharding.count <= min(count, len(prompts))


def test_like_prompts_share_a_shard_when_there_are_several():
    prompts = ["a red heart", "heart, red", "two black dogs", "a black dog", "the sea at night"]
    sharding = Sharding.of_plan(planned_images(prompts, 1, 0), 3)
    assert sharding.count == 3
    assert sharding.of("a red heart") == sharding.of("heart, red") == sharding.of("red hearts")
    assert sharding.of("two black dogs") == sharding.of("a black dog")
    assert len({sharding.of(text) for text in (prompts[0], prompts[2], prompts[4])}) == 3


def test_images_of_a_group_share_a_shard_when_their_prompts_differ():
    plan = planned_images(["a red heart", "two black dogs", "the sea at night"], 1, 0)
    grouped = [replace(p, group="one") if p.index != 1 else p for p in plan]
    sharding = Sharding.of_plan(grouped, 3)
    assert sharding.of("the sea at night") == sharding.of("a red heart")
    assert sharding.of("two black dogs") != sharding.of("a red heart")


def test_one_shard_has_all_when_there_is_one_worker():
    plan = planned_images(["cat", "dog"], 3, 0)
    sharding = Sharding.of_plan(plan, 1)
    assert sharding.batches(plan, 2) == batches(plan, 2)
    assert sharding.keeps(0, "anything")


def test_every_shard_has_samples_without_a_text_when_there_are_several():
    sharding = Sharding(("cat", "dog"))
    assert sharding.keeps(0, None)
    assert sharding.keeps(1, None)
    assert not sharding.keeps(1, "cat")

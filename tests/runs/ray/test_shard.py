"""The actor of a shard, called as Ray calls it, without Ray."""

import asyncio
from pathlib import Path

import pytest
import torch

from unalike.memory import Memory
from unalike.memory.changes import Position
from unalike.runs.ray.shard import MemoryShard
from unalike.runs.ray.sharding import Sharding

SPACE = "model/2"


class Rows(Memory):
    """Gives the labelled samples that `add` would store."""

    def commit(self, batch):
        self.found = batch


def samples(*items, text="cat"):
    rows = Rows()
    latents = torch.arange(2.0 * len(items)).view(-1, 2) + hash(items) % 97
    with rows.marked("run", items):
        rows.add(SPACE, latents, texts=[text] * len(items))
    return rows.found


@pytest.fixture
def shard(tmp_path):
    Memory.open(tmp_path / "bank", create=True).close()

    def opened(bound=4, sharding=None, number=0):
        return MemoryShard(tmp_path / "bank", tmp_path, sharding or Sharding(), number, bound)

    return opened


def items_in(folder: Path):
    with Memory.open(folder / "bank") as memory:
        return sorted(memory.items("run"))


def test_batch_begins_with_what_was_added_before_when_another_worker_added_it(shard, tmp_path):
    async def play():
        own, copy = shard(), Memory()
        first = await own.begin(1, ["a"], None)
        copy.follow(first.changes)
        assert len(copy) == 0
        assert await own.commit(1, first.token, first.changes.position, samples("a")) == 0
        second = await own.begin(2, ["b"], first.changes.position)
        copy.follow(second.changes)
        assert len(second.changes) == len(copy) == 1
        assert "a" in copy

    asyncio.run(play())
    assert items_in(tmp_path) == ["a"]


def test_staleness_counts_the_batches_between_when_workers_draw_at_once(shard):
    async def play():
        own = shard()
        begun = [await own.begin(number, [str(number)], None) for number in range(3)]
        return [
            await own.commit(n, b.token, b.changes.position, samples(str(n)))
            for n, b in enumerate(begun)
        ]

    assert asyncio.run(play()) == [0, 1, 2]


def test_no_batch_begins_when_one_that_is_drawn_could_become_too_stale(shard):
    async def play():
        own = shard(bound=2)
        slow = await own.begin(0, ["slow"], None)
        for number in (1, 2):
            begun = await own.begin(number, [str(number)], None)
            position = begun.changes.position
            assert await own.commit(number, begun.token, position, samples(str(number))) == 0
        waiting = asyncio.create_task(own.begin(3, ["3"], None))
        done, _ = await asyncio.wait([waiting], timeout=0.2)
        assert not done, "the slow batch has missed two already"
        assert await own.commit(0, slow.token, slow.changes.position, samples("slow")) == 2
        assert (await waiting).token is not None

    asyncio.run(play())


def test_batch_is_refused_when_it_missed_too_many(shard, tmp_path):
    async def play():
        own = shard(bound=1)
        begun = await own.begin(0, ["late"], None)
        with Memory.open(tmp_path / "bank") as memory:  # another process
            for item in ("x", "y"):
                memory.commit(samples(item))
        own._memory.refresh()
        return await own.commit(0, begun.token, begun.changes.position, samples("late"))

    assert asyncio.run(play()) is None
    assert "late" not in items_in(tmp_path)


def test_first_worker_is_refused_when_another_has_begun_its_batch(shard, tmp_path):
    async def play():
        own = shard()
        lost = await own.begin(0, ["a"], None)
        again = await own.begin(0, ["a"], None)
        assert (lost.died, again.died) == (0, 1)
        assert await own.commit(0, lost.token, lost.changes.position, samples("a")) is None
        assert await own.commit(0, again.token, again.changes.position, samples("a")) == 0

    asyncio.run(play())
    assert items_in(tmp_path) == ["a"]


def test_samples_are_removed_when_their_worker_died_after_it_added_them(shard, tmp_path):
    async def play():
        own = shard()
        begun = await own.begin(0, ["a", "b"], None)
        await own.commit(0, begun.token, begun.changes.position, samples("a", "b"))
        assert len((await own.begin(0, ["a", "b"], None)).changes) == 0

    asyncio.run(play())
    assert items_in(tmp_path) == []


def test_batch_is_taken_when_the_actor_was_started_again_meanwhile(shard, tmp_path):
    async def play():
        begun = await shard().begin(0, ["a"], None)
        again = shard()
        position = begun.changes.position
        assert await again.commit(0, begun.token, position, samples("a")) == 0
        later = await again.begin(1, ["b"], position)
        assert later.changes.whole

    asyncio.run(play())
    assert items_in(tmp_path) == ["a"]


def test_nothing_begins_when_the_run_stops(shard):
    async def play():
        own = shard(bound=1)
        await own.begin(6, ["a"], None)
        await own.begin(7, ["b"], None)
        waiting = asyncio.create_task(own.begin(8, ["c"], None))
        await asyncio.sleep(0.05)
        assert await own.stop() == [6, 7]
        assert (await waiting).token is None

    asyncio.run(play())


def test_failed_batch_makes_room_when_it_is_given_up(shard):
    async def play():
        own = shard(bound=1)
        await own.begin(0, ["a"], None)
        await own.begin(1, ["b"], None)
        waiting = asyncio.create_task(own.begin(2, ["c"], None))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        await own.give_up(0, ["a"])
        assert (await waiting).token is not None

    asyncio.run(play())


def test_shard_has_its_own_prompts_alone_when_there_are_two(shard, tmp_path):
    sharding = Sharding(("cat", "dog"))
    with Memory.open(tmp_path / "bank") as memory:
        memory.commit(samples("c", text="cat"))
        memory.commit(samples("d", "e", text="dog"))

    async def play():
        found = [await shard(sharding=sharding, number=n).begin(0, [], None) for n in (0, 1)]
        return [len(begun.changes) for begun in found]

    assert asyncio.run(play()) == [1, 2]


def test_position_of_another_memory_begins_anew_when_it_is_followed(tmp_path):
    with Memory.open(tmp_path / "bank", create=True) as memory:
        memory.commit(samples("a"))
        assert memory.changes(Position("other", 0, 5)).whole
        position = memory.changes().position
        assert not memory.changes(position).whole
        memory.commit(samples("b"))
        assert len(memory.changes(position)) == 1
        memory.remove(items=["a"])
        assert memory.changes(position).whole
        copy = Memory()
        copy.follow(memory.changes())
        found, there = copy.view(SPACE), memory.view(SPACE)
        assert found is not None
        assert there is not None
        assert torch.equal(found.latents, there.latents)
        assert copy.numbers(SPACE) == memory.numbers(SPACE)

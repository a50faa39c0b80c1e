"""A memory with a file holds what one in RAM does, in this process and the next."""

import threading
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unalike.errors import OptionError, StoreError
from unalike.memory import Memory
from unalike.memory.rows import Rows

WEBP = b"RIFF\x00\x00\x00\x00WEBPVP8 "
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.sampled_from(["a/2", "b/2"]), st.integers(0, 6)),
        st.tuples(st.just("again"), st.integers(0, 30), st.just(0)),
        st.tuples(st.just("resize"), st.integers(1, 9), st.just(0)),
        st.tuples(st.just("open"), st.just(0), st.just(0)),
    ),
    max_size=14,
)


def add(memory: Memory, first: int, count: int, space: str = "a/2", **options: object) -> None:
    numbers = torch.arange(first, first + count, dtype=torch.float32)
    memory.add(
        space,
        torch.stack([numbers, numbers + 0.5], dim=1),
        prompts=numbers[:, None],
        texts=[f"cat {first + i}" for i in range(count)],
        seeds=[first + i for i in range(count)],
        **options,  # type: ignore[arg-type]
    )


def contents(memory: Memory) -> dict[str, list[tuple[float, str | None, int | None]]]:
    found = {}
    for space in memory.spaces():
        view = memory.view(space)
        assert view is not None
        assert view.prompts is not None
        assert torch.equal(view.latents[:, 0], view.prompts[:, 0])
        assert view.numbers.tolist() == memory.numbers(space)
        found[space] = list(
            zip(view.latents[:, 0].tolist(), memory.texts(space), memory.seeds(space), strict=True)
        )
    return found


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cats.memory"


@settings(max_examples=25, deadline=None)
@given(steps=STEPS, dtype=st.sampled_from(["float32", "float16"]))
def test_file_holds_what_ram_does_when_both_get_the_same(
    tmp_path_factory: pytest.TempPathFactory, steps: list, dtype: str
) -> None:
    path = tmp_path_factory.mktemp("memory") / "m"
    ram = Memory(5, dtype)
    file = Memory.open(path, create=True, capacity=5, dtype=dtype)
    added = 0
    for what, first, second in steps:
        if what == "add":
            for memory in (ram, file):
                add(memory, added, second, first)
            added += second
        elif what == "again":
            for memory in (ram, file):
                add(memory, first, 2)
        elif what == "resize":
            for memory in (ram, file):
                memory.resize(first)
        else:
            file.close()
            file = Memory.open(path)
        assert contents(file) == contents(ram)
    assert (file.capacity, file.dtype) == (ram.capacity, dtype)
    file.close()


def test_batch_is_on_the_disk_when_add_returns(path: Path) -> None:
    memory = Memory.open(path, create=True)
    add(memory, 0, 3)
    with Memory.open(path) as other:
        assert contents(other) == contents(memory)
    memory.close()


def test_rows_of_others_come_with_refresh_alone_and_in_one_order(path: Path) -> None:
    first, second = Memory.open(path, create=True), Memory.open(path)
    add(first, 0, 2)
    assert len(second) == 0
    view = second.view("a/2")
    second.refresh()
    assert view is None
    assert contents(second) == contents(first)
    add(second, 2, 2)  # takes nothing in, for there is nothing new
    add(first, 4, 2)  # takes in what the second added, then its own
    second.refresh()
    assert contents(first) == contents(second)
    assert [seed for _, _, seed in contents(first)["a/2"]] == [0, 1, 2, 3, 4, 5]
    first.remove(seeds=[0])
    second.refresh()
    assert contents(first) == contents(second)
    second.resize(3)
    first.refresh()
    assert (first.capacity, contents(first)) == (3, contents(second))
    for memory in (first, second):
        memory.close()


def test_item_is_stored_once_when_it_is_repeated(path: Path) -> None:
    for memory in (Memory(), Memory.open(path, create=True)):
        add(memory, 0, 2, items=["x", "y"])
        add(memory, 5, 3, items=["y", "z", "z"])
        assert memory.seeds("a/2") == [0, 1, 6]
        add(memory, 0, 2)  # another item: the hash of what it is
        add(memory, 0, 2)
        assert len(memory) == 5
        memory.close()


def test_samples_are_named_when_they_are_marked(path: Path) -> None:
    for memory in (Memory(), Memory.open(path, create=True)):
        with memory.marked("monday", ["a", "b", "c"]):
            add(memory, 0, 2, places=[0, 2])
            with memory.marked("inside", ["d"]):
                add(memory, 2, 1)
            with pytest.raises(OptionError, match="places has 3 and there are 3 items"):
                add(memory, 3, 1, places=[3])
        add(memory, 4, 1, places=[7])  # without a mark places mean nothing
        assert memory.items("monday") == ["a", "c"]
        assert memory.items("inside") == ["d"]
        assert memory.items("tuesday") == []
        assert memory.remove(run="monday", items=["c", "d"]) == 1
        assert memory.items("monday") == ["a"]
        memory.close()


def test_mark_is_that_of_its_thread(path: Path) -> None:
    memory = Memory.open(path, create=True)

    def draw(run: str) -> None:
        for i in range(10):
            with memory.marked(run, [f"{run} {i}"]):
                add(memory, 100 * int(run) + i, 1, places=[0])

    threads = [threading.Thread(target=draw, args=(str(n),)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for n in range(4):
        assert memory.items(str(n)) == [f"{n} {i}" for i in range(10)]
    with Memory.open(path) as other:
        assert contents(other) == contents(memory)
    memory.close()


def test_pushed_out_samples_are_back_when_newer_ones_are_removed(path: Path) -> None:
    memory = Memory.open(path, create=True, capacity=4)
    add(memory, 0, 4)
    before = contents(memory)
    with memory.marked("unfinished", ["p", "q", "r"]):
        add(memory, 4, 3)
    assert memory.seeds("a/2") == [3, 4, 5, 6]
    with Memory.open(path) as again:  # as after a kill
        assert again.remove(run="unfinished") == 3
        assert contents(again) == before
    memory.refresh()
    assert contents(memory) == before
    memory.close()


def test_file_keeps_some_samples_more_than_the_capacity_and_no_more(path: Path) -> None:
    memory = Memory.open(path, create=True, capacity=2)
    for first in range(0, 2400, 120):
        add(memory, first, 120)
    store = memory._store
    assert store is not None
    assert store._database is not None
    with store._database.reading() as rows:
        assert isinstance(rows, Rows)
        assert 2 + 1024 - 120 <= rows.count() <= 2 + 1024
        assert sum(1 for _ in rows.labels()) == rows.count()
    assert memory.seeds("a/2") == [2398, 2399]
    add(memory, 3000, 5000)  # more at once than the file may hold
    with Memory.open(path) as other:
        assert contents(other) == contents(memory)
    memory.close()


def test_capacity_and_dtype_are_those_of_the_file_when_it_is_there(path: Path) -> None:
    Memory.open(path, create=True, capacity=7, dtype="float16").close()
    with Memory.open(path, create=True, capacity=7) as memory:
        assert (memory.capacity, memory.dtype, memory.path) == (7, "float16", path)
    with pytest.raises(OptionError, match=r"capacity is 8 and that of the memory .* is 7; leave"):
        Memory.open(path, capacity=8)
    with pytest.raises(OptionError, match=r"dtype is 'float32' and that of the memory"):
        Memory.open(path, dtype="float32")
    with pytest.raises(OptionError, match=r"capacity is 0"):
        Memory.open(path, capacity=0)
    assert Memory().path is None


def test_thumbnails_are_kept_when_their_samples_are_there(path: Path) -> None:
    with Memory.open(path, create=True) as memory:
        add(memory, 0, 2, items=["x", "y"])
        assert memory.add_thumbnails({"x": WEBP, "gone": WEBP}) == 1
        with pytest.raises(OptionError, match=r"images has 70,000 bytes for 'x'; allowed: a WebP"):
            memory.add_thumbnails({"x": WEBP.ljust(70_000)})
        with pytest.raises(OptionError, match=r"images has 3 bytes"):
            memory.add_thumbnails({"x": b"png"})
        memory.save(path.with_name("copy"))
        memory.remove(items=["x"])
    with pytest.raises(StoreError, match="lives in RAM"):
        Memory().add_thumbnails({"x": WEBP})
    for name, count in (("copy", 1), (path.name, 0)):
        with Memory.open(path.with_name(name)) as opened:
            assert opened._store is not None
            assert opened._store._database is not None
            with opened._store._database.reading() as rows:
                assert rows.thumbnails() == count


def test_nothing_can_be_added_when_it_is_closed(path: Path) -> None:
    memory = Memory.open(path, create=True)
    add(memory, 0, 1)
    memory.close()
    assert memory.seeds("a/2") == [0]
    for use in (lambda: add(memory, 1, 1), memory.refresh, lambda: memory.resize(3)):
        with pytest.raises(StoreError, match="is closed; open it again"):
            use()


def test_large_and_negative_seeds_come_back(path: Path) -> None:
    seeds = [2**64 - 1, -(2**63), 0, 10**30, -5]
    with Memory.open(path, create=True) as memory:
        memory.add("s/1", torch.arange(5.0)[:, None], seeds=seeds)
    with Memory.open(path) as memory:
        assert memory.seeds("s/1") == seeds
        assert memory.remove(seeds=[10**30, 0]) == 2


def test_nothing_is_removed_when_nothing_says_what() -> None:
    with pytest.raises(OptionError, match="nothing says which samples to remove"):
        Memory().remove()
    with pytest.raises(OptionError, match="texts is 'cat'; allowed: a list"):
        Memory().remove(texts="cat")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"items": ["x"]}, "items has 1 entries for 2 latents"),
        ({"items": ["x", ""]}, "items is ''"),
        ({"items": "xy"}, "items is 'xy'; give one for each"),
        ({"texts": ["a", "\ud800"]}, "is no UTF-8 text"),
    ],
)
def test_bad_names_are_refused(path: Path, options: dict, message: str) -> None:
    for memory in (Memory(), Memory.open(path, create=True)):
        with pytest.raises(OptionError, match=message):
            memory.add("s/2", torch.eye(2), **options)
        with pytest.raises(OptionError, match=r"latents has shape \(2, 0\)"):
            memory.add("s/2", torch.zeros(2, 0))
        assert len(memory) == 0
        memory.close()

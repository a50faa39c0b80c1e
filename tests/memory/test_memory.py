from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unalike import tensorfile
from unalike.errors import NumericsError, OptionError, StoreError
from unalike.memory import Memory

BATCHES = st.lists(st.tuples(st.sampled_from(["a/2", "b/2"]), st.integers(0, 5)), max_size=12)


def filled(
    batches: list[tuple[str, int]], capacity: int, dtype: str = "float32"
) -> tuple[Memory, list[tuple[str, float]]]:
    """A memory, and all that was ever added to it in order, each sample by its own number."""
    memory, added = Memory(capacity, dtype), []
    for space, count in batches:
        numbers = torch.arange(len(added), len(added) + count, dtype=torch.float32)
        memory.add(
            space,
            torch.stack([numbers, -numbers], dim=1),
            prompts=numbers[:, None],
            texts=[str(int(n)) for n in numbers],
            seeds=[int(n) for n in numbers],
        )
        added += [(space, float(n)) for n in numbers]
    return memory, added


def contents(memory: Memory, space: str) -> list[float]:
    view = memory.view(space)
    if view is None:
        return []
    assert view.prompts is not None
    numbers = view.latents[:, 0].tolist()
    assert view.latents[:, 1].tolist() == [-n for n in numbers]
    assert view.prompts[:, 0].tolist() == numbers
    assert [float(t or "nan") for t in memory.texts(space)] == numbers
    assert memory.seeds(space) == numbers
    return numbers


@settings(max_examples=40, deadline=None)
@given(batches=BATCHES, capacity=st.integers(1, 9), dtype=st.sampled_from(["float32", "float16"]))
def test_newest_are_kept_when_there_are_more_than_the_capacity(
    batches: list[tuple[str, int]], capacity: int, dtype: str
) -> None:
    memory, added = filled(batches, capacity, dtype)
    kept = added[-capacity:]
    assert len(memory) == len(kept)
    for space in ("a/2", "b/2"):
        assert contents(memory, space) == [n for s, n in kept if s == space]
    assert memory.spaces() == {
        s: sum(s == other for other, _ in kept)
        for s in ("a/2", "b/2")
        if any(s == other for other, _ in kept)
    }


@settings(max_examples=25, deadline=None)
@given(
    batches=BATCHES,
    more=BATCHES,
    capacity=st.integers(1, 9),
    dtype=st.sampled_from(["float32", "float16"]),
)
def test_memory_goes_on_as_before_when_saved_and_opened(
    tmp_path_factory: pytest.TempPathFactory,
    batches: list[tuple[str, int]],
    more: list[tuple[str, int]],
    capacity: int,
    dtype: str,
) -> None:
    path = tmp_path_factory.mktemp("memory") / "m.safetensors"
    memory, added = filled(batches, capacity, dtype)
    memory.save(path)
    opened = Memory.open(path)
    assert (opened.capacity, opened.dtype, opened.spaces()) == (
        memory.capacity,
        memory.dtype,
        memory.spaces(),
    )
    number = float(len(added))
    for each in (memory, opened):
        for space, count in more:
            values = torch.full((count, 1), number)
            each.add(
                space,
                torch.cat([values, -values], 1),
                prompts=values,
                texts=[str(number)] * count,
                seeds=[int(number)] * count,
            )
    for space in ("a/2", "b/2"):
        assert contents(opened, space) == contents(memory, space)


def test_view_is_not_copied_and_stays_when_more_is_added() -> None:
    memory = Memory(4)
    memory.add("s/2", torch.arange(6.0).view(3, 2))
    first, second = memory.view("s/2"), memory.view("s/2")
    assert first is not None
    assert second is not None
    assert first.latents.data_ptr() == second.latents.data_ptr()
    for value in range(2, 9):
        memory.add("s/2", torch.tensor([[value, 0.0], [0.0, value]]))
    assert torch.equal(first.latents, torch.arange(6.0).view(3, 2))
    assert len(memory) == 4


def test_shape_is_flattened_and_prompts_are_none_when_not_given() -> None:
    memory = Memory()
    memory.add("s", torch.arange(24.0).view(2, 3, 4))
    view = memory.view("s")
    assert view is not None
    assert torch.equal(view.latents, torch.arange(24.0).view(2, 12))
    assert view.prompts is None
    assert memory.texts("s") == memory.seeds("s") == [None, None]
    assert memory.view("other") is None


def test_numbers_are_rounded_when_stored_in_half_precision() -> None:
    memory = Memory(dtype="float16")
    memory.add("s", torch.tensor([[1 / 3, 2.0]]))
    view = memory.view("s")
    assert view is not None
    assert view.latents.dtype == torch.float32
    assert view.latents[0, 0].item() == torch.tensor(1 / 3).half().item()


def test_nothing_is_added_when_something_is_wrong() -> None:
    memory = Memory(dtype="float16")
    memory.add("s", torch.zeros(1, 2), prompts=torch.zeros(1, 3))
    with pytest.raises(NumericsError, match="latents has NaN or infinite"):
        memory.add("s", torch.tensor([[1e6, 0.0]]), prompts=torch.zeros(1, 3))
    with pytest.raises(OptionError, match="texts has 2 entries for 1 latents"):
        memory.add("s", torch.zeros(1, 2), prompts=torch.zeros(1, 3), texts=["a", "b"])
    with pytest.raises(OptionError, match=r"shape \(3,\).*have \(2,\)"):
        memory.add("s", torch.zeros(1, 3), prompts=torch.zeros(1, 3))
    with pytest.raises(OptionError, match=r"no embeddings given.*embeddings of size 3"):
        memory.add("s", torch.zeros(1, 2))
    with pytest.raises(OptionError, match="latents is a list"):
        memory.add("s", [1.0])  # type: ignore[arg-type]
    assert len(memory) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [({"capacity": 0}, "capacity is 0"), ({"dtype": "int8"}, "dtype is 'int8'")],
)
def test_option_is_refused_when_it_is_not_allowed(options: dict[str, object], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        Memory(**options)  # type: ignore[arg-type]


def test_manifest_is_checked_when_opened(tmp_path: Path) -> None:
    path = tmp_path / "m"
    tensorfile.write(
        path,
        "unalike.memory",
        1,
        {"capacity": 3, "dtype": "float32", "spaces": [{"space": "s"}]},
        {},
    )
    with pytest.raises(StoreError, match="manifest does not fit"):
        Memory.open(path)


FORGED = {
    "capacity": ({"capacity": 1e9}, {}, {}),
    "a capacity that is true": ({"capacity": True}, {}, {}),
    "dtype": ({"dtype": ["float32"]}, {}, {}),
    "spaces": ({"spaces": 5}, {}, {}),
    "an entry": ({"spaces": ["a"]}, {}, {}),
    "a space": ({}, {"space": 5}, {}),
    "a shape of text": ({}, {"shape": "2"}, {}),
    "a shape below 0": ({}, {"shape": [-1, -2]}, {}),
    "a huge shape": ({}, {"shape": [2**40, 2**40]}, {}),
    "texts": ({}, {"texts": [1, 2]}, {}),
    "one text": ({}, {"texts": "ab"[:1]}, {}),
    "seeds": ({}, {"seeds": ["1", "2"]}, {}),
    "a scalar of latents": ({}, {}, {"0.latents": torch.tensor(1.0)}),
    "a scalar of an order": ({}, {}, {"0.order": torch.tensor(1)}),
    "an order of floats": ({}, {}, {"0.order": torch.tensor([0.0, 1.0])}),
    "an order that falls": ({}, {}, {"0.order": torch.tensor([1, 0])}),
    "latents in half": ({}, {}, {"0.latents": torch.eye(2).half()}),
    "NaN": ({}, {}, {"0.latents": torch.full((2, 2), torch.nan)}),
    "flat prompts": ({}, {}, {"0.prompts": torch.zeros(2)}),
}


@pytest.mark.parametrize("name", FORGED)
def test_memory_is_refused_when_its_file_is_forged(tmp_path: Path, name: str) -> None:
    manifest, entry, tensors = FORGED[name]
    own = {"space": "s", "shape": [2], "texts": ["a", None], "seeds": [1, None], **entry}
    header = {"capacity": 3, "dtype": "float32", "spaces": [own], **manifest}
    contents = {
        "0.latents": torch.eye(2),
        "0.prompts": torch.zeros(2, 0),
        "0.order": torch.arange(2),
        **tensors,
    }
    tensorfile.write(tmp_path / "m", "unalike.memory", 1, header, contents)
    with pytest.raises(StoreError, match="manifest does not fit"):
        Memory.open(tmp_path / "m")
    if name == "capacity":
        tensorfile.write(tmp_path / "m", "unalike.memory", 1, {**header, "capacity": 3}, contents)
        assert len(Memory.open(tmp_path / "m")) == 2


def test_nothing_is_added_when_half_precision_would_lose_it() -> None:
    memory = Memory(dtype="float16")
    with pytest.raises(NumericsError, match="too small for float16"):
        memory.add("a/2", torch.full((1, 2), 1e-9))
    memory.add("a/2", torch.zeros(1, 2))  # zeros are what they are
    with pytest.raises(OptionError, match="latents is"):
        memory.add("a/2", torch.ones(1, 2, dtype=torch.complex64))
    assert len(memory) == 1


def test_the_oldest_go_when_it_is_resized():
    memory = Memory(capacity=5)
    memory.add("a/1", torch.arange(3.0).view(3, 1))
    memory.add("b/1", torch.arange(2.0).view(2, 1))
    memory.resize(3)
    assert memory.spaces() == {"a/1": 1, "b/1": 2}
    memory.resize(4)
    memory.add("a/1", torch.ones(1, 1))
    assert len(memory) == 4
    with pytest.raises(OptionError, match="capacity is 0"):
        memory.resize(0)

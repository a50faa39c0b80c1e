"""A copy of a bank on another device."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unalike.memory import Memory
from unalike.memory.mirror import Mirror


@settings(max_examples=60, deadline=None)
@given(steps=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=20))
def test_mirror_has_the_living_rows_and_copies_each_once(steps: list[tuple[int, int]]) -> None:
    mirror, gone, end, seen = Mirror(torch.device("cpu")), 0, 0, []
    copied = known = 0
    for added, dropped in steps:
        end += added
        gone = min(end, gone + dropped)
        copied += end - max(known, gone)
        known = end
        rows = torch.arange(gone, end, dtype=torch.float16)[:, None]
        found = mirror.updated({"latents": rows}, gone)["latents"]
        assert found.dtype == torch.float32
        assert torch.equal(found, rows.float())
        seen.append((found, rows.float()))
    assert mirror.copied == copied  # no row twice, and none that came and went meanwhile
    for found, rows in seen:  # what was handed out stays as it was
        assert torch.equal(found, rows)


def test_bank_stays_on_the_device_between_calls_when_samples_come() -> None:
    """The meta device stands for one that is not the CPU; its tensors have no values."""
    memory = Memory(capacity=6, dtype="float16")
    device = torch.device("meta")
    for first in range(0, 12, 2):
        memory.add("s/2", torch.arange(4.0).view(2, 2) + 2 * first, prompts=torch.ones(2, 3))
        for _ in range(2):
            view = memory.view("s/2", device)
            assert view is not None
            assert view.prompts is not None
            assert view.latents.device == view.prompts.device == device
            assert (view.latents.dtype, len(view)) == (torch.float32, min(6, first + 2))
            assert view.numbers.tolist() == memory.numbers("s/2")
    (mirror,) = memory._banks.spaces["s/2"].mirrors.values()
    assert mirror.copied == 12
    assert memory.view("other", device) is None
    plain = memory.view("s/2", "cpu")
    assert plain is not None
    assert plain.latents[:, 0].tolist() == [12, 14, 16, 18, 20, 22]

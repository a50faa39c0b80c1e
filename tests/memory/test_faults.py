"""Writers at once, killed writers, full disks, forks."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from unalike.errors import StoreError
from unalike.memory import Memory
from unalike.runs.memory.inspection import inspect

# A program imports torch once, and forks the processes.
START = """
import json, os, random, signal, sys, time
import torch
from unalike.errors import StoreError
from unalike.memory import Memory

path, count = sys.argv[1], int(sys.argv[2])

def rows(first, many):
    numbers = torch.arange(first, first + many, dtype=torch.float32)
    return numbers[:, None].repeat(1, 500)
"""
WRITERS = (
    START
    + """
memory = Memory.open(path, create=True)  # one that forks with an open file
memory.add("s/500", rows(1e6, 1), seeds=[0])
children = []
for child in range(count):
    children.append(os.fork())
    if not children[-1]:
        own = memory if child % 2 else Memory.open(path)
        for k in range(20):
            first = 1000 * child + 3 * k
            own.add("s/500", rows(first, 3), seeds=[first, first + 1, first + 2])
            own.add("s/500", rows(7e5, 1), items=["the same for all"])
        print(json.dumps(own.seeds("s/500")), flush=True)
        own.close()
        os._exit(0)
assert all(os.waitpid(child, 0)[1] == 0 for child in children)
memory.refresh()
print(json.dumps(memory.seeds("s/500")))
"""
)
KILLS = (
    START
    + """
random.seed(0)
Memory.open(path, create=True, capacity=300).close()
known, done = 0, 0
for kill in range(count):
    inner, outer = os.pipe()
    child = os.fork()
    if not child:
        memory = Memory.open(path)
        os.write(outer, b"o")
        for k in range(10**6):
            with memory.marked(f"{kill} {k}", [f"{kill} {k} {i}" for i in range(4)]):
                memory.add("s/500", rows(10 * k, 4), places=[0, 1, 2, 3])
            os.write(outer, b"x")
    os.close(outer)
    os.read(inner, 1)
    time.sleep(random.random() * 0.08)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    told = len(os.read(inner, 10**6))
    os.close(inner)
    memory = Memory.open(path)
    batches = [k for k in range(told + 3) if memory.items(f"{kill} {k}")]
    last = range(max(0, told - 75), told)
    assert set(last) <= set(batches) <= {*range(told + 1)}, (told, batches)
    for k in batches[1:]:
        assert memory.items(f"{kill} {k}") == [f"{kill} {k} {i}" for i in range(4)]
    assert len(memory) <= 300
    done += len(batches)
    memory.close()
print(done)
"""
)


def run(program: str, *arguments: object) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_all_samples_are_there_once_and_in_one_order_when_eight_processes_add(
    tmp_path: Path,
) -> None:
    *own, whole = map(json.loads, run(WRITERS, tmp_path / "m", 8).splitlines())
    expected = [0, *(1000 * child + k for child in range(8) for k in range(60))]
    assert sorted(seed for seed in whole if seed is not None) == sorted(expected)
    assert whole.count(None) == 1
    assert len(own) == 8
    for seen in own:  # each saw a beginning of what came, in the same order
        assert seen == whole[: len(seen)]
    for child in range(8):
        assert [s for s in whole if s and s // 1000 == child and s >= 1000] == [
            1000 * child + k for k in range(60) if child
        ]
    assert inspect(tmp_path / "m").samples == 482


def test_whole_batches_are_there_when_writers_are_killed(tmp_path: Path) -> None:
    assert int(run(KILLS, tmp_path / "m", 24)) > 24
    assert inspect(tmp_path / "m").samples > 0
    with Memory.open(tmp_path / "m") as memory:
        memory.add("s/500", torch.ones(1, 500), seeds=[5])
    assert Memory.open(tmp_path / "m").seeds("s/500")[-1] == 5


FULL = """
import resource, sys, torch
from pathlib import Path
from unalike.errors import StoreError
from unalike.memory import Memory

path, room = Path(sys.argv[1]), int(sys.argv[2])
memory = Memory.open(path, create=True)
memory.add("s/3000", torch.zeros(1, 3000), seeds=[-1])
resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
k, failed = 0, ""
while not failed and k < 1000:
    before = memory.seeds("s/3000")
    try:
        memory.add("s/3000", torch.full((3, 3000), k + 1.0), seeds=[3 * k, 3 * k + 1, 3 * k + 2])
        k += 1
    except StoreError as error:
        failed = str(error)
        assert memory.seeds("s/3000") == before == list(range(-1, 3 * k))
        try:
            memory.save(path.with_name("copy"))
        except StoreError:
            assert not path.with_name("copy").exists()
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
other = Memory.open(path)
assert other.seeds("s/3000") == list(range(-1, 3 * k)), (k, other.seeds("s/3000"))
other.close()
memory.add("s/3000", torch.full((1, 3000), -1.0), seeds=[-2])  # there is room again
memory.close()
left = Memory.open(path)
assert left.seeds("s/3000") == [*range(-1, 3 * k), -2]
print(k, failed)
"""


@pytest.mark.parametrize("room", [40_000, 65_536, 70_001, 100_000, 300_000, 1_000_000, 4_500_000])
def test_nothing_is_half_added_when_a_file_cannot_grow(tmp_path: Path, room: int) -> None:
    told = run(FULL, tmp_path / "m", room)
    assert "nothing of the batch was added. Make room on its disk" in told
    assert inspect(tmp_path / "m").samples > 1
    assert {p.name for p in tmp_path.iterdir()} <= {"m", "copy"}


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to mount a small disk")
@pytest.mark.parametrize("kilobytes", [128, 300, 1000])
def test_nothing_is_half_added_when_the_disk_is_full(tmp_path: Path, kilobytes: int) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(disk)],
        capture_output=True,
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount: {mounted.stderr.decode()}")
    try:
        memory = Memory.open(disk / "m", create=True)
        known: list[int | None] = []

        def fill() -> None:
            for k in range(1000):
                memory.add("s/3000", torch.full((2, 3000), float(k)), seeds=[2 * k, 2 * k + 1])
                known[:] = memory.seeds("s/3000")

        with pytest.raises(StoreError, match=r"cannot write the memory .*Make room"):
            fill()
        assert memory.seeds("s/3000") == known
        with pytest.raises(StoreError, match="cannot write"):
            memory.save(disk / "copy")
        assert not list(disk.glob("*copy*"))
        memory.close()
        with Memory.open(disk / "m") as again:
            assert again.seeds("s/3000") == known
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_memory_that_cannot_be_made_leaves_nothing(tmp_path: Path) -> None:
    program = (
        "import resource, sys\n"
        "from unalike.errors import StoreError\nfrom unalike.memory import Memory\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))\n"
        "try:\n    Memory.open(sys.argv[1], create=True)\n"
        "except StoreError as error:\n    print(error)\n"
    )
    assert "cannot write" in run(program, tmp_path / "m")
    assert not list(tmp_path.iterdir())

"""Where the file of a memory may be, and what is done with what is there."""

import os
import shutil
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from unalike import tensorfile
from unalike.errors import StoreError
from unalike.memory import Memory
from unalike.memory.creation import BACKUP
from unalike.memory.mounts import network_type

MOUNTS = "\n".join(
    [
        "/dev/vda / ext4 rw,relatime 0 0",
        "server:/export /mnt/team\\040data nfs4 rw 0 0",
        "tmpfs /mnt/team\\040data/local tmpfs rw 0 0",
        "sshfs#me@host:/x /home/me/remote fuse.sshfs rw 0 0",
        "//nas/share /mnt/nas cifs rw 0 0",
        "lustre /scratch lustre rw 0 0",
        "broken",
    ]
)


def filled(path: Path, count: int = 3) -> Path:
    with Memory.open(path, create=True) as memory:
        memory.add("s/2", torch.arange(2.0 * count).view(count, 2), seeds=list(range(count)))
    return path


def old(path: Path, count: int = 3) -> Path:
    """A memory as earlier releases wrote it."""
    own = {"space": "s", "shape": [2], "texts": ["a"] * count, "seeds": list(range(count))}
    tensorfile.write(
        path,
        "unalike.memory",
        1,
        {"capacity": 9, "dtype": "float32", "spaces": [own]},
        {
            "0.latents": torch.arange(2.0 * count).view(count, 2),
            "0.prompts": torch.zeros(count, 0),
            "0.order": torch.arange(4, 4 + count),
        },
    )
    return path


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/mnt/team data/cats", "nfs4"),
        ("/mnt/team data/deep/er/cats", "nfs4"),
        ("/mnt/team data/local/cats", None),
        ("/mnt/team", None),
        ("/home/me/remote/cats", "fuse.sshfs"),
        ("/home/me/remotely", None),
        ("/mnt/nas/cats", "cifs"),
        ("/scratch/cats", "lustre"),
        ("/tmp/cats", None),
    ],
)
def test_type_of_mount_is_that_of_the_deepest(path: str, kind: str | None) -> None:
    assert network_type(Path(path), MOUNTS) == kind


def test_network_file_system_is_refused_with_advice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = filled(tmp_path / "m")
    mounts = tmp_path / "mounts"
    mounts.write_text(f"/dev/vda / ext4 rw 0 0\nserver:/x {tmp_path} nfs4 rw 0 0\n")
    monkeypatch.setattr("unalike.memory.mounts._MOUNTS", mounts)
    for use in (
        lambda: Memory.open(path),
        lambda: Memory.open(tmp_path / "new", create=True),
        lambda: Memory().save(tmp_path / "new"),
    ):
        with pytest.raises(
            StoreError, match=r"network file system \(nfs4\).*`unalike memory merge"
        ):
            use()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m", "mounts"]


def test_missing_file_is_refused_unless_it_is_to_be_made(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"there is no memory at .*create=True"):
        Memory.open(tmp_path / "m")
    assert not list(tmp_path.iterdir())
    with pytest.raises(StoreError, match=r"in a folder that is there"):
        Memory.open(tmp_path / "no" / "m", create=True)


@pytest.mark.parametrize("path", ["", "a\0b", "x" * 300, 5, None])
def test_what_is_no_path_is_refused(path: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    for use in (lambda p: Memory.open(p, create=True), Memory().save):
        with pytest.raises(StoreError):
            use(path)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def link(path: Path) -> None:
    path.symlink_to(filled(path.with_name("target")))


def foreign(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE photos (id INTEGER)")
    connection.close()


def marked(path: Path) -> None:
    """A database with the mark of a memory and other tables."""
    foreign(path)
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA application_id = {0x756E616C}")
    connection.execute("PRAGMA user_version = 1")
    connection.close()


def later(path: Path) -> None:
    connection = sqlite3.connect(filled(path))
    connection.execute("PRAGMA user_version = 2")
    connection.close()


ODD: dict[str, tuple[Callable[[Path], object], str]] = {
    "a link": (link, "is a symbolic link"),
    "a dangling link": (lambda p: p.symlink_to(p.with_name("gone")), "is a symbolic link"),
    "a folder": (Path.mkdir, "is a folder"),
    "a pipe": (os.mkfifo, "is a pipe, socket or device"),
    "an image": (lambda p: p.write_bytes(b"\x89PNG\r\n\x1a\n" * 99), "damaged or not a memory"),
    "a text": (lambda p: p.write_text("hello"), "damaged or not a memory"),
    "a foreign database": (foreign, "an SQLite database of something else"),
    "a forged mark": (marked, "it has other tables"),
    "a later release": (later, "another release .format 2, and this one reads 1.; upgrade"),
    "a cut database": (lambda p: os.truncate(filled(p), 9000), "damaged"),
}


@pytest.mark.parametrize("name", ODD)
def test_something_else_is_refused_and_stays_as_it_is(tmp_path: Path, name: str) -> None:
    put, message = ODD[name]
    put(tmp_path / "m")
    before = [(p.name, p.lstat().st_mode, p.lstat().st_size) for p in sorted(tmp_path.iterdir())]
    with pytest.raises(StoreError, match=message):
        Memory.open(tmp_path / "m", create=True)
    with pytest.raises(StoreError, match=message):
        Memory().save(tmp_path / "m")
    assert before == [
        (p.name, p.lstat().st_mode, p.lstat().st_size) for p in sorted(tmp_path.iterdir())
    ]


@pytest.mark.parametrize("suffix", ["-wal", "-shm", "-journal"])
def test_links_beside_the_file_are_refused(tmp_path: Path, suffix: str) -> None:
    path, victim = filled(tmp_path / "m"), tmp_path / "victim"
    victim.write_text("mine")
    path.with_name(f"m{suffix}").symlink_to(victim)
    with pytest.raises(StoreError, match=f"m{suffix}' is a symbolic link"):
        Memory.open(path)
    assert victim.read_text() == "mine"


def test_new_file_is_for_its_owner_alone_and_another_mode_is_kept(tmp_path: Path) -> None:
    path = filled(tmp_path / "m")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o640)
    memory = Memory.open(path)
    memory.add("s/2", torch.ones(1, 2))
    assert {stat.S_IMODE(p.stat().st_mode) for p in tmp_path.iterdir()} == {0o640}
    Memory().save(path)
    memory.close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    before = old(tmp_path / "old")
    before.chmod(0o644)
    with Memory.open(before) as memory:
        memory.add("s", torch.ones(1, 2))
    assert stat.S_IMODE(before.stat().st_mode) == 0o644


def test_one_file_is_left_when_it_is_closed(tmp_path: Path) -> None:
    filled(tmp_path / "m")
    assert [p.name for p in tmp_path.iterdir()] == ["m"]


def test_damage_is_found_when_it_is_opened(tmp_path: Path) -> None:
    path = filled(tmp_path / "m")
    connection = sqlite3.connect(path)
    (blob,) = connection.execute("SELECT latent FROM vectors WHERE id = 2").fetchone()
    connection.execute("UPDATE vectors SET latent = ? WHERE id = 2", (blob[:-1] + b"\x41",))
    connection.commit()
    connection.close()
    with pytest.raises(StoreError, match=rf"memory '{path}' is damaged: .*sample 2 does not fit"):
        Memory.open(path)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE samples SET text = 'dog' WHERE id = 1",
        "UPDATE samples SET seed = 'x' WHERE id = 1",
        "UPDATE samples SET space = 9 WHERE id = 1",
        "DELETE FROM vectors WHERE id = 1",
        "UPDATE spaces SET shape = '[3]'",
        "UPDATE spaces SET shape = '[-2]'",
        "UPDATE memory SET capacity = 'many'",
        "UPDATE memory SET dtype = 'int8'",
        "DELETE FROM memory",
    ],
)
def test_memory_is_refused_when_a_row_is_forged(tmp_path: Path, statement: str) -> None:
    path = filled(tmp_path / "m")
    connection = sqlite3.connect(path)
    connection.execute(statement)
    connection.commit()
    connection.close()
    with pytest.raises(StoreError, match="is damaged"):
        Memory.open(path)


def test_nothing_is_added_when_the_file_was_replaced(tmp_path: Path) -> None:
    memory = Memory.open(filled(tmp_path / "m"))
    shutil.copy(tmp_path / "m", tmp_path / "n")
    (tmp_path / "n").replace(tmp_path / "m")
    for use in (lambda: memory.add("s/2", torch.ones(1, 2)), memory.refresh):
        with pytest.raises(StoreError, match="was moved, deleted or replaced"):
            use()
    assert len(memory) == 3
    memory.close()


def test_old_memory_becomes_a_database_when_something_is_added(tmp_path: Path) -> None:
    path = old(tmp_path / "m.safetensors")
    before = path.read_bytes()
    with Memory.open(path) as memory, Memory.open(path) as other:
        assert (memory.capacity, memory.texts("s"), memory.numbers("s")) == (
            9,
            ["a"] * 3,
            [4, 5, 6],
        )
        memory.refresh()
        assert [p.name for p in tmp_path.iterdir()] == [path.name]
        assert path.read_bytes() == before
        memory.add("s", torch.ones(1, 2), seeds=[8])
        other.add("s", torch.ones(1, 2), seeds=[9])
        memory.refresh()
        for each in (memory, other):
            assert each.seeds("s") == [0, 1, 2, 8, 9]
            assert each.numbers("s")[:3] == [4, 5, 6]
    assert path.with_name(path.name + BACKUP).read_bytes() == before
    with Memory.open(path) as memory:
        assert memory.seeds("s") == [0, 1, 2, 8, 9]


def test_old_memory_stays_when_its_backup_is_in_the_way(tmp_path: Path) -> None:
    path = old(tmp_path / "m")
    path.with_name(f"m{BACKUP}").write_text("mine")
    with Memory.open(path) as memory:
        with pytest.raises(StoreError, match="is there already, where the memory"):
            memory.add("s", torch.ones(1, 2))
        assert len(memory) == 3
    assert len(Memory.open(path)) == 3


def test_copy_is_whole_and_others_go_on_with_it_when_it_is_saved(tmp_path: Path) -> None:
    target = Memory.open(filled(tmp_path / "target", 5))
    source = Memory.open(filled(tmp_path / "source", 2))
    source.save(source.path or "")  # it is there already
    source.save(tmp_path / "new")
    source.save(tmp_path / "target")
    target.refresh()
    assert target.seeds("s/2") == source.seeds("s/2") == Memory.open(tmp_path / "new").seeds("s/2")
    target.add("s/2", torch.ones(1, 2), seeds=[7])
    assert target.seeds("s/2") == [0, 1, 7]
    assert source.seeds("s/2") == [0, 1]
    for memory in (source, target):
        memory.close()


READ_ONLY = """
import os, sys, torch
from unalike.errors import StoreError
from unalike.memory import Memory
Memory().add("s/2", torch.ones(1, 2))  # imports what it needs, perhaps from a private folder
os.setgid(65534)
os.setuid(65534)
memory = Memory.open(sys.argv[1])
print(len(memory))
try:
    memory.add("s/2", torch.ones(1, 2))
except StoreError as error:
    print(error)
print(len(memory))
"""


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to become a user without rights")
@pytest.mark.parametrize(("folder", "file"), [(0o755, 0o644), (0o777, 0o644), (0o755, 0o666)])
def test_memory_is_read_and_not_changed_when_it_may_only_be_read(
    tmp_path: Path, folder: int, file: int
) -> None:
    place = tmp_path / "shared"
    place.mkdir()
    path = filled(place / "m")
    path.chmod(file)
    place.chmod(folder)
    for parent in (tmp_path, *list(tmp_path.parents)[:3]):  # pytest's own are for their owner
        if parent != Path("/tmp"):
            parent.chmod(0o755)
    before = path.read_bytes()
    done = subprocess.run(
        [sys.executable, "-c", READ_ONLY, str(path)], capture_output=True, text=True, timeout=120
    )
    assert done.stdout.splitlines()[::2] == ["3", "3"], done.stderr
    assert "may only be read" in done.stdout
    assert path.read_bytes() == before

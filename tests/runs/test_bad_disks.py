"""Runs on disks that are full, cannot be written, or have links planted on them."""

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from unalike.errors import OptionError, StoreError
from unalike.runs.run import run
from unalike.runs.run_settings import RunSettings

IMAGES = 6


def settings(model: Path, folder: Path, **changes: Any) -> RunSettings:
    source = folder / "prompts.txt"
    source.write_text("cat\ndog\nowl\n", "utf-8")
    plain = {"source": source, "num": 2, "batch_size": 2, "steps": 2, "model": str(model)}
    return RunSettings(**{**plain, "out": folder / "out", **changes})


def pixels(folder: Path) -> dict[str, bytes]:
    found = {}
    for path in sorted((folder / "images").glob("*.png")):
        with Image.open(path) as image:
            found[path.name] = image.tobytes()
    return found


@pytest.fixture(scope="module")
def expected(tiny_sd_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("whole")
    run(settings(tiny_sd_folder, folder))
    return pixels(folder / "out")


class Disk:
    """A file system of its own in memory, whose size can be changed."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self, kilobytes: int, *options: str) -> bool:
        """Give it a size; whether that is possible here."""
        again = ["remount"] if self.path.is_mount() else []
        how = ",".join([*again, f"size={kilobytes}k", *options])
        command = ["mount", "-t", "tmpfs", "-o", how, "tmpfs", str(self.path)]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("only root on Linux can mount a small disk")
    disk = Disk(tmp_path / "disk")
    disk.path.mkdir()
    if not disk(4000):
        pytest.skip("no disk can be mounted here")
    yield disk
    subprocess.run(["umount", str(disk.path)], check=True)


@pytest.mark.parametrize("kilobytes", [40, 120, 160, 200, 240, 280, 320, 360, 400, 440])
def test_nothing_is_torn_when_the_disk_is_full(
    tiny_sd_folder: Path, tmp_path: Path, disk: Disk, expected: dict[str, bytes], kilobytes: int
) -> None:
    asked = settings(tiny_sd_folder, tmp_path, out=disk.path / "out")
    assert disk(kilobytes)
    with pytest.raises(StoreError, match=r"No space left|full|disk I/O"):
        run(asked)
    there = pixels(disk.path / "out")
    assert there == {name: expected[name] for name in there}
    assert disk(20_000)
    assert run(asked).finished
    assert pixels(disk.path / "out") == expected


def test_a_disk_that_cannot_be_written_is_refused_before_anything_is_loaded(
    tiny_sd_folder: Path, tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    from unalike.runs.worker import Worker

    monkeypatch.setattr(Worker, "open", lambda *a: pytest.fail("the model was loaded"))
    assert disk(4000, "ro")
    with pytest.raises(StoreError, match=r"output folder .* cannot be written"):
        run(settings(tiny_sd_folder, tmp_path, out=disk.path / "out"))
    with pytest.raises(OptionError, match=r"memory is .* which cannot be written"):
        run(settings(tiny_sd_folder, tmp_path, memory=disk.path / "bank"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["bank", "bank-wal", "bank-shm"])
def test_a_memory_is_refused_when_it_is_a_link(
    tiny_sd_folder: Path, tmp_path: Path, name: str
) -> None:
    (tmp_path / "victim").write_text("mine")
    (tmp_path / name).symlink_to(tmp_path / "victim")
    with pytest.raises((StoreError, OptionError), match=r"bank.*link|link.*bank"):
        run(settings(tiny_sd_folder, tmp_path, memory=tmp_path / "bank"))
    assert (tmp_path / "victim").read_text() == "mine"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["images/00000.png", "run.json", "ledger.sqlite"])
def test_links_in_the_output_folder_are_not_followed(
    tiny_sd_folder: Path, tmp_path: Path, name: str
) -> None:
    run(settings(tiny_sd_folder, tmp_path))
    (tmp_path / "victim").write_text("mine")
    (tmp_path / "out" / name).unlink()
    (tmp_path / "out" / name).symlink_to(tmp_path / "victim")
    if name == "run.json":
        assert run(settings(tiny_sd_folder, tmp_path)).finished
    else:
        again = settings(tiny_sd_folder, tmp_path, overwrite=True)
        assert run(again).finished
    assert (tmp_path / "victim").read_text() == "mine"


def test_a_new_memory_is_for_its_owner_alone(tiny_sd_folder: Path, tmp_path: Path) -> None:
    bank = tmp_path / "bank"
    run(settings(tiny_sd_folder, tmp_path, memory=bank))
    assert stat.S_IMODE(bank.stat().st_mode) == 0o600
    bank.chmod(0o640)
    run(settings(tiny_sd_folder, tmp_path, memory=bank, out=tmp_path / "second"))
    assert stat.S_IMODE(bank.stat().st_mode) == 0o640

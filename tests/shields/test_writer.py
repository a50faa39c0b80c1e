import json
import os
import re
import resource
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.shields import sets

from unalike.errors import NumericsError, OptionError, StoreError
from unalike.shields.manifest import Manifest
from unalike.shields.store import discard, open_folder
from unalike.shields.writer import Writer


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch):
    """No test here cuts the power, and nothing else can tell what has reached the disk from what is
    on its way.
    """
    monkeypatch.setattr(os, "fsync", lambda handle: None)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("batch", [1, 3, 20])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_set_holds_what_was_given_when_it_is_opened(tmp_path, batch, dtype):
    z = sets.latents(11)
    written = sets.build(
        tmp_path / "set", z, batch=batch, dtype=dtype, size=(16, 24), embedding="clip"
    )
    opened = open_folder(tmp_path / "set")
    assert opened.manifest == written
    assert (written.count, written.dimension, written.shape, written.dtype) == (
        11,
        6,
        (2, 3),
        dtype,
    )
    assert (written.space, written.size, written.embedding, written.generation) == (
        "model/2x3",
        (16, 24),
        "clip",
        0,
    )
    assert np.array_equal(sets.all_rows(opened), z.flatten(1).numpy().astype(dtype))
    assert list(opened.ids) == sets.names(11)
    assert opened.sources[10] == ["010.png"]
    assert sets.nearest_is_itself(opened)
    assert files(tmp_path / "set") == sorted([*written.files, "manifest.json"])
    assert len({path.stat().st_mode for path in (tmp_path / "set").iterdir()}) == 1
    assert [shard.count for shard in written.shards] == (
        [4, 4, 3] if dtype == "float32" else [8, 3]
    )
    assert all(shard.bytes <= sets.FOUR_ROWS for shard in written.shards)


def test_rounding_is_the_largest_distance_to_what_is_stored_when_it_is_float16(tmp_path):
    z = sets.latents(9) * 100
    rounding = sets.build(tmp_path / "set", z, dtype="float16").rounding
    assert rounding == pytest.approx(
        (z.double() - z.half().double()).flatten(1).norm(dim=1).max().item()
    )
    assert rounding > 0
    assert sets.build(tmp_path / "exact", z).rounding == 0
    assert sets.build(tmp_path / "double", z.double() / 3).rounding == pytest.approx(
        (z.double() / 3 - (z.double() / 3).float()).flatten(1).norm(dim=1).max().item()
    )


@pytest.mark.parametrize("batch", [1, 4, 20])
def test_duplicates_are_kept_once_under_all_names_when_they_are_equal_as_stored(tmp_path, batch):
    z = sets.latents(4)
    z[2, 0, 0] = 0.0
    repeated = torch.cat([z, z[1:3], z[1:2] + 1e-9, -0.0 * z[:1] + z[:1]])
    repeated[5, 0, 0] = -0.0
    written = sets.build(tmp_path / "set", repeated, batch=batch)
    opened = open_folder(tmp_path / "set")
    assert written.count == 4
    assert np.array_equal(sets.all_rows(opened), z.flatten(1).numpy())
    assert list(opened.sources) == [
        ["000.png", "007.png"],
        ["001.png", "004.png", "006.png"],
        ["002.png", "005.png"],
        ["003.png"],
    ]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_input_is_named_when_it_is_not_finite(tmp_path, bad):
    z = sets.latents(4)
    z[2, 1, 1] = bad
    with Writer.begin(tmp_path / "set", **sets.SETTINGS) as writer:
        with pytest.raises(NumericsError, match=r"'002.png' has NaN or infinite"):
            writer.add(z, sets.names(4))
        assert not writer.done
        writer.add(z[:2], sets.names(2))
        assert writer.finish(radius=1).count == 2


def test_input_is_named_when_float16_cannot_hold_it(tmp_path):
    z = sets.latents(2)
    z[1, 0, 0] = 7e4
    with (
        Writer.begin(tmp_path / "set", dtype="float16", **sets.SETTINGS) as writer,
        pytest.raises(NumericsError, match=r"'001.png'.*float16"),
    ):
        writer.add(z, sets.names(2))


BAD_INPUT = {
    "another shape": (torch.zeros(1, 3, 2), ["a"], r"vectors of shape \(1, 3, 2\)"),
    "too few names": (torch.zeros(2, 6), ["a"], "1 names"),
    "a name twice": (torch.zeros(2, 6), ["a", "a"], "given twice"),
    "a name that is in": (torch.zeros(1, 6), ["there"], "'there' is in the set already"),
    "no name": (torch.zeros(1, 6), [""], "UTF-8"),
    "a name that is no text": (torch.zeros(1, 6), ["\udcff.png"], "UTF-8"),
}


@pytest.mark.parametrize(("vectors", "names", "message"), BAD_INPUT.values(), ids=BAD_INPUT)
def test_input_is_refused_when_it_does_not_fit(tmp_path, vectors, names, message):
    with Writer.begin(tmp_path / "set", **sets.SETTINGS) as writer:
        writer.add(torch.ones(1, 6), ["there"])
        with pytest.raises(OptionError, match=message):
            writer.add(vectors, names)
        assert writer.count == 1


BAD_SETTINGS = {
    "precision": ({"dtype": "bfloat16"}, "allowed: float16, float32"),
    "space": ({"space": ""}, "space is empty"),
    "no shape": ({"shape": ()}, "shape is"),
    "empty shape": ({"shape": (0, 4)}, "shape is"),
}


@pytest.mark.parametrize(("settings", "message"), BAD_SETTINGS.values(), ids=BAD_SETTINGS)
def test_settings_are_refused_before_anything_is_written_when_they_are_not_allowed(
    tmp_path, settings, message
):
    with pytest.raises(OptionError, match=message):
        Writer.begin(tmp_path / "set", **{**sets.SETTINGS, **settings})
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize("radius", [0, -1.0, float("nan"), float("inf"), True, None])
def test_radius_is_refused_when_it_is_not_above_0(tmp_path, radius):
    with Writer.begin(tmp_path / "set", **sets.SETTINGS) as writer:
        writer.add(torch.ones(1, 6), ["a"])
        with pytest.raises(OptionError, match="radius is"):
            writer.finish(radius=radius)
        assert writer.finish(radius=0.5).radius == 0.5


def test_empty_set_is_refused_and_nothing_left_when_it_is_finished(tmp_path):
    with (
        Writer.begin(tmp_path / "set", **sets.SETTINGS) as writer,
        pytest.raises(OptionError, match="empty"),
    ):
        writer.finish(radius=1)
    assert not (tmp_path / "set").exists()
    (tmp_path / "there").mkdir()
    Writer.begin(tmp_path / "there", **sets.SETTINGS).close()
    assert files(tmp_path / "there") == []
    first = sets.build(tmp_path / "there", sets.latents(3))
    Writer.append(tmp_path / "there").close()
    assert open_folder(tmp_path / "there").manifest == first


def test_folder_is_refused_when_it_holds_something_else(tmp_path):
    (tmp_path / "photo.png").touch()
    with pytest.raises(StoreError, match=r"holds other files \(photo.png\)"):
        Writer.begin(tmp_path, **sets.SETTINGS)
    with pytest.raises(StoreError, match="is a file"):
        Writer.begin(tmp_path / "photo.png", **sets.SETTINGS)
    assert files(tmp_path) == ["photo.png"]


@pytest.mark.parametrize("left", [".manifest.json.4711.tmp", ".tmpa1B2c3"])
def test_build_goes_on_when_a_killed_one_left_a_temporary_file(tmp_path, left):
    with Writer.begin(tmp_path / "set", **sets.SETTINGS) as writer:
        writer.add(torch.ones(1, 6), ["a"])
    (tmp_path / "set" / left).write_bytes(b"half")
    with Writer.begin(tmp_path / "set", **sets.SETTINGS) as writer:
        writer.finish(radius=1.0)
    assert left not in files(tmp_path / "set")


def test_folder_is_refused_when_it_holds_a_finished_set(tmp_path):
    sets.build(tmp_path / "set", sets.latents(3))
    before = files(tmp_path / "set")
    with pytest.raises(StoreError, match="a protected set of 3 vectors already"):
        Writer.begin(tmp_path / "set", **sets.SETTINGS)
    assert files(tmp_path / "set") == before
    (tmp_path / "set" / "manifest.json").unlink()
    with pytest.raises(StoreError, match="lacks its manifest"):
        Writer.begin(tmp_path / "set", **sets.SETTINGS)


def test_build_is_refused_when_an_interrupted_one_had_other_settings(tmp_path):
    with Writer.begin(tmp_path / "set", **sets.SETTINGS) as writer:
        writer.add(torch.ones(1, 6), ["a"])
    with pytest.raises(StoreError, match=r"other settings \(dtype 'float32', now 'float16'\)"):
        Writer.begin(tmp_path / "set", dtype="float16", **sets.SETTINGS)
    with Writer.begin(tmp_path / "set", **sets.SETTINGS) as writer:
        assert set(writer.done) == {"a"}


def test_second_process_is_refused_when_one_is_at_work(tmp_path):
    with Writer.begin(tmp_path / "set", **sets.SETTINGS) as writer:
        writer.add(torch.ones(1, 6), ["a"])
        with pytest.raises(StoreError, match="another process is writing"):
            Writer.begin(tmp_path / "set", **sets.SETTINGS)
        with pytest.raises(StoreError, match="another process is writing"):
            discard(tmp_path / "set")
        writer.add(torch.zeros(1, 6), ["b"])
        assert writer.finish(radius=1).count == 2
    with pytest.raises(StoreError, match="has ended"):
        writer.add(torch.zeros(1, 6), ["c"])


def snapshots(folder: Path, vectors: torch.Tensor) -> list[Path]:
    """What was on the disk after each call of a build."""
    copies = []
    with Writer.begin(folder / "set", shard_bytes=sets.FOUR_ROWS, **sets.SETTINGS) as writer:
        for i in range(0, len(vectors), 3):
            writer.add(vectors[i : i + 3], sets.names(len(vectors))[i : i + 3])
            copies.append(folder / f"after-{i}")
            shutil.copytree(folder / "set", copies[-1])
        writer.vectors()
        copies.append(folder / "sealed")
        shutil.copytree(folder / "set", copies[-1])
    return copies


def test_build_goes_on_to_the_same_set_when_it_was_cut_off_anywhere(tmp_path):
    z = sets.latents(10)
    z = torch.cat([z, z[:2]])
    whole = sets.build(tmp_path / "whole", z)
    for copy in snapshots(tmp_path, z)[1:]:
        journal = (copy / "building.jsonl").read_bytes()
        lines = [i + 1 for i, byte in enumerate(journal) if byte == 10]
        for cut in {0, *lines[-3:], *(i - 1 for i in lines), lines[0] + 9}:
            shutil.rmtree(tmp_path / "cut", ignore_errors=True)
            shutil.copytree(copy, tmp_path / "cut")
            (tmp_path / "cut" / "building.jsonl").write_bytes(journal[:cut])
            with pytest.raises(StoreError, match="was not finished"):
                open_folder(tmp_path / "cut")
            assert sets.build(tmp_path / "cut", z).to_dict() == {
                **whole.to_dict(),
                **shards_of(tmp_path / "cut"),
            }
            assert np.array_equal(
                sets.all_rows(open_folder(tmp_path / "cut")), z[:10].flatten(1).numpy()
            )
            assert list(open_folder(tmp_path / "cut").sources) == list(
                open_folder(tmp_path / "whole").sources
            )


def shards_of(folder: Path) -> dict:
    """The entries of a manifest that may differ where a file of vectors was closed early: their
    division into files.
    """
    entries = Manifest.read(folder).to_dict()
    return {"shards": entries["shards"], "checksum": entries["checksum"]}


def test_build_goes_on_to_the_same_set_when_its_process_is_killed_again_and_again(tmp_path):
    z = sets.latents(60)
    whole = sets.build(tmp_path / "whole", z)
    kills = 0
    for attempt in range(40):
        child = os.fork()
        if child == 0:
            torch.set_num_threads(1)  # those of the parent are not here
            with Writer.begin(
                tmp_path / "set", shard_bytes=sets.FOUR_ROWS, **sets.SETTINGS
            ) as writer:
                sets.fill(writer, z, sets.names(60), 3)
                writer.finish(radius=1.0)
            os._exit(0)
        time.sleep(
            0.002 * 1.25**attempt
        )  # longer each time, so that it is finished in the end on any machine
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):
            break
        kills += 1
        if (tmp_path / "set" / "manifest.json").exists():
            break
        if (tmp_path / "set").is_dir():
            with pytest.raises(StoreError, match=r"was not finished|no protected set"):
                open_folder(tmp_path / "set")
    assert kills > 1
    opened = open_folder(tmp_path / "set")
    assert opened.manifest.to_dict() == whole.to_dict()
    assert np.array_equal(sets.all_rows(opened), z.flatten(1).numpy())


def in_child(work: Callable[[], str]) -> str:
    """What the work returns in a process of its own, whose limits may be changed."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        torch.set_num_threads(1)  # those of the parent are not here
        try:
            os.write(writer, work().encode())
        finally:
            os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with os.fdopen(reader, "rb") as end:
        return end.read().decode()


def limit_files(size: int) -> None:
    """No file may be longer than this from now on, as on a disk that is full."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def test_what_is_complete_is_kept_when_the_disk_is_full(tmp_path):
    z = sets.latents(40)

    def build() -> str:
        with Writer.begin(tmp_path / "set", **sets.SETTINGS) as writer:
            writer.expected = 40
            limit_files(900)
            try:
                sets.fill(writer, z, sets.names(40), 1)
            except StoreError as error:
                return str(error)
        return "all was written"

    message = in_child(build)
    with Writer.begin(tmp_path / "set", **sets.SETTINGS) as writer:
        done = len(writer.done)
        assert 0 < done < 40
        sets.fill(writer, z, sets.names(40), 7)
        assert writer.finish(radius=1).count == 40
    assert re.search(
        r"cannot write '.*set/(vectors|building).*\(File too large\).*the same command again",
        message,
    )
    needed = int("".join(re.findall(r"about ([\d,]+) more bytes", message)).replace(",", ""))
    assert (40 - done) * 24 <= needed <= (40 - done) * 24 + 1000
    assert np.array_equal(sets.all_rows(open_folder(tmp_path / "set")), z.flatten(1).numpy())


def test_finish_can_be_called_again_when_there_was_no_room_for_it(tmp_path):
    def build() -> str:
        with Writer.begin(tmp_path / "set", **sets.SETTINGS) as writer:
            writer.add(sets.latents(5), sets.names(5))
            limit_files(1500)
            with pytest.raises(StoreError, match=r"cannot write '.*bytes are needed") as refusal:
                writer.finish(radius=1)
            limit_files(resource.RLIM_INFINITY)
            return f"{refusal.value} {writer.finish(radius=1).count}"

    message = in_child(build)
    assert re.match(r"cannot write '.*set.names-0.parquet'", message)
    assert message.endswith(" 5")
    assert len(open_folder(tmp_path / "set").vectors) == 5
    assert files(tmp_path / "set") == [
        "index-0.safetensors",
        "manifest.json",
        "names-0.parquet",
        "vectors-00000.safetensors",
    ]


def add(folder: Path, vectors: torch.Tensor, names: list[str], **options) -> Manifest:
    with Writer.append(folder, shard_bytes=sets.FOUR_ROWS) as writer:
        sets.fill(writer, vectors, names, 3)
        return writer.finish(**options)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_set_holds_old_and_new_when_some_are_added(tmp_path, dtype):
    z = sets.latents(12)
    first = sets.build(tmp_path / "set", z[:5], radius=0.7, dtype=dtype)
    second = add(tmp_path / "set", torch.cat([z[5:], z[:1]]), [*sets.names(12)[5:], "again.png"])
    opened = open_folder(tmp_path / "set")
    assert opened.manifest == second
    assert (second.count, second.radius, second.generation, second.dtype) == (12, 0.7, 1, dtype)
    assert second.rounding >= first.rounding
    assert second.checksum != first.checksum
    assert second.shards[: len(first.shards)] == first.shards
    assert np.array_equal(sets.all_rows(opened), z.flatten(1).numpy().astype(dtype))
    assert opened.sources[0] == ["000.png", "again.png"]
    assert sets.nearest_is_itself(opened)
    assert files(tmp_path / "set") == sorted([*second.files, "manifest.json"])


def test_set_stays_as_it_was_when_nothing_new_is_added(tmp_path):
    z = sets.latents(5)
    first = sets.build(tmp_path / "set", z)
    assert add(tmp_path / "set", z, sets.names(5)) == first
    assert open_folder(tmp_path / "set").manifest == first


def test_only_the_names_are_new_when_duplicates_are_added(tmp_path):
    z = sets.latents(5)
    first = sets.build(tmp_path / "set", z)
    second = add(tmp_path / "set", z[3:4], ["copy.png"])
    assert (second.shards, second.index) == (first.shards, first.index)
    assert open_folder(tmp_path / "set").sources[3] == ["003.png", "copy.png"]


def test_old_set_is_refused_until_it_is_settled_when_an_addition_was_interrupted(tmp_path):
    z = sets.latents(12)
    first = sets.build(tmp_path / "set", z[:5])
    with Writer.append(tmp_path / "set", shard_bytes=sets.FOUR_ROWS) as writer:
        writer.add(z[5:], sets.names(12)[5:])
    shutil.copytree(tmp_path / "set", tmp_path / "other")
    with pytest.raises(StoreError, match=r"addition .* is not finished.*--discard"):
        open_folder(tmp_path / "set")
    assert discard(tmp_path / "set") > 0
    assert open_folder(tmp_path / "set").manifest == first
    assert files(tmp_path / "set") == sorted([*first.files, "manifest.json"])
    with pytest.raises(StoreError, match="nothing to discard"):
        discard(tmp_path / "set")
    with Writer.append(tmp_path / "other") as writer:
        assert len(writer.done) == 12
        assert writer.finish().count == 12
    assert np.array_equal(sets.all_rows(open_folder(tmp_path / "other")), z.flatten(1).numpy())


def test_new_set_is_open_when_only_the_tidying_was_interrupted(tmp_path):
    z = sets.latents(8)
    sets.build(tmp_path / "set", z[:5])
    with Writer.append(tmp_path / "set") as writer:
        writer.add(z[5:], sets.names(8)[5:])
        journal = (tmp_path / "set" / "building.jsonl").read_bytes()
        writer.finish()
    (tmp_path / "set" / "building.jsonl").write_bytes(journal)
    (tmp_path / "set" / "names-0.parquet").write_bytes(b"left over")
    assert open_folder(tmp_path / "set").manifest.count == 8
    assert add(tmp_path / "set", sets.latents(1, seed=9), ["new.png"]).count == 9
    assert "names-0.parquet" not in files(tmp_path / "set")


def test_addition_is_refused_when_there_is_no_finished_set(tmp_path):
    with pytest.raises(StoreError, match="no protected set"):
        Writer.append(tmp_path)
    with Writer.begin(tmp_path / "set", **sets.SETTINGS) as writer:
        writer.add(torch.ones(1, 6), ["a"])
    with pytest.raises(StoreError, match="command that built it again"):
        Writer.append(tmp_path / "set")
    discard(tmp_path / "set")
    assert files(tmp_path / "set") == []


def test_build_is_refused_when_what_was_written_is_damaged(tmp_path):
    with Writer.begin(tmp_path / "set", **sets.SETTINGS) as writer:
        writer.add(sets.latents(3), sets.names(3))
    shard, journal = (
        tmp_path / "set" / "vectors-00000.safetensors",
        tmp_path / "set" / "building.jsonl",
    )
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1])
    with pytest.raises(StoreError, match=r"vectors-00000.safetensors.*is damaged.*--discard"):
        Writer.begin(tmp_path / "set", **sets.SETTINGS)
    shard.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(StoreError, match="not those that were written"):
        Writer.begin(tmp_path / "set", **sets.SETTINGS)
    shard.write_bytes(whole)
    lines = journal.read_text().splitlines()
    journal.write_text("\n".join([lines[0], lines[1][:-9], ""]))
    with pytest.raises(StoreError, match=r"building.jsonl.*is damaged"):
        Writer.begin(tmp_path / "set", **sets.SETTINGS)
    journal.write_text(json.dumps({**json.loads(lines[0]), "version": 1}) + "\n")
    with pytest.raises(StoreError, match="of another set or release"):
        Writer.begin(tmp_path / "set", **sets.SETTINGS)

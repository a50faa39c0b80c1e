import gc
import hashlib
import io
import json
import random
import resource
import signal
import subprocess
import sys
import tarfile
import time
import warnings

import numpy as np
import pytest
import webdataset
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from unalike.errors import OptionError, StoreError
from unalike.runs.imagefile import encode_image
from unalike.runs.parameters import ImageInfo
from unalike.runs.shards import Position, ShardWriter, shard_name

SMALL = 25_000
"""Bytes of a shard that holds about ten samples."""

CHILD = """
import json, os, pathlib, sys
from unalike.runs.shards import ShardWriter

folder, last = pathlib.Path(sys.argv[1]), int(sys.argv[2])
ledger = folder / "ledger"
lines = ledger.read_text().splitlines(keepends=True) if ledger.exists() else []
whole = [line for line in lines if line.endswith("\\n")]
done, *position = json.loads(whole[-1]) if whole else (0, 0, 0)
ledger.write_text("".join(whole))
with ShardWriter(folder / "shards", size=25_000, resume_at=tuple(position)) as writer:
    print("writing", flush=True)
    with ledger.open("a") as file:
        while done < last:
            for number in range(done, min(done + 3, last)):
                data = str(number).encode() * 150
                writer.write(f"{number:08}", data, ".png", {"seed": number}, f"prompt {number}")
            done = min(done + 3, last)
            file.write(json.dumps([done, *writer.flush()]) + "\\n")
            file.flush()
"""


def sample(number, size=600):
    """The arguments of `write` for a sample."""
    data = hashlib.sha256(str(number).encode()).digest() * (1 + size // 32)
    return f"{number:08}", data[:size], ".png", {"seed": number}, f"prompt {number} 日本"


def fill(writer, start, stop):
    return [writer.write(*sample(number)) for number in range(start, stop)]


def finished(folder):
    return sorted(str(path) for path in folder.glob("shard-*.tar"))


def read(folder, *stages):
    """The samples of all finished shards, as webdataset reads them; it leaves its files open."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        dataset = webdataset.WebDataset(  # pyright: ignore[reportAttributeAccessIssue]
            finished(folder), shardshuffle=False
        )
        found = list(dataset.decode(*stages) if stages else dataset)
        del dataset
        gc.collect()
    return found


def keys(folder):
    return [int(found["__key__"]) for found in read(folder)]


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("format", "suffix"), [("png", ".png"), ("jpeg", ".jpg"), ("webp", ".webp")]
)
def test_webdataset_reads_images_and_records_when_shards_are_finished(tmp_path, format, suffix):
    images = [Image.new("RGB", (16, 16), (i * 10, 0, 0)) for i in range(12)]
    infos = [
        ImageInfo(
            prompt=f"猫 {i}", seed=i, steps=4, scheduler="x", width=16, height=16, model="emoji"
        )
        for i in range(12)
    ]
    with ShardWriter(tmp_path / "shards", size=SMALL) as writer:
        for i, (image, info) in enumerate(zip(images, infos, strict=True)):
            file = encode_image(image, info, format=format)
            writer.write(f"{i:08}", file, suffix, info.to_dict(), info.prompt)
    found = read(tmp_path / "shards", "pil")
    assert len({one["__url__"] for one in found}) > 1
    assert [ImageInfo.from_dict(one["json"]) for one in found] == infos
    assert [one["txt"] for one in found] == [info.prompt for info in infos]
    for one, drawn in zip(found, images, strict=True):
        assert np.abs(np.asarray(one[suffix[1:]], int) - np.asarray(drawn, int)).max() <= 2


def test_places_name_members_that_are_there_when_shards_are_finished(tmp_path):
    with ShardWriter(tmp_path, size=SMALL) as writer:
        places = fill(writer, 0, 30)
    for number, place in enumerate(places):
        shard, member = place.split("#")
        with tarfile.open(tmp_path / shard) as archive:
            found = archive.extractfile(member)
            assert found is not None
            assert found.read() == sample(number)[1]


def test_no_shard_is_larger_than_asked_for_when_samples_are_smaller(tmp_path):
    with ShardWriter(tmp_path, size=SMALL) as writer:
        fill(writer, 0, 50)
    sizes = [path.stat().st_size for path in tmp_path.iterdir()]
    assert len(sizes) >= 5
    assert max(sizes) <= SMALL
    assert keys(tmp_path) == list(range(50))


def test_a_sample_has_a_shard_of_its_own_when_it_is_larger_than_a_shard(tmp_path):
    with ShardWriter(tmp_path, size=1) as writer:
        fill(writer, 0, 3)
    assert [path.name for path in sorted(tmp_path.iterdir())] == [shard_name(i) for i in range(3)]
    assert keys(tmp_path) == [0, 1, 2]


def test_no_shard_is_written_when_there_are_no_samples(tmp_path):
    with ShardWriter(tmp_path / "shards") as writer:
        assert writer.flush() == Position(0, 0)
    assert contents(tmp_path / "shards") == {}


def interrupted(folder, counts, torn, finish):
    """Write samples in batches of these counts, as often interrupted: each time more are written
    than are flushed, and the last shard is torn by as many bytes or finished.
    """
    position, done = Position(0, 0), 0
    for count in counts:
        writer = ShardWriter(folder, size=SMALL, resume_at=position)
        fill(writer, done, done + count)
        position, done = writer.flush(), done + count
        fill(writer, done, done + 7)
        if finish:
            writer.close()
        else:
            writer.stop()
            (last,) = folder.glob("*.partial")
            least = position.offset if last.stem == shard_name(position.shard) else 0
            with last.open("r+b") as file:
                file.truncate(max(least, last.stat().st_size - torn))
    with ShardWriter(folder, size=SMALL, resume_at=position) as writer:
        fill(writer, done, done + 5)
    return done + 5


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    counts=st.lists(st.integers(0, 25), min_size=1, max_size=4),
    torn=st.integers(0, 20_000),
    finish=st.booleans(),
)
def test_shards_are_those_of_one_run_when_it_was_interrupted(
    tmp_path_factory, counts, torn, finish
):
    folder, whole = tmp_path_factory.mktemp("resumed"), tmp_path_factory.mktemp("whole")
    done = interrupted(folder, counts, torn, finish)
    with ShardWriter(whole, size=SMALL) as writer:
        fill(writer, 0, done)
    assert contents(folder) == contents(whole)


def test_nothing_changes_when_a_finished_run_is_resumed_and_closed(tmp_path):
    with ShardWriter(tmp_path, size=SMALL) as writer:
        fill(writer, 0, 20)
        position = writer.flush()
    before = contents(tmp_path)
    ShardWriter(tmp_path, size=SMALL, resume_at=position).close()
    assert contents(tmp_path) == before


def test_every_sample_is_there_once_when_the_writer_is_killed_again_and_again(tmp_path):
    delays = random.Random(0)
    command = [sys.executable, "-c", CHILD, str(tmp_path)]
    for _ in range(25):
        child = subprocess.Popen([*command, str(10**9)], stdout=subprocess.PIPE)
        assert child.stdout is not None
        assert child.stdout.readline() == b"writing\n"
        time.sleep(delays.uniform(0, 0.03))
        child.send_signal(signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
        child.stdout.close()
    done = json.loads((tmp_path / "ledger").read_text().splitlines()[-1])[0] + 10
    subprocess.run([*command, str(done)], check=True, stdout=subprocess.DEVNULL)
    assert keys(tmp_path / "shards") == list(range(done))
    for number, found in enumerate(read(tmp_path / "shards")):
        assert found["png"] == str(number).encode() * 150
        assert json.loads(found["json"]) == {"seed": number}


@pytest.fixture
def limited():
    """Sets the most bytes that a file may have; there is no limit again after the test."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("room", [0, 100, 512, 1536, 2500, 3072, 5000, 9999, 10_240, 17_000])
def test_samples_before_are_whole_when_the_disk_is_full(tmp_path, limited, room):
    writer, flushed = ShardWriter(tmp_path), [Position(0, 0)]

    def fill_the_disk():
        for number in range(1000):
            writer.write(*sample(number))
            flushed.append(writer.flush())

    limited(room)
    for _ in range(2):
        with pytest.raises(StoreError, match=r"cannot be written: File too large; .* make room"):
            fill_the_disk()
    writer.stop()
    limited(resource.RLIM_INFINITY)
    position, done = flushed[-1], len(flushed) - 1
    assert done == room // 3584
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) == position.offset
    with ShardWriter(tmp_path, resume_at=position) as resumed:
        fill(resumed, done, done + 5)
    assert keys(tmp_path) == list(range(done + 5))


def test_shard_stays_unfinished_when_there_is_no_room_for_its_end(tmp_path, limited):
    writer = ShardWriter(tmp_path)
    fill(writer, 0, 2)
    position = writer.flush()
    limited(position.offset + 500)
    with pytest.raises(StoreError, match="cannot be finished"):
        writer.close()
    assert [path.name for path in tmp_path.iterdir()] == ["shard-000000.tar.partial"]
    limited(resource.RLIM_INFINITY)
    ShardWriter(tmp_path, resume_at=position).close()
    assert keys(tmp_path) == [0, 1]


def test_shard_stays_unfinished_when_the_block_fails(tmp_path):
    def fail():
        with ShardWriter(tmp_path) as writer:
            fill(writer, 0, 2)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert [path.name for path in tmp_path.iterdir()] == ["shard-000000.tar.partial"]


def test_shards_are_refused_when_a_run_begins_in_their_folder(tmp_path):
    with ShardWriter(tmp_path) as writer:
        fill(writer, 0, 2)
    before = contents(tmp_path)
    with pytest.raises(StoreError, match=r"has shards of an earlier run.*resume=True"):
        ShardWriter(tmp_path)
    assert contents(tmp_path) == before


def test_only_shards_go_when_a_run_resumes_at_its_beginning(tmp_path):
    with ShardWriter(tmp_path, size=SMALL) as writer:
        fill(writer, 0, 30)
    (tmp_path / "shard-notes.txt").write_text("mine")
    ShardWriter(tmp_path, resume_at=(0, 0)).close()
    assert contents(tmp_path) == {"shard-notes.txt": b"mine"}


def test_earlier_shards_may_be_gone_when_a_run_resumes(tmp_path):
    writer = ShardWriter(tmp_path, size=SMALL)
    fill(writer, 0, 30)
    position = writer.flush()
    writer.stop()
    (tmp_path / shard_name(0)).unlink()
    with ShardWriter(tmp_path, size=SMALL, resume_at=position) as writer:
        fill(writer, 30, 33)
    assert keys(tmp_path)[-3:] == [30, 31, 32]


@pytest.mark.parametrize("kept", [0, 3000, None])
def test_shard_is_refused_and_nothing_removed_when_committed_samples_are_lost(tmp_path, kept):
    writer = ShardWriter(tmp_path, size=SMALL)
    fill(writer, 0, 3)
    position = writer.flush()
    fill(writer, 3, 30)
    writer.stop()
    shard = tmp_path / shard_name(0)
    if kept is None:
        shard.unlink()
    else:
        shard.write_bytes(shard.read_bytes()[:kept])
    before = contents(tmp_path)
    with pytest.raises(StoreError, match=r"put it\s+back"):
        ShardWriter(tmp_path, size=SMALL, resume_at=position)
    assert contents(tmp_path) == before


def test_links_are_not_written_to_when_they_are_in_the_way(tmp_path):
    precious, folder = tmp_path / "precious", tmp_path / "shards"
    precious.write_bytes(bytes(9000))
    folder.mkdir()
    writer = ShardWriter(folder)
    (folder / "shard-000000.tar.partial").symlink_to(precious)
    with pytest.raises(StoreError, match="cannot be written"):
        writer.write(*sample(0))
    with pytest.raises(StoreError, match="is a link"):
        ShardWriter(folder, resume_at=(0, 3584))
    with ShardWriter(folder, resume_at=(0, 0)) as writer:
        fill(writer, 0, 1)
    (tmp_path / "linked").symlink_to(folder)
    with pytest.raises(StoreError, match="is a link"):
        ShardWriter(tmp_path / "linked", resume_at=(0, 0))
    assert precious.read_bytes() == bytes(9000)
    assert keys(folder) == [0]


def test_folder_is_refused_when_a_file_is_in_its_place(tmp_path):
    (tmp_path / "shards").write_text("x")
    with pytest.raises(StoreError, match="cannot be written: File exists"):
        ShardWriter(tmp_path / "shards")


@pytest.mark.parametrize("key", ["", "a.b", "a/b", "../x", "é", "x" * 81, "a\n"])
def test_key_is_refused_when_a_tar_file_would_split_it(tmp_path, key):
    with (
        ShardWriter(tmp_path) as writer,
        pytest.raises(OptionError, match="the key of a sample is"),
    ):
        writer.write(key, b"", ".png", {}, "")


@pytest.mark.parametrize("size", [0, -1, 1.5, True, "1"])
def test_size_is_refused_when_it_is_no_number_of_bytes(tmp_path, size):
    with pytest.raises(OptionError, match="shard_size is"):
        ShardWriter(tmp_path / "shards", size=size)
    assert not (tmp_path / "shards").exists()


def test_writing_is_refused_when_the_writer_is_closed(tmp_path):
    with ShardWriter(tmp_path) as writer:
        fill(writer, 0, 1)
    with pytest.raises(ValueError, match="closed"):
        writer.write(*sample(1))


def test_tar_itself_lists_the_members_when_a_shard_is_finished(tmp_path):
    with ShardWriter(tmp_path) as writer:
        fill(writer, 0, 2)
    data = (tmp_path / shard_name(0)).read_bytes()
    assert len(data) % tarfile.RECORDSIZE == 0
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        assert archive.getnames() == [
            f"{i:08}.{suffix}" for i in range(2) for suffix in ("png", "json", "txt")
        ]

"""Parts of a run that jobs of an array draw, joined into one folder."""

import json
import shutil

import pyarrow.parquet as pq
import pytest
from tests.runs.several import PROMPTS, settings

from unalike.errors import OptionError, StoreError
from unalike.memory import Memory
from unalike.runs.run import run


@pytest.fixture
def asked(tiny_sd_folder, tmp_path):
    """Settings of the run, with changes."""
    return lambda **changes: settings(tiny_sd_folder, tmp_path, **changes)


def names(folder):
    return sorted(path.name for path in (folder / "images").glob("*.png"))


def test_joined_folder_has_what_one_run_has_when_all_parts_are_there(asked, tmp_path):
    whole = run(asked(out=tmp_path / "whole", memory=None))
    for number in range(3):
        assert run(asked(shard=f"{number}/3")).finished
    outcome = run(asked(merge=True))
    assert outcome.finished
    assert outcome.failures == []
    assert names(tmp_path / "out") == names(tmp_path / "whole")
    assert [s.planned for s in outcome.samples] == [s.planned for s in whole.samples]
    table = pq.read_table(tmp_path / "out" / "samples.parquet").to_pylist()
    assert [row["index"] for row in table] == list(range(16))
    record = json.loads((tmp_path / "out" / "run.json").read_text("utf-8"))
    assert record["images"]["planned"] == record["images"]["finished"] == 16
    assert record["workers"] == {"kind": "parts", "parts": 3, "joined": [0, 1, 2]}
    assert "--shard" not in record["command"]
    with Memory.open(tmp_path / "bank.memory") as memory:
        assert len(memory) == 16


def test_part_draws_each_of_its_batches_when_there_are_three(asked, tmp_path):
    outcome = run(asked(shard="1/3", memory=None))
    assert [s.planned.index for s in outcome.samples] == [2, 3, 8, 9, 14, 15]
    assert names(tmp_path / "out" / "shard-1-of-3") == [f"{i:05}.png" for i in (2, 3, 8, 9, 14, 15)]


def test_missing_images_are_named_and_can_be_drawn_when_a_part_is_missing(asked, tmp_path):
    run(asked(shard="0/2"))
    outcome = run(asked(merge=True))
    assert not outcome.finished
    assert [f.number for f in outcome.failures] == [2, 3, 6, 7, 10, 11, 14, 15]
    assert outcome.failures[0].error == "not drawn; there is no shard-1-of-2"
    assert run(asked()).finished, "the whole run goes on with the joined folder"
    assert len(names(tmp_path / "out")) == 16
    run(asked(shard="1/2"))
    again = run(asked(merge=True))
    assert again.finished
    assert len(again.samples) == 16


def test_later_images_are_added_when_a_part_is_merged_again(asked):
    run(asked(shard="1/2"))
    assert len(run(asked(merge=True)).samples) == 8
    run(asked(shard="0/2"))
    assert len(run(asked(merge=True)).samples) == 16


def test_parts_begin_with_the_memory_of_the_run_when_it_is_there(asked, tmp_path):
    run(asked(out=tmp_path / "earlier", num=1, seed=100))
    run(asked(shard="0/2"))
    with Memory.open(tmp_path / "out" / "shard-0-of-2.memory") as memory:
        assert len(memory) == len(PROMPTS) + 8
    run(asked(merge=True))
    with Memory.open(tmp_path / "bank.memory") as memory:
        assert len(memory) == len(PROMPTS) + 8


def test_webdataset_shards_are_numbered_on_when_parts_have_them(asked, tmp_path):
    for number in range(2):
        run(asked(shard=f"{number}/2", memory=None, shard_size=1 << 20))
    outcome = run(asked(merge=True, memory=None, shard_size=1 << 20))
    places = [s.image.path for s in outcome.samples if s.image]
    assert len(set(places)) == 16
    assert {place.split("#")[0] for place in places} == {
        "shards/shard-000000.tar",
        "shards/shard-000001.tar",
    }
    assert all((tmp_path / "out" / place.split("#")[0]).is_file() for place in places)


def test_merging_is_refused_when_parts_are_not_of_this_run(asked, tmp_path):
    with pytest.raises(StoreError, match="there is no part"):
        run(asked(merge=True))
    run(asked(shard="0/2", memory=None))
    with pytest.raises(StoreError, match=r"shard-0-of-2 has 8 images that source does not ask for"):
        run(asked(merge=True, memory=None, seed=50))
    run(asked(shard="1/2", memory=None, steps=3))
    with pytest.raises(StoreError, match="other values of steps"):
        run(asked(merge=True, memory=None))
    shutil.move(tmp_path / "out" / "shard-1-of-2", tmp_path / "out" / "shard-1-of-3")
    with pytest.raises(StoreError, match="parts of 2 and of 3"):
        run(asked(merge=True, memory=None))


def test_images_of_a_part_are_not_followed_when_they_are_links(asked, tmp_path):
    run(asked(shard="0/1", memory=None))
    secret = tmp_path / "secret"
    secret.write_text("no image")
    image = tmp_path / "out" / "shard-0-of-1" / "images" / "00003.png"
    image.unlink()
    image.symlink_to(secret)
    with pytest.raises(StoreError, match="cannot be joined: it is no file"):
        run(asked(merge=True, memory=None))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shard": "2/2"}, r"shard is '2/2'; allowed: i/k with i from 0 to k - 1"),
        ({"shard": "-1/2"}, "shard is '-1/2'"),
        ({"shard": "1"}, "shard is '1'"),
        ({"shard": "0/99999"}, "at most 10,000"),
        ({"shard": "0/2", "out": None}, "shard needs the folder"),
        ({"merge": True, "out": None}, "merge needs the folder"),
        ({"merge": True, "shard": "0/2"}, "shard and merge are given"),
        ({"merge": True, "overwrite": True}, "merging keeps all"),
        ({"devices": "cpu", "shard": "0/2"}, "devices and shard are given"),
        ({"devices": "cpu", "device": "cpu"}, "device is 'cpu', and devices says"),
        ({"devices": "cpu", "ray": "auto"}, "devices and ray are given"),
        ({"devices": "cpu,"}, r"devices number 2 is '', which is empty"),
        ({"ray": "ray://host:10001"}, r"ray is 'ray://host:10001'; allowed: auto, local"),
        ({"ray": "host"}, "ray is 'host'"),
        ({"ray_workers": 2}, r"ray_workers is 2, and there is no cluster"),
        ({"ray_gpus": 0.5}, r"ray_gpus is 0.5, and there is no cluster"),
        ({"ray": "auto", "ray_workers": 0}, "ray_workers is 0; allowed: a whole number at least 1"),
        ({"ray": "auto", "ray_gpus": -1}, "ray_gpus is -1; allowed: a number at least 0"),
    ],
)
def test_settings_are_refused_when_they_do_not_fit(asked, changes, message):
    with pytest.raises(OptionError, match=message):
        asked(**changes)


def test_part_is_refused_when_there_are_fewer_batches(asked):
    with pytest.raises(OptionError, match="there are 8 batches"):
        run(asked(shard="8/9", memory=None))

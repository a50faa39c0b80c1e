import json
import signal
import sqlite3
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from unalike.errors import NumericsError, OptionError, StoreError
from unalike.memory import Memory
from unalike.runs.generate import generate
from unalike.runs.imagefile import read_info
from unalike.runs.run import run
from unalike.runs.run_settings import RunSettings
from unalike.runs.settings import GenerateSettings
from unalike.runs.worker import Worker

ROWS = [
    {"prompt": "cat", "n": 3},
    {"prompt": "dog", "id": "the dog", "seed": 7, "n": 1},
    {"prompt": "owl", "n": 2, "num_inference_steps": 2},
]


@pytest.fixture
def settings(tiny_sd_folder, tmp_path):
    """Settings of a small run, with changes."""
    source = tmp_path / "prompts.jsonl"
    source.write_text("\n".join(map(json.dumps, ROWS)), "utf-8")

    def with_changes(**changes):
        plain = {
            "source": source,
            "model": str(tiny_sd_folder),
            "steps": 3,
            "batch_size": 2,
            "strength": 0.3,
            "candidates": 1,
            "out": tmp_path / "out",
        }
        return RunSettings(**{**plain, **changes})

    return with_changes


def rows(folder: Path) -> list[dict]:
    return pq.read_table(folder / "samples.parquet").to_pylist()


def pixels(folder: Path) -> list[bytes]:
    found = []
    for path in sorted((folder / "images").glob("*.png")):
        with Image.open(path) as image:
            found.append(image.tobytes())
    return found


def failing(monkeypatch, fails):
    """Have a batch fail where `fails(batch)` returns an error."""
    draw = Worker.draw

    def sometimes(self, batch, step_done=lambda: None):
        error = fails(batch)
        if error is not None:
            raise error
        return draw(self, batch, step_done)

    monkeypatch.setattr(Worker, "draw", sometimes)


def test_each_row_has_its_images_when_finished(settings, tmp_path):
    told = []
    outcome = run(settings(), told=told.append)
    assert outcome.finished
    assert outcome.failures == []
    found = rows(tmp_path / "out")
    assert [(r["prompt"], r["seed"]) for r in found] == [
        ("cat", 0),
        ("cat", 1),
        ("cat", 2),
        ("dog", 7),
        ("owl", 0),
        ("owl", 1),
    ]
    assert [r["index"] for r in told] == list(range(6))
    assert told[3]["id"] == "the dog"
    assert {r["state"] for r in told} == {"finished"}
    assert outcome.record["rows"]["count"] == 3
    assert outcome.record["images"] == {
        "planned": 6,
        "finished": 6,
        "failed": 0,
        "plainly_changed": None,
    }
    owl = read_info(tmp_path / "out" / found[5]["image"])
    assert (owl.prompt, owl.seed, owl.steps) == ("owl", 1, 2)
    assert not (tmp_path / "out" / "memory.sqlite").exists()


def test_nothing_is_drawn_when_all_is_there(settings, tmp_path, monkeypatch):
    run(settings())
    before = {p: p.read_bytes() for p in (tmp_path / "out" / "images").iterdir()}
    failing(monkeypatch, lambda batch: AssertionError("nothing is missing"))
    told = []
    assert run(settings(), told=told.append).finished
    assert told == []
    assert {p: p.read_bytes() for p in (tmp_path / "out" / "images").iterdir()} == before


def test_images_are_those_of_an_uninterrupted_run_when_stopped_and_gone_on_with(settings, tmp_path):
    run(settings(out=tmp_path / "whole"))

    def stop(row):
        if row["index"] == 1:
            signal.raise_signal(signal.SIGTERM)

    outcome = run(settings(), told=stop)
    assert not outcome.finished
    assert 2 <= len(rows(tmp_path / "out")) < 6
    assert run(settings()).finished
    assert pixels(tmp_path / "out") == pixels(tmp_path / "whole")
    same = {"seconds": 0, "command": ""}
    whole, parts = (
        json.loads((tmp_path / name / "run.json").read_text("utf-8")) for name in ("whole", "out")
    )
    assert {**whole, **same} == {**parts, **same}


def test_measured_radii_and_coupled_noise_go_on_when_a_run_does(settings, tmp_path):
    chosen = {"method": ("spell", "coupled"), "set": ("coupled.size=8",)}
    chosen |= {"strength": None}
    run(settings(**chosen, out=tmp_path / "whole"))

    def stop(row):
        if row["index"] == 1:
            signal.raise_signal(signal.SIGTERM)

    assert not run(settings(**chosen), told=stop).finished
    assert run(settings(**chosen)).finished
    assert pixels(tmp_path / "out") == pixels(tmp_path / "whole")


def test_changed_settings_are_shown_when_a_run_is_gone_on_with(settings, tmp_path):
    run(settings())
    with pytest.raises(StoreError, match=r"steps was 3 and is 4.*out=DIR"):
        run(settings(steps=4))
    with pytest.raises(StoreError, match="batch_size was 2 and is 3"):
        run(settings(batch_size=3))
    assert len(rows(tmp_path / "out")) == 6
    assert run(settings(steps=4, overwrite=True)).finished


def test_a_failing_image_is_noted_and_the_others_drawn(settings, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        failing(
            patch,
            lambda batch: (
                NumericsError("NaN at step 1") if any(p.prompt == "dog" for p in batch) else None
            ),
        )
        outcome = run(settings())
    assert outcome.finished
    assert [(f.number, f.error, f.tries) for f in outcome.failures] == [(3, "NaN at step 1", 2)]
    assert [r["index"] for r in rows(tmp_path / "out")] == [0, 1, 2, 4, 5]
    assert outcome.record["images"]["failed"] == 1
    outcome = run(settings())
    assert outcome.failures == []
    assert [r["index"] for r in rows(tmp_path / "out")] == list(range(6))


def test_the_run_ends_when_nothing_can_be_drawn(settings, tmp_path, monkeypatch):
    failing(monkeypatch, lambda batch: NumericsError("NaN at step 1"))
    with pytest.raises(NumericsError, match="NaN at step 1"):
        run(settings(batch_size=1))
    record = json.loads((tmp_path / "out" / "run.json").read_text("utf-8"))
    assert (record["finished"], record["images"]["finished"]) == (False, 0)


def test_batches_are_halved_when_the_memory_of_the_device_is_too_small(
    settings, tmp_path, monkeypatch
):
    sizes = []

    def fails(batch):
        sizes.append(len(batch))
        return torch.OutOfMemoryError("CUDA out of memory") if len(batch) > 1 else None

    failing(monkeypatch, fails)
    outcome = run(settings(batch_size=4))
    assert outcome.finished
    assert outcome.failures == []
    assert [r["index"] for r in rows(tmp_path / "out")] == list(range(6))
    assert sizes == [4, 2, 1, 1, 1, 1, 1, 1], "they stay small"


def test_all_rows_that_are_wrong_are_told_before_anything_is_made(settings, tmp_path):
    source = tmp_path / "bad.csv"
    source.write_text("prompt,n,heigth\ncat,0,64\n,1,64\n", "utf-8")
    with pytest.raises(OptionError, match=r"(?s)line 2 has n 0.*line 3 has no prompt"):
        run(settings(source=source))
    source.write_text("prompt,heigth\ncat,64\n", "utf-8")
    with pytest.raises(OptionError, match=r"heigth.*did you mean 'height'"):
        run(settings(source=source))
    assert not (tmp_path / "out").exists()


def test_the_memory_has_each_image_once_when_a_run_is_repeated(settings, tmp_path):
    memory = tmp_path / "bank.sqlite"
    run(settings(memory=memory))
    run(settings(memory=memory))
    with Memory.open(memory) as bank:
        (space,) = bank.spaces()
        assert Counter(bank.texts(space)) == {"cat": 3, "dog": 1, "owl": 2}


def test_a_run_is_refused_when_another_process_draws_into_its_folder(settings, tmp_path):
    refused = []

    def second(row):
        try:
            run(settings())
        except StoreError as error:
            refused.append(str(error))

    assert run(settings(), told=second).finished
    assert len(refused) == 6
    assert "another process draws into" in refused[0]


def test_generate_goes_on_when_asked_to(tiny_sd_folder, tmp_path):
    def settings(**changes):
        plain = {"prompts": ("cat", "dog"), "num": 3, "batch_size": 2, "steps": 3}
        plain |= {"model": str(tiny_sd_folder), "out": tmp_path / "out", "strength": 0.3}
        return GenerateSettings(**{**plain, **changes})

    def interrupt(share, note=""):
        if share > 0.5:
            raise KeyboardInterrupt

    generate(settings(out=tmp_path / "whole"))
    assert not generate(settings(), interrupt).finished
    with pytest.raises(StoreError, match=r"is not empty.*go on with that: resume=True"):
        generate(settings())
    assert generate(settings(resume=True)).finished
    assert pixels(tmp_path / "out") == pixels(tmp_path / "whole")
    (tmp_path / "out" / "ledger.sqlite").unlink()
    with pytest.raises(StoreError, match="is not empty"):
        generate(settings(resume=True))


def test_the_ledger_is_one_file_when_the_run_is_over(settings, tmp_path):
    run(settings())
    left = [p.name for p in (tmp_path / "out").iterdir() if p.name.startswith("ledger")]
    assert left == ["ledger.sqlite"]
    db = sqlite3.connect(tmp_path / "out" / "ledger.sqlite")
    assert db.execute("SELECT COUNT(*) FROM items").fetchone() == (6,)
    db.close()


@pytest.mark.parametrize("kind", ["jpeg", "webp"])
def test_images_have_the_format_that_is_asked_for(settings, tmp_path, kind):
    outcome = run(settings(format=kind, quality=80))
    suffix = {"jpeg": ".jpg", "webp": ".webp"}[kind]
    names = {s.image.path for s in outcome.samples if s.image}
    assert names == {f"images/{i:05}{suffix}" for i in range(6)}
    with Image.open(tmp_path / "out" / "images" / f"00000{suffix}") as image:
        assert image.format == kind.upper()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of webdataset
def test_shards_hold_all_images_once_when_the_run_was_stopped(settings, tmp_path):
    webdataset = pytest.importorskip("webdataset")

    def stop(row):
        if row["index"] == 0:
            signal.raise_signal(signal.SIGTERM)

    assert not run(settings(shard_size=1 << 20), told=stop).finished
    outcome = run(settings(shard_size=1 << 20))
    assert outcome.finished
    shards = sorted(str(p) for p in (tmp_path / "out" / "shards").iterdir())
    assert all(name.endswith(".tar") for name in shards)
    found = list(webdataset.WebDataset(shards, shardshuffle=False).decode("pil"))
    assert [s["__key__"] for s in found] == [f"{i:08}" for i in range(6)]
    assert [s["txt"] for s in found] == ["cat"] * 3 + ["dog"] + ["owl"] * 2
    assert found[3]["json"]["id"] == "the dog"
    assert outcome.samples[0].image is not None
    assert outcome.samples[0].image.path == "shards/shard-000000.tar#00000000.png"
    assert not (tmp_path / "out" / "images").exists()

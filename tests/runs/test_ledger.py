import sqlite3
import stat
from typing import Any

import pytest
import torch

from unalike.attach.run.report import Certificate, Decoded, ImageReport, Nearest
from unalike.errors import StoreError
from unalike.runs.ledger import Entry, Ledger
from unalike.runs.samples import Planned, Sample, StoredImage

SETTINGS = {"steps": 20, "methods": [{"name": "auto", "options": {"strength": 0.4}}]}


def entry(index, *, refused=False, prompt="cat", prompt_index=0):
    planned = Planned(index, prompt, prompt_index, index, item=f"item {index}", arguments={"a": 1})
    decoded = Decoded("p", 2.0, inside=False)
    certificate = Certificate("p", 3.0, 2.0, 1.0, False, "space", "sum", 4, decoded)
    report = ImageReport(
        index,
        prompt,
        0,
        {"auto": [0.1, 0.25]},
        {"auto": [0.0, 1e-9]},
        {"auto": 0.5},
        Nearest(0, "run", 1.5),
        certificate,
        certificates=[certificate],
        refused=refused,
    )
    image = None if refused else StoredImage(f"images/{index:05}.png", "digest")
    sample = Sample(planned, image, report, StoredImage("unguided/0.png"), 0.25)
    features = None if refused else torch.arange(3.0) + index
    return Entry(sample, features, torch.ones(3), torch.full((2, 2), float(index)))


@pytest.fixture
def ledger(tmp_path):
    ledger = Ledger.create(tmp_path / "ledger.sqlite", SETTINGS, {"version": "1"})
    yield ledger
    ledger.close()


def test_images_come_back_as_they_were_when_the_ledger_is_opened_again(ledger, tmp_path):
    entries = [entry(1), entry(0, refused=True), entry(2, prompt="dog", prompt_index=1)]
    ledger.commit(entries, b"carried", space="space")
    ledger.close()
    again = Ledger.open(tmp_path / "ledger.sqlite")
    assert list(again.samples()) == [entries[1].sample, entries[0].sample, entries[2].sample]
    assert again.done() == {"item 0", "item 1", "item 2"}
    assert (again.run, again.carried, again.get("space")) == (ledger.run, b"carried", "space")
    assert [(p, [f.tolist() for f in rows]) for p, rows in again.features()] == [
        ("cat", [[1.0, 2.0, 3.0]]),
        ("dog", [[2.0, 3.0, 4.0]]),
    ]
    index, latents = again.latents()
    assert index == [1, 2]
    assert latents is not None
    assert torch.equal(latents, torch.stack([torch.full((2, 2), 1.0), torch.full((2, 2), 2.0)]))
    again.close()


def test_nothing_of_a_batch_is_there_when_one_of_its_rows_cannot_be_written(ledger):
    broken = entry(1)
    arguments: Any = broken.sample.planned.arguments
    arguments["bad"] = object()
    with pytest.raises(TypeError):
        ledger.commit([entry(0), broken])
    assert ledger.done() == set()
    ledger.commit([entry(0)])
    assert ledger.done() == {"item 0"}


def test_failures_are_counted_and_forgotten_when_the_image_is_drawn(ledger):
    planned = [entry(i).sample.planned for i in (0, 1)]
    ledger.fail(planned, "NaN at step 3")
    ledger.fail(planned[:1], "NaN at step 4")
    assert [(f.number, f.error, f.tries) for f in ledger.failures()] == [
        (0, "NaN at step 4", 2),
        (1, "NaN at step 3", 1),
    ]
    assert ledger.done() == set()
    ledger.commit([entry(0)])
    assert [f.number for f in ledger.failures()] == [1]
    ledger.fail(planned[:1], "late")
    assert ledger.done() == {"item 0"}, "what is finished cannot fail"


def test_each_changed_setting_is_shown_when_a_run_is_gone_on_with(ledger):
    ledger.require_same(SETTINGS)
    with pytest.raises(StoreError, match="steps was 20 and is 25; eta was null and is 1"):
        ledger.require_same({**SETTINGS, "steps": 25, "eta": 1})


def test_a_new_ledger_is_refused_when_one_is_there(ledger, tmp_path):
    ledger.commit([entry(0)])
    with pytest.raises(StoreError, match="there is a run in"):
        Ledger.create(tmp_path / "ledger.sqlite", SETTINGS, {})
    assert ledger.done() == {"item 0"}


@pytest.mark.parametrize("what", ["nothing", "folder", "text", "other database", "link"])
def test_something_else_is_refused_when_it_is_opened(tmp_path, what):
    path = tmp_path / "ledger.sqlite"
    if what == "folder":
        path.mkdir()
    if what == "text":
        path.write_text("not a ledger" * 200, "utf-8")
    if what == "other database":
        db = sqlite3.connect(path)
        db.execute("CREATE TABLE a (b)")
        db.close()
    if what == "link":
        Ledger.create(tmp_path / "other", SETTINGS, {}).close()
        path.symlink_to(tmp_path / "other")
    with pytest.raises(StoreError, match=r"ledger|run to go on with"):
        Ledger.open(path)


def test_only_a_later_version_is_refused_by_its_number(ledger, tmp_path):
    ledger.close()
    db = sqlite3.connect(tmp_path / "ledger.sqlite")
    db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(StoreError, match="version 99"):
        Ledger.open(tmp_path / "ledger.sqlite")


def test_no_other_files_are_left_when_the_ledger_is_closed(ledger, tmp_path):
    ledger.commit([entry(0)])
    ledger.close()
    assert [p.name for p in tmp_path.iterdir()] == ["ledger.sqlite"]
    assert stat.S_IMODE((tmp_path / "ledger.sqlite").stat().st_mode) & 0o022 == 0

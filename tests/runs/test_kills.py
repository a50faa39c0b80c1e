"""Kills of a run at chosen and random moments: the same call ends with the same images."""

import json
import os
import random
import signal
import sqlite3
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from unalike.memory import Memory
from unalike.runs import ledger
from unalike.runs.folder import RunFolder
from unalike.runs.ledger import Ledger
from unalike.runs.run import run
from unalike.runs.run_settings import RunSettings
from unalike.runs.shards import ShardWriter
from unalike.runs.worker import Worker

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked processes"),
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),
]
IMAGES = 6
MOMENTS: list[tuple[str, Any, str, bool, int]] = [
    # name, owner, method, after it (or before), which call
    ("before the ledger is made", Ledger, "create", False, 1),
    ("after the ledger is made", Ledger, "create", True, 1),
    ("after the memory is opened", Memory, "open", True, 1),
    ("before the second batch is drawn", Worker, "draw", False, 2),
    ("after the samples are in the memory", Memory, "add", True, 1),
    ("after those of the last batch are", Memory, "add", True, 3),
    ("before the files are written", RunFolder, "place_all", False, 2),
    ("after the files are written", RunFolder, "place_all", True, 2),
    ("between two files", Path, "replace", True, 5),
    ("before the ledger has the batch", Ledger, "commit", False, 1),
    ("within the transaction of the ledger", ledger, "_row", True, 4),
    ("after the ledger has the batch", Ledger, "commit", True, 1),
    ("after it has the last batch", Ledger, "commit", True, 3),
    ("before the tables are written", Ledger, "samples", False, 1),
    ("before the report is written", RunFolder, "write_report", False, 1),
    ("before the record is written", RunFolder, "write_record", False, 2),
    ("after the record is written", RunFolder, "write_record", True, 2),
]


@pytest.fixture(scope="module")
def model(tiny_sd_folder: Path) -> Path:
    return tiny_sd_folder


def settings(model: Path, folder: Path, **changes: Any) -> RunSettings:
    source = folder / "prompts.txt"
    source.write_text("cat\ndog\nowl\n", "utf-8")
    plain = {"source": source, "num": 2, "batch_size": 2, "steps": 2, "model": str(model)}
    plain |= {"out": folder / "out", "strength": 0.3, "candidates": 1}
    return RunSettings(**{**plain, **changes})


def killed(asked: RunSettings, moment: tuple[Any, str, bool, int] | float) -> bool:
    """Run in a process that is killed at a moment, or after some seconds; whether it was."""
    child = os.fork()
    if child == 0:  # nothing of pytest may run in it
        code = 1
        try:
            if isinstance(moment, tuple):
                _kill_at(*moment)
            code = 0 if run(asked).finished else 2
        finally:
            os._exit(code)
    if isinstance(moment, float):
        time.sleep(moment)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return os.WTERMSIG(status) == signal.SIGKILL
    assert os.WEXITSTATUS(status) == 0, "the run failed"
    return False


def _kill_at(owner: Any, name: str, after: bool, which: int) -> None:
    """Have this process killed at a call of a method."""
    plain, calls = getattr(owner, name), 0

    def counting(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == which and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        result = plain(*args, **kwargs)
        if calls == which and after:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, staticmethod(counting) if hasattr(plain, "__self__") else counting)


def contents(folder: Path) -> dict[str, bytes]:
    """The pixels of the images by their names."""
    found = {}
    for path in sorted((folder / "out" / "images").glob("*.png")):
        with Image.open(path) as image:
            found[path.name] = image.tobytes()
    return found


def check(folder: Path, expected: dict[str, bytes], memory: Path | None) -> None:
    """Nothing is lost and nothing is there twice."""
    out = folder / "out"
    assert contents(folder) == expected
    assert json.loads((out / "run.json").read_text("utf-8"))["finished"] is True
    db = sqlite3.connect(out / "ledger.sqlite")
    assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    rows = db.execute("SELECT number, state FROM items ORDER BY number").fetchall()
    db.close()
    assert rows == [(number, "finished") for number in range(IMAGES)]
    assert not [p for p in out.rglob("*") if ".tmp" in p.name]
    if memory is None:
        assert not (out / "memory.sqlite").exists()
    else:
        with Memory.open(memory) as bank:
            (space,) = bank.spaces()
            assert Counter(bank.texts(space)) == {"cat": 2, "dog": 2, "owl": 2}


@pytest.fixture(scope="module")
def expected(model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The images of a run that nothing interrupts."""
    folder = tmp_path_factory.mktemp("whole")
    assert not killed(settings(model, folder), (Worker, "draw", True, 100))
    return contents(folder)


@pytest.fixture(scope="module")
def usual(model: Path, tmp_path_factory: pytest.TempPathFactory) -> float:
    """The seconds that a run takes here."""
    asked, began = settings(model, tmp_path_factory.mktemp("timed")), time.perf_counter()
    assert not killed(asked, (Worker, "draw", True, 100))
    return time.perf_counter() - began


@pytest.mark.parametrize("moment", MOMENTS, ids=[name for name, *_ in MOMENTS])
@pytest.mark.parametrize("remembering", [False, True], ids=["", "memory"])
def test_the_same_images_are_there_when_a_run_was_killed(
    model: Path, tmp_path: Path, expected: dict[str, bytes], moment: Any, remembering: bool
) -> None:
    memory = tmp_path / "bank.sqlite" if remembering else None
    asked = settings(model, tmp_path, memory=memory)
    assert killed(asked, moment[1:]), "the moment never came"
    assert not killed(asked, (Worker, "draw", True, 100))
    check(tmp_path, expected, memory)


@pytest.mark.parametrize("seed", range(6))
def test_the_same_images_are_there_when_a_run_was_killed_again_and_again(
    model: Path, tmp_path: Path, expected: dict[str, bytes], usual: float, seed: int
) -> None:
    chance, memory = random.Random(seed), tmp_path / "bank.sqlite" if seed % 2 else None
    asked, kills = settings(model, tmp_path, memory=memory), 0
    while kills < 5 and killed(asked, chance.uniform(0.0, usual)):
        kills += 1
    while killed(asked, (Worker, "draw", True, 100)):
        pass
    check(tmp_path, expected, memory)


@pytest.mark.parametrize(
    "moment",
    [
        (ShardWriter, "write", True, 3),
        (ShardWriter, "flush", False, 2),
        (ShardWriter, "flush", True, 2),
        (Ledger, "commit", True, 2),
        (ShardWriter, "close", False, 1),
        (ShardWriter, "close", True, 1),
    ],
    ids=lambda moment: f"{'after' if moment[2] else 'before'} {moment[1]} {moment[3]}",
)
def test_shards_have_each_image_once_when_a_run_was_killed(
    model: Path, tmp_path: Path, expected: dict[str, bytes], moment: Any
) -> None:
    import io
    import tarfile

    asked = settings(model, tmp_path, shard_size=1 << 20)
    assert killed(asked, moment)
    assert not killed(asked, (Worker, "draw", True, 100))
    (shard,) = (tmp_path / "out" / "shards").iterdir()
    found = {}
    with tarfile.open(shard) as tar:
        names = tar.getnames()
        for name in names:
            if name.endswith(".png"):
                member = tar.extractfile(name)
                assert member is not None
                found[f"{int(name[:8]):05}.png"] = Image.open(io.BytesIO(member.read())).tobytes()
    assert len(names) == len(set(names)) == 3 * IMAGES
    assert found == expected

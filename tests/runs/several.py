"""Small runs of several workers, and what has to be true of them however they ended."""

import json
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

from unalike.memory import Memory
from unalike.runs.folder import LEDGER
from unalike.runs.run_settings import RunSettings

PROMPTS = ("cat", "dog", "owl", "fox")


def settings(model: Path, folder: Path, num: int = 4, **changes: Any) -> RunSettings:
    """Settings of a run of four prompts, two images a batch, with a memory."""
    source = folder / "prompts.txt"
    source.write_text("\n".join(PROMPTS) + "\n", "utf-8")
    plain = {"source": source, "num": num, "batch_size": 2, "steps": 2, "model": str(model)}
    plain |= {"out": folder / "out", "memory": folder / "bank.memory", "candidates": 1}
    return RunSettings(**{**plain, **changes})


def command(model: Path, folder: Path, *words: str, num: int = 4) -> list[str]:
    """The same settings as a command."""
    own = settings(model, folder, num)
    plain = {"--num": num, "--batch-size": 2, "--steps": 2, "--model": model, "--candidates": 1}
    plain |= {"--out": own.out, "--memory": own.memory}
    options = [str(word) for pair in plain.items() for word in pair]
    return [sys.executable, "-m", "unalike", "run", str(own.source), *options, "--json", *words]


def started(words: list[str]) -> "subprocess.Popen[str]":
    """A process that has drawn its first image."""
    listening = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    child = subprocess.Popen(  # a background job of a shell, as tests may be, ignores Ctrl-C
        words,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=listening,
    )
    assert child.stdout is not None
    line = child.stdout.readline()
    assert line, child.communicate()[1]
    assert json.loads(line)["state"] == "finished"
    return child


def require_once(folder: Path, num: int = 4) -> None:
    """Each image is there once: in the ledger, as a file, and in the memory."""
    out, expected = folder / "out", len(PROMPTS) * num
    with sqlite3.connect(out / LEDGER) as db:
        rows = db.execute("SELECT number, state, item FROM items ORDER BY number").fetchall()
        run = json.loads(db.execute("SELECT value FROM meta WHERE name = 'run'").fetchone()[0])
    db.close()
    assert [number for number, _, _ in rows] == list(range(expected))
    assert {state for _, state, _ in rows} == {"finished"}
    assert len(list((out / "images").glob("*.png"))) == expected
    with Memory.open(folder / "bank.memory") as memory:
        assert Counter(memory.items(run)) == Counter(f"{run}-{item}" for _, _, item in rows)
        assert len(memory) == expected

"""The commands of docs/scoring.md, typed one after the other in one folder."""

import shlex
from pathlib import Path

import pytest
from tests import tiny
from tests.runs.score import folders
from tests.test_docs import blocks

PAGE = Path(__file__).parents[1] / "docs" / "scoring.md"
COMMANDS = [
    line[2:]
    for text in blocks("console", [PAGE])
    for line in text.splitlines()
    if line.startswith("$ unalike ")
]


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with the images, prompts and network that the page speaks of."""
    for name, count in (("images", 8), ("photos", 12)):
        files = folders.write(tmp_path / name, range(count))
        lines = [f"{file},{'cat' if i % 2 else 'dog'}\n" for i, file in enumerate(files)]
        (tmp_path / {"images": "prompts.csv", "photos": "photos.csv"}[name]).write_text(
            "file,prompt\n" + "".join(lines)
        )
    (tmp_path / "models" / "clip").mkdir(parents=True)
    tiny.write_clip(tmp_path / "models" / "clip")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_command_of_the_page_works_when_typed(place, unalike):
    assert sum(command.startswith("unalike score") for command in COMMANDS) >= 5
    for command in COMMANDS:
        before = set(place.iterdir())
        ended = unalike(*shlex.split(command)[1:])
        assert ended.code == 0, (command, ended.err)
        (folder,) = set(place.iterdir()) - before
        assert (folder / "report.html").exists()

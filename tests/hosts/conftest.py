from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.hosts.family import Family


class Pipelines:
    """The tiny pipelines of families, each written to disk and read back once for all tests."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: dict[str, Any] = {}

    def __call__(self, family: Family) -> Any:
        """The pipeline of a family."""
        if family.name not in self._read:
            self._read[family.name] = family.read(self._folder)
        return self._read[family.name]

    def folder(self, family: Family) -> Path:
        """Where it is on disk."""
        self(family)
        return self._folder / family.id / "model"


@pytest.fixture(scope="session")
def read(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Family], Any]:
    """A family's pipeline, and its folder."""
    return Pipelines(tmp_path_factory.mktemp("hosts"))

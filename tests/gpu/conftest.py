from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.gpu import models


@dataclass(frozen=True)
class Setting:
    """Where the checks run, and how large they are.

    Args:
        device: of the models.
        size: "real" or "tiny".
        steps: of the scheduler in every call.
        protected: vectors of the protected set.
        width: numbers in each of them.
    """

    device: torch.device
    size: str
    steps: int
    protected: int
    width: int

    @property
    def dtype(self) -> torch.dtype:
        """bfloat16 as on GPUs."""
        return torch.bfloat16


TINY = {"size": "tiny", "steps": 2, "protected": 200, "width": 256}
REAL = {"size": "real", "steps": 4, "protected": 8192, "width": 4 * 128 * 128}


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(("cpu", TINY), id="tiny-cpu"),
        pytest.param(("cuda", TINY), id="tiny-cuda", marks=pytest.mark.gpu),
        pytest.param(("cuda", REAL), id="real-cuda", marks=pytest.mark.gpu),
    ],
)
def setting(request: pytest.FixtureRequest) -> Setting:
    """Tiny models on the CPU in every run; the GPU with `pytest -m gpu` or `scripts/gpu-check`."""
    device, sizes = request.param
    if device == "cuda" and not torch.cuda.is_available():
        pytest.fail("torch finds no GPU here; run without -m gpu for the same checks on the CPU")
    return Setting(device=torch.device(device), **sizes)


@pytest.fixture(scope="module", params=["sdxl", "flux"])
def name(request: pytest.FixtureRequest) -> str:
    """The model."""
    return request.param


@pytest.fixture(scope="module")
def pipe(name: str, setting: Setting, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The pipeline, built once for all checks of a model."""
    folder = tmp_path_factory.mktemp(name)
    yield models.build(name, setting.size, setting.device, setting.dtype, folder)
    models.release()


@pytest.fixture
def measured(
    record_property: Callable[[str, object], None],
) -> Callable[[str, float, str], None]:
    """Print a measurement and write it to the JUnit file, where there is one."""

    def note(what: str, value: float, unit: str) -> None:
        record_property(f"{what} [{unit}]", value)
        print(f"{what}: {value:.4g} {unit}")

    return note


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder that is emptied at once: FLUX takes 24 GB."""
    yield tmp_path
    for path in sorted(tmp_path.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()

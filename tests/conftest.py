import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from tests import tiny
from transformers import Dinov2Config, Dinov2Model

from unalike.cli.app import main


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip what needs a GPU unless it is asked for."""
    if "gpu" not in (config.getoption("markexpr") or ""):
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a GPU; run pytest -m gpu"))


@pytest.fixture(scope="session")
def tiny_sd_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Stable Diffusion pipeline of a few thousand random weights that draws 16×16 images, in
    diffusers' layout.
    """
    return tiny.write("sd", tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def tiny_sd(tiny_sd_folder: Path) -> Any:
    """The pipeline of `tiny_sd_folder`, fresh for each test."""
    return tiny.load(tiny_sd_folder)


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP of a few thousand random weights at 16×16, with a tokenizer of the alphabet."""
    return tiny.write_clip(tmp_path_factory.mktemp("clip"))


class TinyDescriptor(torch.nn.Module):
    """Means of the image in 4×4 places, as a vector."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = torch.nn.Linear(48, 16)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.mix(torch.nn.functional.adaptive_avg_pool2d(images, 4).flatten(1))


@pytest.fixture(scope="session")
def sscd_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A TorchScript program that takes images as SSCD's do."""
    file = tmp_path_factory.mktemp("sscd") / "tiny.torchscript.pt"
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.manual_seed(0)
        torch.jit.save(torch.jit.script(TinyDescriptor().eval()), str(file))
    return file


@pytest.fixture(scope="session")
def dinov2_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DINOv2 of a few thousand random weights."""
    folder = tmp_path_factory.mktemp("dinov2")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = Dinov2Config(
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            mlp_ratio=1,
            image_size=32,
            patch_size=16,
            qkv_bias=True,
        )
        Dinov2Model(config).save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def _denormal_numbers() -> Iterator[None]:
    """Training flushes denormal numbers for its whole process; here the next test needs them."""
    yield
    torch.set_flush_denormal(False)


class Ended(NamedTuple):
    """How a command ended: exit code, standard output, standard error."""

    code: int
    out: str
    err: str


@pytest.fixture
def unalike(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Ended]:
    """Runs the command line in this process."""

    def run(*arguments: object) -> Ended:
        monkeypatch.setattr(sys, "argv", ["unalike", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        captured = capsys.readouterr()
        return Ended(code, captured.out, captured.err)

    return run

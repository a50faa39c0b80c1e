"""Options that the steps share on the command line."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

CHECKPOINTS = Path("~/.cache/unalike-train")
SHIPPED = Path(__file__).parents[1] / "src" / "unalike" / "models"
"""The folder of the shipped models in the repository."""


def parser(model: str, step: str, description: str | None) -> argparse.ArgumentParser:
    """A parser that introduces itself as `python -m training MODEL STEP`."""
    return argparse.ArgumentParser(
        prog=f"python -m training {model} {step}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def training(model: str, step: str, description: str | None) -> argparse.ArgumentParser:
    """The parser of a step that trains: `--work`, `--device` and `--minutes`."""
    own = parser(model, step, description)
    add_work(own, model)
    add_device(own)
    add_minutes(own)
    return own


def add_work(parser: argparse.ArgumentParser, model: str) -> None:
    """Add `--work`, the folder of a model's checkpoints."""
    folder = CHECKPOINTS / model
    parser.add_argument(
        "--work",
        type=lambda text: Path(text).expanduser(),
        default=str(folder),
        metavar="DIR",
        help="folder of the checkpoints [%(default)s]",
    )


def add_minutes(parser: argparse.ArgumentParser) -> None:
    """Add `--minutes`, after which training stops with a checkpoint."""
    parser.add_argument(
        "--minutes", type=float, default=1e9, help="stop, with a checkpoint, after this long"
    )


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add `--device`; a GPU by default where there is one."""
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")

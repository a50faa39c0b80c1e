"""Precision and coverage over the prompts of a shipped model, per guidance scale."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def summary(records: Sequence[dict[str, Any]]) -> list[dict[str, float]]:
    """A row a guidance scale: precision (the share of samples that are right), distinct right
    images, and coverage.
    """
    rows = []
    for scale in sorted({r["guidance_scale"] for r in records}):
        own = [r for r in records if r["guidance_scale"] == scale]
        rows.append(
            {
                "guidance_scale": scale,
                "precision": sum(r["right"] for r in own) / sum(r["samples"] for r in own),
                "distinct": sum(r["distinct"] for r in own) / len(own),
                "share_of_possible": sum(r["distinct"] / r["possible"] for r in own) / len(own),
            }
        )
    return rows

"""The folder that a scoring writes: score.json, scores.parquet and report.html, all of them or none."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from unalike.runs.folder import RunFolder

RECORD = "score.json"
_FILES = ("scores.parquet", "report.html", RECORD)


@dataclass(frozen=True)
class ScoreFolder(RunFolder):
    """A folder that this scoring may write to. Made by `claim`, which takes an earlier one only with `overwrite`."""

    def earlier_record(self) -> dict[str, Any] | None:
        """What `score.json` of an earlier scoring says; None where there is none or another program wrote it."""
        try:
            record = json.loads((self.path / RECORD).read_text("utf-8"))
        except (OSError, ValueError):
            return None
        return record if isinstance(record, dict) and record.get("tool") == "unalike" else None

    def write(self, record: Mapping[str, Any], table: pa.Table, page: str) -> None:
        """Write the three files beside those of an earlier scoring, and put them in their place when all are complete."""
        partial = {name: self.path / f"{name}.partial" for name in _FILES}
        try:
            pq.write_table(table, partial["scores.parquet"])
            partial["report.html"].write_text(page, "utf-8")
            text = json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False)
            partial[RECORD].write_text(text + "\n", "utf-8")
            for name, path in partial.items():
                path.replace(self.path / name)
        except BaseException:
            for path in partial.values():
                path.unlink(missing_ok=True)
            raise

    def abandon(self) -> None:
        """Remove what this scoring wrote into a folder that it made, and the folder if nothing else is in it."""
        if self.created:
            for name in _FILES:
                (self.path / name).unlink(missing_ok=True)
        super().abandon()

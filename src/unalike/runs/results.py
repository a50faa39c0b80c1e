"""Output folders with a record, a table and a page, written together or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from unalike.errors import StoreError, named
from unalike.files import read_json, replacing
from unalike.runs.folder import RunFolder

_PAGE = "report.html"


@dataclass(frozen=True)
class ResultFolder(RunFolder):
    """A folder that a command may write its results to. Made by `claim`, which takes an earlier one
    only with `overwrite`.

    Attributes:
        record_name, table_name: of the two files beside `report.html`.
    """

    record_name: ClassVar[str]
    table_name: ClassVar[str]

    def earlier_record(self) -> dict[str, Any] | None:
        """The record of earlier results; None where there is none or another program wrote it."""
        try:
            record = read_json(self.path / self.record_name)
        except (OSError, ValueError):
            return None
        return record if isinstance(record, dict) and record.get("tool") == "unalike" else None

    def write(self, record: Mapping[str, Any], table: pa.Table, page: str) -> None:
        """Write the three files beside earlier ones, and put them in their place when all are
        complete.
        """
        text = json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        try:
            with replacing(*(self.path / name for name in self._files)) as new:
                pq.write_table(table, new[0].absolute())
                new[1].write_text(page, "utf-8")
                new[2].write_text(text, "utf-8")
        except OSError as error:
            raise StoreError(
                named(
                    "cannot write the results to {!r}: {}; what was there is unchanged: make room, "
                    "or choose another folder, as in {out=DIR}",
                    str(self.path),
                    error.strerror or " ".join(str(error).split()),
                )
            ) from error

    def abandon(self) -> None:
        """Remove what was written into a folder that this command made, and the folder if nothing
        else is in it.
        """
        if self.created:
            for name in self._files:
                (self.path / name).unlink(missing_ok=True)
        super().abandon()

    @property
    def _files(self) -> tuple[str, ...]:
        return (self.table_name, _PAGE, self.record_name)

"""The folder that a scoring writes: score.json, scores.parquet and report.html, all of them or
none.
"""

from __future__ import annotations

from unalike.runs.results import ResultFolder


class ScoreFolder(ResultFolder):
    """A folder that a scoring may write to."""

    record_name = "score.json"
    table_name = "scores.parquet"

"""The output folder of a scoring: score.json, scores.parquet and report.html."""

from __future__ import annotations

from unalike.runs.results import ResultFolder


class ScoreFolder(ResultFolder):
    """An output folder claimed by a scoring."""

    record_name = "score.json"
    table_name = "scores.parquet"

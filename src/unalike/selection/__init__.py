"""Select a diverse subset of candidates: greedy objectives on feature rows, without diffusers."""

from unalike.selection.greedy import OBJECTIVES, Selection, select
from unalike.selection.quality import agreement, typicality

__all__ = ["OBJECTIVES", "Selection", "agreement", "select", "typicality"]

"""Result of a verification, and its words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from unalike.runs.folder import RECORD, SAMPLES
from unalike.runs.numbers import number
from unalike.runs.shield.edited import AfterEdit
from unalike.runs.summary import FINISHED, LATENTS, finished_sentence


@dataclass(frozen=True)
class Verification:
    """Result of a verification.

    Attributes:
        space: of the protected set.
        inside: how many finished images are inside the protected set, measured here; None where
            they cannot be encoded.
        images: how many images the run has.
        certified: what its certificates are of: "latents", "finished images", or both.
        refused: how many images it refused; there is nothing of those to compute.
        moved: how many were moved out after the last step.
        encoded: how many images were encoded again and measured.
        protected: how many vectors the protected set has.
        reach: the radius of its balls, the rounding of what is stored included.
        margin: the smallest distance of what is certified to the surface of the balls, as computed
            here; None where none was.
        differences: everything that is not as the run says, or certified and inside a ball; empty
            where all is well.
        further: the results for the other protected sets of the run.
        edits: the finished images after each edit, by its name; None where that was not asked for,
            and where the run is of another set, so that nothing was measured. Certificates do not
            speak of edited images, so one that is inside is no difference.
    """

    space: str
    inside: int | None
    images: int
    certified: str
    refused: int
    moved: int
    encoded: int
    protected: int
    reach: float
    margin: float | None
    differences: tuple[str, ...]
    further: tuple[Verification, ...] = ()
    edits: Mapping[str, AfterEdit] | None = None

    @property
    def confirmed(self) -> bool:
        """Whether all that can be computed again is as the run says, and what is certified is
        outside. With a set of latents finished images may be inside all the same: see `inside`.
        """
        return not self.all_differences

    @property
    def all_differences(self) -> list[str]:
        """The differences of all sets, each once."""
        own = (self, *self.further)
        return list(dict.fromkeys(text for part in own for text in part.differences))

    def to_dict(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        return {
            "confirmed": self.confirmed,
            **asdict(self),
            "differences": list(self.differences),
            "further": [part.to_dict() for part in self.further],
        }

    def sentences(self) -> list[str]:
        """The result in words: for each set finished images first, then what is certified; then
        whether the run is right about both; then what edits were measured to do.
        """
        parts = (self, *self.further)
        if self.confirmed:
            whole = (
                f"confirmed: all that {RECORD} and {SAMPLES} say of {self.images} images and can "
                "be computed again"
            )
        else:
            whole = f"not confirmed: {len(self.all_differences)} differences"
        return [
            *(part._named(line, parts) for part in parts for line in part._facts()),
            whole,
            *(part._named(line, parts) for part in parts for line in part._edited()),
        ]

    def _named(self, line: str, parts: Sequence[Verification]) -> str:
        """A sentence with the space that it is about, where there are several."""
        return line if len(parts) == 1 else f"{self.space.partition('/')[0]}: {line}"

    def _edited(self) -> list[str]:
        """Sentences on the finished images after edits."""
        return [after.sentence(name) for name, after in (self.edits or {}).items()]

    def _facts(self) -> list[str]:
        """Sentences on the images beside one set."""
        latents = self.certified == LATENTS
        lines = [
            finished_sentence(
                self.inside,
                self.encoded or self.images,
                self.protected,
                self.reach,
                encoded=self.certified != FINISHED,
            )
        ]
        what = "Only latents are certified" if latents else f"Certified are {self.certified}"
        done = f"{self.moved} moved out, {self.refused} refused"
        if not self.images:
            lines.append(f"{what}, and no image was kept; {done}")
        elif self.margin is None:
            lines.append(f"{what}, and none could be measured; {done}")
        elif self.margin < 0:
            lines.append(f"{what}, and one is inside by {number(-self.margin)}; {done}")
        else:
            lines.append(f"{what}: the nearest is outside by {number(self.margin)}; {done}")
        return lines

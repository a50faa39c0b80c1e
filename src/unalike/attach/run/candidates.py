"""The judgement of candidates, and the choice among their predictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from unalike.errors import OptionError, named
from unalike.guidance.protocols import References
from unalike.options import option, plain_number, require_allowed
from unalike.selection import OBJECTIVES, Selection, agreement, select, typicality
from unalike.selection.greedy import MOST

AUTO = "auto"
QUALITIES = ("typicality", "consistency", "agreement")


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """The number of candidates, and the way in which those to draw are chosen.

    Args:
        count: candidates for each image in `guide`, for each prompt in `choose`.
        step: by how many evaluations of the model each is judged; "auto" for 1 in runs of up to 4
            evaluations, and 2 in longer ones.
        objective: see `unalike.selection.select`.
        quality: what counts besides: "typicality", how near a prediction is to those of its
            nearest neighbours, for outliers are often damaged images; "consistency", how little the
            last evaluation changes the prediction; "agreement", how near the outputs with and
            without the prompt are, where there is classifier-free guidance; None for nothing.
        weight: of the quality, in units of its standard deviation.

    Raises:
        OptionError: for a value outside of what is allowed.

    Example:
        >>> Candidates(count=4).objective
        'farthest'
    """

    count: int = option(4, "Candidates.", low=1, high=MOST)
    step: int | str = option(
        AUTO, "Evaluations of the model that judge a candidate.", kind=int, low=1, choices=(AUTO,),
        example=1,
    )  # fmt: skip
    objective: str = option(
        "farthest", "What a set of seeds is chosen for.", choices=tuple(OBJECTIVES)
    )
    quality: str | None = option(
        None, "What counts besides.", choices=(*QUALITIES, None), example="typicality"
    )
    weight: float = option(0.25, "Weight of the quality.", low=0, high=1000)

    def __post_init__(self) -> None:
        require_allowed(self)
        if self.quality == "consistency" and self.step == 1:
            raise OptionError(
                named(
                    "{quality} is 'consistency', which compares two evaluations, and {step} is 1; "
                    "give {step=2}, or another quality"
                )
            )

    @property
    def evaluations(self) -> int | str:
        """The step; 2 where the quality needs as many and the step is "auto"."""
        return 2 if self.step == AUTO and self.quality == "consistency" else self.step


def as_candidates(given: object) -> Candidates | None:
    """The argument `candidates` of `guide`: a number, how to choose, or None for what methods say.

    Raises:
        OptionError: for anything else.

    Example:
        >>> as_candidates(4)
        Candidates(count=4, step='auto', objective='farthest', quality=None, weight=0.25)
    """
    if given is None or isinstance(given, Candidates):
        return given
    number = plain_number(given)
    if not isinstance(number, int) or not 1 <= number <= MOST:
        raise OptionError(
            named(
                "{candidates} is {!r}; allowed: a whole number at least 1 and at most {:,}, a "
                "Candidates, or None, as in {candidates=4}",
                given,
                MOST,
            )
        )
    return Candidates(count=number)


@dataclass(frozen=True)
class Pool:
    """Candidates with their predictions.

    Attributes:
        features: (M, …) by which they are compared.
        x0: (M, …) predictions of the last evaluation, float32, on the CPU.
        before: those of the evaluation before it; None after one evaluation.
        agreement: (M,) of the outputs with and without the prompt; None where it is not known.
        groups: (M,) equal for candidates of one prompt.
        prompts: embeddings (M, p); None where the host has none.
        allowed: (M,) False for those that head into a protected set.
    """

    features: Tensor
    x0: Tensor
    before: Tensor | None
    agreement: Tensor | None
    groups: Tensor
    prompts: Tensor | None
    allowed: Tensor

    def choose(
        self, num: int | Sequence[int], how: Candidates, memory: References | None = None
    ) -> Selection:
        """Choose `num` candidates of each group that are unlike each other and the memory.

        Args:
            num: of each group, as of `select`.
            how: to choose.
            memory: features of finished samples.
        """
        rows = self.allowed.nonzero().flatten()
        quality = self._quality(how)
        found = select(
            self.features[rows],
            num,
            objective=how.objective,
            groups=self.groups[rows],
            prompts=None if self.prompts is None else self.prompts[rows],
            memory=None if memory is None else memory.latents,
            memory_prompts=None if memory is None else memory.prompts,
            finished=True,
            quality=None if quality is None else quality[rows],
            weight=how.weight,
        )
        numbers = rows.tolist()
        chosen = [[numbers[i] for i in group] for group in found.chosen]
        return Selection(chosen, found.gains, found.distances)

    def _quality(self, how: Candidates) -> Tensor | None:
        if how.quality is None:
            return None
        if how.quality == "typicality":
            return typicality(self.features.flatten(1), self.groups)
        if how.quality == "agreement":
            if self.agreement is None:
                raise OptionError(
                    named(
                        "{quality} is 'agreement', which compares predictions with and without the "
                        "prompt, and this call has no classifier-free guidance; use another one, "
                        "as in {quality='typicality'}"
                    )
                )
            return self.agreement
        if self.before is None:
            raise OptionError(
                named(
                    "{quality} is 'consistency', which compares two evaluations, and there was "
                    "one; give {step=2}, or another quality"
                )
            )
        return agreement(self.before, self.x0)

"""Scores of samples as they come, from the covariance of their features.

```
stream = VendiStream(kernel=Gaussian(0.8))
for X in batches:
    stream.update(X)
stream.compute()
```
Streams with the same settings draw the same frequencies, so that those of several processes can be
merged. In whatever blocks samples come, the result is that of the one-shot function but for
rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

from torch import Tensor

from unalike.errors import OptionError
from unalike.kernels import Cosine, Kernel
from unalike.scores.approximate import (
    CONDITIONAL,
    FREQUENCIES,
    INFORMATION,
    VENDI,
    Estimate,
    Terms,
    estimate,
)
from unalike.scores.covariance import (
    Covariance,
    FeatureMap,
    check_frequencies,
    check_kernel,
    check_seed,
    covariance,
    feature_maps,
)
from unalike.scores.entropies import check_order
from unalike.scores.grams import checked_rows


class _Stream:
    """Settings, feature maps once the sizes of rows are known, and the sums so far."""

    terms: ClassVar[Terms]

    def __init__(
        self, order: float, kernels: Sequence[Kernel | None], frequencies: int, seed: int
    ) -> None:
        check_frequencies(frequencies)
        check_seed(seed)
        self.order = check_order(order)
        self.kernels = tuple(Cosine() if kernel is None else kernel for kernel in kernels)
        for kernel in self.kernels:
            check_kernel(kernel)
        self.frequencies = frequencies
        self.seed = seed
        self._maps: list[FeatureMap] | None = None
        self._sums: list[Covariance] | None = None

    @property
    def n(self) -> int:
        """Number of samples so far."""
        return 0 if self._sums is None else self._sums[0].n

    def compute(self) -> Estimate:
        """The score of all samples so far.

        Raises:
            OptionError: where there were none.
        """
        if self._sums is None:
            raise OptionError(
                f"{type(self).__name__} has seen no samples; call update(…) before compute()"
            )
        return estimate(self.terms, self._sums, self.order)

    def reset(self) -> None:
        """Forget all samples; settings stay."""
        self._maps = self._sums = None

    def merge(self, other: Self) -> None:
        """Add the samples of another stream, which stays as it is.

        Raises:
            OptionError: for a stream of another kind, with other settings, or of rows of another
                size.
        """
        if self._settings() != other._settings():
            raise OptionError(
                f"streams merge where their settings are equal: this one is {self!r}, the other "
                f"{other!r}; make both with equal arguments"
            )
        if self._sums is None or other._sums is None:
            self._maps, self._sums = (
                (other._maps, other._sums) if self._sums is None else (self._maps, self._sums)
            )
            return
        if self._sizes(self._maps) != self._sizes(other._maps):
            raise OptionError(
                f"streams merge where their rows have equal sizes: here {self._sizes(self._maps)}, "
                f"in the other {self._sizes(other._maps)} numbers; use one extractor for both"
            )
        self._sums = [a + b for a, b in zip(self._sums, other._sums, strict=True)]

    def __repr__(self) -> str:
        kernels = ", ".join(map(repr, self.kernels))
        return (
            f"{type(self).__name__}(order={self.order:g}, {kernels}, "
            f"frequencies={self.frequencies}, seed={self.seed})"
        )

    def _settings(self) -> tuple[object, ...]:
        return type(self), self.order, self.kernels, self.frequencies, self.seed

    @staticmethod
    def _sizes(maps: list[FeatureMap] | None) -> list[int]:
        return [m.size for m in maps or ()]

    def _update(self, **given: Tensor) -> None:
        tables = [
            checked_rows(name, table, kernel)
            for (name, table), kernel in zip(given.items(), self.kernels, strict=True)
        ]
        sizes = [table.shape[1] for table in tables]
        maps = (
            feature_maps(self.kernels, sizes, self.frequencies, self.seed)
            if self._maps is None
            else self._maps
        )
        for name, size, known in zip(given, sizes, self._sizes(maps), strict=True):
            if size != known:
                raise OptionError(
                    f"{name} has {size} numbers a row, after rows of {known}; take one extractor "
                    "for all, or reset() first"
                )
        new = [covariance([maps[i] for i in of], [tables[i] for i in of]) for _, of in self.terms]
        self._maps, self._sums = (
            maps,
            new if self._sums is None else [a + b for a, b in zip(self._sums, new, strict=True)],
        )


class VendiStream(_Stream):
    """The Vendi score of samples as they come; larger is more diverse.

    As `approximate_vendi` gives it for all at once.

    Args:
        order, kernel, frequencies, seed: as for `approximate_vendi`.

    Raises:
        OptionError: as `approximate_vendi` does, from here or from `update`.

    Cost: memory (2 r)² numbers with a Gaussian kernel, d² with a cosine one, whatever the number of
    samples.

    Example:
        >>> import torch
        >>> stream, other = VendiStream(), VendiStream()
        >>> stream.update(torch.eye(3)[:2])
        >>> other.update(torch.eye(3)[2:])
        >>> stream.merge(other)
        >>> round(stream.compute().value, 6)
        3.0
    """

    terms = VENDI

    def __init__(
        self,
        order: float = 1.0,
        *,
        kernel: Kernel | None = None,
        frequencies: int = FREQUENCIES,
        seed: int = 0,
    ) -> None:
        super().__init__(order, [kernel], frequencies, seed)

    def update(self, X: Tensor) -> None:
        """Add samples, features (n, …)."""
        self._update(X=X)


class _PairStream(_Stream):
    """A stream of samples with their prompts."""

    def __init__(
        self,
        order: float = 1.0,
        *,
        kernel: Kernel | None = None,
        prompt_kernel: Kernel | None = None,
        frequencies: int = FREQUENCIES,
        seed: int = 0,
    ) -> None:
        super().__init__(order, [kernel, prompt_kernel], frequencies, seed)

    def update(self, X: Tensor, Y: Tensor) -> None:
        """Add samples, features (n, …), and their prompts' features (n, …) in the same order."""
        self._update(X=X, Y=Y)


class ConditionalVendiStream(_PairStream):
    """The conditional Vendi score of samples as they come.

    As `approximate_conditional_vendi` gives it for all at once.

    Args:
        order, kernel, prompt_kernel, frequencies, seed: as for `approximate_conditional_vendi`.

    Raises:
        OptionError: as `approximate_conditional_vendi` does, from here or from `update`.

    Cost: the memory of two covariances, whatever the number of samples.

    Example:
        >>> import torch
        >>> stream = ConditionalVendiStream()
        >>> for sample, prompt in zip(torch.eye(4), torch.eye(2).repeat_interleave(2, dim=0)):
        ...     stream.update(sample[None], prompt[None])
        >>> round(stream.compute().value, 6)
        2.0
    """

    terms = CONDITIONAL


class InformationVendiStream(_PairStream):
    """The information part of the Vendi score of samples as they come.

    As `approximate_information_vendi` gives it for all at once.

    Args:
        order, kernel, prompt_kernel, frequencies, seed: as for `approximate_conditional_vendi`.

    Raises:
        OptionError: as `approximate_conditional_vendi` does, from here or from `update`.

    Cost: the memory of three covariances, whatever the number of samples.

    Example:
        >>> import torch
        >>> stream = InformationVendiStream()
        >>> stream.update(torch.eye(4), torch.eye(2).repeat_interleave(2, dim=0))
        >>> round(stream.compute().value, 6)
        2.0
    """

    terms = INFORMATION

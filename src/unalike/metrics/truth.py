"""Score samples against a known set of right images."""

from __future__ import annotations

import torch
from torch import Tensor

from unalike.errors import OptionError
from unalike.tensors import real_numbers


def prompt_precision(shown: Tensor, right: Tensor) -> float:
    """Share of samples that show a right image, 0 to 1.

    Args:
        shown: (n,) index of the image that each sample shows, -1 where it shows none. Whoever names
            the nearest image without a limit on the distance calls every blend right.
        right: (m,) indices of the right images.

    Raises:
        OptionError: where either is empty.

    Example:
        >>> import torch
        >>> prompt_precision(torch.tensor([4, 4, 7, -1]), torch.tensor([4, 5]))
        0.5
    """
    shown, right = real_numbers("shown", shown), real_numbers("right", right)
    return _hits(shown, right).double().mean().item()


def mode_coverage(shown: Tensor, right: Tensor) -> float:
    """Distinct right images shown, as a share of the most that could be, `min(n, m)`; 0 to 1.

    Args and Raises: as for `prompt_precision`; images of `right` are distinct.

    Example:
        >>> import torch
        >>> mode_coverage(torch.tensor([4, 4, 7, -1]), torch.tensor([4, 5]))
        0.5
    """
    shown, right = real_numbers("shown", shown), real_numbers("right", right)
    hits = shown[_hits(shown, right)]
    return len(hits.unique()) / min(len(shown), len(right.unique()))


def _hits(shown: Tensor, right: Tensor) -> Tensor:
    for name, values in (("shown", shown), ("right", right)):
        if values.ndim != 1 or len(values) == 0:
            raise OptionError(
                f"{name} has the shape {tuple(values.shape)}; it must be a vector with at least "
                "one index"
            )
    return torch.isin(shown, right) & (shown >= 0)

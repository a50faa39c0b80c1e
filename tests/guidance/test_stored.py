import pytest
import torch

from unalike.errors import OptionError
from unalike.guidance.stored import stored_rows


def test_stored_rows_are_the_same_tensor_when_they_fit_and_refused_when_they_do_not():
    rows = torch.ones(3, 4)
    assert stored_rows(rows, torch.zeros(2, 4), "the memory") is rows
    assert (
        stored_rows(rows, torch.zeros(2, 4, dtype=torch.float64), "the memory").dtype
        == torch.float64
    )
    with pytest.raises(
        OptionError,
        match=r"the memory holds latents of shape \(4,\) and this generation has 5 values",
    ):
        stored_rows(rows, torch.zeros(2, 5), "the memory")

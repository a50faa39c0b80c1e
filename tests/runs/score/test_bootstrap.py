import math

import pytest
import torch

from unalike.runs.score import bootstrap
from unalike.runs.score.bootstrap import Estimate, interval


def coins(heads, tails):
    return torch.tensor([1.0] * heads + [0.0] * tails, dtype=torch.float64)


def test_ends_are_those_of_the_binomial_when_a_share_is_redrawn():
    from scipy.stats import binom

    ends = interval(Estimate.mean(coins(30, 70)), None, draws=20_000, seed=0)
    assert ends == pytest.approx([binom.ppf(q, 100, 0.3) / 100 for q in (0.025, 0.975)], abs=0.011)


def test_ends_are_those_of_the_normal_when_there_are_many_samples():
    values = torch.randn(1000, generator=torch.Generator().manual_seed(1)).double() * 3 + 10
    low, high = interval(Estimate.mean(values), None, draws=4000, seed=0) or (0, 0)
    mean = values.mean().item()
    half = 1.96 * values.std(correction=0).item() / 1000**0.5
    assert (low, high) == pytest.approx((mean - half, mean + half), abs=0.06 * half)


def test_units_are_redrawn_whole_when_samples_belong_together():
    once = coins(3, 7)
    copied, units = once.repeat_interleave(50), torch.arange(10).repeat_interleave(50)
    alone = interval(Estimate.mean(once), None, draws=1000, seed=3)
    together = interval(Estimate.mean(copied), units, draws=1000, seed=3)
    assert together == pytest.approx(alone)
    assert together != pytest.approx(
        interval(Estimate.mean(copied), None, draws=1000, seed=3), abs=0.05
    )


def test_unequal_units_weigh_by_their_samples_when_redrawn():
    values, units = (
        coins(1, 3),
        torch.tensor([0, 1, 1, 1]),
    )  # of two units: both the first, one of each, both the second
    assert interval(Estimate.mean(values), units, draws=1000, seed=0) == (0.0, 1.0)


def test_ends_are_the_score_itself_when_all_samples_are_the_same():
    assert interval(Estimate.mean(torch.full((9,), 2.5)), None, draws=200, seed=0) == (2.5, 2.5)


def test_logarithms_are_redrawn_when_the_influence_is_theirs():
    influence = coins(50, 50) - 0.5
    plain = interval(Estimate(0.0, influence), None, draws=500, seed=0) or (0, 0)
    assert interval(Estimate(4.0, influence, log=True), None, draws=500, seed=0) == pytest.approx(
        tuple(4 * math.exp(e) for e in plain)
    )


def test_redraws_are_the_same_when_done_in_blocks(monkeypatch):
    estimate = Estimate.mean(coins(20, 30))
    whole = interval(estimate, None, draws=300, seed=5)
    monkeypatch.setattr(bootstrap, "_BLOCK", 700)
    assert interval(estimate, None, draws=300, seed=5) == whole
    assert interval(estimate, None, draws=300, seed=6) != whole


@pytest.mark.parametrize("case", ["no redraws", "one sample", "one unit", "no influence"])
def test_there_is_no_interval_when_there_is_nothing_to_redraw(case):
    estimate = (
        Estimate(1.0, None)
        if case == "no influence"
        else Estimate.mean(coins(1, 0 if case == "one sample" else 4))
    )
    units = torch.zeros(5, dtype=torch.int64) if case == "one unit" else None
    assert interval(estimate, units, draws=0 if case == "no redraws" else 100, seed=0) is None

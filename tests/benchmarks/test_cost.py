from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import cost
from benchmarks.base import claim, read_rows
from benchmarks.cost import clock, measure, rivals
from benchmarks.cost.measure import PROMPTS, SMOKE, STEPS, Row, left_out
from benchmarks.cost.page import page
from benchmarks.cost.problem import Bank
from benchmarks.cost.rivals import RIVALS, Rival

TINY = replace(
    SMOKE,
    sizes=(8, 16),
    shapes=((16, 1), (16, 2)),
    similar=((16, 1, 4), (16, 1, 16), (8, 1, 4)),
    d=16,
    rounds=1,
)


@pytest.fixture
def measured(tmp_path: Path) -> Path:
    folder = tmp_path / "cost"
    claim(folder, "cost", smoke=True)
    measure.run(folder, TINY, lambda share: None)
    return folder


def test_every_setting_is_measured_when_all_fit(measured: Path):
    steps = [Row(**row) for row in read_rows(measured / STEPS) if row["device"] == "cpu"]
    assert {(r.n, r.batch, r.method) for r in steps} == {
        (n, batch, m) for n in (8, 16) for batch in (1, 2) for m in RIVALS
    }
    for row in steps:
        assert row.seconds is not None
        assert row.seconds > 0
        assert row.rounds == 1
    prompts = [row for row in read_rows(measured / PROMPTS) if row["device"] == "cpu"]
    assert {(r["n"], r["similar"]) for r in prompts} == {(16, 4), (16, 16), (8, 4)}


def test_run_goes_on_row_by_row_when_it_was_interrupted(tmp_path: Path):
    claim(tmp_path / "cost", "cost", smoke=True)

    def stop(share: float) -> None:
        if share > 0.3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure.run(tmp_path / "cost", TINY, stop)
    before = read_rows(tmp_path / "cost" / STEPS)
    assert 0 < len(before) < 4 * len(RIVALS)
    measure.run(tmp_path / "cost", TINY, lambda share: None)
    after = read_rows(tmp_path / "cost" / STEPS)
    assert after[: len(before)] == before
    assert len(after) == 4 * len(RIVALS) * len(measure.devices())


def test_benchmark_draws_its_figures_and_its_page_links_them_when_it_ran(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(measure, "SMOKE", TINY)
    claim(tmp_path, "cost", smoke=True)
    shares: list[float] = []
    cost.BENCHMARK.run(tmp_path, True, shares.append)
    text = cost.BENCHMARK.page(tmp_path)
    assert shares == sorted(shares)
    assert shares[-1] == 1
    for figure in ("steps-cpu.png", "prompts-cpu.png"):
        assert (tmp_path / figure).read_bytes().startswith(b"\x89PNG")
        assert f"](../benchmarks/results/cost/{figure})" in text
    assert text.startswith("## ")
    assert "`python -m benchmarks cost`" in text
    assert text.count("| 16 | 2 |") == 2  # times and memory


def test_page_says_whether_a_gpu_was_measured(measured: Path):
    assert ("No GPU" in page(measured)) is not torch.cuda.is_available()


def row(n: int, method: str, seconds: float | None, reason: str = "") -> Row:
    return Row("cpu", 10, n, 1, method, reason, seconds)


@pytest.mark.parametrize(
    ("method", "earlier", "reason"),
    [
        ("published", [], ""),
        ("published", [row(100, "published", 0.9)], ""),  # ten times as many take 9 s
        ("published", [row(100, "published", 1.3)], "time"),
        ("whole-gram", [row(100, "whole-gram", 0.09)], ""),  # a hundred times as long
        (
            "whole-gram",
            [row(10, "whole-gram", 9.0), row(100, "whole-gram", 0.11)],
            "",
        ),  # the largest before counts
        ("vendi", [row(100, "vendi", 0.02)], "time"),  # a thousand times as long
        ("vendi", [row(100, "whole-gram", 5.0)], ""),  # others say nothing
        ("vendi", [row(100, "vendi", None, "time")], "time"),
    ],
)
def test_method_is_left_out_when_its_step_would_take_too_long(
    method: str, earlier: list[Row], reason: str
):
    assert left_out(method, "cpu", 10, 1_000, 1, earlier, limit=10**12, longest=12.0) == reason


def test_method_is_left_out_when_it_would_not_fit():
    needed = 4 * (1_000 * 10 + RIVALS["vendi"].numbers(1_000, 10, 1))
    assert left_out("vendi", "cpu", 10, 1_000, 1, [], limit=needed, longest=12.0) == ""
    assert left_out("vendi", "cpu", 10, 1_000, 1, [], limit=needed - 1, longest=12.0) == "memory"


def test_tables_say_why_when_something_was_left_out(tmp_path: Path):
    claim(tmp_path, "cost", smoke=True)
    measure.run(tmp_path, replace(TINY, longest=0.0), lambda share: None)
    rows = read_rows(tmp_path / STEPS)
    assert {r["left_out"] for r in rows if r["n"] == 16} == {"time"}
    assert "| 16 | 1 | –ᵗ |" in page(tmp_path)


def test_directions_agree_when_the_loss_is_the_same():
    cosines = rivals.agreement(n=16, batch=3, d=64, p=16)
    assert set(cosines) == {"published", "new-row", "whole-gram"}
    assert min(cosines.values()) > 0.99999


def test_run_stops_when_a_rival_computes_something_else(monkeypatch: pytest.MonkeyPatch):
    other: Rival = replace(
        RIVALS["published"], step=lambda problem: lambda: torch.ones_like(problem.x)
    )
    monkeypatch.setitem(RIVALS, "published", other)
    with pytest.raises(RuntimeError, match="published and SPARKE differ in direction"):
        rivals.agreement(n=16, batch=3, d=64, p=16)


def test_images_have_as_many_stored_samples_of_their_prompt_as_asked():
    problem = Bank("cpu", 256).similar(60, 3, 8, 5)
    cosines = (
        torch.nn.functional.normalize(problem.y) @ torch.nn.functional.normalize(problem.stored_y).T
    )
    assert (cosines > 0.9).sum(dim=1).tolist() == [5, 5, 5]
    assert (cosines < 0.4).sum(dim=1).tolist() == [55, 55, 55]


def test_smaller_memory_is_the_beginning_of_a_larger_one():
    bank = Bank("cpu", 4)
    large = bank.themed(9, 1, 6).stored
    assert torch.equal(bank.themed(5, 1, 6).stored, large[:5])
    assert bank.themed(5, 1, 3).stored.shape == (5, 3)


def test_spell_touches_no_ball_when_it_is_timed():
    assert RIVALS["spell"].step(Bank("cpu", 8).themed(50, 4, 256))() is None


def test_step_sits_out_when_its_budget_is_used(monkeypatch: pytest.MonkeyPatch):
    calls: dict[str, int] = {"slow": 0, "quick": 0}
    took = {"slow": 1.0, "quick": 0.1}

    def seconds(step: Any, device: str) -> float:
        return took[step()]

    def counted(name: str) -> Any:
        def step() -> str:
            calls[name] += 1
            return name

        return step

    monkeypatch.setattr(clock, "seconds", seconds)
    taken = clock.interleaved({name: counted(name) for name in calls}, "cpu", rounds=5, budget=2.0)
    assert calls == {"slow": 3, "quick": 6}  # the first is not among the rounds
    assert (taken["slow"].rounds, taken["quick"].rounds) == (2, 5)
    assert taken["slow"].seconds == 1.0


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux tells")
def test_peak_of_memory_is_seen_when_a_step_allocates():
    size = 2**26

    def step() -> None:
        torch.ones(size // 4).sum()

    taken = clock.interleaved({"step": step}, "cpu", rounds=1, budget=1.0)["step"]
    assert taken.extra_bytes is not None
    assert 0.9 * size < taken.extra_bytes < 1.5 * size

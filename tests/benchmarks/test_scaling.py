import pytest

from benchmarks.base import read_rows
from benchmarks.scaling.page import COVERAGE, cost_table, simulation_table
from benchmarks.scaling.simulation import LOADS, WORKERS, Load, simulate
from benchmarks.table import load, measure

LIGHT = Load("light", 10.0, "16,384", "0.5 MB")
FREE = {"commit": 0.0, "begin": 0.0, "row": 0.0}


def costs(driver: float = 0.0, **memory: float):
    return {
        "memory": {LIGHT.numbers: {**FREE, **memory}},
        "ray": {"batch": 0.0},
        "files": {LIGHT.image: {"commit": driver}},
    }


def test_nothing_is_stale_and_nobody_waits_when_there_is_one_worker():
    found = simulate(LIGHT, 1, costs())
    assert (found.mean, found.largest) == (0, 0)
    assert found.throughput == pytest.approx(1, abs=0.05)


def test_throughput_is_that_of_the_run_when_it_saturates():
    """64 workers draw 6.4 batches a second, and the run writes two."""
    found = simulate(LIGHT, 64, costs(driver=0.5))
    assert found.throughput == pytest.approx(2 / 6.4, rel=0.05)
    assert found.busy["run"] == pytest.approx(1, abs=0.05)


def test_throughput_is_that_of_the_memory_when_it_saturates():
    found = simulate(LIGHT, 64, costs(commit=0.25))
    assert found.throughput == pytest.approx(4 / 6.4, rel=0.1)


def test_staleness_is_the_other_workers_of_the_shard_when_nothing_costs_time():
    """Each batch sees about one batch of each other worker, spread over the shards."""
    assert simulate(LIGHT, 8, costs()).mean == pytest.approx(7, abs=0.5)
    assert simulate(LIGHT, 64, costs()).mean == pytest.approx(63 / 8, abs=1)


@pytest.mark.filterwarnings("ignore")  # of Ray
def test_page_has_every_kind_of_workers_and_every_load_when_measured(tmp_path):
    pytest.importorskip("ray")
    measure("scaling", tmp_path, smoke=True, progress=lambda share: None)
    rows = read_rows(tmp_path / COVERAGE)
    assert {row["workers"] for row in rows} == {"unguided", "one", "shared", "separate"}
    assert all(row["distinct"] <= row["right"] <= row["samples"] for row in rows)
    assert {(row["batch"], row["samples"]) for row in rows} == {(2, 8), (1, 4)}
    page = load("scaling").page(tmp_path)
    assert page.count("4 workers") == 4
    assert simulation_table(tmp_path).count("\n") == 1 + len(LOADS) * len(WORKERS)
    assert cost_table(tmp_path).count("\n") == 10

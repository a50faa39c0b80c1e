import json
from pathlib import Path

import pytest
import torch

from benchmarks import guidance_cost as cost


def test_smoke_run_writes_every_measurement_when_given_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "cost.json"
    result = cost.main(["--smoke", "--out", str(out)])
    assert json.loads(out.read_text()) == result
    measured = {(row["method"], row["n"], row["batch"]) for row in result["rows"]}
    assert measured == {(method, n, batch) for method in cost.METHODS for n in (8, 16) for batch in (1, 8)}
    for row in result["rows"]:
        assert row["seconds"] > 0
        assert row["rounds"] == 2
        assert row["method"] != "sparke" or row["ratio"] == 1
    printed = capsys.readouterr().out
    assert printed.count("| 16 | 8 |") == 2
    assert "n = 8, batch 1: sparke" in printed


def test_directions_agree_when_the_loss_is_the_same():
    cosines = cost.agreement(n=16, batch=3, d=64, p=16)
    assert set(cosines) == set(cost.SAME_LOSS)
    assert min(cosines.values()) > 0.99999


def test_run_stops_when_a_rival_computes_something_else(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(cost.METHODS, "published", lambda problem: lambda: torch.ones_like(problem.x))
    with pytest.raises(RuntimeError, match="published and the closed form differ in direction"):
        cost.agreement(n=16, batch=3, d=64, p=16)


def test_steep_methods_are_left_out_when_the_memory_is_large_and_full_is_not_asked(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cost, "LARGE", 4)
    settings = {"d": 16, "p": 4, "rounds": 1, "budget": 0.1}
    few = cost.rows([6], [1], **settings, full=False)
    assert [row.method for row in few] == ["sparke", "sparke-all", "published", "new-row"]
    assert "–" in cost.table(few)
    assert [row.method for row in cost.rows([6], [1], **settings, full=True)] == list(cost.METHODS)

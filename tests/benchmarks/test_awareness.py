import pytest
import torch

from benchmarks import awareness
from benchmarks.awareness import SMOKE, UNLIKE, Condition, Size, conditions
from benchmarks.base import read_rows, write_rows
from unalike.guidance.context import Context
from unalike.guidance.level import Level
from unalike.guidance.protocols import References
from unalike.guidance.sparke import SPARKE
from unalike.models.emoji import truth


def step(memory, prompts, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x0, x_t = torch.randn(2, len(prompts), 8, generator=generator)
    context = Context(
        step=0, steps=1, level=Level(0.6, 0.8, 1, 0), x_t=x_t, prompts=prompts,
        groups=torch.zeros(len(prompts)), memory=memory,
    )  # fmt: skip
    return x0, context


def unrelated(count):
    return References(
        torch.randn(count, 8, generator=torch.Generator().manual_seed(9)),
        torch.tensor([[0.0, 1.0]]).expand(count, 2),
    )


def observed(objective, alone):
    return awareness._observed(Condition(objective, 4, alone), {"strength": 0.1})


def test_prompts_have_many_right_images_and_none_in_common():
    sets = [set(truth(p).tolist()) for p in UNLIKE]
    assert all(len(s) >= 8 for s in sets)
    assert sum(map(len, sets)) == len(set().union(*sets))


def test_empty_memory_comes_first_when_conditions_are_listed():
    listed = list(conditions(Size(stored=(2, 4))))
    assert [(c.objective, c.stored, c.alone) for c in listed] == [
        ("none", 0, False), ("rke", 2, False), ("cond-rke", 2, False), ("rke", 4, False),
        ("cond-rke", 4, False), ("none", 0, True), ("rke", 4, True), ("cond-rke", 4, True),
    ]  # fmt: skip


@pytest.mark.parametrize("objective", ["rke", "cond-rke"])
def test_correction_is_that_of_sparke_when_observed(objective):
    x0, context = step(unrelated(5), torch.tensor([[1.0, 0.0]]).expand(3, 2))
    expected = SPARKE(objective=objective, strength=0.1).x0_delta(x0, context)
    x0, context = step(unrelated(5), torch.tensor([[1.0, 0.0]]).expand(3, 2))
    delta = observed(objective, alone=False).x0_delta(x0, context)
    assert delta is not None
    assert expected is not None
    assert torch.equal(delta, expected)


def test_unrelated_images_move_a_correction_only_without_prompt_kernel_when_related_ones_exist():
    moved = {}
    for objective in ("rke", "cond-rke"):
        method = observed(objective, alone=False)
        method.x0_delta(*step(unrelated(50), torch.tensor([[1.0, 0.0]]).expand(3, 2)))
        (moved[objective],) = method.from_memory
    assert (moved["rke"] > 0.2).all()
    assert (moved["cond-rke"] < 1e-4).all()


def test_unrelated_images_move_the_whole_correction_when_nothing_else_is_there():
    method = observed("cond-rke", alone=True)
    method.x0_delta(*step(unrelated(4), torch.tensor([[1.0, 0.0]]).expand(3, 2)))
    torch.testing.assert_close(method.from_memory[0], torch.ones(3))


def test_nothing_is_moved_when_the_memory_is_empty():
    method = observed("cond-rke", alone=False)
    assert method.x0_delta(*step(None, torch.tensor([[1.0, 0.0]]).expand(3, 2))) is not None
    assert torch.equal(method.from_memory[0], torch.zeros(3))


def test_mixtures_show_what_images_show_when_measured():
    rows = {
        (r["objective"], r["stored"], r["alone"]): r
        for r in awareness._toy(0, 1, Size(samples=8, stored=(64,)))
    }
    assert [rows["none", 0, alone]["changed"] for alone in (False, True)] == [0.0, 0.0]
    assert (
        rows["rke", 64, False]["from_unrelated"]
        > 0.05
        > rows["cond-rke", 64, False]["from_unrelated"]
    )
    assert rows["cond-rke", 64, True]["from_unrelated"] == pytest.approx(1, abs=1e-5)
    assert all(
        r["distinct"] <= min(r["right"], r["possible"]) and r["right"] <= r["samples"] == 8
        for r in rows.values()
    )


def test_smoke_run_compares_on_the_model_and_goes_on_when_a_prompt_is_missing(bench, tmp_path):
    code, out, err = bench("awareness", "--smoke", "--out", tmp_path)
    assert (code, "Traceback" in err) == (0, False)
    assert {p.name for p in tmp_path.iterdir()} == {
        "environment.json",
        "rows.parquet",
        "awareness.png",
        "pictures.png",
    }
    rows = read_rows(tmp_path / "rows.parquet")
    emoji = [r for r in rows if r["model"] == "emoji"]
    assert [r["prompt"] for r in emoji] == [p for p in SMOKE.prompts for _ in conditions(SMOKE)]
    related = [r for r in emoji if not r["alone"] and r["stored"]]
    assert all(r["from_unrelated"] > 0.1 for r in related if r["objective"] == "rke")
    assert all(r["from_unrelated"] < 0.01 for r in related if r["objective"] == "cond-rke")
    assert out.count("| emoji | 4 | rke |") == out.count("| toy | 4 | cond-rke |") == 2
    write_rows(tmp_path / "rows.parquet", [r for r in rows if r["prompt"] != "world 0, prompt 3"])
    code, again, _ = bench("awareness", "--smoke", "--out", tmp_path)
    assert code == 0
    assert sorted(read_rows(tmp_path / "rows.parquet"), key=str) == sorted(rows, key=str)
    assert [line for line in again.splitlines() if "| emoji" in line] == [
        line for line in out.splitlines() if "| emoji" in line
    ]

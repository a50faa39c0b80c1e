import torch

from benchmarks import toy
from benchmarks.base import read_rows, write_rows
from benchmarks.mixtures import PROMPTS, Mixtures, draw, quality
from benchmarks.toy import CFG, SMOKE, Family, Size, Trial, families, page, sampled


def test_methods_have_equal_budgets_when_listed():
    every = list(families())
    assert {len(f.trials) for f in every if f.name != "independent"} == {16}
    assert all(len({str(t) + str(t.options) for t in f.trials}) == len(f.trials) for f in every)
    assert len({(f.name, f.memory) for f in every}) == len(every)


def test_worlds_of_the_tables_are_not_those_that_settings_are_chosen_on():
    for size in (Size(), SMOKE):
        assert not set(size.validation) & set(size.test)


def test_samples_are_those_of_one_batch_when_there_is_no_memory():
    world, size = Mixtures.random(3), Size(samples=4)
    x, prompts = sampled(world, Family("independent", False, ()), Trial(CFG), size, 3)
    assert prompts.tolist() == [p for p in range(PROMPTS) for _ in range(4)]
    assert torch.equal(x, draw(world, prompts, (), guidance_scale=CFG, seed=3000).x)


def test_later_batches_differ_from_earlier_ones_when_there_is_a_memory():
    world, size = Mixtures.random(3), Size(samples=8, batches=8)
    trial = Trial(1.0, "spell", {"factor": 0.8, "stop": 0.7})
    known, prompts = sampled(world, Family("SPELL", True, ()), trial, size, 3)
    unknown, _ = sampled(world, Family("independent", True, ()), Trial(1.0), size, 3)
    assert torch.allclose(
        known[:PROMPTS], unknown[:PROMPTS]
    )  # the first batch has one sample a prompt and nothing to avoid
    assert quality(world, known, prompts).coverage > quality(world, unknown, prompts).coverage + 0.1


def test_smoke_run_measures_every_method_and_draws_when_started_from_the_command_line(
    bench, tmp_path
):
    code, out, err = bench("toy", "--smoke", "--out", tmp_path / "toy")
    assert (code, err.strip()) == (0, "")
    assert out.endswith(f"measurements and figures are in {tmp_path / 'toy'}\n")
    assert {p.name for p in (tmp_path / "toy").iterdir()} == {
        "environment.json", "trials.parquet", "samples.parquet", "samples.png", "fronts.png",
    }  # fmt: skip
    rows = read_rows(tmp_path / "toy" / "trials.parquet")
    for family in families():
        own = [r for r in rows if (r["method"], r["memory"]) == (family.name, family.memory)]
        assert {r["seed"] for r in own if r["role"] == "validation"} == set(SMOKE.validation)
        assert {r["seed"] for r in own if r["best"]} == set(SMOKE.test)
        assert len({r["trial"] for r in own if r["best"]}) == 1
        assert out.count(f"| {family.name} |") == sum(f.name == family.name for f in families())
    assert all(0 <= r["coverage"] <= 1 and 0 <= r["precision"] <= 1 for r in rows)


def test_run_goes_on_with_the_same_result_when_methods_are_missing(tmp_path, monkeypatch):
    three = [
        f
        for f in families()
        if f.name in ("independent", "CADS") or (f.name, f.memory) == ("SPARKE on x_t", True)
    ]
    monkeypatch.setattr(toy, "families", lambda: iter(three))
    toy.run(tmp_path, True, lambda share: None)
    rows, shown = (read_rows(tmp_path / name) for name in ("trials.parquet", "samples.parquet"))
    write_rows(tmp_path / "trials.parquet", rows[:-1])  # as if interrupted within the last method
    write_rows(tmp_path / "samples.parquet", [r for r in shown if r["method"] != "SPARKE on x_t"])
    shares = []
    toy.run(tmp_path, True, shares.append)
    assert (read_rows(tmp_path / "trials.parquet"), read_rows(tmp_path / "samples.parquet")) == (
        rows,
        shown,
    )
    assert shares == sorted(shares)
    assert shares[-1] == 1


def test_page_takes_its_figures_from_the_rows_when_they_change(tmp_path):
    common = {
        "method": "SPELL",
        "memory": False,
        "trial": 0,
        "setting": "factor 1",
        "log_likelihood": 1.0,
    }
    rows = [
        {
            **common,
            "role": role,
            "best": role == "test",
            "seed": seed,
            "coverage": 0.375,
            "precision": 0.8,
        }
        for role, seed in (("validation", 9), ("test", 0), ("test", 1))
    ]
    write_rows(tmp_path / "trials.parquet", rows)
    assert (
        "| SPELL | factor 1 | 38% (38% to 38%) | 80% (80% to 80%) | 1.00 | 0.300 (0.300 to 0.300) |"
        in page(tmp_path)
    )

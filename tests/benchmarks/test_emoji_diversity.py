"""The comparison of settings on the emoji model, at a size that only shows that it runs, goes on, and adds up."""

import json
from pathlib import Path

import pytest

from benchmarks import emoji_diversity as diversity
from unalike.guidance.methods import build
from unalike.models.emoji import truth
from unalike.models.emoji.measure import PROMPTS


def test_prompts_have_many_right_pictures_and_are_not_tuned_on() -> None:
    assert len(set(PROMPTS)) == 40
    assert all(len(truth(p)) >= 3 for p in (*PROMPTS, *diversity.VALIDATION))
    assert not set(PROMPTS) & set(diversity.VALIDATION)


def test_every_setting_is_one_that_can_be_built() -> None:
    chosen = [diversity.Setting(**row) for row in json.loads(Path(diversity.__file__).with_suffix(".json").read_text())]
    for setting in [*chosen, *diversity.sweep()]:
        for name, options in setting.methods.items():
            assert build(name, **options).name == name


def test_comparison_goes_on_where_it_was_and_fills_its_table(tmp_path: Path) -> None:
    setting = diversity.Setting
    settings = [setting("unguided"), setting("SPARKE", methods={"sparke": {"strength": 0.1}}, batch=2, memory=True)]
    out = tmp_path / "result.json"
    records = diversity.compare(settings, ("heart", "circle"), samples=4, steps=3, out=out)
    assert [(r["setting"], r["prompt"]) for r in records] == [(s.name, p) for p in ("heart", "circle") for s in settings]
    assert all(r["samples"] == 4 and 0 <= r["distinct"] <= r["right"] <= 4 for r in records)
    state = json.loads(out.read_text())
    out.write_text(json.dumps(state | {"records": records[:3]}))
    resumed = diversity.compare(settings, ("heart", "circle"), samples=4, steps=3, out=out)
    assert resumed[:3] == records[:3]
    assert {k: v for k, v in resumed[3].items() if k != "seconds"} == {k: v for k, v in records[3].items() if k != "seconds"}
    assert diversity.table(resumed, settings).count("\n") == 3


def test_results_of_other_settings_are_not_replaced(tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    out.write_text(json.dumps({"samples": 9, "steps": 9, "settings": [], "records": []}))
    with pytest.raises(SystemExit, match="other settings"):
        diversity.compare([diversity.Setting("unguided")], ("heart",), samples=4, steps=3, out=out)
    assert json.loads(out.read_text())["samples"] == 9

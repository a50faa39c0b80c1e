from pathlib import Path
from typing import Any

import pytest
import torch
from tests import tiny

from benchmarks import sparsity
from benchmarks.base import claim, read_rows, write_rows
from benchmarks.sparsity import Setting, Size, corrections


@pytest.fixture(scope="module")
def pipe(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return tiny.load(tiny.write("sd", tmp_path_factory.mktemp("pipelines")))


def measured(pipe: Any, method: str, options: dict[str, Any], steps: int = 5) -> torch.Tensor:
    return corrections(
        pipe, Setting("any", method, options, guidance_scale=3.0), "cat", images=2, steps=steps
    )


def test_size_is_the_limit_when_the_method_wants_more(pipe: Any):
    sizes = measured(pipe, "sparke", {"strength": 5.0, "limit": 0.25, "stop": 0.5})
    torch.testing.assert_close(
        sizes, torch.tensor([0.25, 0.25, 0.25, 0.0, 0.0])[:, None].expand(5, 2), rtol=1e-4, atol=0
    )


def test_method_on_prompts_is_seen_at_its_steps_only(pipe: Any):
    sizes = measured(pipe, "cads", {"tau_1": 0.4, "tau_2": 0.9})  # times 1, 0.8, 0.6, 0.4 and 0.2
    assert (sizes > 1e-4).all(dim=1).tolist() == [True, True, True, False, False]
    assert (sizes[3:] < sparsity.ACTIVE).all()


def test_nothing_is_seen_when_guidance_is_left_out_nowhere(pipe: Any):
    assert (
        measured(pipe, "interval", {"sigma_low": 0.0, "sigma_high": 1e6}) < sparsity.ACTIVE
    ).all()


def test_denoiser_has_no_hooks_left_when_the_call_is_over(pipe: Any):
    measured(pipe, "interval", {"sigma_low": 1e5, "sigma_high": 1e6}, steps=1)
    assert not pipe.unet._forward_pre_hooks
    assert not pipe.unet._forward_hooks


def test_run_goes_on_method_by_method_when_it_was_interrupted(
    pipe: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(
        sparsity,
        "SETTINGS",
        (Setting("first", "sparke"), Setting("second", "particle", {"strength": 1.0})),
    )
    monkeypatch.setattr(sparsity, "load", lambda name: pipe)
    claim(tmp_path, "sparsity", smoke=True)

    def stop(share: float) -> None:
        if share >= 0.5:
            raise KeyboardInterrupt

    size = Size(prompts=("cat", "owl"), images=2, steps=2)
    with pytest.raises(KeyboardInterrupt):
        sparsity.measure(tmp_path, size, stop)
    before = read_rows(tmp_path / sparsity.ROWS)
    assert {(r["setting"], r["prompt"], r["image"], r["step"]) for r in before} == {
        ("first", prompt, image, step)
        for prompt in ("cat", "owl")
        for image in (0, 1)
        for step in (0, 1)
    }
    sparsity.measure(tmp_path, size, lambda share: None)
    after = read_rows(tmp_path / sparsity.ROWS)
    assert after[: len(before)] == before
    assert {r["setting"] for r in after} == {"first", "second"}


def test_page_and_figure_come_from_the_measurements(tmp_path: Path):
    claim(tmp_path, "sparsity", smoke=True)
    sizes = {
        "often": [[0.1, 0.3], [0.2, 0.4]],
        "seldom": [[0.0, 0.0], [0.0, 0.5]],
        "never": [[0.0, 1e-9], [0.0, 0.0]],
    }
    settings = {
        "often": ("strength 2", 3.0),
        "seldom": ("defaults", 2.5),
        "never": ("defaults", 2.5),
    }
    rows = [
        {
            "setting": name,
            "options": settings[name][0],
            "guidance_scale": settings[name][1],
            "prompt": "cat",
            "image": b,
            "step": step,
            "of_step": x,
        }
        for name, steps in sizes.items()
        for step, row in enumerate(steps)
        for b, x in enumerate(row)
    ]
    write_rows(tmp_path / sparsity.ROWS, rows)
    sparsity.draw_figure(tmp_path)
    text = sparsity.BENCHMARK.page(tmp_path)
    assert "| often | strength 2 | 3 | 25.0% | 40% | 100% | 100% |" in text
    assert "| seldom | defaults | 2.5 | 50.0% | 50% | 25% | 50% |" in text
    assert "| never | defaults | 2.5 | – | – | 0% | 0% |" in text
    assert f"](../benchmarks/results/sparsity/{sparsity.FIGURE})" in text
    assert (tmp_path / sparsity.FIGURE).read_bytes().startswith(b"\x89PNG")


def test_settings_are_of_methods_in_the_table():
    from unalike.guidance.methods import METHODS

    assert {setting.method for setting in sparsity.SETTINGS} <= set(METHODS)
    assert len({setting.name for setting in sparsity.SETTINGS}) == len(sparsity.SETTINGS)

import contextlib
from pathlib import Path

import torch
from torch import Tensor, nn

from training.loop import Checkpoint, Recipe, fit

RECIPE = Recipe(steps=12, batch=8, lr=0.01, warmup=3, ema=0.9, seed=1, weight_decay=0.1)


def train(recipe: Recipe, path: Path, minutes: float = 1.0) -> dict[str, Tensor]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))

    def loss_at(step: int) -> Tensor:
        x = torch.randn(recipe.batch, 3, generator=recipe.generator(step))
        return (model(x) - x.sum(1, keepdim=True)).square().mean()

    fit(
        model,
        loss_at,
        recipe,
        Checkpoint(path),
        minutes=minutes,
        save_every=5,
        report=lambda line: None,
    )
    return {k: v.clone() for k, v in model.state_dict().items()}


def test_resumed_training_equals_uninterrupted_training(tmp_path: Path) -> None:
    whole = train(RECIPE, tmp_path / "whole.safetensors")

    class Interrupted(Recipe):
        def generator(self, step: int) -> torch.Generator:
            if step == 7:
                raise KeyboardInterrupt
            return super().generator(step)

    with contextlib.suppress(KeyboardInterrupt):
        train(Interrupted(**vars(RECIPE)), tmp_path / "parts.safetensors")
    resumed = train(RECIPE, tmp_path / "parts.safetensors")
    assert all(torch.equal(whole[k], resumed[k]) for k in whole)


def test_nothing_changes_when_the_time_is_up(tmp_path: Path) -> None:
    first = train(RECIPE, tmp_path / "a.safetensors", minutes=0.0)
    second = train(RECIPE, tmp_path / "a.safetensors", minutes=0.0)
    assert all(torch.equal(first[k], second[k]) for k in first)
    trained = train(RECIPE, tmp_path / "a.safetensors")
    assert not torch.equal(first["0.weight"], trained["0.weight"])


def test_the_average_is_what_export_reads(tmp_path: Path) -> None:
    averaged = train(RECIPE, tmp_path / "a.safetensors")
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
    Checkpoint(tmp_path / "a.safetensors").load_average(model)
    assert all(torch.equal(averaged[k], v) for k, v in model.state_dict().items())


def test_epochs_visit_every_item_once() -> None:
    batches = [RECIPE.epoch_batch(step, 24) for step in range(6)]
    assert torch.cat(batches[:3]).sort().values.tolist() == list(range(24))
    assert not torch.equal(torch.cat(batches[:3]), torch.cat(batches[3:]))


def test_learning_rate_warms_up_and_falls() -> None:
    recipe = Recipe(steps=1000, batch=1, lr=1.0, warmup=100, ema=0.9)
    rates = [recipe.rate(step) for step in (0, 99, 100, 550, 1000)]
    assert rates[0] == 0.01
    assert rates[1] == rates[2] == 1.0
    assert 0.4 < rates[3] < 0.6
    assert abs(rates[4] - 0.02) < 1e-9


def test_learning_rate_rises_again_where_a_training_goes_on() -> None:
    recipe = Recipe(steps=1500, batch=1, lr=1.0, warmup=100, ema=0.9, restarts=[(1000, 0.5)])
    assert abs(recipe.rate(999) - 0.02) < 1e-3
    assert recipe.rate(1000) == 0.005
    assert recipe.rate(1100) == 0.5
    assert abs(recipe.rate(1499) - 0.01) < 1e-3

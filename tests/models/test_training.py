import torch
from torch import nn

from unalike.models.training import Checkpoint, WeightAverage, cosine_lr, epoch_order, step_generator


def small_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))


def train(model: nn.Module, average: WeightAverage, optimizer: torch.optim.Optimizer, start: int, stop: int) -> None:
    for step in range(start, stop):
        x = torch.randn(8, 3, generator=step_generator(0, step))
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()
        average.update(model, step)


def fresh() -> tuple[nn.Module, WeightAverage, torch.optim.Optimizer]:
    model = small_model()
    return model, WeightAverage(model, 0.9), torch.optim.AdamW(model.parameters(), lr=0.01)


def test_resumed_training_equals_uninterrupted_training(tmp_path) -> None:  # noqa: ANN001
    whole = fresh()
    train(*whole, 0, 10)
    first = fresh()
    train(*first, 0, 4)
    checkpoint = Checkpoint(tmp_path / "run.safetensors")
    checkpoint.save(*first, step=4, info={"loss": 1.0})
    second = fresh()
    step = checkpoint.load(*second)
    assert step == 4
    train(*second, step, 10)
    for a, b in zip(whole[0].parameters(), second[0].parameters(), strict=True):
        assert torch.equal(a, b)
    assert all(torch.equal(whole[1].values[k], second[1].values[k]) for k in whole[1].values)


def test_training_starts_at_zero_without_a_checkpoint(tmp_path) -> None:  # noqa: ANN001
    assert Checkpoint(tmp_path / "none.safetensors").load(*fresh()) == 0


def test_order_goes_on_where_it_was() -> None:
    whole = epoch_order(10, seed=1, start=0, batch=3)
    batches = [next(whole) for _ in range(8)]
    resumed = epoch_order(10, seed=1, start=5, batch=3)
    assert all(torch.equal(next(resumed), batch) for batch in batches[5:])
    assert len(torch.cat(batches[:3]).unique()) == 9


def test_learning_rate_warms_up_and_falls() -> None:
    rates = [cosine_lr(step, total=1000, peak=1.0, warmup=100) for step in (0, 99, 100, 550, 1000)]
    assert rates[0] < 0.02 and rates[1] == rates[2] == 1.0
    assert 0.4 < rates[3] < 0.6 and abs(rates[4] - 0.02) < 1e-9

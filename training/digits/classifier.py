"""Train the digits classifier: `python -m training digits classifier`.

It writes `classifier.safetensors` for the package.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from training import options
from training.digits import damage
from training.loop import Checkpoint, Recipe, fit
from unalike import tensorfile
from unalike.models.digits.classifier import FILE, KIND, NONE, VERSION, Classifier
from unalike.models.digits.data import SIDE, held_out, load_images, load_labels
from unalike.models.digits.judge import shifted

CONFIG = json.loads((Path(__file__).parent / "train.json").read_text("utf-8"))["classifier"]


def _uniform(generator: torch.Generator, low: float, high: float, *shape: int) -> Tensor:
    return low + (high - low) * torch.rand(*shape, generator=generator)


def varied(images: Tensor, generator: torch.Generator) -> Tensor:
    """Slightly changed images, all of which still show their digit: turned, scaled, moved, paler,
    softer, noisy.
    """
    n = len(images)
    moved = damage.turned(
        images,
        _uniform(generator, -12, 12, n),
        _uniform(generator, 0.88, 1.1, n),
        _uniform(generator, -1.2, 1.2, n, 2),
    )
    softness = _uniform(generator, 0, 1, n, 1, 1, 1)
    soft = torch.lerp(moved, damage.blurred(moved, 0.7), softness)
    amount = _uniform(generator, 0, 0.3, n, 1, 1, 1)
    light = soft + amount * (1 - soft)
    noise = torch.randn(n, 1, SIDE, SIDE, generator=generator)
    coarse = damage.blurred(torch.randn(n, 1, SIDE, SIDE, generator=generator), 1.0) / 0.28
    return (
        light
        + _uniform(generator, 0, 0.06, n, 1, 1, 1) * noise
        + _uniform(generator, 0, 0.05, n, 1, 1, 1) * coarse
    ).clamp(0, 1)


def spoilt(images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
    """Pictures that show no digit: each of `damage`'s kinds in turn, too strong to be read or to be
    called written.

    What needs two images takes them from different classes; images whose partner happens to be
    of the same class are blurred.
    """
    n = len(images)
    partner = torch.randperm(n, generator=generator)
    others, alike = images[partner], labels[partner] == labels
    weight = _uniform(generator, 0.38, 0.62, n, 1, 1, 1)
    blurs = torch.where(
        torch.rand(n, 1, 1, 1, generator=generator) < 0.5,
        damage.blurred(images, 1.7),
        damage.blurred(images, 2.5),
    )
    crossed = torch.rand(n, 1, 1, 1, generator=generator) < 0.5
    kinds = [
        damage.blended(images, others, weight),
        damage.blended(images, others, weight),
        damage.overlaid(images, others),
        torch.where(
            crossed, damage.halved(images, others), damage.halved(images, others, across=True)
        ),
        blurs,
        damage.noisy(images, 0.3, generator),
        damage.smudged(images, 0.3, generator),
        damage.smudged(damage.paler(images, 0.8), 0.1, generator),
        damage.blended(
            images,
            torch.where(crossed, shifted(images, 1, 4), shifted(images, 4, -1)),
            0.5,
        ),
    ]
    kind = torch.randint(len(kinds), (n,), generator=generator)
    result = torch.stack(kinds)[kind, torch.arange(n)]
    return torch.where((alike & (kind < 4)).view(-1, 1, 1, 1), blurs, result)


def train(work: Path, minutes: float) -> Classifier:
    """Train on the images that are not held out, from the checkpoint on."""
    torch.manual_seed(CONFIG["seed"])
    model = Classifier()
    recipe = Recipe(seed=CONFIG["seed"], **CONFIG["recipe"])
    fit(
        model,
        _loss(model, recipe),
        recipe,
        Checkpoint(work / "classifier.safetensors"),
        minutes=minutes,
    )
    return model.eval()


def _loss(model: Classifier, recipe: Recipe) -> Callable[[int], Tensor]:
    """Cross entropy over as many spoilt images as others."""
    kept = ~held_out()
    images, labels = load_images()[kept, :1].float() / 255, load_labels()[kept]

    def loss_at(step: int) -> Tensor:
        generator = recipe.generator(step)
        chosen = recipe.epoch_batch(step, len(labels))
        good, others = chosen.chunk(2)
        x = torch.cat(
            [
                varied(images[good], generator),
                spoilt(varied(images[others], generator), labels[others], generator),
            ]
        )
        y = torch.cat([labels[good], torch.full((len(others),), NONE)])
        return nn.functional.cross_entropy(
            model(x)[1], y, label_smoothing=CONFIG["label_smoothing"]
        )

    return loss_at


def main(arguments: Sequence[str] | None = None) -> None:
    """Run this step from the command line."""
    parser = options.parser("digits", "classifier", __doc__)
    options.add_work(parser, "digits")
    parser.add_argument(
        "--out", type=Path, default=options.SHIPPED / "digits" / FILE, help="file to write"
    )
    options.add_minutes(parser)
    given = parser.parse_args(arguments)
    weights = train(given.work, given.minutes).state_dict()
    tensorfile.write(given.out, KIND, VERSION, {}, {k: v.half() for k, v in weights.items()})

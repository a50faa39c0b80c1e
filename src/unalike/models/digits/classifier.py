"""The classifier of digits, which also knows pictures that show none: its use, and its training.

`python -m unalike.models.digits.classifier --work DIR` trains it, resuming, and writes
`classifier.safetensors` beside this file.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from functools import cache
from importlib import resources
from pathlib import Path

import torch
from torch import Tensor, nn

from unalike import tensorfile
from unalike.errors import OptionError
from unalike.models.digits import damage
from unalike.models.digits.data import CLASSES, SIDE, held_out, load_images, load_labels
from unalike.models.training import Checkpoint, Recipe, fit

CONFIG = json.loads((Path(__file__).parent / "train.json").read_text("utf-8"))["classifier"]
NONE = CLASSES
"""The class of pictures that show no digit."""
_KIND, _VERSION, _FILE = "unalike.classifier", 1, "classifier.safetensors"


class Classifier(nn.Module):
    """Four convolutions, a layer of features, and a layer of classes: ten digits, and none."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(CONFIG["seed"])
        layers: list[nn.Module] = []
        before = 1
        for width, stride in CONFIG["convolutions"]:
            layers += [
                nn.Conv2d(before, width, 3, stride=stride, padding=1),
                nn.GroupNorm(8, width),
                nn.SiLU(),
            ]
            before = width
        side = SIDE
        for _, stride in CONFIG["convolutions"]:
            side //= stride
        self.embed = nn.Sequential(
            *layers, nn.Flatten(), nn.Linear(before * side * side, CONFIG["features"]), nn.SiLU()
        )
        self.classes = nn.Linear(CONFIG["features"], CLASSES + 1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Features (n, d) and logits (n, 11) of images (n, 3 or 1, 16, 16) in [0, 1]."""
        features = self.embed(1 - 2 * images.mean(1, keepdim=True))
        return features, self.classes(features)


def features(images: Tensor) -> Tensor:
    """What the classifier sees in images, (n, 64) float32: for precision, recall, density, coverage
    and Fréchet distances.

    Args:
        images: (n, 3, 16, 16) with values in [0, 1].

    Raises:
        OptionError: for another shape or values outside [0, 1].

    Cost: about 0.3 ms an image on one core.

    Example:
        >>> features(load_images()[:2] / 255).shape
        torch.Size([2, 64])
    """
    return _outputs(images)[0]


def classify(images: Tensor) -> Tensor:
    """The probability of each digit, (n, 10) float32. What is missing to 1 in a row is the
    probability that the image shows none.

    Args, Raises, Cost: as for `features`.

    Example:
        >>> classify(load_images()[:3] / 255).argmax(1)
        tensor([0, 1, 2])
    """
    return _outputs(images)[1].softmax(1)[:, :CLASSES]


def check(images: Tensor) -> Tensor:
    """The images themselves.

    Raises:
        OptionError: for another shape than (n, 3, 16, 16) or values outside [0, 1].
    """
    if images.ndim != 4 or images.shape[1:] != (3, SIDE, SIDE):
        raise OptionError(
            f"images has shape {tuple(images.shape)}; allowed: (n, 3, {SIDE}, {SIDE})"
        )
    if len(images) and not (images.min() >= 0 and images.max() <= 1):
        raise OptionError("images has values outside [0, 1]; divide 8-bit pixels by 255 first")
    return images


@torch.no_grad()
def _outputs(images: Tensor) -> tuple[Tensor, Tensor]:
    parts = [shipped()(part.float()) for part in check(images).split(256)]
    return torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts])


@cache
def shipped() -> Classifier:
    """The classifier that comes with the package: images (n, 3, 16, 16) in [0, 1] to features (n,
    64) and scores (n, 11).
    """
    model = Classifier().eval()
    with resources.as_file(resources.files("unalike.models.digits").joinpath(_FILE)) as path:
        model.load_state_dict(
            {
                name: values.float()
                for name, values in tensorfile.read(path, _KIND, _VERSION)[1].items()
            }
        )
    return model


def _uniform(generator: torch.Generator, low: float, high: float, *shape: int) -> Tensor:
    return low + (high - low) * torch.rand(*shape, generator=generator)


def varied(images: Tensor, generator: torch.Generator) -> Tensor:
    """Slightly changed pictures, all of which still show their digit: turned, scaled, moved, paler,
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

    What needs two pictures takes them from different classes; pictures whose partner happens to be
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
            torch.where(crossed, damage.shifted(images, 1, 4), damage.shifted(images, 4, -1)),
            0.5,
        ),
    ]
    kind = torch.randint(len(kinds), (n,), generator=generator)
    result = torch.stack(kinds)[kind, torch.arange(n)]
    return torch.where((alike & (kind < 4)).view(-1, 1, 1, 1), blurs, result)


def train(work: Path, minutes: float) -> Classifier:
    """Train on the pictures that are not held out, from the checkpoint on."""
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
    """Cross entropy over as many spoilt pictures as others."""
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


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, help="folder of the checkpoints")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / _FILE)
    parser.add_argument(
        "--minutes", type=float, default=1e9, help="stop, with a checkpoint, after this long"
    )
    arguments = parser.parse_args()
    model = train(arguments.work, arguments.minutes)
    tensorfile.write(
        arguments.out,
        _KIND,
        _VERSION,
        {},
        {name: values.half() for name, values in model.state_dict().items()},
    )


if __name__ == "__main__":
    main()

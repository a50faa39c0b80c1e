"""Train the copy-detection encoder of emoji: `python -m training emoji copies`.

It writes `copies.safetensors` for the package, and `copies.json` with error rates. Descriptors of
two edited forms of an image are drawn together, those of other images apart; images that differ in
skin tone or gender alone count as neither. Every tenth base name is held back, and what is measured
is measured on those.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from training import options
from training.emoji import damage
from training.loop import Checkpoint, Recipe, fit
from unalike import tensorfile
from unalike.models.emoji.copies import COPY, FILE, KIND, VERSION, CopyEncoder
from unalike.models.emoji.data import entries, load_images

CONFIG = json.loads((Path(__file__).parent / "train.json").read_text("utf-8"))["copies"]
_FORMS = 4
"""Forms of each image that the autoencoder gives: as it is, and of latents with more noise."""


@cache
def families() -> Tensor:
    """(3650,) int64, equal for images that have a base name together."""
    names = {name: i for i, name in enumerate(sorted({e.base for e in entries()}))}
    found = torch.zeros(len(load_images()), dtype=torch.int64)
    for entry in entries():
        found[entry.image] = names[entry.base]
    return found


@cache
def held_back() -> Tensor:
    """(3650,) bool: images of every tenth base name, which the encoder is measured on."""
    order = torch.randperm(
        int(families().max()) + 1, generator=torch.Generator().manual_seed(CONFIG["seed"])
    )
    return order[families()] % 10 == 0


@torch.inference_mode()
def decoded_forms(work: Path) -> Tensor:
    """(4, 3650, 3, 64, 64) uint8: every image through the autoencoder of the emoji model, with
    noise on the latents of a share of their standard deviation of 0, 0.15, 0.3 and 0.45; read from
    a file of `work` where it was made before.
    """
    path = work / "forms.safetensors"
    if path.exists():
        return tensorfile.read(path, "unalike.forms", 1)[1]["forms"]
    from unalike.pipelines.loading import load

    vae, generator = load("emoji").vae, torch.Generator().manual_seed(CONFIG["seed"])
    found = torch.empty(_FORMS, *load_images().shape, dtype=torch.uint8)
    for rows in torch.arange(len(load_images())).split(64):
        latents = vae.encode(load_images()[rows].float() / 127.5 - 1).latent_dist.mean
        for form in range(_FORMS):
            noise = torch.randn(latents.shape, generator=generator)
            images = vae.decode(latents + 0.15 * form * latents.std() * noise).sample
            found[form, rows] = ((images / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8)
    work.mkdir(parents=True, exist_ok=True)
    tensorfile.write(path, "unalike.forms", 1, {}, {"forms": found})
    return found


def _uniform(generator: torch.Generator, low: float, high: float, *shape: int) -> Tensor:
    return low + (high - low) * torch.rand(*shape, generator=generator)


def edited(images: Tensor, others: Tensor, generator: torch.Generator) -> Tensor:
    """Copies of images (n, 3, 64, 64): each moved, scaled and recoloured a little or not at all,
    and of some one more thing done to it. `others` are what a few of them are mixed with.
    """
    n = len(images)

    def some(share: float, values: Tensor, neutral: float) -> Tensor:
        return torch.where(torch.rand(n, generator=generator) < share, values, neutral)

    found = damage.placed(
        images,
        degrees=some(0.3, _uniform(generator, -10, 10, n), 0.0),
        scale=some(0.6, _uniform(generator, 0.8, 1.25, n), 1.0),
        shift=_uniform(generator, -6, 6, n, 2) * (torch.rand(n, 1, generator=generator) < 0.6),
    )
    found = damage.recoloured(
        found,
        brightness=some(0.6, _uniform(generator, 0.6, 1.3, n), 1.0),
        contrast=some(0.5, _uniform(generator, 0.65, 1.3, n), 1.0),
        saturation=some(0.5, _uniform(generator, 0.3, 1.6, n), 1.0),
        hue=some(0.4, _uniform(generator, -0.04, 0.04, n), 0.0),
    )
    gains = _uniform(generator, 0.75, 1.3, n, 3)
    found = damage.tinted(found, some(0.4, gains.T, 1.0).T)
    parts = list(found.tensor_split(8))
    quality = int(torch.randint(40, 96, (1,), generator=generator))
    side = int(torch.randint(24, 56, (1,), generator=generator))
    cover = int(torch.randint(8, 22, (1,), generator=generator))
    share = float(_uniform(generator, 0.05, 0.25, 1))
    corner = tuple(torch.rand(2, generator=generator).tolist())
    parts[1] = damage.compressed(parts[1], quality)
    parts[2] = damage.resized(parts[2], side)
    parts[3] = damage.blurred(parts[3], float(_uniform(generator, 0.4, 1.8, 1)))
    parts[4] = damage.covered(parts[4], cover, generator)
    parts[5] = damage.cropped(parts[5], share, corner)
    amount = _uniform(generator, 0, 0.3, len(parts[6]))
    parts[6] = damage.blended(parts[6], others[-len(parts[6]) :], amount)
    parts[7] = damage.noisy(parts[7], _uniform(generator, 0, 0.1, len(parts[7])), generator)
    return torch.cat(parts)


def _loss(model: CopyEncoder, recipe: Recipe, work: Path) -> Callable[[int], Tensor]:
    """Cross entropy of finding each image's other form among all of the batch (NT-Xent), and the
    mean logarithm of the distance to the nearest other image, which spreads descriptors out.

    Source: SSCD, Pizzi et al. 2022 (arXiv:2202.10261), which has both.
    """
    own = (~held_back()).nonzero().flatten()
    forms = torch.cat([load_images()[None], decoded_forms(work)])
    family = families()
    order = family[own].argsort(stable=True)

    def loss_at(step: int) -> Tensor:
        generator = recipe.generator(step)
        # half of the batch are neighbours in the order of families and of Unicode: the hard ones
        begin = int(torch.randint(len(own), (1,), generator=generator))
        near = own[order.roll(-begin)[: recipe.batch // 4]]
        far = own[recipe.epoch_batch(step, len(own))[: recipe.batch - len(near)]]
        far = far[~torch.isin(far, near)]
        rows = torch.cat([near, far])
        rows = rows[torch.randperm(len(rows), generator=generator)]
        n = len(rows)
        views = []
        for _ in range(2):
            form = torch.randint(2 * _FORMS, (n,), generator=generator).clamp_max(_FORMS)
            form = (form + 1) % (_FORMS + 1)  # half of them undecoded
            images = forms[form, rows].float() / 255
            views.append(edited(images, images.roll(1, 0), generator))
        e = model(torch.cat(views).contiguous(memory_format=torch.channels_last))
        cosines = e @ e.T
        number, group = rows.repeat(2), family[rows].repeat(2)
        same = number[:, None] == number
        uncounted = (group[:, None] == group) & ~same
        itself = torch.eye(2 * n, dtype=torch.bool)
        logits = (cosines / CONFIG["temperature"]).masked_fill(uncounted | itself, -math.inf)
        partner = torch.arange(2 * n).roll(n)
        contrast = torch.nn.functional.cross_entropy(logits, partner)
        nearest = cosines.masked_fill(group[:, None] == group, -1.0).amax(dim=1)
        spread = -(2 - 2 * nearest).clamp_min(1e-6).sqrt().log().mean()
        return contrast + CONFIG["spread"] * spread

    return loss_at


def train(work: Path, minutes: float) -> CopyEncoder:
    """Train on the images that are not held back, from the checkpoint on."""
    torch.manual_seed(CONFIG["seed"])
    model = CopyEncoder()
    model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    recipe = Recipe(seed=CONFIG["seed"], **CONFIG["recipe"])
    checkpoint = Checkpoint(work / "copies.safetensors")
    fit(model, _loss(model, recipe, work), recipe, checkpoint, minutes=minutes, save_every=100)
    return model.eval()


EDITS: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "none": lambda x, g: x,
    "JPEG, quality 80": lambda x, g: damage.compressed(x, 80),
    "half the size and back": lambda x, g: damage.resized(x, 32),
    "10% cropped": lambda x, g: damage.cropped(x, 0.1),
    "25% cropped, at a corner": lambda x, g: damage.cropped(x, 0.25, (0.0, 1.0)),
    "moved by 5 pixels": lambda x, g: damage.placed(x, shift=torch.tensor([[3.0, 4.0]])),
    "turned by 8 degrees": lambda x, g: damage.placed(x, degrees=8),
    "20% darker, pale colours": lambda x, g: damage.recoloured(x, brightness=0.8, saturation=0.5),
    "blurred by 1.5 pixels": lambda x, g: damage.blurred(x, 1.5),
    "noise of 8%": lambda x, g: damage.noisy(x, 0.08, g),
    "a sticker of 18×18": lambda x, g: damage.covered(x, 18, g),
    "25% of another image": lambda x, g: damage.blended(x, x.roll(1, 0), 0.25),
}
"""The edits that the encoder is measured with; each is inside of what it was trained with."""


@torch.inference_mode()
def measured(model: CopyEncoder, work: Path) -> dict[str, Any]:
    """Error rates on the images that were held back.

    Returns:
        `images`: how many. `copy`: the distance of copies. `distances`: for each edit the
        quantiles 50%, 95% and 99% of the distance from an image to its edited form; `autoencoder`
        are those of its decoded forms.
        `missed`: for each the share that is beyond `COPY`. `others`: the quantiles 1%, 5% and 50%
        of the distance to the nearest of all images of another base name; `mistaken`: the share
        that is nearer than `COPY`; `mistaken_pairs`: the same of pairs.
    """
    own = held_back().nonzero().flatten()
    everything = torch.cat([model(part.float() / 255) for part in load_images().split(256)])
    images, known = load_images()[own].float() / 255, everything[own]
    generator = torch.Generator().manual_seed(CONFIG["seed"])
    edited_forms = {name: edit(images, generator) for name, edit in EDITS.items()}
    for form, noise in enumerate((0, 15, 30, 45)):
        name = f"autoencoder, latents with {noise}% of noise" if noise else "autoencoder"
        edited_forms[name] = decoded_forms(work)[form, own].float() / 255
    distances = {name: (model(x) - known).norm(dim=1) for name, x in edited_forms.items()}
    apart = torch.cdist(known, everything)
    apart[families()[own][:, None] == families()] = math.inf
    nearest = apart.amin(dim=1)
    return {
        "images": len(own),
        "copy": COPY,
        "distances": {name: _quantiles(d, (0.5, 0.95, 0.99)) for name, d in distances.items()},
        "missed": {name: _share(d >= COPY) for name, d in distances.items()},
        "others": _quantiles(nearest, (0.01, 0.05, 0.5)),
        "mistaken": _share(nearest < COPY),
        "mistaken_pairs": _share(apart[apart.isfinite()] < COPY),
    }


def _quantiles(values: Tensor, shares: Sequence[float]) -> list[float]:
    return [round(float(v), 3) for v in values.quantile(torch.tensor(shares))]


def _share(flags: Tensor) -> float:
    return round(float(flags.float().mean()), 5)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run this step from the command line."""
    parser = options.parser("emoji", "copies", __doc__)
    options.add_work(parser, "emoji-copies")
    parser.add_argument(
        "--out", type=Path, default=options.SHIPPED / "emoji" / FILE, help="file to write"
    )
    options.add_minutes(parser)
    given = parser.parse_args(arguments)
    model = train(given.work, given.minutes)
    weights = {k: v.half().contiguous() for k, v in model.state_dict().items()}
    tensorfile.write(given.out, KIND, VERSION, {}, weights)
    model.load_state_dict({k: v.float() for k, v in weights.items()})
    record = json.dumps(measured(model, given.work), indent=2, ensure_ascii=False)
    (Path(__file__).parent / "copies.json").write_text(record + "\n", "utf-8")

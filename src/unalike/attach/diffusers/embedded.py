"""Move images out of protected sets of pixels or features, along gradients through the decoder."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from unalike.attach.diffusers.decoding import Decoder, as_returned
from unalike.attach.diffusers.embedding import (
    Embed,
    embedding_function,
    require_fitting_embedding,
)
from unalike.errors import NumericsError, OptionError, ShieldError, StoreError
from unalike.guidance.context import Context
from unalike.guidance.protocols import ProtectedFeatures
from unalike.shields import Shield

_SLACK = 1e-4  # share of the radius by which another order of the same sums may change a distance
_MARGIN = 1e-3  # share of the radius by which an image that had to be moved ends up further out
_CENTRE = (
    1e-5  # share of the radius below which the direction from a centre is that of rounding errors
)
_PUSHES = 3
_ATTEMPTS = 64
_ROUNDS = 4
_STALLED = 0.7
_MOST_OVERSHOOT = 64.0
_LONGEST = 0.5  # of one step, as a share of the length of a standard normal latent
_NUDGE, _MOST_NUDGE = 0.01, 0.32
_BLOCK_VALUES = 1 << 22


class EmbeddedGuard:
    """A shield in the space of an embedding `e = f(image)`, with the pipeline whose images are to
    be kept out.

    What counts is the image as the pipeline returns it: decoded, clamped, and rounded to 8 bits or
    not. The two have to be outside both.

    Args:
        shield: points (m, d) of the embedding.
        pipe: a diffusers pipeline.
        embed: what made the points.
        size: height and width of the call's images, where they are given.
        pushes: steps along the gradient for one prediction, at most.

    Raises:
        OptionError, StoreError: as `require_fitting_embedding`.
        UnsupportedError: for a pipeline whose latents cannot be decoded here.

    Cost: at each step the batch is decoded and embedded once; only images inside a ball are
    differentiated, each by itself.
    """

    of_images = True

    def __init__(
        self,
        shield: Shield,
        pipe: Any,
        embed: Embed,
        *,
        size: tuple[int | None, int | None] = (None, None),
        pushes: int = _PUSHES,
    ) -> None:
        require_fitting_embedding(shield, embed)
        self.shield = shield
        self.pushes = pushes
        self.decoder = Decoder(pipe, size)
        self._embed = embedding_function(embed)
        self._device: torch.device | None = getattr(embed, "device", None)
        self._last: tuple[Tensor, Tensor] | None = None

    def regions(self, space: str, device: torch.device) -> ProtectedFeatures:
        """The balls with their way out, for the predictions of one call; whatever space its latents
        are of.
        """
        return _Regions(self)

    @torch.no_grad()
    def inside(self, latents: Tensor) -> Tensor:
        """Find the final latents (B, …) whose images lie in a ball: (B,) bool.

        Images so near to a ball that rounding decides count as inside.
        """
        images = self._decoded(latents)
        near = [
            self._within(self.features(form), self.shield.reach * (1 + _SLACK))
            for form in (images, as_returned(images))
        ]
        return torch.tensor(
            [len(a) + len(b) > 0 for a, b in zip(*near, strict=True)], device=latents.device
        )

    def move_out(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """The final latents (B, …), those inside moved out of all balls, and which were moved (B,).

        After the images were moved one by one the batch is measured again as the pipeline will
        decode it.

        Raises:
            ShieldError: for an image that cannot be moved out; see `outside`.
        """
        moved = torch.zeros(len(latents), dtype=torch.bool, device=latents.device)
        for i in range(_ROUNDS):
            inside = self.inside(latents)
            if not inside.any():
                return latents, moved
            latents, moved = latents.clone(), moved | inside
            for row in inside.nonzero().flatten().tolist():
                latents[row] = self.outside(latents[row], margin=_MARGIN * 4**i)
        raise ShieldError(
            f"images that were moved out one by one lie in balls of radius {self.shield.radius:g} "
            "again when they are decoded together; "
            "draw fewer images at a time, or use a smaller radius"
        )

    def outside(self, latent: Tensor, *, margin: float = _MARGIN) -> Tensor:
        """One final latent (…) whose image is inside a ball, moved until the image as it is
        returned lies outside all of them.

        Steps that bring little are doubled. Where there is no gradient, as at a protected point
        itself, a small pseudo-random step is taken.

        Raises:
            ShieldError: where 64 steps do not lead out, or the gradient has no finite value or none
                but 0.
        """
        x, reach = latent[None].float(), self.shield.reach
        overshoot, short, nudge, nudges = 1.0, math.inf, _NUDGE, torch.Generator().manual_seed(0)
        for _ in range(_ATTEMPTS):
            short_now, step = self._step_or_refuse(x, reach * (1 + margin))
            if short_now <= 0:  # out, and the rounded image is not
                margin *= 2
            elif step is not None:
                overshoot = (
                    min(2 * overshoot, _MOST_OVERSHOOT)
                    if short_now > _STALLED * short
                    else overshoot
                )
                x, short = x + _shortened(overshoot, step), short_now
            elif nudge <= _MOST_NUDGE:
                x, nudge = (
                    x + nudged(torch.randn(x.shape, generator=nudges).to(x), nudge),
                    2 * nudge,
                )
            else:
                break
            placed = x.to(latent)
            if torch.isfinite(placed).all() and not self.inside(placed).any():
                return placed[0]
        raise ShieldError(
            f"an image could not be moved out of balls of radius {self.shield.radius:g} in "
            f"{self.shield.space}: the gradient does not lead "
            "out; use a smaller radius, draw it again from another seed, or leave SPELL on so "
            "that it is moved while it is drawn"
        )

    @torch.no_grad()
    def nearest(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """The number (B,) of the protected point nearest to the 8-bit image of each of the final
        latents (B, …), and the distance (B,).
        """
        return self.shield.nearest(self.features(as_returned(self._decoded(latents))))

    @torch.no_grad()
    def nearest_to_images(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The same for finished images (B, 3, h, w) in [0, 1], as they are."""
        return self.shield.nearest(self.features(images.float()))

    def features(self, images: Tensor) -> Tensor:
        """The vectors (B, d) of images (B, 3, h, w) in [0, 1].

        Raises:
            StoreError: for vectors of another size than the shield's.
            NumericsError: for NaN or infinity.
        """
        e = self._embed(images if self._device is None else images.to(self._device))
        if not isinstance(e, Tensor) or tuple(e.shape) != (len(images), *self.shield.shape):
            got = tuple(e.shape) if isinstance(e, Tensor) else type(e).__name__
            raise StoreError(
                f"embed makes {got} of {len(images)} images and the shield protects vectors of "
                f"shape {self.shield.shape}; "
                "build the shield with the same embedding, one vector an image"
            )
        if not torch.isfinite(e).all():
            raise NumericsError(
                f"the vectors {self.shield.space} of the images have NaN or infinite values; use "
                "float32 or bfloat16 for the autoencoder"
            )
        return e

    def _decoded(self, latents: Tensor) -> Tensor:
        """The images (B, 3, h, w) of latents; those of the last ones are kept."""
        if self._last is None or self._last[0] is not latents:
            with self.decoder.open():
                self._last = latents, self.decoder.images(latents)
        return self._last[1]

    def step_out(self, x: Tensor, radius: float) -> tuple[float, Tensor | None]:
        """Measure how far the image of a latent is from the nearest ball, and step out of it.

        For a latent x (1, …) float32: the distance to the ball's surface, and a step (1, …).

        The step is None outside, where the distance is not above 0, and inside where there is no
        gradient. Gradients of the image are scaled before they go on to the decoder, which may be
        in float16.
        """
        with torch.inference_mode(False), torch.enable_grad(), self.decoder.open():
            leaf = x.detach().clone().requires_grad_()
            images = self.decoder.images(leaf)
            pixels = images.detach().clone().requires_grad_()
            e = self.features(pixels)
            short, way = self._way(e.detach(), radius)
            if way is None:
                return short, None
            if not e.requires_grad:
                raise OptionError(
                    "embed gives vectors without a gradient; leave out no_grad and detach, and "
                    "anything outside torch"
                )
            length = way.norm()
            (back,) = torch.autograd.grad(e, pixels, (way / length).to(e).view_as(e))
            largest = back.abs().max().item()
            if largest == 0:
                return short, None
            (gradient,) = torch.autograd.grad(images, leaf, back / largest)
        steepness = gradient.norm().item()
        if not math.isfinite(steepness):
            raise NumericsError(
                f"the gradient of {self.shield.space} with respect to the latents has NaN or "
                "infinite values"
            )
        return short, None if steepness == 0 else _shortened(
            length.item() / largest / steepness**2, gradient
        )

    def _way(self, e: Tensor, radius: float) -> tuple[float, Tensor | None]:
        """The sum `Σ_k max(0, r / ||e - z_k|| - 1) · (e - z_k)` (d,) for e (1, d), or the way from
        the nearest `z_k` where it is 0.
        """
        rows, point = self._within(e, radius)[0], e.cpu().double()
        if len(rows) == 0:
            return 0.0, None
        total, closest, nearest = torch.zeros_like(point[0]), torch.zeros_like(point[0]), math.inf
        size = max(1, _BLOCK_VALUES // e.shape[1])
        for begin in range(0, len(rows), size):
            away = (
                point
                - torch.from_numpy(self.shield.vectors.rows(rows[begin : begin + size])).double()
            )
            distance = away.norm(dim=1)
            first = int(distance.argmin())
            if distance[first] < nearest:
                nearest, closest = float(distance[first]), away[first]
            apart = distance > _CENTRE * radius
            total += (radius / distance[apart] - 1).clamp_min(0) @ away[apart]
        if total.norm() <= 1e-9 * radius:  # the balls' ways cancel
            total = (
                (radius / nearest - 1) * closest
                if nearest > _CENTRE * radius
                else torch.zeros_like(closest)
            )
        return radius - nearest, total if total.any() else None

    def _within(self, e: Tensor, radius: float) -> list[Any]:
        return self.shield.search(e.device).within(_rows(e), radius)

    def _step_or_refuse(self, x: Tensor, radius: float) -> tuple[float, Tensor | None]:
        try:
            return self.step_out(x, radius)
        except NumericsError as error:
            raise ShieldError(
                f"an image could not be moved out of balls of radius {self.shield.radius:g}: "
                f"{error}"
            ) from error


class _Regions:
    """The balls of a guard, as methods see them during one call."""

    def __init__(self, guard: EmbeddedGuard) -> None:
        self._guard = guard
        self._trajectory: Any = None

    def __len__(self) -> int:
        return len(self._guard.shield)

    def way_out(self, x0: Tensor, context: Context) -> Tensor | None:
        """The moves of the predictions x0 (B, …) out of the balls.

        Exactly 0 for images that lie in no ball; None where none lies in one.
        """
        guard, x = self._guard, x0.detach()
        with torch.no_grad(), guard.decoder.open():
            e = guard.features(guard.decoder.images(x))
        self._trajectory = self._trajectory or guard.shield.trajectory(guard.shield.space, e.device)
        touched = [i for i, rows in enumerate(self._trajectory.within(_rows(e))) if len(rows)]
        if not touched:
            return None
        out = torch.zeros_like(x)
        for i in touched:
            noise = context.x_t[i : i + 1].to(x) - context.level.alpha * x[i : i + 1]
            out[i] = (self._moved(x[i : i + 1], noise) - x[i : i + 1])[0]
        return out

    def _moved(self, x: Tensor, noise: Tensor) -> Tensor:
        guard = self._guard
        for k in range(guard.pushes):
            short, step = guard.step_out(x, guard.shield.reach)
            if short <= 0:
                break
            x = x + (nudged(noise, _NUDGE * 2**k) if step is None else step)
        return x


def nudged(direction: Tensor, share: float) -> Tensor:
    """A step along a direction, or the diagonal where it is 0, of a share of the length of a
    standard normal latent.
    """
    along = direction if direction.any() else torch.ones_like(direction)
    return share * math.sqrt(along.numel()) / along.norm() * along


def _shortened(size: float, step: Tensor) -> Tensor:
    """A multiple of a step, but not so long that the gradient says nothing about where it leads."""
    return step * min(size, _LONGEST * math.sqrt(step.numel()) / step.norm().item())


def _rows(e: Tensor) -> Any:
    return e.detach().to(device="cpu", dtype=torch.float64).numpy()

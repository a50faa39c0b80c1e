"""Reports of a guided call, image by image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from unalike.attach.run.memorisation import Memorisation
from unalike.guidance.run import Trace
from unalike.shields.search import nearest


@dataclass(frozen=True)
class Nearest:
    """The sample nearest to an image among its batch and the memory as it was before the call.

    Attributes:
        index: row in the batch, or in the memory's view of the space, oldest first.
        source: "batch" or "memory".
        distance: Euclidean, between final latents.
    """

    index: int
    source: str
    distance: float


@dataclass(frozen=True)
class Decoded:
    """The position of a finished image that is encoded again.

    Anybody who has nothing but the image can measure this.

    An autoencoder does not return exactly the latent that it decoded, so this distance differs from
    that of the final latent, and an image whose latent is outside may be inside by this measure.
    With on_violation="redraw" both are guaranteed, with the others the latent alone.

    Attributes:
        nearest_id: the protected point nearest to it.
        distance: Euclidean distance to that, as it is stored.
        inside: whether that is within a ball.
    """

    nearest_id: str
    distance: float
    inside: bool


@dataclass(frozen=True)
class Certificate:
    """A certificate: the exact distance of the final latent from the protected set.

    The image is outside every protected ball, unless it is refused.

    With a shield of latents that is the final latent; with one of an embedding the finished image,
    rounded to 8 bits.

    Attributes:
        nearest_id: the nearest protected point.
        distance: Euclidean distance to it as it is stored.
        radius: of the balls.
        margin: how much further than the radius the image is at least from what was protected:
            `distance - radius`, less what storing it in float16 may have changed; below 0 only for
            a refused image.
        moved: whether it had to be moved out after the last step.
        space: of the protected set.
        checksum: of the protected set.
        steps_moved: at how many steps SPELL moved its prediction, out of protected balls or those
            of memory and batch.
        decoded: the same for the finished image encoded again; None where the call returned
            something else than images, or the pipeline has no encoder for them.
    """

    nearest_id: str
    distance: float
    radius: float
    margin: float
    moved: bool
    space: str
    checksum: str
    steps_moved: int = 0
    decoded: Decoded | None = None


@dataclass(frozen=True)
class ImageReport:
    """The report of one image.

    Attributes:
        index: row in the batch.
        prompt: its prompt or class name; None where the host has none.
        group: equal for images of the same prompt.
        corrections: per method and step, the size of the correction as a share of the denoiser's
            own step; 0 where it did nothing.
        corrections_of_x0: the same as a share of the norm of the predicted clean latent.
        active: per method, the share of steps at which it did something.
        nearest: its nearest neighbour; None where there is no other sample, and for an image that
            is not returned.
        certificate: None without a shield; with several, that of the one that the image is nearest
            to, in units of its radius.
        certificates: those of all shields, in their order.
        attempts: how often it was drawn from a seed; 1 is the first draw.
        restarts: how often it was drawn again from its own finished latents, noised to an earlier
            level. A seed alone does not draw an image again that was restarted last.
        refused: whether it is inside the protected set, so that it was not returned.
        flagged: whether the pipeline's safety checker withheld it, so that it is not remembered.
        regions: per method with a region, the share of the image that it covers, as it was at the
            last step.
        seed: draws this image again, alone or in a batch, as in `generator=[torch.Generator()
            .manual_seed(seed)]`; None where no seed does, as with a generator that was used before
            the call, or one that several images share.
        memorisation: the sizes of its latent updates, without the shield's moves; None for a
            function, which shows no steps.
    """

    index: int
    prompt: str | None
    group: int
    corrections: dict[str, list[float]]
    corrections_of_x0: dict[str, list[float]]
    active: dict[str, float]
    nearest: Nearest | None
    certificate: Certificate | None
    attempts: int = 1
    restarts: int = 0
    refused: bool = False
    regions: dict[str, float] = field(default_factory=dict)
    seed: int | None = None
    flagged: bool = False
    certificates: list[Certificate] = field(default_factory=list)
    memorisation: Memorisation | None = None


@dataclass(frozen=True)
class Report:
    """The report of a guided call; `print` shows a line for each image.

    Attributes:
        images: one entry for each image of the batch.
        steps: number of model evaluations of each draw.
        space: the latent space and that of the prompt embeddings, as `Memory` names them.
        finished: whether the last step was reached; an interrupted run leaves nothing in the
            memory.
        methods: name and options of each method as it was used, with what was measured for it
            (`radius="auto"`).
        shield: `size`, `space`, `radius`, `rounding` and `checksum` of the protected set, and
            `radius_source`, how an automatic radius was found; None without one, and of several
            the first.
        shields: the same of each protected set, in their order.
        unguided: names of schedulers that the pipeline stepped besides its own, such as those of a
            prior or of a video's sound: what they draw was neither guided nor measured.
        calls: evaluations of one image by the model, in all: those of candidates, of images that
            were drawn again, and those that methods ask for before the first step, too. With
            classifier-free guidance both halves are one.
        candidates: how many candidates each image was chosen from; 1 where it was not.
        reused: how many of the first evaluations were taken over from the chosen candidates, so
            that they cost nothing again.
    """

    images: list[ImageReport] = field(default_factory=list)
    steps: int = 0
    space: str = ""
    finished: bool = True
    methods: list[dict[str, Any]] = field(default_factory=list)
    shield: dict[str, Any] | None = None
    unguided: list[str] = field(default_factory=list)
    calls: int = 0
    candidates: int = 1
    reused: int = 0
    shields: list[dict[str, Any]] = field(default_factory=list)

    def __str__(self) -> str:
        count, end = len(self.images), "" if self.finished else ", stopped before the last step"
        lines = [f"{count} image{'' if count == 1 else 's'} in {self.steps} steps{end}"]
        if self.candidates > 1:
            again = f", {self.reused} of them reused" if self.reused else ""
            lines.append(
                f"each chosen from {self.candidates} candidates; {self.calls} evaluations{again}"
            )
        lines += [f"not guided: {name}" for name in self.unguided]
        return "\n".join([*lines, *map(_line, self.images)])

    def chosen_from(self, candidates: int, calls: int) -> Report:
        """The report of a call whose images were chosen from so many candidates each, at the cost
        of so many evaluations.
        """
        return replace(self, candidates=candidates, calls=self.calls + calls)

    def to_dict(self) -> dict[str, Any]:
        """The report as nested dictionaries and lists, ready for JSON."""
        return asdict(self)


def _line(image: ImageReport) -> str:
    """A line on one image, for people."""
    parts = [f"{name} acted in {share:.0%} of the steps" for name, share in image.active.items()]
    if image.nearest is not None:
        near = image.nearest
        parts.append(f"nearest {near.source} {near.index} at {near.distance:.4g}")
    if (proof := image.certificate) is not None:
        parts.append(f"margin {proof.margin:.4g} to {proof.nearest_id!r}")
        if proof.decoded is not None:
            place = "inside" if proof.decoded.inside else "outside"
            parts.append(f"finished image {place}, at {proof.decoded.distance:.4g}")
    parts += [word for word in ("refused", "flagged") if getattr(image, word)]
    name = f"{image.index}" if image.prompt is None else f"{image.index} {image.prompt!r}"
    return f"{name}: {'; '.join(parts) or 'not guided'}"


def tightest(certificates: Sequence[Certificate]) -> Certificate | None:
    """The certificate of the protected set that an image is nearest to, in units of its radius;
    None for none.

    A finished image that is encoded again counts where it is nearer than what is certified.
    """

    def place(found: Certificate) -> float:
        decoded = [] if found.decoded is None else [found.decoded.distance]
        return min([found.distance, *decoded]) / found.radius

    return min(certificates, key=place, default=None)


def nearest_neighbours(latents: Tensor, memory: Tensor | None) -> list[Nearest | None]:
    """Find the nearest neighbour of each final latent (B, …) in the batch and the memory (n, d).

    Ties go to the batch.
    """
    rows = latents.flatten(1)
    rows = rows.cpu() if rows.device.type == "mps" else rows  # which has no float64
    found: list[Nearest | None] = [None] * len(rows)
    for source, others in (("batch", rows if len(rows) > 1 else None), ("memory", memory)):
        if others is None or len(others) == 0:
            continue
        index, distance = nearest(rows, others.to(rows.device), skip_own=source == "batch")
        for i, (k, d) in enumerate(zip(index.tolist(), distance.tolist(), strict=True)):
            best = found[i]
            if best is None or d < best.distance:
                found[i] = Nearest(k, source, d)
    return found


def image_reports(
    traces: Sequence[Trace],
    groups: Tensor,
    texts: Sequence[str] | None,
    certificates: Sequence[Sequence[Certificate]],
    covered: Sequence[Sequence[float] | None],
    seeds: Sequence[int | None] | None = None,
    memorisations: Sequence[Memorisation | None] | None = None,
) -> list[ImageReport]:
    """Build one report for each image from the traces of a run, without its neighbours.

    Two methods of the same name are told apart as `name`, `name-2`, … `covered` has for each trace
    the share of each image that the region of its method covers; None where it has none.
    """
    names = _distinct([trace.method for trace in traces])
    of_step = {
        name: _by_image(trace.of_step, len(groups))
        for name, trace in zip(names, traces, strict=True)
    }
    of_x0 = {
        name: _by_image(trace.of_x0, len(groups)) for name, trace in zip(names, traces, strict=True)
    }
    active = {
        name: _by_image(trace.active, len(groups))
        for name, trace in zip(names, traces, strict=True)
    }
    return [
        ImageReport(
            index=i,
            prompt=None if texts is None else texts[i],
            group=int(groups[i]),
            corrections={name: of_step[name][i] for name in names},
            corrections_of_x0={name: of_x0[name][i] for name in names},
            active={name: sum(active[name][i]) / max(1, len(active[name][i])) for name in names},
            nearest=None,
            certificate=tightest(certificates[i]),
            certificates=list(certificates[i]),
            regions={
                name: shares[i]
                for name, shares in zip(names, covered, strict=True)
                if shares is not None
            },
            seed=None if seeds is None else seeds[i],
            memorisation=None if memorisations is None else memorisations[i],
        )
        for i in range(len(groups))
    ]


def steps_active(traces: Sequence[Trace], method: str, images: int) -> list[int]:
    """Count the steps at which a method of this name acted on each image: (B,)."""
    own = [torch.stack(trace.active) for trace in traces if trace.method == method and trace.active]
    if not own:
        return [0] * images
    return torch.stack(own).any(dim=0).sum(dim=0).tolist()


def _by_image(rows: list[Tensor], images: int) -> list[list[Any]]:
    return torch.stack(rows).T.tolist() if rows else [[] for _ in range(images)]


def _distinct(names: Sequence[str]) -> list[str]:
    seen: dict[str, int] = {}
    result = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        result.append(name if seen[name] == 1 else f"{name}-{seen[name]}")
    return result

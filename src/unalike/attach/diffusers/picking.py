"""Pick each image of a call out of several candidates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unalike.attach.diffusers import levels
from unalike.attach.diffusers.evaluation import Evaluated, counted, evaluate
from unalike.attach.diffusers.host import Host
from unalike.attach.diffusers.layouts import lists_images
from unalike.attach.diffusers.prompts import Prompts
from unalike.attach.diffusers.recording import Evaluation, assembled
from unalike.attach.run.candidates import Candidates, Pool
from unalike.attach.run.encoders import Encoder
from unalike.attach.run.fewer import NUMBER
from unalike.attach.run.guard import Guard, inside_any
from unalike.attach.run.models import Models
from unalike.attach.run.randomness import Randomness, advance, derived_seed, occurrences
from unalike.attach.spaces import latent_space, memory_space
from unalike.errors import OptionError, UnsupportedError, named
from unalike.guidance.method import HOOKS, Method
from unalike.guidance.protocols import References
from unalike.memory import Memory

_BY_STEPS = frozenset({"cfg_trunc_ratio"})
"""Arguments of pipelines that count their steps against the number that was asked for."""


@dataclass(frozen=True)
class Picked:
    """The candidates that a call is made of.

    Attributes:
        generator: new, one for each image, each with the seed of its candidate; for one image not
            in a list, which some pipelines do not take.
        evaluations: what the denoisers did for these candidates, as a call of them would ask.
        calls: evaluations of one image that were spent.
        count: candidates for each image.
    """

    generator: torch.Generator | list[torch.Generator]
    evaluations: list[Evaluation]
    calls: int
    count: int


def suggested(
    pipe: Any, methods: Sequence[Method], arguments: dict[str, Any], *, remembering: bool
) -> Candidates:
    """The candidates that the methods of a call ask for; one where nothing can be chosen: with
    `latents` given, or where no image has another of its prompt or an earlier one beside it.
    """
    steps, crowded = _steps(arguments), remembering or _several_of_one_prompt(arguments)
    again = repeats_steps(pipe, arguments, remembering=remembering)
    found = [m.candidates_for(steps, again=again) for m in methods] if steps is not None else []
    count = max(found, default=1)
    chosen = count > 1 and crowded and arguments.get("latents") is None
    if not chosen or "generator" not in Host(pipe).parameters:
        return Candidates(count=1)
    return Candidates(count=count, objective="log-determinant")


def repeats_steps(pipe: Any, arguments: dict[str, Any], *, remembering: bool) -> bool:
    """Whether methods may have the steps of a call taken again: where an image has another of its
    prompt or an earlier one beside it, the schedule is taken whole, from noise, and the solver
    remembers nothing.
    """
    host = Host(pipe)
    if host.is_modular or not _BY_STEPS.isdisjoint(host.parameters):
        return False  # they end guidance by the number of steps that they were asked for
    edits = "strength" in host.parameters
    begun = any(arguments.get(name) is not None for name in ("image", "video")) and edits
    ends = [arguments.get(name) for name in ("denoising_start", "denoising_end")]
    whole = not begun and ends == [None, None] and levels.takes_steps_again(pipe.scheduler)
    return whole and (remembering or _several_of_one_prompt(arguments))


def _steps(arguments: dict[str, Any]) -> int | None:
    """The steps that a call asks for, by their number or their levels; None where it does not."""
    given = [arguments.get(name) for name in ("sigmas", "timesteps")]
    levels = next((value for value in given if value is not None), None)
    steps = arguments.get("num_inference_steps") if levels is None else len(levels)
    return steps if isinstance(steps, int) else None


def _several_of_one_prompt(arguments: dict[str, Any]) -> bool:
    asked = [arguments.get(name) for name in ("prompt", "prompt_embeds", "class_labels")]
    given = next((value for value in asked if value is not None), None)
    texts = list(given) if isinstance(given, list | tuple) else None
    repeated = texts is not None and len(set(map(repr, texts))) < len(texts)
    numbers = [n for name, n in arguments.items() if NUMBER.fullmatch(name) and n is not None]
    return repeated or max(numbers, default=1) > 1


def pick(
    pipe: Any,
    arguments: dict[str, Any],
    how: Candidates,
    *,
    memory: Memory | None,
    models: Models,
    guards: Sequence[Guard],
    encoder: Encoder | None,
    groups: Sequence[int] | Tensor | None,
) -> Picked:
    """Evaluate `how.count` candidates for each image of a call, and choose as many as there are
    images: those of a prompt out of all candidates of that prompt.

    The candidates' seeds derive from the states of the call's generators, which then go on as if
    images had been drawn from them; the first candidate of an image with a fresh generator is that
    generator's own image. Each round is the call itself with other generators, so whatever can be
    called can be chosen from.

    Args:
        pipe: a diffusers pipeline.
        arguments: of the call, by name.
        how: to choose.
        memory: earlier generations.
        models: names of the pipeline's.
        guards: of the protected sets; candidates that head into one are taken only where there are
            too few others.
        encoder: embeds the prompts in place of the pipeline's text encoder.
        groups: as of `guide`.

    Raises:
        OptionError: for explicit latents.
        UnsupportedError: where the number of images is not known before, or changes.
    """
    if arguments.get("latents") is not None:
        raise OptionError(
            named(
                "latents are given and {candidates} is {}: images of fixed noise cannot be chosen; "
                "leave latents out, or {candidates=1}",
                how.count,
            )
        )
    given = arguments.get("generator")
    images = _images(pipe, arguments, encoder, groups)
    seeds = _seeds(given, images, how.count)
    rounds: list[Evaluated] = []
    with counted(pipe, None, images * how.count) as done:
        for row in seeds:
            generators = [_like(given, seed) for seed in row]
            asked = {**arguments, "generator": generators if images > 1 else generators[0]}
            rounds.append(evaluate(pipe, asked, how.evaluations, encoder=encoder, groups=groups))
            _require_images(rounds[-1], images)
            done(images)
    conditions = rounds[0].conditions
    each = _pools(arguments, conditions.groups.tolist(), conditions.texts)
    inside = torch.cat([inside_any(guards, part.x0) for part in rounds])
    pool_groups = each.repeat(how.count)
    pool = pool_of(rounds, pool_groups, _allowed(inside, pool_groups, each), how)
    counts = [int((each == group).sum()) for group in each.unique().tolist()]
    found = pool.choose(counts, how, remembered(memory, models, pool))
    choice: list[tuple[int, int]] = [(0, 0)] * images
    for group, chosen in zip(each.unique().tolist(), found.chosen, strict=True):
        places = (each == group).nonzero().flatten().tolist()
        for place, candidate in zip(places, chosen, strict=True):
            choice[place] = divmod(candidate, images)
    generators = [_like(given, seeds[r][place]) for r, place in choice]
    return Picked(
        generator=generators if images > 1 else generators[0],
        evaluations=assembled([part.made for part in rounds], choice),
        calls=sum(part.calls for part in rounds),
        count=how.count,
    )


def pool_of(parts: Sequence[Evaluated], groups: Tensor, allowed: Tensor, how: Candidates) -> Pool:
    """The candidates of several calls together.

    Args:
        parts: the calls, in order.
        groups: (M,) of all candidates.
        allowed: (M,) bool.
        how: says which quality is needed.

    Raises:
        OptionError: for a quality that the pipeline does not tell.
    """
    x0 = torch.cat([part.x0 for part in parts])
    embeddings = [p.conditions.embeddings for p in parts if p.conditions.embeddings is not None]
    before = [part.before for part in parts if part.before is not None]
    agreed = [a for p in parts if how.quality == "agreement" and (a := p.agreement) is not None]
    return Pool(
        features=x0,
        x0=x0,
        before=torch.cat(before) if len(before) == len(parts) else None,
        agreement=torch.cat(agreed) if len(agreed) == len(parts) else None,
        groups=groups,
        prompts=torch.cat(embeddings).cpu() if len(embeddings) == len(parts) else None,
        allowed=allowed,
    )


def remembered(memory: Memory | None, models: Models, pool: Pool) -> References | None:
    """The samples of a memory that are in the space of the candidates; None for none."""
    if memory is None:
        return None
    space = latent_space(models.latents, tuple(pool.x0.shape[1:]))
    size = None if pool.prompts is None else pool.prompts.shape[1]
    return memory.view(memory_space(space, models.prompts, size))


def repeatable(methods: Sequence[Method]) -> bool:
    """Whether the first evaluation of a call is the same with these methods as without: none acts
    on what the model is given, or watches it.
    """
    changing = [hook for hook in HOOKS if hook not in ("x0_delta", "renewal")]
    return not any(
        getattr(method, "region", None) is not None or any(map(method.defines, changing))
        for method in methods
    )


def _images(
    pipe: Any,
    arguments: dict[str, Any],
    encoder: Encoder | None,
    groups: Sequence[int] | Tensor | None,
) -> int:
    """The number of images that a call makes."""
    given = arguments.get("generator")
    if isinstance(given, list | tuple):
        return len(given)
    return Prompts(pipe, arguments, encoder, groups).asked or arguments.get("batch_size") or 1


def _require_images(part: Evaluated, images: int) -> None:
    if len(part.x0) != images:
        raise UnsupportedError(
            f"the call makes {len(part.x0)} images and {images} were expected; give one generator "
            "for each image, as in generator=[torch.Generator().manual_seed(i) for i in range("
            f"{len(part.x0)})]"
        )


def _seeds(given: Any, images: int, count: int) -> list[list[int]]:
    """The seeds of `count` candidates for each image: a list for each round."""
    own = list(given) if isinstance(given, list | tuple) else [given]
    for one in own:
        if one is not None and not isinstance(one, torch.Generator):
            raise OptionError(
                f"generator has a {type(one).__name__}; allowed: a torch.Generator, or one for "
                "each image, as in generator=torch.Generator().manual_seed(0)"
            )
    if own == [None]:
        fresh = int(torch.randint(2**63 - 1, (1,)))
        own = [torch.Generator().manual_seed(fresh)]
    sources = own if len(own) == images else own * images
    places = occurrences(sources)
    first = Randomness(own).seeds(images) or [None] * images
    result = [
        [
            known if r == 0 and known is not None else derived_seed(g, r, place, 0)
            for g, place, known in zip(sources, places, first, strict=True)
        ]
        for r in range(count)
    ]
    advance(own)
    return result


def _like(given: Any, seed: int) -> torch.Generator:
    one = given[0] if isinstance(given, list | tuple) else given
    device = one.device if isinstance(one, torch.Generator) else "cpu"
    return torch.Generator(device).manual_seed(seed)


def _pools(arguments: dict[str, Any], groups: list[int], texts: list[str] | None) -> Tensor:
    """(B,) equal for images that are chosen from the same candidates: those of one prompt, and each
    by itself where each has an image of its own to start from.
    """
    if lists_images(arguments, len(groups)):
        return torch.arange(len(groups))
    keys = list(zip(groups, texts or groups, strict=True))
    order = {key: i for i, key in enumerate(dict.fromkeys(keys))}
    return torch.tensor([order[key] for key in keys])


def _allowed(inside: Tensor, groups: Tensor, each: Tensor) -> Tensor:
    """The candidates that do not head into the protected set; all of a group where those are too
    few.
    """
    result = ~inside
    for group in each.unique().tolist():
        own = groups == group
        if int(result[own].sum()) < int((each == group).sum()):
            result[own] = True
    return result

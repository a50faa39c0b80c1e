"""`choose`: seeds whose images are unlike each other, found by the first evaluations alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from unalike.attach.diffusers.arguments import completed
from unalike.attach.diffusers.evaluation import (
    Evaluated,
    Progress,
    counted,
    evaluate,
    require_seeds,
)
from unalike.attach.diffusers.guards import (
    Embeds,
    Shields,
    guards_of,
    require_fitting_shield,
    require_pipeline,
    require_stores,
)
from unalike.attach.diffusers.known_models import KnownModels
from unalike.attach.diffusers.layouts import Images
from unalike.attach.diffusers.picking import pool_of, remembered
from unalike.attach.run import encoders
from unalike.attach.run.candidates import AUTO, Candidates
from unalike.attach.run.choice import Choice, Chosen, take
from unalike.attach.run.encoders import PromptEncoder
from unalike.attach.run.guard import inside_any
from unalike.attach.run.models import Models, require_same_models
from unalike.errors import Option, OptionError, ShieldError, named
from unalike.memory import Memory
from unalike.options import LARGEST_SEED, plain_number
from unalike.selection.greedy import MOST

_WHOLE = {"num": (1, MOST), "candidates": (1, MOST), "batch_size": (1, MOST)}


def choose(
    pipe: Any,
    prompt: Any = None,
    *,
    num: int = 8,
    candidates: int = 64,
    seed: int = 0,
    memory: Memory | None = None,
    shield: Shields = None,
    embed: Embeds = None,
    step: int | str = AUTO,
    objective: str = "farthest",
    quality: str | None = None,
    weight: float = 0.25,
    batch_size: int = 16,
    prompt_encoder: PromptEncoder | None = None,
    progress: Progress | None = None,
    **arguments: Any,
) -> Choice:
    """Choose seeds whose images are unlike each other, unlike a memory and outside of a shield.

    Each candidate is evaluated once or twice and compared by what the model predicts then; nothing
    is drawn. The images of the chosen seeds are those that the pipeline itself draws from them,
    here and in any other tool.

    Args:
        pipe: a diffusers pipeline.
        prompt: as of the pipeline; one, or a list, of each of which `num` seeds are chosen.
        num: seeds to choose for each prompt.
        candidates: seeds to choose from for each prompt; at least `num`.
        seed: candidate `i` of each prompt has the seed `seed + i`.
        memory: earlier generations, to be unlike. Images of like prompts count, as in SPARKE.
        shield: a protected set. Candidates whose prediction lies in a ball of it are left out;
            only `guide(pipe, shield=…)` certifies finished images.
        embed: what made the vectors of a shield in an embedding, as of `guide`.
        step: by how many evaluations each candidate is judged; "auto" for 1 in runs of up to 4
            evaluations, else 2.
        objective, quality, weight: see `unalike.attach.Candidates`.
        batch_size: candidates evaluated at a time.
        prompt_encoder: as of `guide`.
        progress: told of the candidates that are done, in place of the pipeline's own bar.
        **arguments: of the pipeline: steps, guidance scale, size, an image to start from. Those of
            the model where the pipeline was loaded by its name.

    Returns:
        The seeds with distances, counts and predictions; equal for equal arguments.

    Raises:
        OptionError: for more to choose than candidates, a step beyond the run, a seed out of range,
            or an argument that the pipeline has not.
        UnsupportedError: for a pipeline that takes no generator, or cannot be guided.
        StoreError: for a shield or a memory of another model.
        ShieldError: where too few candidates stay out of the shield.

    Cost: `candidates · step` evaluations of the model for each prompt; 4 bytes for each number of a
    latent and candidate, and one kernel matrix.

    Example:
        >>> from unalike import load
        >>> choice = choose(load("emoji"), "heart", num=2, candidates=4, num_inference_steps=4)
        >>> len(choice.seeds), choice.calls
        (2, 4)
    """
    _require_counts({"num": num, "candidates": candidates, "batch_size": batch_size}, seed)
    how = Candidates(
        count=candidates, step=step, objective=objective, quality=quality, weight=weight
    )
    _require_pipeline(pipe)
    require_stores("choose(pipe, 'cat'", memory, shield)
    if prompt is not None:
        arguments = {"prompt": prompt, **arguments}
    _require_arguments(arguments)
    arguments = completed(pipe, (), arguments)
    images = Images(pipe, arguments)
    total = images.prompts * candidates
    if total > MOST:
        raise OptionError(named("there are {} candidates in all; allowed: at most {}", total, MOST))
    encoder = encoders.prompt_encoder(prompt_encoder)
    models = KnownModels().look(pipe, encoder)
    require_fitting_shield(pipe, shield, embed, models)
    guards = guards_of(pipe, shield, embed, arguments)
    if memory is not None:
        memory.refresh()
        require_same_models(memory, models)
    parts: list[Evaluated] = []
    inside: list[Tensor] = []

    def run(asked: dict[str, Any], count: int) -> Evaluated:
        found = evaluate(pipe, asked, how.evaluations, encoder=encoder)
        if len(found.x0) != count:
            raise ValueError(f"{len(found.x0)} images for {count}")
        return found

    with counted(pipe, progress, total) as done:
        for number in range(images.prompts):
            for start in range(0, candidates, batch_size):
                seeds = range(seed + start, seed + min(candidates, start + batch_size))
                for part in images.call(run, number, seeds):
                    parts.append(replace(part, made=[]))  # which is several times as large
                    inside.append(inside_any(guards, part.x0))
                    done(len(part.x0))
    return _choice(parts, torch.cat(inside), images.prompts, how, num, seed, memory, models)


def _choice(
    parts: list[Evaluated],
    inside: Tensor,
    prompts: int,
    how: Candidates,
    num: int,
    seed: int,
    memory: Memory | None,
    models: Models,
) -> Choice:
    groups = torch.arange(prompts).repeat_interleave(how.count)
    _require_outside(inside, groups, num)
    pool = pool_of(parts, groups, ~inside, how)
    found = pool.choose(num, how, remembered(memory, models, pool))
    texts = [text for part in parts for text in part.conditions.texts or [None] * len(part.x0)]
    chosen = [
        Chosen(
            prompt=texts[g * how.count],
            seeds=[seed + i - g * how.count for i in found.chosen[g]],
            distances=found.distances[g],
            gains=found.gains[g],
            dropped=[seed + i for i in inside[groups == g].nonzero().flatten().tolist()],
        )
        for g in range(prompts)
    ]
    return Choice(
        prompts=chosen,
        num=num,
        candidates=how.count,
        step=parts[0].step,
        steps=parts[0].steps,
        calls=sum(part.calls for part in parts),
        objective=how.objective,
        latents=take(pool.x0, found.chosen),
    )


def _require_counts(counts: dict[str, Any], seed: Any) -> None:
    for name, value in counts.items():
        low, high = _WHOLE[name]
        number = plain_number(value)
        if not isinstance(number, int) or not low <= number <= high:
            raise OptionError(
                named(
                    "{} is {!r}; allowed: a whole number at least {} and at most {:,}",
                    Option(name),
                    value,
                    low,
                    high,
                )
            )
    num, candidates = counts["num"], counts["candidates"]
    if candidates < num:
        raise OptionError(
            named(
                "{candidates} is {} and {num} is {}; there must be at least as many candidates as "
                "seeds to choose, as in {}",
                candidates,
                num,
                Option("candidates", 4 * num),
            )
        )
    number = plain_number(seed)
    if not isinstance(number, int) or not 0 <= number <= LARGEST_SEED - candidates:
        raise OptionError(
            named(
                "{seed} is {!r}; allowed: a whole number at least 0 and at most 2**63 less the "
                "number of candidates, as in {seed=0}",
                seed,
            )
        )


def _require_pipeline(pipe: Any) -> None:
    from unalike.attach.diffusers.pipeline import GuidedPipeline

    if issubclass(type(pipe), GuidedPipeline):  # not the class that it tells
        raise OptionError(
            "pipe is guided; give the pipeline itself, as in choose(guided.pipe, …), or let the "
            "call choose, as in guide(pipe, candidates=4)"
        )
    require_pipeline(pipe, "choose(load('emoji'), 'heart')")
    require_seeds(pipe)


def _require_arguments(arguments: dict[str, Any]) -> None:
    for name, instead in (
        ("generator", "seed= is the first of the candidates"),
        ("latents", "candidates differ by the noise that they start from"),
    ):
        if arguments.get(name) is not None:
            raise OptionError(f"{name} is given; leave it out: {instead}")


def _require_outside(inside: Tensor, groups: Tensor, num: int) -> None:
    for group in groups.unique().tolist():
        left = int((~inside[groups == group]).sum())
        if left < num:
            raise ShieldError(
                str(
                    named(
                        "{} of {} candidates stay out of the protected set, and {num} is {}; give "
                        "more {candidates}, or a shield of a smaller radius",
                        left,
                        int((groups == group).sum()),
                        num,
                    )
                )
            )

"""Sentences about a run, from its record: the command line and the report page say the same.

A finished image is decoded to 8 bits; its latent is what was drawn. With a protected set of latents
only those are certified, and a finished image, encoded again, may be inside all the same. So every
sentence says of which it is, the finished image first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from unalike.runs.numbers import counted, number

LATENTS, FINISHED, BOTH = "latents", "finished images", "latents and finished images"


def certified_of(policy: str, *, embedded: bool) -> str:
    """The points that the certificates of a run are of.

    Args:
        policy: for images inside the protected set.
        embedded: whether that is of what finished images show, and not of latents.
    """
    if embedded:
        return FINISHED
    return BOTH if policy == "redraw" else LATENTS


"""The two things that a run may certify, as `run.json` names them in `shield.certified`."""


def diversity_sentence(record: Mapping[str, Any]) -> str | None:
    """The mean Vendi score, of how many images; None where no prompt has two.

    Example:
        >>> scores = {"vendi": 1.5, "prompts": {"cat": {"images": 16}, "dog": {"images": 3}}}
        >>> diversity_sentence({"scores": {"guided": scores, "unguided": None}})
        'Vendi score 1.50 on pixels, mean over 2 prompts of 3 to 16 images each'
    """
    guided, unguided = record["scores"]["guided"], record["scores"]["unguided"]
    counts = [entry["images"] for entry in guided["prompts"].values()]
    if not counts or max(counts) < 2:
        return None
    least, most = min(counts), max(counts)
    each = counted(most, "image") if least == most else f"{least} to {counted(most, 'image')}"
    of = f"of {each}" if len(counts) == 1 else f"mean over {len(counts):,} prompts of {each} each"
    without = f"; {unguided['vendi']:.2f} for the same without guidance" if unguided else ""
    return f"Vendi score {guided['vendi']:.2f} on pixels, {of}{without}"


def protection_sentences(record: Mapping[str, Any]) -> Sequence[str]:
    """Sentences on the run's images and its protected set; the finished images first.

    Empty for a run without one, or without images.
    """
    shield, images = record["shield"], record["images"]
    drawn = images["finished"] + images.get("refused", 0)
    if not shield or not drawn:
        return ()
    again = images.get("restarted", 0)
    done = (
        f"{images['moved']:,} of {drawn:,} images moved out, "
        + (f"{again:,} restarted, " if again else "")
        + f"{images['drawn_again']:,} drawn again, {images['refused']:,} refused"
    )
    further = record.get("further_shields", [])
    found = (
        several_sentence(images["decoded_inside"], images["finished"], [shield, *further])
        if further
        else finished_sentence(
            images["decoded_inside"],
            images["finished"],
            shield["size"],
            shield["radius"] + shield["rounding"],
            encoded=shield["certified"] != FINISHED,
        )
    )
    if shield["certified"] != LATENTS:
        return found, f"That is certified: {done}"
    return found, f"Only latents are certified: {images['finished']:,} of {drawn:,} outside; {done}"


def several_sentence(inside: int | None, images: int, shields: Sequence[Mapping[str, Any]]) -> str:
    """Say how many finished images are inside one of several protected sets.

    Args:
        inside: how many; None where they could not be measured.
        images: of how many.
        shields: what the record says of each set.
    """
    where = "; ".join(
        f"{shield['name']} ({counted(shield['size'], 'image')}, nearer than "
        f"{number(shield['radius'] + shield['rounding'])} in {shield['space'].partition('/')[0]})"
        for shield in shields
    )
    sets = f"{len(shields)} protected sets: {where}"
    if images == 0:
        return f"There is no finished image that could be inside one of {sets}"
    if inside is None:
        return f"It is not known how many of {images:,} finished images are inside one of {sets}"
    verb = "is" if inside == 1 else "are"
    return f"{inside:,} of {images:,} finished images {verb} inside one of {sets}"


def finished_sentence(
    inside: int | None, images: int, protected: int, radius: float, *, encoded: bool
) -> str:
    """Say how many finished images are inside a protected set.

    Args:
        inside: how many; None where they could not be measured.
        images: of how many.
        protected: images of the set.
        radius: of its balls, the rounding of what is stored included.
        encoded: whether they were encoded again to latents.

    Example:
        >>> finished_sentence(10, 16, 20, 9.45, encoded=True)
        '10 of 16 finished images are inside the protected set of 20: encoded again, nearer than
        9.45 to one of them'
        >>> finished_sentence(None, 16, 20, 9.45, encoded=True)
        'It is not known how many of 16 finished images are inside the protected set of 20: the
        model cannot encode images'
    """
    of, where = f"of {images:,} finished images", f"inside the protected set of {protected:,}"
    if images == 0:
        return f"There is no finished image that could be {where}"
    if inside is None:
        return f"It is not known how many {of} are {where}: the model cannot encode images"
    verb, how = "is" if inside == 1 else "are", "encoded again, " if encoded else ""
    nearer = "none is nearer" if inside == 0 else "nearer"
    return f"{inside:,} {of} {verb} {where}: {how}{nearer} than {number(radius)} to one of them"

"""Read and change the outputs of pipelines, image by image."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from unalike.errors import UnsupportedError
from unalike.images import read_image, stacked

_MADE = ("images", "videos", "latents")


Place: TypeAlias = tuple[int, int]
"""The number of a run, and the number of an image in it."""


def taken(outputs: Sequence[Any], sizes: Sequence[int], choice: Sequence[Place]) -> Any:
    """Assemble an output of images of several runs.

    Where they are all images of one run, in their order, its output itself is returned.

    Args:
        outputs: what runs of one pipeline returned.
        sizes: how many images each run made; the first one as many as there are in all.
        choice: for each image its place.

    Raises:
        UnsupportedError: when a part of an output is not one entry for each image.

    Example:
        >>> taken([(["a", "b"], None), (["c"], None)], [2, 1], [(0, 0), (1, 0)])
        (['a', 'c'], None)
    """
    run = choice[0][0]
    if list(choice) == [(run, i) for i in range(sizes[run])]:
        return outputs[run]
    return _mapped(outputs, lambda parts: _taken(parts, sizes, choice))


def blanked(output: Any, rows: Iterable[int], images: int) -> Any:
    """Blank some images of an output: black images, zeros in arrays and tensors.

    Args:
        output: what a pipeline returned.
        rows: the numbers of the images.
        images: how many there are.

    Raises:
        UnsupportedError: when a part of the output is not one entry for each image.

    Example:
        >>> blanked((torch.ones(2, 1),), [0], 2)
        (tensor([[0.],
                [1.]]),)
    """
    gone = set(rows)
    return _mapped([output], lambda parts: _blanked(parts[0], gone, images))


def made_images(output: Any) -> Any:
    """Return the images of an output: its first field, or the images of a pipeline's state."""
    if _is_state(output):
        return output.get(_made_name(output))
    return _parts(output)[0]


def replaced(output: Any, made: Any) -> Any:
    """Replace the images of an output.

    Example:
        >>> replaced(([1, 2], None), [3, 4])
        ([3, 4], None)
    """
    if _is_state(output):
        return _with(output, _made_name(output), made)
    if _is_record(output):
        name = next(iter(vars(output)))
        return type(output)(**{**vars(output), name: made})
    return (made, *output[1:]) if isinstance(output, tuple) else made


def with_latents(output: Any, final: Tensor) -> Any:
    """Put the final latents into the state of a modular pipeline; leave other outputs alone."""
    latents = output.get("latents") if _is_state(output) else None
    if not isinstance(latents, Tensor) or latents.shape != final.shape:
        return output
    if torch.equal(latents, final.to(latents)):
        return output
    return _with(output, "latents", final.to(latents))


def flagged(output: Any, images: int) -> list[int]:
    """Find the images that a safety checker withheld, by lists of flags in the output.

    Example:
        >>> flagged((["a", "b"], [False, True]), 2)
        [1]
    """
    if _is_state(output):
        return []
    found = set()
    for part in _parts(output)[1:]:
        flags = part.tolist() if hasattr(part, "tolist") else part
        if isinstance(flags, list) and len(flags) == images:
            found |= {i for i, flag in enumerate(flags) if flag is True}
    return sorted(found)


def pixels(output: Any, images: int) -> Tensor | None:
    """The images of an output, (B, 3, h, w) float32 in [0, 1]; None where it is something else than
    that many such images.
    """
    made = _parts(output)[0]
    if isinstance(made, list) and made and all(hasattr(image, "convert") for image in made):
        read = [read_image(image) for image in made]
        made = stacked(read) if len({image.size for image in read}) == 1 else None
    if not isinstance(made, Tensor) and not hasattr(made, "__array__"):
        return None
    values = torch.as_tensor(made)
    if values.ndim != 4 or len(values) != images or not values.is_floating_point():
        return None
    if values.shape[1] != 3 and values.shape[3] == 3:
        values = values.permute(0, 3, 1, 2)
    if values.shape[1] != 3 or not (values.min() >= 0 and values.max() <= 1):
        return None
    return values.detach().float().contiguous()


def _is_record(output: Any) -> bool:
    """Whether it is one of diffusers' outputs, with fields by name."""
    return hasattr(output, "to_tuple")


def _is_state(output: Any) -> bool:
    """Whether it is the state of a modular pipeline, or several values of it."""
    return hasattr(output, "get") and not _is_record(output)


def _with(state: Any, name: str, value: Any) -> Any:
    if isinstance(state, dict):
        return {**state, name: value}
    state.set(name, value)
    return state


def _made_name(state: Any) -> str:
    return next((name for name in _MADE if state.get(name) is not None), _MADE[-1])


def _parts(output: Any) -> list[Any]:
    if _is_record(output):
        return list(output.to_tuple())
    return list(output) if isinstance(output, tuple) else [output]


def _mapped(outputs: Sequence[Any], change: Any) -> Any:
    """Build an output from `change(parts)` for each field of the outputs."""
    first = outputs[0]
    if _is_record(first):
        return type(first)(
            **{name: change([getattr(output, name) for output in outputs]) for name in vars(first)}
        )
    if isinstance(first, tuple):
        return tuple(change(list(parts)) for parts in zip(*outputs, strict=True))
    return change(list(outputs))


def _taken(parts: Sequence[Any], sizes: Sequence[int], choice: Sequence[Place]) -> Any:
    first = parts[0]
    if all(part is None for part in parts):
        return None
    for part, size in zip(parts, sizes, strict=True):
        _require_rows(part, size)
    rows = [parts[run][row] for run, row in choice]
    if isinstance(first, list):
        return rows
    result = first.clone() if isinstance(first, Tensor) else first.copy()
    for i, row in enumerate(rows):
        result[i] = row
    return result


def _blanked(part: Any, gone: set[int], images: int) -> Any:
    if part is None:
        return None
    _require_rows(part, images)
    if isinstance(part, list):
        return [_blank(row) if i in gone else row for i, row in enumerate(part)]
    result = part.clone() if isinstance(part, Tensor) else part.copy()
    for i in gone:
        result[i] = 0
    return result


def _blank(row: Any) -> Any:
    """Blank one image, its frames or its array; flags such as "not safe for work" stay."""
    if isinstance(row, list):
        return [_blank(frame) for frame in row]
    if hasattr(row, "convert"):
        return row.point(lambda value: value * 0)
    if isinstance(row, Tensor) or hasattr(row, "__array__"):
        return row * 0
    return row


def _require_rows(part: Any, images: int) -> None:
    if not (isinstance(part, list | Tensor) or hasattr(part, "__array__")) or len(part) != images:
        size = f" of {len(part)}" if hasattr(part, "__len__") else ""
        raise UnsupportedError(
            f"the pipeline returned a {type(part).__name__}{size} for {images} images, so single "
            "ones of them can be neither replaced nor "
            "withheld; use on_violation='move' with output_type='pil', 'np' or 'latent'"
        )

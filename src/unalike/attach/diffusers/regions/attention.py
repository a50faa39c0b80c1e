"""Locate words in images from the denoiser's attention."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor
from torch.nn.functional import interpolate, scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

from unalike.attach.diffusers.graphs import is_compiled
from unalike.attach.diffusers.host import Host
from unalike.attach.diffusers.prompts import Prompts
from unalike.attach.diffusers.regions.words import Tokens
from unalike.attach.diffusers.rows import positive_rows
from unalike.attach.diffusers.scoped import layer_hook, original, own_model
from unalike.errors import UnsupportedError

_TEXT_FIRST = {
    "SD3Transformer2DModel": False,
    "FluxTransformer2DModel": True,
    "QwenImageTransformer2DModel": True,
}
"""Transformers of joint attention: whether the tokens of the text stand before those of the image
there.
"""

_COARSEST = 4
_FACTORS = (1, 2, 4, 8, 16, 32, 64)
_PROJECTIONS = ("encoder_hid_proj", "caption_projection", "caption_norm")
_HINT = "give a mask or a box as region"


class WordMaps:
    """Context manager: while it is open, the attention of the denoiser to words is added up, at
    each of its evaluations.

    For each image, with the queries q of its cells and the keys k of the tokens, in each head of
    each layer,

        map = mean over the words' tokens of softmax(q · k / √d)

    over the tokens of the text, then averaged over heads and layers, brought to the cells of the
    latents, and averaged over the evaluations so far. Only rows of positive prompts are read, and
    nothing is changed.

    - In cross attention (`attn2` of U-Nets and of transformers such as PixArt's) the keys are those
      of `tokens`, which need not be those that the model is given: so words can be looked for that
      are not in the prompt.
    - In joint attention (SD3, Flux, Qwen-Image) the tokens of the text change from block to block,
      so the keys are the model's own, among the tokens of the text alone.

    Layers of less than a quarter of the latents' rows are left out where there are finer ones: what
    they say of a place is too coarse.

    Source: Tang et al. 2023 (What the DAAM: Interpreting Stable Diffusion Using Cross Attention,
    arXiv:2210.04885) for maps of words added up over heads, layers and steps; Marcos-Manchón et al.
    2024 (Open-Vocabulary Attention Maps with Token Optimization for Semantic Segmentation in
    Diffusion Models, arXiv:2403.14291) for words that are not in the prompt. They use all steps and
    scale to the images.

    Args:
        pipe: the pipeline of this call alone, from `own_pipeline`.
        tokens: the words'.
        cells: from the denoiser's sample (R, …) to height and width of the latents' grid.
        prompts: has heard the prompts.

    Raises:
        UnsupportedError: as `attends`; from the denoiser where its rows or its attention cannot be
            told apart.

    Cost: for each image and layer one matrix product of its queries with the keys, and its softmax
    in float32.
    """

    def __init__(
        self,
        pipe: Any,
        tokens: Tokens,
        cells: Callable[[Tensor], tuple[int, int]],
        prompts: Prompts,
    ) -> None:
        self._pipe = pipe
        self._denoisers = list(Host(pipe).denoisers.values())
        self._joint = not any(_cross(module) for module in self._denoisers)
        self._tokens = tokens
        self._cells = cells
        self._prompts = prompts
        self._hooks: list[Any] = []
        self._mode: _Watch | None = None
        self._rows: Tensor | None = None
        self._grid = 0, 0
        self._text = 0
        self._keys: Tensor | None = None
        self._seen: dict[int, list[Tensor]] = {}
        self._sum: Tensor | None = None
        self._evaluations = 0

    def __enter__(self) -> WordMaps:
        attends = layer_hook(self._pipe, self._attends)
        for name in Host(self._pipe).denoisers:
            module = own_model(self._pipe, name)
            module.register_forward_pre_hook(self._before, with_kwargs=True)
            module.register_forward_hook(self._after, always_call=True)
            self._hooks += [
                part.register_forward_pre_hook(attends, with_kwargs=True) for part in _cross(module)
            ]
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()
        self._unwatch()

    @property
    def maps(self) -> dict[str, Tensor]:
        """For each word a map (B, height, width) on the cells of the latents, float32: the larger,
        the more of the attention it has.

        Raises:
            UnsupportedError: where no attention was seen.
        """
        if self._sum is None:
            names = " and ".join(type(module).__name__ for module in self._denoisers)
            raise UnsupportedError(
                f"the attention of {names} to its prompts was not seen, so that words cannot be "
                "found; use torch's own attention, "
                f"as in pipe.transformer.set_attention_backend('native'), or {_HINT}"
            )
        return dict(zip(self._tokens.words, self._sum / self._evaluations, strict=True))

    def _before(
        self, module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        arguments = inspect.signature(type(module).forward).bind(module, *args, **kwargs).arguments
        sample = next(
            (
                arguments[n]
                for n in ("sample", "hidden_states")
                if isinstance(arguments.get(n), Tensor)
            ),
            None,
        )
        tokens, positive = arguments.get("encoder_hidden_states"), self._prompts.positive
        self._seen, self._rows = {}, None
        if (
            not isinstance(tokens, Tensor)
            or not isinstance(positive, Tensor)
            or tokens.shape[1:] != positive.shape[1:]
        ):
            # empty prompts with a call and a length of their own; `maps` refuses if no others come
            return
        out = getattr(getattr(module, "config", None), "out_channels", None)
        images = len(positive) if sample is None else self._prompts.images(sample, out)
        found = positive_rows(
            tokens,
            positive,
            rows=len(tokens),
            images=images,
            negative_is_equal=self._prompts.negative_is_equal,
            perturbed=Host(self._pipe).perturbs_attention,
        )
        if found is None or not found.any():
            return
        rows = found[:, 0].nonzero().flatten()[:images]  # the first block is not perturbed
        if (
            sample is None
            or len(sample) != len(tokens)
            or (self._joint and tokens.shape[1] != self._tokens.length)
        ):
            raise UnsupportedError(
                f"{type(module).__name__} is not called with a sample and the tokens of the "
                "prompt for each image, so that words cannot be "
                f"found; {_HINT}"
            )
        if len(rows) % self._tokens.prompts:
            raise UnsupportedError(
                f"{len(rows)} images are drawn of {self._tokens.prompts} prompts, so words cannot "
                f"be found; {_HINT}"
            )
        self._rows, self._grid, self._text = rows, self._cells(sample), tokens.shape[1]
        if self._joint:
            self._mode = _Watch(self._attends_jointly)
            self._mode.__enter__()
        else:
            self._keys = _projected(module, self._tokens.embeddings.to(tokens))

    def _attends(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        named = {
            **dict(zip(("hidden_states", "encoder_hidden_states"), args, strict=False)),
            **kwargs,
        }
        hidden, others = named["hidden_states"], named.get("encoder_hidden_states")
        if (
            self._rows is None
            or self._keys is None
            or others is None
            or others is hidden
            or hidden.ndim != 3
        ):
            return
        factor = self._factor(hidden.shape[1])
        if factor is None:
            return
        keys = self._keys.to(hidden)  # the denoiser may cast its inputs in a hook
        keys = module.norm_encoder_hidden_states(keys) if module.norm_cross else keys
        k = module.to_k(keys).unflatten(-1, (module.heads, -1)).transpose(1, 2)
        q = module.to_q(hidden[self._rows]).unflatten(-1, (module.heads, -1)).transpose(1, 2)
        each = len(q) // len(k)
        maps = [self._map(own, k[i // each], module.scale, i // each) for i, own in enumerate(q)]
        self._seen.setdefault(factor, []).append(torch.stack(maps, dim=1))

    def _attends_jointly(self, q: Tensor, k: Tensor, scale: float | None) -> None:
        """One call of `scaled_dot_product_attention` with queries and keys (R, heads, tokens,
        d).
        """
        image = q.shape[-2] - self._text
        if (
            self._rows is None
            or q.shape != k.shape
            or image < 1
            or (factor := self._factor(image)) is None
        ):
            return
        first = _TEXT_FIRST[type(self._denoisers[0]).__name__]
        text, places = (
            (slice(0, self._text), slice(self._text, None))
            if first
            else (slice(image, None), slice(0, image))
        )
        each, by = (
            len(self._rows) // self._tokens.prompts,
            q.shape[-1] ** -0.5 if scale is None else scale,
        )
        maps = [
            self._map(q[row, :, places], k[row, :, text], by, i // each)
            for i, row in enumerate(self._rows.tolist())
        ]
        self._seen.setdefault(factor, []).append(torch.stack(maps, dim=1))

    def _map(self, q: Tensor, k: Tensor, scale: float, prompt: int) -> Tensor:
        """The attention (words, cells) of an image's queries (heads, cells, d) to the words among
        the keys (heads, tokens, d).
        """
        scores = (q.float() @ k.float().transpose(-1, -2)) * scale
        if self._tokens.padded is not None:
            scores = scores.masked_fill(self._tokens.padded[prompt].to(q.device), -torch.inf)
        attention = scores.softmax(-1).mean(0)
        return torch.stack(
            [attention[:, rows[prompt]].mean(-1) for rows in self._tokens.words.values()]
        )

    def _factor(self, cells: int) -> int | None:
        """The number of latent cells along the side of one of `cells` attention cells.

        None where those are no grid of the image.
        """
        height, width = self._grid
        return next(
            (f for f in _FACTORS if -(-height // f) * -(-width // f) == cells and cells > 1), None
        )

    def _after(self, *_: object) -> None:
        self._unwatch()
        fine = [factor for factor in self._seen if factor <= _COARSEST] or sorted(self._seen)[:1]
        layers = [self._placed(maps, factor) for factor in fine for maps in self._seen[factor]]
        self._seen = {}
        if layers:
            mean = torch.stack(layers).mean(0)
            self._sum = mean if self._sum is None else self._sum + mean
            self._evaluations += 1

    def _placed(self, maps: Tensor, factor: int) -> Tensor:
        """Maps (words, B, cells) of a layer on the grid of the latents: (words, B, height,
        width).
        """
        height, width = self._grid
        coarse = maps.unflatten(-1, (-(-height // factor), -(-width // factor)))
        return (
            coarse
            if factor == 1
            else interpolate(coarse, size=(height, width), mode="bilinear", align_corners=False)
        )

    def _unwatch(self) -> None:
        if self._mode is not None:
            self._mode.__exit__(None, None, None)
            self._mode = None


class _Watch(TorchFunctionMode):
    """While it is entered, every `scaled_dot_product_attention` is shown to a function before it is
    computed.
    """

    def __init__(self, seen: Callable[[Tensor, Tensor, float | None], None]) -> None:
        super().__init__()
        self._seen = seen

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is scaled_dot_product_attention:
            named = {**dict(zip(("query", "key"), args, strict=False)), **kwargs}
            self._seen(named["query"], named["key"], named.get("scale"))
        return func(*args, **kwargs)


def attends(pipe: Any) -> str:
    """The kind of attention from a denoiser to its prompts: "cross" or "joint".

    Raises:
        UnsupportedError: where words cannot be found in it: it is compiled, draws videos, or
            attends in a way that is not known here.
    """
    name, found = type(pipe).__name__, [original(m) for m in Host(pipe).denoisers.values()]
    if any(is_compiled(part) for module in found for part in module.modules()):
        raise UnsupportedError(
            f"the denoiser of {name} is compiled, so that its attention cannot be read for words; "
            f"{_HINT}"
        )
    if Host(pipe).draws_videos:
        raise UnsupportedError(f"{name} draws videos, in which words are not looked for; {_HINT}")
    if found and all(_cross(module) for module in found):
        return "cross"
    if len(found) == 1 and type(found[0]).__name__ in _TEXT_FIRST:
        return "joint"
    kinds = " and ".join(type(module).__name__ for module in found) or "no denoiser"
    raise UnsupportedError(
        f"{name} has {kinds}, whose attention to words is not known here; words work with cross "
        "attention (Stable Diffusion, SDXL, PixArt) "
        f"and with {', '.join(_TEXT_FIRST)}; {_HINT}"
    )


def _cross(module: torch.nn.Module) -> list[Attention]:
    """Layers where places attend to the text alone, with keys and queries that are two products and
    nothing else.
    """
    return [
        part
        for part in module.modules()
        if isinstance(part, Attention)
        and part.is_cross_attention
        and all(
            getattr(part, name, None) is None
            for name in ("added_kv_proj_dim", "norm_q", "norm_k", "group_norm", "spatial_norm")
        )
    ]


def _projected(module: torch.nn.Module, tokens: Tensor) -> Tensor:
    """The tokens as the denoiser brings them to its own width before its layers see them."""
    config = getattr(module, "config", {})
    kind = config.get("encoder_hid_dim_type")
    for name in _PROJECTIONS:
        part = getattr(module, name, None)
        if isinstance(part, torch.nn.Module) and not (
            name == "encoder_hid_proj" and kind not in (None, "text_proj")
        ):
            tokens = part(tokens)
    return tokens

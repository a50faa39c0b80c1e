"""The parts that `emoji-flow` shares with `emoji`, as Stable Diffusion 3 takes them."""

from __future__ import annotations

from typing import Any

import torch


def flow_parts(emoji: Any) -> dict[str, Any]:
    """All components of a `StableDiffusion3Pipeline` but the transformer and the scheduler.

    Both of its CLIP models are the text model of `emoji`, with the feature of the token that ends
    the prompt as its pooled output; the third text model is left out.

    Args:
        emoji: the pipeline that lends them.

    Example:
        >>> from unalike import load
        >>> parts = flow_parts(load("emoji"))
        >>> parts["vae"].config.shift_factor, parts["text_encoder"] is parts["text_encoder_2"]
        (0.0, True)
    """
    import diffusers
    from transformers import CLIPTextModelWithProjection

    vae: Any = diffusers.AutoencoderKL.from_config(emoji.vae.config, shift_factor=0.0)
    vae.load_state_dict(emoji.vae.state_dict(), assign=True)
    text: Any = CLIPTextModelWithProjection(emoji.text_encoder.config)
    shared = {
        f"text_model.{name.removeprefix('text_model.')}": weight
        for name, weight in emoji.text_encoder.state_dict().items()
    }
    pooling = torch.eye(text.config.projection_dim, dtype=emoji.text_encoder.dtype)
    text.load_state_dict(shared | {"text_projection.weight": pooling}, assign=True)
    return {
        "vae": vae.eval(),
        "text_encoder": text.eval(),
        "text_encoder_2": text,
        "text_encoder_3": None,
        "tokenizer": emoji.tokenizer,
        "tokenizer_2": emoji.tokenizer,
        "tokenizer_3": None,
    }

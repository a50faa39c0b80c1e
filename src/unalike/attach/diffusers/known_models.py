"""Name the models of a pipeline, and name them again when they change."""

from __future__ import annotations

from typing import Any

import torch

from unalike.attach.diffusers.host import Host
from unalike.attach.run.models import Models
from unalike.attach.spaces import latent_model, prompt_model
from unalike.errors import StoreError
from unalike.fingerprint import Weights


class KnownModels:
    """The names of the models that make a pipeline's latents and embed its prompts.

    Names are read again when a model or an adapter is exchanged, and when weights change in place,
    as by a LoRA that is fused or a textual inversion that adds words. Offloaded weights cannot be
    read; their names stay.

    Attributes:
        changed: the models whose weights changed although their names stay the same.
    """

    def __init__(self) -> None:
        self._named: Models | None = None
        self._objects: list[Any] = []
        self._weights: dict[str, Weights] = {}
        self._first: dict[Models, dict[str, Weights]] = {}
        self.changed: list[str] = []

    @property
    def names(self) -> Models:
        """As they were when `look` was called last."""
        assert self._named is not None
        return self._named

    def look(self, pipe: Any, encoder: Any) -> Models:
        """Compare the models with what is known of them; done once a call, in milliseconds."""
        objects, weights = _objects(pipe, encoder), _weights(pipe, encoder)
        exchanged = len(objects) != len(self._objects) or any(
            a is not b for a, b in zip(objects, self._objects, strict=True)
        )
        known = {**self._weights, **weights} if not exchanged else weights
        moved = any(
            name not in self._weights or not own.same_as(self._weights[name])
            for name, own in weights.items()
        )
        if self._named is None or exchanged or moved:
            self._named = Models(latent_model(pipe), prompt_model(pipe, encoder))
            first = self._first.setdefault(self._named, known)
            self.changed = [
                name
                for name, own in known.items()
                if name in first and not own.same_as(first[name])
            ]
        self._objects, self._weights = objects, known
        return self._named

    def require_unchanged(self, *, latents: bool, prompts: bool) -> None:
        """Refuse weights that changed under an unchanged name where stored vectors depend on them.

        Args:
            latents: whether latents are stored of the model at hand, in a memory or a shield.
            prompts: whether embeddings of prompts are.

        Raises:
            StoreError: naming the models.
        """
        changed = [name for name in self.changed if (prompts if _embeds_prompts(name) else latents)]
        if changed:
            raise StoreError(
                f"the weights of {' and '.join(changed)} were changed in place since they were "
                f"first used here, and their name ({self.names.latents} {self.names.prompts}) does "
                "not tell, so earlier vectors cannot be compared with new ones; guide the "
                "pipeline anew, with a memory of its own, as in guide(pipe, memory=Memory()), and "
                "a shield that is built anew"
            )
        self._first[self.names], self.changed = dict(self._weights), []


def _objects(pipe: Any, encoder: Any) -> list[Any]:
    """Everything whose exchange may change a name: the components and the adapters in them."""
    host = Host(pipe)
    named = host.components
    adapters = [getattr(part, "peft_config", {}).values() for part in host.prompt_parts.values()]
    return [encoder, *named.values(), *(one for own in adapters for one in own)]


def _weights(pipe: Any, encoder: Any) -> dict[str, Weights]:
    """Of each model that makes latents or embeds prompts, where its weights are in memory."""
    if encoder is None:
        parts = Host(pipe).prompt_parts
    else:
        own = getattr(encoder, "extractor", encoder)
        parts = {"prompt_encoder": getattr(own, "model", own)}
    name, vae = Host(pipe).autoencoder
    found = {
        name: Weights.of(part)
        for name, part in {**parts, name: vae}.items()
        if isinstance(part, torch.nn.Module)
    }
    return {name: weights for name, weights in found.items() if weights is not None}


def _embeds_prompts(name: str) -> bool:
    return name.startswith("text_encoder") or name in ("bert", "prompt_encoder")

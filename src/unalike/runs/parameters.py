"""What an image was made with, and how other programs and `unalike generate` read it.

`ImageInfo` is stored in image files by `unalike.runs.imagefile`, and in shards as JSON.
`parameters_text` writes it as Automatic1111's web interface does; ComfyUI, InvokeAI and image
viewers read that text too.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import PurePath
from typing import Any, Self

from unalike import __version__
from unalike.errors import StoreError, shown
from unalike.runs.settings import GenerateSettings, assigned, build_methods

FORMAT = 1
"""Version of the JSON."""

_SAMPLERS = {
    "DDIM": "DDIM",
    "DEISMultistep": "DEIS",
    "DPMSolverMultistep": "DPM++ 2M",
    "DPMSolverSDE": "DPM++ SDE",
    "DPMSolverSinglestep": "DPM++ SDE",
    "EulerAncestralDiscrete": "Euler a",
    "EulerDiscrete": "Euler",
    "FlowMatchEulerDiscrete": "Euler",
    "HeunDiscrete": "Heun",
    "KDPM2AncestralDiscrete": "DPM2 a",
    "KDPM2Discrete": "DPM2",
    "LCM": "LCM",
    "LMSDiscrete": "LMS",
    "PNDM": "PLMS",
    "UniPCMultistep": "UniPC",
}
"""Schedulers of diffusers by the names that Automatic1111 has for them."""

_KINDS = {"str": str, "int": int, "float | None": float, "str | None": str}


@dataclass(frozen=True, kw_only=True)
class ImageInfo:
    """All that an image was made with, in plain values.

    Absolute paths in `model` and `settings` are cut to their last name, so that a file that is
    given away says nothing about the machine.

    Args:
        prompt: what was asked for.
        negative_prompt: what was asked to be avoided; empty for none.
        seed: of the image's noise.
        steps: of the scheduler.
        guidance_scale: of classifier-free guidance; None where the pipeline has none.
        scheduler: class name in diffusers.
        width, height: of the image, in pixels.
        model: name in the catalogue, hub id, or the name of a folder or file.
        model_hash: of its weights.
        methods: name and options of each guidance method, as `run.json` has them.
        version: of unalike.
        item: hash that names the image in the ledger of its run.
        id: of its prompt, where a table of prompts gave one.
        settings: further settings of the run by their names in `GenerateSettings`, such as
            `{"dtype": "float16", "lora": ["style.safetensors:0.8"]}`.

    Example:
        >>> info = ImageInfo(
        ...     prompt="red heart", seed=7, steps=4, guidance_scale=1.0, scheduler="LCMScheduler",
        ...     width=64, height=64, model="/home/me/models/mine",
        ... )
        >>> info.model, ImageInfo.from_dict(info.to_dict()) == info
        ('mine', True)
    """

    prompt: str
    negative_prompt: str = ""
    seed: int
    steps: int
    guidance_scale: float | None = None
    scheduler: str
    width: int
    height: int
    model: str
    model_hash: str | None = None
    methods: tuple[Mapping[str, Any], ...] = ()
    version: str = __version__
    item: str = ""
    id: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        scale = None if self.guidance_scale is None else float(self.guidance_scale)
        for name, value in {
            "guidance_scale": scale,
            "model": _plain(self.model),
            "methods": tuple(_plain(m) for m in self.methods),
            "settings": _plain(self.settings),
        }.items():
            object.__setattr__(self, name, value)

    def to_dict(self) -> dict[str, Any]:
        """The fields with the version of the format, ready for JSON.

        All images have the same keys, and no key is missing where there is no value, so that
        tables can be made from them.
        """
        return {"format": FORMAT, **asdict(self), "methods": list(self.methods)}

    @classmethod
    def from_dict(cls, found: Any) -> Self:
        """The information of a dictionary that `to_dict` made.

        Raises:
            ValueError: for anything else, with a sentence about it.
        """
        if not isinstance(found, dict) or type(found.get("format")) is not int:
            raise ValueError("it is not a JSON object with the number of a format")
        if found["format"] > FORMAT:
            raise ValueError(
                f"a later release wrote it (format {found['format']}); upgrade unalike"
            )
        values = {name: value for name, value in found.items() if name != "format"}
        known = {f.name: f for f in fields(cls)}
        missing = [n for n, f in known.items() if _required(f) and n not in values]
        odd = [n for n in values if n not in known] or missing
        if odd:
            verb = "is missing" if missing == odd else "is not known"
            raise ValueError(f"{odd[0]!r} {verb}")
        for name, value in values.items():
            if not _fits(name, str(known[name].type), value):
                raise ValueError(f"{name!r} is {shown(value)}")
        return cls(**values)


def parameters_text(info: ImageInfo) -> str:
    """The text that Automatic1111's web interface stores as `parameters` in its images.

    Prompt, negative prompt, and a last line of names and values; values with commas, colons or
    quotes are JSON strings. The format has no way to write a line of a prompt that begins with
    "Negative prompt:", so such a line gets a space before its colon.

    Example:
        >>> print(parameters_text(ImageInfo(
        ...     prompt="red heart", negative_prompt="blurry", seed=7, steps=4, guidance_scale=7.5,
        ...     scheduler="EulerAncestralDiscreteScheduler", width=64, height=64, model="emoji",
        ...     methods=[{"name": "sparke", "options": {"strength": 0.1}}], version="1.0",
        ... )))
        red heart
        Negative prompt: blurry
        Steps: 4, Sampler: Euler a, CFG scale: 7.5, Seed: 7, Size: 64x64, Model: emoji,
        unalike methods: "sparke: 0.1", Version: unalike 1.0
    """
    scheduler = info.scheduler.removesuffix("Scheduler")
    scale = info.guidance_scale
    values = {
        "Steps": str(info.steps),
        "Sampler": _SAMPLERS.get(scheduler, scheduler),
        "CFG scale": "" if scale is None else repr(scale).removesuffix(".0"),
        "Seed": str(info.seed),
        "Size": f"{info.width}x{info.height}",
        "Model": info.model,
        "unalike methods": ", ".join(map(_in_short, info.methods)),
        "Version": f"unalike {info.version}",
    }
    lines = [_unlike_a_heading(info.prompt)]
    if info.negative_prompt:
        lines.append(f"Negative prompt: {_unlike_a_heading(info.negative_prompt)}")
    lines.append(", ".join(f"{name}: {_quoted(value)}" for name, value in values.items() if value))
    return "\n".join(lines)


def settings_like(info: ImageInfo) -> dict[str, Any]:
    """The arguments of `GenerateSettings` that draw the image again.

    It is drawn alone, from its own seed. What the methods kept it unlike to, the other images of
    its batch and the memory, is not in the file; the command in `run.json` repeats the whole run.
    A model or other file whose folder was left out must be given again.

    Raises:
        OptionError: for a prompt, method or option of a method that is not allowed.
        StoreError: for a setting that this release does not know.

    Example:
        >>> arguments = settings_like(ImageInfo(
        ...     prompt="red heart", seed=7, steps=4, guidance_scale=1.0, scheduler="LCMScheduler",
        ...     width=64, height=64, model="emoji",
        ...     methods=[{"name": "sparke", "options": {"strength": 0.5}}],
        ... ))
        >>> arguments["seed"], arguments["method"], arguments["set"]
        (7, ('sparke',), ('sparke.strength=0.5',))
    """
    known = [f.name for f in fields(GenerateSettings)]
    for name in info.settings:
        if name not in known:
            raise StoreError(
                f"the image was drawn with the setting {shown(name)}, which this release does not "
                "know; upgrade unalike"
            )
    names = tuple(str(method["name"]) for method in info.methods)
    arguments: dict[str, Any] = {
        **info.settings,
        "prompts": (info.prompt,),
        "num": 1,
        "seed": info.seed,
        "candidates": 1,
        "steps": info.steps,
        "model": info.model,
        "method": names,
        "set": _assignments(info, names),
    }
    if info.guidance_scale is not None:
        arguments["guidance_scale"] = info.guidance_scale
    if info.negative_prompt:
        arguments["negative_prompt"] = info.negative_prompt
    return arguments


def _assignments(info: ImageInfo, names: tuple[str, ...]) -> tuple[str, ...]:
    """The options that differ from those that the methods have with this model, for `set`."""
    from unalike.guidance.methods import described

    if not names:
        return ()
    plain = GenerateSettings(prompts=(info.prompt,), model=info.model, method=names)
    found = []
    for method, default in zip(info.methods, build_methods(plain), strict=True):
        usual = _plain(described(default)["options"])
        found += [
            f"{method['name']}.{name}={assigned(value)}"
            for name, value in method["options"].items()
            if name not in usual or value != usual[name]
        ]
    return tuple(found)


def _in_short(method: Mapping[str, Any]) -> str:
    strength = method["options"].get("strength")
    return method["name"] if strength is None else f"{method['name']}: {strength}"


def _quoted(value: str) -> str:
    if value == value.strip() and not any(c in value for c in ',:\n"'):
        return value
    return json.dumps(value, ensure_ascii=False)


def _unlike_a_heading(text: str) -> str:
    return re.sub(r"(?m)^(\s*Negative prompt):", r"\1 :", text)


def _plain(value: Any) -> Any:
    """A value of Python as JSON has it, without the folders of absolute paths."""
    if isinstance(value, str | os.PathLike):
        text = os.fspath(value)
        if PurePath(text).is_absolute():
            return PurePath(text).name
        return ":".join(
            PurePath(part).name if PurePath(part).is_absolute() else part
            for part in str(text).split(":")
        )
    if isinstance(value, Mapping):
        return {str(name): _plain(own) for name, own in value.items()}
    return [_plain(own) for own in value] if isinstance(value, list | tuple) else value


def _required(f: Any) -> bool:
    return f.default is MISSING and f.default_factory is MISSING


def _fits(name: str, kind: str, value: Any) -> bool:
    if value is None:
        return "None" in kind
    if name == "settings":
        return isinstance(value, dict)
    if name == "methods":
        return isinstance(value, list) and all(
            isinstance(m, dict)
            and isinstance(m.get("name"), str)
            and isinstance(m.get("options"), dict)
            for m in value
        )
    return type(value) is _KINDS[kind]

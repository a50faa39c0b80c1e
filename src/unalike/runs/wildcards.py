"""Wildcards in prompts, by the dynamicprompts package: `{red|blue} heart`, `__animals__`."""

from __future__ import annotations

import random
import re
import warnings
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unalike.errors import Message, OptionError, did_you_mean, named
from unalike.files import fault_of_reading, read_text_bytes
from unalike.options import fault_of_text
from unalike.runs.tables import text_lines

if TYPE_CHECKING:
    from dynamicprompts.wildcards import WildcardManager

_SYNTAX = re.compile(r"\{|__.+?__", re.DOTALL)
_IN_ORDER = re.compile(r"\{\s*[!@]|__[!@]")


def has_wildcards(text: str) -> bool:
    """Whether a text has the syntax of wildcards: braces, or a name between double underscores.

    Example:
        >>> [has_wildcards(text) for text in ("{red|blue} heart", "__animals__", "a_cat", "__")]
        [True, True, False, False]
    """
    return _SYNTAX.search(text) is not None


class Wildcards:
    """Chooses a text for each image from a template with wildcards.

    A choice follows from the template and the image's seed alone, so it is the same whatever other
    images a run has.

    Args:
        folder: of wildcard files: `__animals/cats__` is a line of `animals/cats.txt`, where blank
            lines and those that begin with # do not count. JSON and YAML as dynamicprompts reads
            them. None for none.

    Raises:
        OptionError: where there is no such folder, or dynamicprompts is not installed.

    Cost: some milliseconds a template and, for each image, a tenth of one, or one to three where it
    takes a line from a file.

    Example:
        >>> choose = Wildcards().template("{red|blue} heart")
        >>> [choose(seed) for seed in range(4)]
        ['blue heart', 'red heart', 'blue heart', 'blue heart']
    """

    def __init__(self, folder: Path | None = None) -> None:
        if folder is not None and not folder.is_dir():
            raise OptionError(
                named(
                    "{wildcards} is {!r}, which is no folder; allowed: a folder of wildcard files, "
                    "such as animals.txt for __animals__, as in {wildcards=DIR}",
                    str(folder),
                )
            )
        try:
            self._manager = _manager(folder)
            _make_parser()
        except ImportError as error:
            raise OptionError(
                "wildcards in prompts need dynamicprompts, which is not installed; "
                "pip install 'unalike[wildcards]', or leave the prompts as they are"
            ) from error

    def template(self, text: str) -> Callable[[int], str]:
        """A function from an image's seed to its text.

        Raises:
            ValueError: for a template that cannot be read, with a clause that says why, as text or
                as a message of `named`. The function raises it too, for a wildcard without a file
                and a choice without text.
        """
        from dynamicprompts.enums import SamplingMethod
        from dynamicprompts.parser.parse import parse
        from dynamicprompts.sampling_context import SamplingContext

        _require_random(text)
        command = _guarded(lambda: parse(text))

        def choose(seed: int) -> str:
            context = SamplingContext(
                default_sampling_method=SamplingMethod.RANDOM,
                wildcard_manager=self._manager,
                rand=random.Random(f"{seed} {text}"),
            )
            found = _guarded(lambda: next(iter(context.sample_prompts(command, 1)), None))
            chosen = " ".join(str(found or "").split())
            fault = fault_of_text(chosen)
            if fault:
                raise ValueError(f"gives a text that {fault} for the seed {seed}")
            return chosen

        return choose


def _make_parser() -> None:
    """Have dynamicprompts make its parser, once, without its warnings about the names it uses."""
    from dynamicprompts.parser.parse import parse

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        parse("{a|b}")


class _TemplateError(ValueError):
    """A template that is refused here, and not by dynamicprompts."""


def _guarded(call: Callable[[], Any]) -> Any:
    """What a call of dynamicprompts returns; it has many kinds of errors for a bad template."""
    try:
        return call()
    except _TemplateError:
        raise
    except RecursionError as error:
        raise ValueError("has wildcards that are nested too deep, or contain themselves") from error
    except Exception as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"cannot be read by dynamicprompts ({reason})") from error


def _require_random(text: str) -> None:
    found = _IN_ORDER.search(text)
    if found:
        raise _TemplateError(
            f"has {found.group()!r}, which chooses in order, and here each image chooses by "
            "itself; leave out the ! or @"
        )


def _manager(folder: Path | None) -> WildcardManager:
    """The values of wildcards by their names, from files that are read when they are needed."""
    from dynamicprompts.wildcards import WildcardManager
    from dynamicprompts.wildcards.collection import WildcardCollection, WildcardTextFile
    from dynamicprompts.wildcards.tree import build_tree_from_path
    from dynamicprompts.wildcards.values import WildcardValues

    class Lines(WildcardCollection):
        """The lines of a text file, which has to be UTF-8: the library would drop other bytes."""

        def __init__(self, name: str, path: Path) -> None:
            self.name, self.path = name, path

        def get_values(self) -> list[str]:
            try:
                lines = [line.strip() for _, line in text_lines(read_text_bytes(self.path))]
            except (OSError, ValueError) as error:
                raise _TemplateError(
                    f"has __{self.name}__, whose file cannot be used: {fault_of_reading(error)}"
                ) from error
            return [line for line in lines if not line.startswith("#")]

    class Manager(WildcardManager):
        """Raises for a wildcard that the library would leave in the prompt, with a warning."""

        def __init__(self, collections: dict[str, WildcardCollection]) -> None:
            super().__init__(root_map={"": [dict(collections)]})
            self.found: dict[str, WildcardValues] = {}

        def get_values(self, wildcard: str) -> WildcardValues:
            name = wildcard.strip()
            if name not in self.found:
                if ".." in name or not any(c.get_values() for c in self.match_collections(name)):
                    raise _TemplateError(_missing(name, self.get_collection_names(), folder))
                self.found[name] = super().get_values(name)
                for text in self.found[name].string_values:
                    _require_random(text)
            return self.found[name]

    tree = {} if folder is None else build_tree_from_path(folder).map
    return Manager(
        {
            name: Lines(name, folder / f"{name}.txt")
            if folder is not None and isinstance(own, WildcardTextFile)
            else own
            for name, own in tree.items()
        }
    )


def _missing(name: str, names: Collection[str], folder: Path | None) -> Message:
    if folder is None:
        return named(
            "has __{}__, and there is no folder of wildcard files; give it, as in {wildcards=DIR}",
            name,
        )
    if name in names:
        return named("has __{}__, whose file has no text", name)
    return named(
        "has __{}__, which {!r} does not have; {}", name, str(folder), _advice(name, names)
    )


def _advice(name: str, names: Collection[str]) -> str:
    return did_you_mean(name, names).strip() or f"add {name}.txt"

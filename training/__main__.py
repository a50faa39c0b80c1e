"""`python -m training MODEL STEP`: make or measure a shipped model, one step at a time."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module

from unalike.errors import OptionError, StoreError, UnalikeError

STEPS = {
    "emoji": {
        "dataset": "render the emoji and write their records",
        "autoencoder": "train the autoencoder, then its decoder alone",
        "denoiser": "train the text encoder and the U-Net",
        "export": "write the pipeline in float16",
        "copies": "train the copy-detection encoder, and measure it",
        "measure": "measure the pipeline and write record.json",
    },
    "emoji-turbo": {
        "trajectories": "sample emoji with guidance, and keep states on the way",
        "distil": "train a LoRA of few steps on them",
        "export": "write the LoRAs in float16",
        "measure": "measure them and write record.json",
    },
    "emoji-flow": {
        "denoiser": "train the transformer",
        "export": "write it in float16",
        "measure": "measure the pipeline and write record.json",
    },
    "digits": {
        "dataset": "enlarge scikit-learn's digits",
        "autoencoder": "train the autoencoder",
        "denoiser": "train the transformer",
        "export": "write the pipeline in float16",
        "classifier": "train the classifier of the judge",
        "measure": "measure the pipeline, classifier and judge and write record.json",
    },
}
"""Model → step → purpose, in the order in which the steps run."""


def package(model: str) -> str:
    """The package of a model's steps."""
    return f"training.{model.replace('-', '_')}"


def usage() -> str:
    """The list of models and steps."""
    lines = ["usage: python -m training MODEL STEP [options]; each step has --help", ""]
    for model, steps in STEPS.items():
        lines += [f"{model:<12} {step:<12} {purpose}" for step, purpose in steps.items()]
    return "\n".join(lines)


def _known(what: str, name: str, names: Sequence[str]) -> str:
    if name not in names:
        close = get_close_matches(name, names, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise OptionError(f"{what} is {name!r}; allowed: {', '.join(names)}{hint}")
    return name


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one step and return the exit code; errors end as one sentence on standard error."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ("-h", "--help"):
        print(usage())
        return 0
    try:
        model = _known("MODEL", given[0], list(STEPS))
        if len(given) == 1 or given[1] in ("-h", "--help"):
            print(usage())
            return 0 if len(given) > 1 else 2
        step = _known("STEP", given[1], list(STEPS[model]))
        import_module(f"{package(model)}.{step}").main(given[2:])
    except (UnalikeError, OSError) as error:
        print(f"python -m training: {error}", file=sys.stderr)
        return 2 if isinstance(error, OptionError | StoreError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

from importlib import import_module
from pathlib import Path

import pytest

from training.__main__ import STEPS, main, package

ALL = [(model, step) for model, steps in STEPS.items() for step in steps]


def test_steps_are_listed_when_none_is_named(capsys):
    assert main([]) == 0
    listed = [tuple(line.split()[:2]) for line in capsys.readouterr().out.splitlines()[2:]]
    assert listed == ALL


@pytest.mark.parametrize(("model", "step"), ALL)
def test_help_names_the_step_when_it_is_asked_for(model, step, capsys):
    with pytest.raises(SystemExit) as end:
        main([model, step, "--help"])
    assert end.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: python -m training {model} {step} ")


def test_every_step_of_a_model_is_in_the_table():
    for model, steps in STEPS.items():
        folder = import_module(package(model)).__path__[0]
        with_command = {
            path.stem
            for path in Path(folder).glob("*.py")
            if "def main(" in path.read_text("utf-8")
        }
        assert with_command == set(steps)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["emojj"], "MODEL is 'emojj'; allowed: emoji, emoji-turbo, emoji-flow, digits; did you"),
        (["digits", "trian"], "STEP is 'trian'; allowed: dataset, autoencoder"),
        (["emoji", "export", "--work", "none"], "there is no checkpoint at"),
        (["digits", "denoiser", "--work", "none"], "there is no checkpoint at"),
    ],
)
def test_one_sentence_says_what_is_wrong_when_a_step_cannot_run(arguments, message, capsys):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("python -m training: ")

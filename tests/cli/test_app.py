import os
import subprocess
import sys

import pytest

import unalike as package

HEAVY = {"torch", "diffusers", "transformers", "numpy", "PIL", "pyarrow"}


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["models"],
        ["models", "--json"],
        ["generate", "--help"],
        ["score", "--help"],
        ["memory", "search", "--help"],
    ],
)
def test_heavy_libraries_are_not_imported_when_a_command_does_not_need_them(arguments):
    code = f"""
import sys
sys.argv = ["unalike", *{arguments}]
from unalike.cli.app import main
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
found = {HEAVY} & set(sys.modules)
assert not found, found
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, capture_output=True)


def test_heavy_libraries_are_not_imported_when_the_package_is():
    code = f"import sys, unalike; assert not {HEAVY} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_version_is_that_of_the_package_when_asked_for(unalike):
    assert unalike("--version") == (0, f"unalike {package.__version__}\n", "")


def test_module_is_the_command_when_run_with_python():
    done = subprocess.run(
        [sys.executable, "-m", "unalike", "--version"], check=True, capture_output=True, text=True
    )
    assert done.stdout == f"unalike {package.__version__}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["generate"],
        ["generate", "cat", "--nonsense"],
        ["generate", "cat", "--num", "many"],
    ],
)
def test_exit_code_is_2_when_the_command_line_is_malformed(unalike, arguments):
    code, out, err = unalike(*arguments)
    assert (code, out) == (2, "")
    assert "Traceback" not in err


@pytest.mark.parametrize(
    "command", ["generate", "score", "cite", "shield build", "shield add", "shield verify"]
)
def test_help_names_no_python_types_when_a_command_has_arguments(unalike, command):
    code, out, _ = unalike(*command.split(), "-h")
    assert code == 0
    assert not [word for word in ("<list", "<Path", "<str", "<int") if word in out]


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("unalike gen", {"generate"}),
        ("unalike generate --method s", {"sparke", "spell", "seedvariance"}),
        ("unalike generate --on-violation re", {"redraw", "regenerate", "refuse"}),
        ("unalike cite sp", {"sparke", "spell"}),
    ],
)
def test_shell_completes_when_a_word_is_begun(line, offered):
    asked = {"_UNALIKE_COMPLETE": "complete_bash", "COMP_WORDS": line}
    done = subprocess.run(
        [sys.executable, "-m", "unalike"],
        env=os.environ | asked | {"COMP_CWORD": str(len(line.split()) - 1)},
        check=True,
        capture_output=True,
        text=True,
    )
    assert set(done.stdout.split()) == offered


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("shield build photos --out protected --size 64", "see `unalike shield build --help`"),
        ("shield add protected", "as in `unalike shield add protected photos`"),
    ],
)
def test_error_has_the_whole_command_when_it_names_one(unalike, tmp_path, arguments, expected):
    (tmp_path / "protected").mkdir()
    code, _, err = unalike(*arguments.split())
    assert code == 2
    assert err.rstrip().endswith(expected)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        ("OptionError", 2),
        ("StoreError", 2),
        ("UnsupportedError", 2),
        ("NumericsError", 1),
        ("ShieldError", 1),
        ("AttachmentError", 1),
    ],
)
def test_exit_code_follows_the_kind_of_error_when_a_command_fails(
    unalike, monkeypatch, error, code
):
    from unalike import errors
    from unalike.runs import generate

    def fail(*_):
        raise getattr(errors, error)("what went wrong")

    monkeypatch.setattr(generate, "generate", fail)
    assert unalike("generate", "cat", "--quiet") == (code, "", "unalike: what went wrong\n")


def test_bad_rows_keep_their_lines_when_a_command_refuses_them(unalike, monkeypatch):
    from unalike.runs import generate
    from unalike.runs.rows import PromptRow, require_arguments

    def fail(*_):
        rows = [PromptRow(2, "cat", "1", arguments={"model": "x", "hieght": 1})]
        require_arguments(rows, ["height"], "a pipeline", option="out")

    monkeypatch.setattr(generate, "generate", fail)
    code, out, err = unalike("generate", "cat", "--quiet")
    assert (code, out) == (2, "")
    assert err.splitlines() == [
        "unalike: --out has 2 faults:",
        "  line 2 has the column 'model', a setting of the whole run; delete it, and give --model "
        "to the run",
        "  line 2 has the column 'hieght', which is no argument of a pipeline; did you mean "
        "'height'? delete or rename it",
    ]


def test_error_is_a_sentence_when_the_disk_is_full(unalike, monkeypatch):
    from unalike.runs import generate

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(generate, "generate", fail)
    code, out, err = unalike("generate", "cat", "--quiet")
    assert (code, out) == (1, "")
    assert "No space left on device" in err
    assert len(err.splitlines()) == 1


def test_images_are_kept_and_the_exit_code_is_1_when_the_disk_is_full_at_the_end(
    unalike, tiny_sd_folder, tmp_path, monkeypatch
):
    from unalike.runs.folder import RunFolder

    def fail(path):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    write = RunFolder.place
    full = ("grid.png", "report.html")
    monkeypatch.setattr(
        RunFolder,
        "place",
        lambda self, name, own: write(self, name, fail if str(name) in full else own),
    )
    out = tmp_path / "out"
    arguments = ("--model", tiny_sd_folder, "--steps", 2, "-n", 2, "--out", out, "--quiet")
    code, _, err = unalike("generate", "cat", *arguments)
    assert code == 1
    assert err.startswith("unalike: cannot write ")
    assert "No space left on device; the images that are finished are kept" in err
    assert len(err.splitlines()) == 1
    assert [p.name for p in sorted((out / "images").glob("*.png"))] == ["00000.png", "00001.png"]
    assert not [p for p in out.rglob("*") if "partial" in p.name or p.name in full]

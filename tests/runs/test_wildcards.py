import subprocess
import sys
from collections import Counter

import pytest

from unalike.errors import OptionError
from unalike.runs.wildcards import Wildcards


@pytest.fixture
def folder(tmp_path):
    """A folder of wildcard files, good and bad ones."""
    (tmp_path / "animals").mkdir()
    for name, content in {
        "animals/cats.txt": b"# no cat\nlion\n\n{big|small} tiger\r\n",
        "loop.txt": b"__loop__ x\n",
        "empty.txt": b"\n# nothing\n",
        "bytes.txt": b"caf\xe9\n",
        "ordered.txt": b"{!a|b}\n",
        "percent.txt": b"50% grey\n",
        "more.json": b'{"colours": ["red", "blue"]}',
    }.items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


@pytest.mark.parametrize(
    ("template", "texts"),
    [
        ("{red|blue} heart", {"red heart", "blue heart"}),
        ("a  {red|}  heart\n", {"a red heart", "a heart"}),
        ("{2$$ and $$a|b}", {"a and b", "b and a"}),
        ("__animals/cats__", {"lion", "big tiger", "small tiger"}),
        ("a __animals/*__", {"a lion", "a big tiger", "a small tiger"}),
        ("__colours__ (cat:1.2) [x]", {"red (cat:1.2) [x]", "blue (cat:1.2) [x]"}),
    ],
)
def test_every_text_is_chosen_when_there_are_many_seeds(folder, template, texts):
    choose = Wildcards(folder).template(template)
    assert {choose(seed) for seed in range(60)} == texts


def test_choice_is_the_same_when_it_is_made_alone_or_after_others():
    template = "{a|b|c|d} {1|2|3|4}"
    choose = Wildcards().template(template)
    together = [choose(seed) for seed in range(20)]
    assert [Wildcards().template(template)(seed) for seed in reversed(range(20))] == together[::-1]
    assert len(set(together)) > 5


def test_choices_are_uniform_when_there_are_no_weights():
    choose = Wildcards().template("{a|b|c|d}")
    counts = Counter(choose(seed) for seed in range(2000))
    assert all(400 < count < 600 for count in counts.values())  # 500 ± 5 standard deviations
    assert len(counts) == 4


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{a", "cannot be read by dynamicprompts"),
        ("50% {a|b}", "cannot be read by dynamicprompts .*found '%'"),
        ("{}", "gives a text that is empty for the seed 0"),
        ("${x}", "x is not defined"),
        ("{!a|b}", "'{!', which chooses in order"),
        ("__@loop__", "'__@', which chooses in order"),
        ("__ordered__", "'{!', which chooses in order"),
        ("__loop__", "contain themselves"),
        ("__empty__", "has __empty__, whose file has no text"),
        ("__bytes__", "has __bytes__, whose file cannot be used: line 1 has bytes"),
        ("__percent__", "cannot be read by dynamicprompts"),
        ("__animal/cats__", "did you mean 'animals/cats'"),
        ("__cats__", r"does not have; add cats\.txt"),
        ("__../secret__", r"has __\.\./secret__, which"),
    ],
)
def test_template_is_refused_when_it_gives_no_text(folder, template, message):
    (folder.parent / "secret.txt").write_text("x\n")
    with pytest.raises(ValueError, match=message):
        Wildcards(folder).template(template)(0)


def test_folder_is_asked_for_when_a_name_has_none(tmp_path):
    with pytest.raises(
        ValueError, match=r"no folder of wildcard files; give it, as in wildcards=D"
    ):
        Wildcards().template("__animals__")(0)
    with pytest.raises(OptionError, match=r"wildcards is .*none', which is no folder"):
        Wildcards(tmp_path / "none")


def test_extra_is_named_when_dynamicprompts_is_not_installed():
    code = (
        "import sys; sys.modules['dynamicprompts'] = None\n"
        "from unalike.runs.wildcards import Wildcards\n"
        "try: Wildcards()\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("OptionError")
    assert "pip install 'unalike[wildcards]'" in done.stdout

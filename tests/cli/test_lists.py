import json
import re

import pytest

from unalike.guidance.methods import METHODS, options
from unalike.pipelines.catalogue import MODELS


def test_every_model_is_listed_when_asked_for(unalike):
    code, out, err = unalike("models")
    assert (code, err) == (0, "")
    for name, model in MODELS.items():
        assert f"{name}  {model.summary}" in out
        assert model.checkpoint is None or f"{model.pipeline}: {model.checkpoint}" in out


def test_catalogue_is_one_document_when_json_is_asked_for(unalike):
    rows = json.loads(unalike("models", "--json").out)
    assert [(r["name"], r["steps"], r["guidance_scale"]) for r in rows] == [
        (m.name, m.steps, m.guidance_scale) for m in MODELS.values()
    ]


def test_every_option_of_every_method_is_listed_when_asked_for(unalike):
    code, out, err = unalike("methods")
    assert (code, err) == (0, "")
    for name, method in METHODS.items():
        assert f"{name}  {method.summary}" in out
        for f in options(method):
            assert f"--set {name}.{f.name}=" in out


def test_methods_are_one_document_when_json_is_asked_for(unalike):
    rows = json.loads(unalike("methods", "--json").out)
    assert {r["name"]: [o["name"] for o in r["options"]] for r in rows} == {
        n: [f.name for f in options(m)] for n, m in METHODS.items()
    }


def test_entries_of_all_methods_are_printed_when_none_is_named(unalike):
    code, out, _ = unalike("cite")
    assert code == 0
    assert all(method.citation in out for method in METHODS.values())


@pytest.mark.parametrize("names", [(), ("auto", "sparke"), ("spell", "spell")])
def test_every_key_is_printed_once_when_methods_share_a_paper(unalike, names):
    keys = re.findall(r"@\w+\{([^,]+),", unalike("cite", *names).out)
    assert keys
    assert sorted(set(keys)) == sorted(keys)


def test_only_the_named_method_is_cited_when_one_is_named(unalike):
    out = unalike("cite", "spell").out
    assert METHODS["spell"].citation in out
    assert METHODS["sparke"].citation not in out


def test_exit_code_is_2_when_the_cited_method_is_unknown(unalike):
    code, out, err = unalike("cite", "spall")
    assert (code, out) == (2, "")
    assert "did you mean 'spell'" in err

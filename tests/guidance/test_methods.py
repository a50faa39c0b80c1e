import pytest

from unalike.errors import OptionError
from unalike.guidance import CADS, SPARKE, SPELL, Auto, IntervalGuidance, ParticleGuidance, VendiGuidance
from unalike.guidance.base import Method
from unalike.guidance.methods import METHODS, build, options


def test_table_names_each_class_by_its_own_name():
    assert list(METHODS.values()) == [Auto, SPARKE, VendiGuidance, SPELL, ParticleGuidance, CADS, IntervalGuidance]
    assert all(name == method.name for name, method in METHODS.items())


@pytest.mark.parametrize("name", METHODS)
def test_method_has_its_defaults_when_built_by_name(name):
    assert build(name) == METHODS[name]()


@pytest.mark.parametrize("name", METHODS)
def test_options_end_with_those_of_every_method(name):
    assert [f.name for f in options(METHODS[name])][-4:] == [f.name for f in options(Method)] == ["start", "stop", "every", "limit"]


def test_options_leave_out_tensors_and_build_takes_them():
    import torch

    assert not {"reference", "reference_prompts"} & {f.name for f in options(SPARKE)}
    method = build("sparke", reference=torch.ones(2, 4), reference_weight=-0.5)
    assert isinstance(method, SPARKE)
    assert method.reference is not None


@pytest.mark.parametrize("given", ["sparks", "Sparke", "spark"])
def test_error_lists_methods_and_suggests_the_closest_when_the_name_is_unknown(given):
    with pytest.raises(
        OptionError,
        match=f"method is '{given}'; allowed: 'auto', 'sparke', 'vendi', 'spell', 'particle', 'cads', 'interval'; did you mean 'sparke'",
    ):
        build(given)


def test_error_suggests_nothing_when_no_name_is_close():
    with pytest.raises(OptionError, match=r"allowed: 'auto', 'sparke', 'vendi', 'spell', 'particle', 'cads', 'interval'$"):
        build("qqq")


def test_error_lists_options_and_suggests_the_closest_when_one_is_unknown():
    with pytest.raises(OptionError, match=r"option of spell is 'radios'; allowed: 'radius', .*'limit', 'region'; did you mean 'radius'"):
        build("spell", radios=3.0)


def test_error_names_the_option_when_its_value_is_refused():
    with pytest.raises(OptionError, match=r"SPARKE: strength is -1; allowed: a number at least 0, as in SPARKE\(strength=0\.05\)"):
        build("sparke", strength=-1)

import pytest
import torch
from tests.attach.conftest import seeded

from unalike.attach.run.policy import Policy, Redraw, refusal
from unalike.attach.run.randomness import derived_seed
from unalike.attach.run.report import Certificate, ImageReport, Report
from unalike.errors import OptionError, RefusedError, ShieldError


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("mov",), r"on_violation is 'mov'; allowed: 'redraw', 'move', 'regenerate', 'refuse'"),
        (("regenerate", 0), "attempts is 0"),
        (("regenerate", True), "attempts is True"),
        (("regenerate", 1.5), "attempts is 1.5"),
        (("move", 5), "attempts is 5 and on_violation is 'move'"),
    ],
)
def test_policy_is_refused_when_it_makes_no_sense(arguments, message) -> None:
    with pytest.raises(OptionError, match=message):
        Policy(*arguments)


def test_only_rows_inside_get_new_noise_when_each_image_has_a_generator() -> None:
    generators = seeded(3, 10)
    expected = [torch.randn(4, generator=g) for g in seeded(3, 10)]
    redraw = Redraw({"prompt": "cat", "generator": generators})
    for g in generators:
        torch.randn(4, generator=g)  # what the first draw did
    again = redraw.arguments([1], 3, 1)
    assert again["prompt"] == "cat"
    noise = [torch.randn(4, generator=g) for g in again["generator"]]
    assert [torch.equal(a, b) for a, b in zip(noise, expected, strict=True)] == [True, False, True]
    assert [g.initial_seed() for g in again["generator"]][::2] == [10, 12]
    later = redraw.arguments([1], 3, 2)["generator"]
    assert not torch.equal(torch.randn(4, generator=later[1]), noise[1])


def test_noise_of_an_image_is_the_same_when_it_is_drawn_again_in_another_batch() -> None:
    alone = Redraw({"generator": seeded(1, 11)}).arguments([0], 1, 1)["generator"][0]
    among = Redraw({"generator": seeded(3, 10)}).arguments([0, 1], 3, 1)["generator"][1]
    assert (
        alone.initial_seed()
        == among.initial_seed()
        == derived_seed(torch.Generator().manual_seed(11), 1, None)
    )


def test_every_image_gets_noise_of_its_own_when_one_generator_serves_them_all() -> None:
    again = Redraw({"generator": torch.Generator().manual_seed(3)}).arguments([2], 4, 1)[
        "generator"
    ]
    assert len({g.initial_seed() for g in again}) == 4


def test_seed_differs_when_a_generator_has_been_used_before() -> None:
    generator = torch.Generator().manual_seed(3)
    fresh = derived_seed(generator, 1)
    torch.randn(1, generator=generator)
    assert derived_seed(generator, 1) != fresh
    assert 0 <= fresh < 2**63


def test_call_is_repeated_as_it_is_when_there_is_no_generator() -> None:
    assert Redraw({"prompt": "cat", "latents": None}).arguments([0], 1, 1) == {
        "prompt": "cat",
        "latents": None,
    }


def image(number: int, distance: float) -> ImageReport:
    certificate = Certificate("logo", distance, 2.0, distance - 2.0, False, "s", "c")
    return ImageReport(number, "cat", 0, {}, {}, {}, None, certificate)


def test_message_names_each_image_and_why_when_images_are_refused() -> None:
    report = Report(images=[image(0, 3.0), image(1, 0.5)])
    failures = {1: ShieldError("the way out is too long")}
    error = refusal(("blank",), report, [1], failures, Policy("move"))
    assert isinstance(error, RefusedError)
    assert (error.output, error.report, error.refused) == (("blank",), report, [1])
    for words in (
        "1 of 2 images",
        "image 1 ('cat') is 0.5 from 'logo', radius 2",
        "The way out is too long",
        "on_violation='redraw'",
    ):
        assert words in str(error)


def test_message_counts_the_rest_when_many_images_are_refused() -> None:
    report = Report(images=[image(i, 0.5) for i in range(7)])
    text = str(refusal((), report, list(range(7)), {}, Policy("regenerate", 1)))
    assert "7 of 7 images" in text
    assert "and 2 more" in text
    assert "drawn again 1 time)" in text

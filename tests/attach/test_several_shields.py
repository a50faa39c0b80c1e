"""Several protected sets at once: an image is inside where it is inside one of them."""

import contextlib
from typing import Any

import pytest
import torch
from PIL import Image
from tests.attach.conftest import prompted, seeded
from torch import Tensor

from unalike.attach import choose, encode_images, guide, shield_from_images
from unalike.attach.run.fewer import fewer_images
from unalike.errors import OptionError, RefusedError, ShieldError
from unalike.extractors import extractor
from unalike.guidance import SPELL
from unalike.models.emoji.copies import COPY
from unalike.shields import Shield

ASKED = {**prompted("sd", ["cat"], 3), "output_type": "pt"}


def colours(images: Tensor) -> Tensor:
    """The mean colour (n, 3) of images."""
    return images.mean(dim=(2, 3))


def edges(images: Tensor) -> Tensor:
    """How much the rows of images differ (n, 3)."""
    return images.diff(dim=2).abs().mean(dim=(2, 3))


def drawn(sd: Any) -> Tensor:
    return sd(**ASKED, generator=seeded(3)).images


def around(images: Tensor, radius: float, embed: Any = colours) -> Shield:
    points = embed((images * 255).round() / 255)
    return Shield(points, space=f"{embed.__name__}/{points.shape[1]}", radius=radius)


def gap(images: Tensor, embed: Any = colours) -> float:
    """A third of the smallest distance between images."""
    points = embed(images)
    return float(torch.pdist(points).min()) / 3


def test_an_image_is_refused_where_one_of_two_sets_has_it(sd: Any) -> None:
    images = drawn(sd)
    of_latents = shield_from_images(sd, [images[0]], 1e-3)
    first = encode_images(sd, (images * 255).round() / 255)[:1]
    of_latents = Shield(first, space=of_latents.space, radius=1e-3)
    of_colours = around(images[2:], gap(images))
    guided = guide(
        sd, shield=[of_latents, of_colours], embed=colours, on_violation="redraw", attempts=1
    )
    try:
        found = guided(**ASKED, generator=seeded(3)).images
    except RefusedError as refused:
        found = refused.output.images
    report = guided.report
    assert report is not None
    assert torch.equal(found[1], images[1])
    assert not torch.equal(found[0], images[0])
    assert not torch.equal(found[2], images[2])
    assert [image.restarts > 0 for image in report.images] == [True, False, True]
    for image in report.images:
        assert [c.space for c in image.certificates] == [of_latents.space, of_colours.space]
        assert image.certificate in image.certificates
        if not image.refused:
            assert all(c.margin >= 0 for c in image.certificates)
            assert all(c.decoded is not None and not c.decoded.inside for c in image.certificates)
    assert [entry["space"] for entry in report.shields] == [of_latents.space, of_colours.space]
    assert report.shield == report.shields[0]


def test_each_certificate_has_the_distance_in_its_own_space(sd: Any) -> None:
    images = drawn(sd)
    shields = [around(images[:1] * 0.5, 1e-4), around(images[:1] * 0.5, 1e-4, edges)]
    guided = guide(sd, shield=shields, embed=[edges, colours])  # in any order
    assert torch.equal(guided(**ASKED, generator=seeded(3)).images, images)
    assert guided.report is not None
    for i, report in enumerate(guided.report.images):
        for shield, embed, certificate in zip(
            shields, (colours, edges), report.certificates, strict=True
        ):
            shown = embed((images[i : i + 1] * 255).round() / 255)
            assert certificate.distance == pytest.approx(float(shield.nearest(shown)[1]), rel=1e-4)
            assert certificate.checksum == shield.checksum
        # the one that is nearest in units of its radius
        nearest = min(report.certificates, key=lambda c: c.distance / c.radius)
        assert report.certificate == nearest


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"on_violation": "move"}, "on_violation is 'move' and there are 2 shields"),
        ({"embed": None}, "embed is None"),
        ({"embed": [colours, edges]}, "embed has 'edges', and no shield protects vectors of it"),
    ],
)
def test_arguments_are_refused_where_they_do_not_fit(
    sd: Any, change: dict[str, Any], message: str
) -> None:
    images = drawn(sd)
    shields = [shield_from_images(sd, [images[0]], 1.0), around(images, 1.0)]
    with pytest.raises(OptionError, match=message):
        guide(sd, **{"shield": shields, "embed": colours, **change})


def test_two_sets_of_one_space_are_refused(sd: Any) -> None:
    shield = around(drawn(sd), 1.0)
    with pytest.raises(OptionError, match="two sets of 'colours/3'"):
        guide(sd, shield=[shield, shield], embed=colours)
    with pytest.raises(OptionError, match="shield is a str; allowed: a Shield or None"):
        guide(sd, shield=[shield, "set"], embed=colours)  # type: ignore[list-item]


def test_methods_see_the_set_of_latents_wherever_it_stands(sd: Any) -> None:
    images = drawn(sd)
    of_latents = shield_from_images(sd, [images[0]], 1e3)  # which all predictions are in
    of_colours = around(images[:1] * 0.5, 1e-4)
    acted = []
    for shields in ([of_latents, of_colours], [of_colours, of_latents]):
        guided = guide(
            sd, SPELL(batch=False, memory=False), shield=shields, embed=colours,
            on_violation="refuse",
        )  # fmt: skip
        with contextlib.suppress(RefusedError):  # on the surface of a ball, rounding decides
            guided(**ASKED, generator=seeded(3))
        assert guided.report is not None
        acted.append([image.active["spell"] for image in guided.report.images])
    assert acted == [[1.0] * 3] * 2


def test_seeds_that_head_into_either_set_are_left_out(sd: Any) -> None:
    arguments = {k: v for k, v in prompted("sd", ["cat"], 1).items() if k != "output_type"}
    arguments.pop("prompt")
    arguments.pop("num_images_per_prompt")
    free = choose(sd, "cat", num=2, candidates=4, **arguments)
    images = drawn(sd)
    everywhere = shield_from_images(sd, [images[0]], 1e3)
    nowhere = around(images[:1] * 0.5, 1e-6)
    again = choose(sd, "cat", num=2, candidates=4, shield=[nowhere], embed=colours, **arguments)
    assert again.seeds == free.seeds
    with pytest.raises(ShieldError):
        choose(
            sd, "cat", num=2, candidates=4, shield=[nowhere, everywhere], embed=colours, **arguments
        )


def test_arguments_of_fewer_images_are_theirs() -> None:
    own = seeded(4)
    asked = {
        "prompt": ["cat", "dog"],
        "negative_prompt": ["a", "b"],
        "num_images_per_prompt": 2,
        "generator": own,
        "guidance_scale": 2.0,
        "sigmas": [1.0, 0.5],
        "callback_on_step_end": print,
    }
    found = fewer_images(asked, [1, 2], 4)
    assert found is not None
    assert found["prompt"] == ["cat", "dog"]
    assert found["negative_prompt"] == ["a", "b"]
    assert found["num_images_per_prompt"] == 1
    assert found["generator"] == own[1:3]
    assert found["sigmas"] == [1.0, 0.5]
    labels = fewer_images({"class_labels": [3, 4, 5], "generator": own[:3]}, [2], 3)
    assert labels == {"class_labels": [5], "generator": own[2:3]}
    assert fewer_images({"batch_size": 3, "generator": own[:3]}, [0], 3) == {
        "batch_size": 1,
        "generator": own[:1],
    }


@pytest.mark.parametrize(
    "change",
    [
        {"latents": torch.zeros(2, 4, 8, 8)},
        {"prompt_embeds": torch.zeros(2, 3, 8)},
        {"image": [object(), object()]},
        {"generator": torch.Generator()},
        {"generator": None},
        {"generator": [torch.Generator()] * 2},
        {"prompt": ["cat", "dog", "owl"]},
        {"class_labels": torch.tensor([1, 2])},
    ],
)
def test_all_images_are_drawn_again_where_the_arguments_of_one_are_not_known(
    change: dict[str, Any],
) -> None:
    assert fewer_images({"prompt": "cat", "generator": seeded(2), **change}, [0], 2) is None


def test_a_set_of_features_is_made_of_images_of_any_size(sd: Any, tmp_path: Any) -> None:
    pixels = extractor("pixels", device="cpu")
    pictures = [Image.new("RGB", size, "red") for size in ((16, 16), (20, 16), (16, 16))]
    shield = shield_from_images(pixels, pictures, 0.5, ids=["a", "b", "c"])
    assert torch.equal(
        shield.nearest(pixels.of_images(pictures[1:2]))[1], torch.zeros(1, dtype=torch.float64)
    )
    shield.save(tmp_path / "set")
    assert Shield.open(tmp_path / "set").embedding == "pixels"
    copies = extractor("emoji-copies", device="cpu")
    assert shield_from_images(copies, drawn(sd)[:2], "auto").radius == COPY
    guide(sd, shield=[shield, shield_from_images(sd, [pictures[0]], 1.0)], embed=pixels)
    with pytest.raises(OptionError, match="resizes images by itself"):
        shield_from_images(pixels, pictures, 0.5, size=(16, 16))

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from tests.runs.score import folders

from unalike.attach import guide
from unalike.attach.diffusers.vae import encode_images
from unalike.attach.spaces import latent_model
from unalike.errors import NumericsError, OptionError, StoreError
from unalike.extractors import extractor
from unalike.memory import Memory
from unalike.models.emoji.copies import COPY, ERRORS
from unalike.runs.pipeline import RunPipeline
from unalike.runs.plan import planned_images
from unalike.runs.settings import GenerateSettings
from unalike.runs.shield.build import add, build, discard_unfinished
from unalike.runs.shield.inspection import radius_in_words
from unalike.runs.shield.settings import AddSettings, BuildSettings
from unalike.shields import Shield
from unalike.shields.store import open_folder

COUNT = 7


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder `set` of seven pictures."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("os.fsync", lambda handle: None)
    folders.write(tmp_path / "set", range(COUNT))
    return tmp_path


@pytest.fixture
def settings(here, tiny_sd_folder):
    def make(*images, **options):
        chosen = {
            "model": str(tiny_sd_folder),
            "device": "cpu",
            "radius": 1.0,
            "batch_size": 3,
            "out": Path("out"),
            **options,
        }
        return BuildSettings(
            images=images or ("set",), **{k: v for k, v in chosen.items() if v is not ...}
        )

    return make


def addition(settings, *images, **options):
    return AddSettings(
        folder=Path("out"),
        images=images,
        model=settings().model,
        device="cpu",
        batch_size=3,
        **options,
    )


def rows(folder="out"):
    return np.concatenate([block for _, block in open_folder(Path(folder)).vectors.blocks()])


def interrupted_at(end):
    """A progress that is interrupted, as by Ctrl-C, once this share is done."""

    def progress(share, note=""):
        if share >= end:
            raise KeyboardInterrupt

    return progress


def test_set_holds_the_latents_of_the_images_when_it_is_built(settings, tiny_sd):
    shares = []
    outcome = build(settings(), lambda share, note="": shares.append(share))
    expected = encode_images(tiny_sd, [folders.picture(i) for i in range(COUNT)], size=(16, 16))
    opened = open_folder(Path("out"))
    assert np.allclose(rows(), expected.flatten(1).numpy(), atol=1e-5)
    assert list(opened.ids) == [f"set/0{i}.png" for i in range(COUNT)]
    assert opened.manifest == outcome.manifest
    assert opened.manifest.space == f"{latent_model(tiny_sd)}/4x8x8"
    assert (opened.manifest.shape, opened.manifest.size, opened.manifest.embedding) == (
        (4, 8, 8),
        (16, 16),
        None,
    )
    assert (opened.manifest.radius, opened.manifest.radius_source) == (1.0, None)
    assert (outcome.inputs, outcome.added, outcome.skipped) == (COUNT, COUNT, [])
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert outcome.to_dict()["count"] == COUNT
    json.dumps(outcome.to_dict())
    assert Shield.open("out").nearest(expected)[0].tolist() == list(range(COUNT))


def test_images_are_resized_when_a_size_is_asked_for(settings, tiny_sd):
    build(settings(size=(16, 24), dtype="float16"))
    expected = encode_images(tiny_sd, [folders.picture(i) for i in range(COUNT)], size=(16, 24))
    manifest = open_folder(Path("out")).manifest
    assert (manifest.shape, manifest.dtype, manifest.size) == ((4, 8, 12), "float16", (16, 24))
    assert 0 < manifest.rounding < 0.1
    assert np.allclose(rows().astype(np.float32), expected.flatten(1).numpy(), atol=1e-2)


def test_features_are_stored_when_that_space_is_asked_for(settings, here):
    folders.picture(9, (40, 20)).save(here / "set" / "wide.png")
    build(settings(space="pixels", model=None))
    own = extractor("pixels", device="cpu")
    expected = [
        own.features(folders.pixels(here / "set", [name]))
        for name in [f"0{i}.png" for i in range(COUNT)] + ["wide.png"]
    ]
    manifest = open_folder(Path("out")).manifest
    assert (manifest.space, manifest.shape, manifest.size, manifest.embedding) == (
        "pixels/3072",
        (3072,),
        None,
        "pixels",
    )
    assert np.allclose(rows(), torch.cat(expected).numpy())


@pytest.mark.parametrize(("share", "batch_size"), [(0.01, 2), (0.5, 5), (0.84, 2)])
def test_build_goes_on_when_it_was_interrupted(settings, share, batch_size):
    build(settings(out=Path("whole")))
    with pytest.raises(KeyboardInterrupt):
        build(settings(), interrupted_at(share))
    with pytest.raises(StoreError, match="was not finished"):
        Shield.open("out")
    encoded = []
    outcome = build(settings(batch_size=batch_size), lambda share, note="": encoded.append(share))
    assert encoded[0] > share
    assert (outcome.inputs, outcome.added) == (COUNT, COUNT)
    assert list(open_folder(Path("out")).ids) == list(open_folder(Path("whole")).ids)
    assert np.allclose(rows(), rows("whole"), atol=1e-5)


def test_nothing_is_left_when_it_was_interrupted_before_anything_was_encoded(settings, here):
    with pytest.raises(OptionError, match="size is"):
        build(settings(size=(15, 16)))
    (here / "bad").mkdir()
    (here / "bad" / "a.png").write_text("x")
    with pytest.raises(
        StoreError,
        match=r"1 of 1 images in what was given cannot be read: bad/a.png \(.*Mend or remove them$",
    ):
        build(settings("bad", skip_bad=True))
    assert not (here / "out").exists()


def test_all_bad_images_are_listed_and_the_rest_goes_on_when_they_are_skipped(settings, here):
    (here / "set" / "01a.png").write_text("x")
    (here / "set" / "zz.png").write_bytes((here / "set" / "00.png").read_bytes()[:60])
    with pytest.raises(
        StoreError, match=r"2 of 9 images .*set/01a.png .*; set/zz.png .*skip_bad=True"
    ):
        build(settings())
    outcome = build(settings(skip_bad=True))
    assert [name for name, _ in outcome.skipped] == ["set/01a.png", "set/zz.png"]
    assert (outcome.inputs, outcome.added) == (COUNT + 2, COUNT)
    assert outcome.to_dict()["skipped"][0]["image"] == "set/01a.png"


def test_duplicates_are_kept_once_when_images_are_equal(settings, here):
    shutil.copy(here / "set" / "02.png", here / "set" / "zz.png")
    outcome = build(settings(batch_size=1))
    assert (outcome.inputs, outcome.added) == (COUNT + 1, COUNT)
    assert open_folder(Path("out")).sources[2] == ["set/02.png", "set/zz.png"]


def png(seed):
    buffer = io.BytesIO()
    folders.picture(seed).save(buffer, "PNG")
    return buffer.getvalue()


def test_inputs_of_all_kinds_make_one_set_when_given_together(settings, here, tiny_sd):
    z = encode_images(tiny_sd, [folders.picture(i) for i in range(20, 24)], size=(16, 16))
    np.save(here / "z.npy", z.numpy())
    np.save(here / "flat.npy", z.flatten(1).numpy() + 1)
    pq.write_table(pa.table({"image": [png(30), png(31)], "id": ["x", "y"]}), here / "p.parquet")
    build(settings("set", "p.parquet", "z.npy", "flat.npy"))
    assert len(rows()) == COUNT + 2 + 4 + 4
    assert np.array_equal(rows()[-8:-4], z.flatten(1).numpy())
    assert list(open_folder(Path("out")).ids)[COUNT : COUNT + 3] == [
        "p.parquet#x",
        "p.parquet#y",
        "z.npy#0",
    ]


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        (
            np.zeros((2, 4, 8, 9), np.float32),
            OptionError,
            r"latents of shape \(4, 8, 9\); allowed here: \(4, 8, 8\), or flat, \(256,\)",
        ),
        (np.full((2, 256), np.nan, np.float32), NumericsError, r"'z.npy#0' and 1 more has NaN"),
    ],
)
def test_latents_are_refused_when_they_do_not_fit_or_are_not_finite(
    settings, here, values, error, message
):
    np.save(here / "z.npy", values)
    with pytest.raises(error, match=message):
        build(settings("z.npy"))
    assert not (here / "out").exists()


def test_folder_is_refused_before_a_model_is_loaded_when_it_is_in_the_way(settings, here):
    with pytest.raises(StoreError, match="holds other files"):
        build(settings(out=Path("set"), model="no/such-model"))
    build(settings())
    with pytest.raises(StoreError, match="a protected set of 7 vectors already"):
        build(settings(model="no/such-model"))


def test_radius_is_measured_on_the_set_when_it_is_auto(settings):
    manifest = build(settings(radius=None)).manifest
    z = rows().astype(np.float64)
    apart = np.linalg.norm(z[:, None] - z, axis=2) + np.diag(np.full(COUNT, np.inf))
    assert apart.min() <= 2 * manifest.radius <= apart.min(axis=1).max()
    assert manifest.radius_source is not None
    assert manifest.radius_source["method"] == "auto"
    assert manifest.radius_source["protected"]["measured"] == COUNT
    assert "generated" not in manifest.radius_source


def generated(asked):
    """What a build says of its unguided generations."""
    source = build(asked).manifest.radius_source
    assert source is not None
    return source["generated"]


@pytest.mark.parametrize("space", ["latent", "pixels"])
def test_radius_is_measured_on_unguided_images_too_when_prompts_are_given(settings, space):
    asked = settings(
        radius=None, model="digits", prompts=("3", "seven"), generations=2, space=space, seed=5
    )
    own = generated(asked)
    assert own["measured"] == 4
    assert (own["prompts"], own["of_each"], own["seed"]) == (["3", "seven"], 2, 5)
    assert (own["steps"], own["guidance_scale"]) == (25, 1.5)
    assert 0 <= own["copies"] <= 4


def test_generations_are_at_no_distance_when_they_are_what_is_protected(settings):
    asked = GenerateSettings(prompts=("3",), num=2, model="digits", seed=5, device="cpu")
    memory, pipeline = Memory(), RunPipeline.open(asked, asked.prompts)
    pipeline.draw(guide(pipeline.pipe, memory=memory), planned_images(("3",), 2, 5), lambda: None)
    (space,) = memory.spaces()
    view = memory.view(space)
    assert view is not None
    np.save("z.npy", view.latents.numpy())
    chosen = settings(
        "z.npy", model="digits", radius=None, prompts=("3",), generations=2, seed=5, batch_size=2
    )
    own = generated(chosen)
    assert (own["copies"], own["copies_inside"]) == (2, 1.0)


def test_radius_cannot_be_measured_when_the_model_draws_another_size(settings, here):
    other = {"model": "digits", "size": (24, 16)}
    with pytest.raises(OptionError, match="leave size out"):
        build(settings(radius=None, prompts=("3",), generations=1, **other))
    assert build(settings(**other)).added == COUNT  # what was encoded is not lost


def test_images_are_added_when_there_is_a_set(settings, here):
    build(settings(radius=3.0))
    folders.write(here / "more", range(10, 14))
    shutil.copy(here / "set" / "01.png", here / "more" / "again.png")
    outcome = add(addition(settings, "more", "set"))
    assert (outcome.inputs, outcome.manifest.count, outcome.manifest.radius) == (12, COUNT + 4, 3.0)
    assert outcome.added == 4
    assert open_folder(Path("out")).sources[1] == ["set/01.png", "more/again.png"]
    build(settings("set", "more", out=Path("whole")))
    assert np.allclose(rows(), rows("whole"), atol=1e-5)


def test_addition_goes_on_or_back_when_it_was_interrupted(settings, here):
    build(settings())
    folders.write(here / "more", range(10, 15))
    before = open_folder(Path("out")).manifest
    with pytest.raises(KeyboardInterrupt):
        add(addition(settings, "more"), interrupted_at(0.5))
    shutil.copytree(here / "out", here / "copy")
    with pytest.raises(StoreError, match=r"addition .* is not finished"):
        Shield.open("out")
    with pytest.raises(OptionError, match="leave one of the two out"):
        discard_unfinished(Path("out"), ["more"])
    assert discard_unfinished(Path("out")) > 0
    assert open_folder(Path("out")).manifest == before
    shutil.rmtree(here / "out")
    (here / "copy").rename(here / "out")
    assert add(addition(settings, "more")).manifest.count == COUNT + 5


def test_addition_is_refused_when_it_is_of_another_space(settings, here):
    build(settings())
    emoji = AddSettings(folder=Path("out"), images=("set",), model="emoji", device="cpu")
    with pytest.raises(StoreError, match=r"the model 'emoji' makes 'AutoencoderKL-.*built with"):
        add(emoji)
    with pytest.raises(OptionError, match="model is missing"):
        add(AddSettings(folder=Path("out"), images=("set",), device="cpu"))
    with pytest.raises(OptionError, match="the set is one of latent; leave it out"):
        add(AddSettings(folder=Path("out"), images=("set",), space="pixels", device="cpu"))
    build(settings(space="pixels", model=None, out=Path("features")))
    with pytest.raises(OptionError, match="the set is one of pixels, which needs none"):
        add(AddSettings(folder=Path("features"), images=("set",), model="emoji", device="cpu"))
    with pytest.raises(StoreError, match="no protected set"):
        add(AddSettings(folder=Path("set"), images=("set",), model="emoji", device="cpu"))
    assert open_folder(Path("out")).manifest.count == COUNT


def test_features_are_found_again_by_another_spelling_when_they_are_in_a_folder(
    settings, here, clip_folder
):
    build(settings(space=f"clip:{clip_folder}", model=None))
    manifest = open_folder(Path("out")).manifest
    assert manifest.embedding == f"clip:{clip_folder.name}"
    folders.write(here / "more", [9])
    assert (
        add(
            AddSettings(
                folder=Path("out"), images=("more",), space=f"clip:{clip_folder}", device="cpu"
            )
        ).manifest.count
        == COUNT + 1
    )


BAD = {
    "images": ({"images": ()}, "images is missing"),
    "an empty name": ({"images": ("",)}, "images is '', which is empty"),
    "no model": ({"model": None}, "model is missing"),
    "a model for nothing": ({"space": "pixels"}, "need none"),
    "prompts without a model": (
        {"space": "pixels", "model": None, "radius": None, "prompts": ("a",)},
        "prompts needs a model to draw with",
    ),
    "size of features": (
        {"space": "pixels", "model": None, "size": (16, 16)},
        "resize by themselves",
    ),
    "space": (
        {"space": "pixel"},
        r"space is 'pixel'; did you mean 'pixels'. allowed: latent, pixels",
    ),
    "radius": ({"radius": 0.0}, "radius is 0.0; allowed"),
    "radius below 0": ({"radius": -2.0}, "radius is -2"),
    "radius that is none": ({"radius": float("nan")}, "radius is nan"),
    "prompts for nothing": ({"prompts": ("a",)}, "nothing is measured"),
    "generations for nothing": ({"radius": None, "generations": 4}, "no prompt to draw"),
    "generations": ({"radius": None, "prompts": ("a",), "generations": 0}, "generations is 0"),
    "batch size": ({"batch_size": 0}, "batch_size is 0"),
    "seed": ({"seed": -1}, "seed is -1"),
    "precision": ({"dtype": "int8"}, "dtype is 'int8'"),
}


@pytest.mark.parametrize(("options", "message"), BAD.values(), ids=BAD)
def test_settings_are_refused_when_they_are_not_allowed(options, message):
    with pytest.raises(OptionError, match=message):
        BuildSettings(
            **{"images": ("set",), "out": Path("out"), "model": "emoji", "radius": 1.0, **options}
        )


def test_radius_is_the_distance_of_copies_where_the_features_know_it(tmp_path: Path) -> None:
    for i, colour in enumerate(("red", "lime", "blue")):
        Image.new("RGB", (64, 64), colour).save(tmp_path / f"{i}.png")
    settings = BuildSettings(
        images=(str(tmp_path),),
        out=tmp_path / "set",
        model=None,
        space="emoji-copies",
        device="cpu",
    )
    manifest = build(settings).manifest
    assert manifest.radius == COPY
    source = manifest.radius_source
    assert source is not None
    assert (source["copy_distance"], source["errors"]) == (COPY, ERRORS)
    assert 0 <= source["protected"]["others_inside"] <= 1
    assert radius_in_words(COPY, source) == (
        f"0.7: the distance below which two images are copies in this space; {ERRORS}"
    )
    generated = {"measured": 8, "copies": 2, "distance": 1.0, "others_inside": 0.25}
    words = radius_in_words(COPY, {**source, "generated": generated})
    assert words.endswith("; 25.0% of unguided images that are no copies are inside")

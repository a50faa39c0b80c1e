"""Images that are measured again after edits."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from tests.runs.pages import Reader, require_structure
from tests.runs.score import folders

from unalike.errors import OptionError
from unalike.extractors import extractor
from unalike.runs.generate import generate
from unalike.runs.settings import GenerateSettings
from unalike.runs.shield.build import build
from unalike.runs.shield.check import check
from unalike.runs.shield.edited import AfterEdit
from unalike.runs.shield.edits import EDITS
from unalike.runs.shield.settings import BuildSettings, CheckSettings
from unalike.runs.shield.verify import verify

MEASURED = ("nearest", "distance", "margin", "inside")


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("os.fsync", lambda handle: None)


def protect(images: str, out: str, **options: Any) -> None:
    build(BuildSettings(images=(images,), out=Path(out), device="cpu", **options))


def crop(image: Image.Image) -> Image.Image:
    """Ten percent off each side of a 16×16 image, enlarged again."""
    return image.crop((2, 2, 14, 14)).resize((16, 16), Image.Resampling.BICUBIC)


@pytest.fixture
def drawn(tiny_sd_folder: Path, tmp_path: Path) -> GenerateSettings:
    """The settings of a run in `plain`, without a shield, of two images; the crop of the first is
    in the folder `crop`.
    """
    settings = GenerateSettings(
        prompts=("cat",),
        num=2,
        steps=2,
        guidance_scale=3.0,
        method=("sparke",),
        strength=0.0,
        model=str(tiny_sd_folder),
        device="cpu",
        out=Path("plain"),
    )
    generate(settings)
    Path("crop").mkdir()
    crop(Image.open("plain/images/00000.png")).save("crop/first.png")
    return settings


def shielded(drawn: GenerateSettings, folder: str, policy: str) -> None:
    generate(replace(drawn, out=Path("run"), shield=Path(folder), on_violation=policy))


def test_image_is_inside_after_the_crop_when_its_crop_is_protected(drawn: GenerateSettings) -> None:
    protect("crop", "set", space="pixels", radius=0.01)
    shielded(drawn, "set", "refuse")
    same = [Path(f"{run}/images/00000.png").read_bytes()[-200:] for run in ("run", "plain")]
    assert same[0] == same[1]
    found = verify(Path("run"), Path("set"), device="cpu", edits=True)
    assert found.differences == ()
    assert (found.confirmed, found.inside, found.images) == (True, 0, 2)
    assert found.edits is not None
    assert {name: (e.images, e.inside) for name, e in found.edits.items()} == {
        "jpeg80": (2, 0),
        "half": (2, 0),
        "crop10": (2, 1),
    }
    assert found.edits["crop10"].margin == pytest.approx(-0.01)
    own = extractor("pixels", device="cpu")
    (protected,) = own.features(folders.pixels(Path("crop"), ["first.png"])).double()
    for name in ("jpeg80", "half"):
        Path(name).mkdir()
        for path in Path("run/images").iterdir():
            EDITS[name](path).save(Path(name) / path.name)
        edited = own.features(folders.pixels(Path(name), ["00000.png", "00001.png"])).double()
        nearest = (edited - protected).norm(dim=1).min().item()
        assert found.edits[name].margin == pytest.approx(nearest - 0.01, rel=1e-6)


def test_words_and_json_tell_of_edits_when_they_were_measured(drawn: GenerateSettings) -> None:
    protect("crop", "set", space="pixels", radius=0.01)
    shielded(drawn, "set", "refuse")
    plain = verify(Path("run"), Path("set"), device="cpu")
    shares: list[float] = []
    found = verify(
        Path("run"),
        Path("set"),
        device="cpu",
        edits=True,
        progress=lambda share, note="": shares.append(share),
    )
    assert shares == [0.125, 0.25, 0.625, 1.0]
    assert plain.edits is None
    assert plain.to_dict() == {**found.to_dict(), "edits": None}
    assert found.sentences()[:3] == plain.sentences()
    jpeg, half, cropped = found.sentences()[3:]
    assert jpeg.startswith("After jpeg80 (saved as JPEG of quality 80) 0 of 2 images are inside: ")
    assert half.startswith("After half (resized to half and back) 0 of 2 images are inside: the ")
    assert cropped == (
        "After crop10 (cropped by 10% at each side and enlarged) 1 of 2 images is inside, one by "
        "0.01"
    )
    document = json.loads(json.dumps(found.to_dict()))
    assert list(document["edits"]) == list(EDITS)
    assert document["edits"]["crop10"] == {
        "images": 2,
        "inside": 1,
        "margin": pytest.approx(-0.01),
    }


def test_edited_images_are_encoded_again_when_latents_are_protected(
    drawn: GenerateSettings, tiny_sd_folder: Path
) -> None:
    protect("crop", "set", model=str(tiny_sd_folder), radius=0.001)
    shielded(drawn, "set", "redraw")
    model = str(tiny_sd_folder)
    found = verify(Path("run"), Path("set"), model=model, device="cpu", edits=True)
    assert found.differences == ()
    assert (found.inside, found.encoded) == (0, 2)
    assert found.edits is not None
    assert (found.edits["crop10"].inside, found.edits["crop10"].images) == (1, 2)
    for name, after in found.edits.items():
        Path(name).mkdir()
        for path in Path("run/images").iterdir():
            EDITS[name](path).save(Path(name) / path.name)
        asked = CheckSettings(
            folder=Path("set"), images=(name,), model=model, device="cpu", out=Path(f"c-{name}")
        )
        searched = check(asked)
        assert after.inside == searched.inside
        assert after.margin == pytest.approx(searched.checked[0].margin, rel=1e-3, abs=1e-5)


def test_nothing_is_measured_when_the_run_is_of_another_set(drawn: GenerateSettings) -> None:
    protect("crop", "set", space="pixels", radius=0.01)
    folders.write(Path("others"), [1])
    protect("others", "other", space="pixels", radius=0.01)
    shielded(drawn, "set", "refuse")
    found = verify(Path("run"), Path("other"), device="cpu", edits=True)
    assert (found.confirmed, found.edits) == (False, None)


def test_image_is_left_out_when_its_file_was_changed(drawn: GenerateSettings) -> None:
    protect("crop", "set", space="pixels", radius=0.01)
    shielded(drawn, "set", "refuse")
    folders.picture(9).save("run/images/00000.png")
    found = verify(Path("run"), Path("set"), device="cpu", edits=True)
    assert len(found.differences) == 1
    assert found.edits is not None
    assert [(e.images, e.inside) for e in found.edits.values()] == [(1, 0)] * 3


def test_no_number_is_given_when_no_image_was_measured() -> None:
    none = AfterEdit.of([])
    assert (none.images, none.inside, none.margin) == (0, None, None)
    assert none.sentence("half") == (
        "After half (resized to half and back) no image could be measured"
    )


def checked(*images: str, **options: Any) -> Any:
    return check(
        CheckSettings(
            folder=Path("set"),
            images=images or ("new",),
            device="cpu",
            out=Path("found"),
            overwrite=True,
            **options,
        )
    )


@pytest.fixture
def _images() -> None:
    """Three images in `new`, of which the crop of the second is protected."""
    folders.write(Path("new"), [0, 1, 2])
    Path("crop").mkdir()
    crop(folders.picture(1)).save("crop/1.png")
    folders.write(Path("crop"), [7, 8])
    protect("crop", "set", space="pixels", radius=0.5)


@pytest.mark.usefixtures("_images")
def test_each_edit_has_its_columns_when_images_are_checked_with_edits() -> None:
    outcome = checked(edits=True, batch_size=2)
    assert outcome.inside == 0
    after = {c.image: c.edits["crop10"] for c in outcome.checked}
    assert {name: c.inside for name, c in after.items()} == {
        "new/00.png": False,
        "new/01.png": True,
        "new/02.png": False,
    }
    assert (after["new/01.png"].nearest, after["new/01.png"].distance) == ("crop/1.png", 0)
    for name in EDITS:  # as the edited files are measured by themselves
        Path(name).mkdir()
        for path in Path("new").iterdir():
            EDITS[name](path).save(Path(name) / path.name)
        alone = check(
            CheckSettings(
                folder=Path("set"), images=(name,), device="cpu", out=Path(f"found-{name}")
            )
        )
        expected = {Path(c.image).name: c for c in alone.checked}
        for c in outcome.checked:
            own, other = c.edits[name], expected[Path(c.image).name]
            assert (own.nearest, own.inside) == (other.nearest, other.inside)
            assert own.distance == pytest.approx(other.distance, abs=1e-6)
    table = pq.read_table("found/check.parquet")
    rows = table.to_pylist()
    record = json.loads(Path("found/check.json").read_text("utf-8"))
    assert [{k: v for k, v in row.items() if k != "radius"} for row in rows] == record["checked"]
    assert table.schema.names == [
        "image",
        *MEASURED,
        *(f"{what}_{edit}" for edit in EDITS for what in MEASURED),
        "radius",
    ]
    assert record["edits"]["crop10"] == {"images": 3, "inside": 1, "margin": -0.5}
    assert [record["edits"][name]["inside"] for name in ("jpeg80", "half")] == [0, 0]


@pytest.mark.usefixtures("_images")
def test_distances_stay_the_same_when_images_are_edited_too() -> None:
    plain, edited = checked(), checked(edits=True)
    assert (plain.edits, plain.record["edits"]) == (None, None)
    assert [replace(c, edits={}) for c in edited.checked] == list(plain.checked)
    assert set(pq.read_table("found/check.parquet").schema.names) > {"inside_half", "inside"}
    assert not any("half" in name for entry in plain.record["checked"] for name in entry)


@pytest.mark.usefixtures("_images")
def test_page_tells_what_edits_do_when_images_are_checked_with_them() -> None:
    checked(edits=True)
    page = Path("found/report.html").read_text("utf-8")
    require_structure(Reader(page))
    assert "After crop10 (cropped by 10% at each side and enlarged) 1 of 3 images is inside" in page
    assert "inside after crop10" in page
    assert page.count(">yes<") == 1
    checked()
    assert "After crop10" not in Path("found/report.html").read_text("utf-8")


@pytest.mark.usefixtures("_images")
def test_latents_are_refused_when_edits_are_asked_for() -> None:
    save_file({"latents": torch.zeros(1, 3072)}, "z.safetensors")
    assert len(checked("z.safetensors").checked) == 1
    with pytest.raises(OptionError, match=r"edits=True edits images, and 'z.safetensors' holds"):
        checked("new", "z.safetensors", edits=True)
    with pytest.raises(OptionError, match="edits is 'half'; allowed: True or False"):
        checked(edits="half")


@pytest.mark.usefixtures("_images")
def test_large_image_is_measured_as_it_is_when_it_has_another_size() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (33, 70, 3), dtype=np.uint8)
    Image.fromarray(noise).save("new/large.png")
    outcome = checked(edits=True)
    assert [len(c.edits) for c in outcome.checked] == [3] * 4

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file
from tests.runs.pages import Reader, require_structure
from tests.runs.score import folders

from unalike.errors import OptionError, StoreError
from unalike.extractors import extractor
from unalike.runs.shield.build import build
from unalike.runs.shield.check import check
from unalike.runs.shield.inspection import inspect, radius_in_words, words
from unalike.runs.shield.settings import BuildSettings, CheckSettings
from unalike.shields.store import open_folder


@pytest.fixture(autouse=True)
def _protected(tmp_path, monkeypatch):
    """Seven pictures protected as pixels in `out`, and four in `new`, of which one is protected and
    one is nearly.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("os.fsync", lambda handle: None)
    folders.write(tmp_path / "set", range(7))
    protect(radius=1.0)
    folders.write(tmp_path / "new", [20, 3, 21])
    pixels = np.array(folders.picture(5))
    pixels[0, 0] ^= 16
    folders.Image.fromarray(pixels).save(tmp_path / "new" / "near.png")


def protect(out="out", images=("set",), **options):
    return build(
        BuildSettings(images=images, out=Path(out), space="pixels", device="cpu", **options)
    )


def checked(*images, **options):
    return check(
        CheckSettings(
            folder=Path("out"),
            images=images or ("new",),
            device="cpu",
            out=Path("found"),
            **options,
        )
    )


def test_nearest_and_distances_are_those_of_brute_force_when_images_are_checked():
    shares = []
    outcome = check(
        CheckSettings(folder=Path("out"), images=("new",), device="cpu", out=Path("found")),
        lambda share, note="": shares.append(share),
    )
    own = extractor("pixels", device="cpu")
    x, z = (
        own.features(folders.pixels(Path(n), sorted(p.name for p in Path(n).iterdir()))).double()
        for n in ("new", "set")
    )
    apart = torch.cdist(x, z, compute_mode="donot_use_mm_for_euclid_dist")
    expected = {
        f"new/{p}": (d.min().item(), f"set/0{d.argmin()}.png")
        for p, d in zip(("00.png", "01.png", "02.png", "near.png"), apart, strict=True)
    }
    assert {c.image: (c.distance, c.nearest) for c in outcome.checked} == {
        k: (pytest.approx(d, abs=1e-9), n) for k, (d, n) in expected.items()
    }
    assert [c.image for c in outcome.checked][:2] == ["new/01.png", "new/near.png"]
    assert outcome.checked[0].distance == 0
    assert [c.inside for c in outcome.checked] == [d < 1 for d, _ in sorted(expected.values())]
    assert all(c.margin == pytest.approx(c.distance - 1) for c in outcome.checked)
    assert shares[-1] == 1


def test_table_record_and_page_say_the_same_when_images_are_checked():
    outcome = checked()
    table = pq.read_table("found/check.parquet").to_pylist()
    record = json.loads(Path("found/check.json").read_text("utf-8"))
    assert outcome.to_dict() == {"out": "found", **record}
    assert [{k: v for k, v in row.items() if k != "radius"} for row in table] == record["checked"]
    assert {row["radius"] for row in table} == {1.0}
    assert (record["images"], record["inside"], record["skipped"]) == (4, outcome.inside, [])
    assert record["set"]["checksum"] == open_folder(Path("out")).manifest.checksum
    page = Path("found/report.html").read_text("utf-8")
    assert (
        f"{outcome.inside} of 4 images, as they are on disk, are inside: nearer than 1 to" in page
    )
    assert page.count("<img ") == 8
    assert page.index("new/01.png") < page.index("new/near.png")


def test_name_stands_for_a_protected_image_when_its_file_is_gone():
    Path("set/03.png").unlink()
    checked()
    page = Path("found/report.html").read_text("utf-8")
    assert page.count("<img ") == 7
    assert "new/01.png, set/03.png (its file is not here)" in page


def test_rounding_is_taken_off_the_margin_when_the_set_is_in_float16():
    manifest = protect(out="half", radius=1.0, dtype="float16").manifest
    outcome = check(
        CheckSettings(folder=Path("half"), images=("new",), device="cpu", out=Path("found"))
    )
    assert manifest.rounding > 0
    assert all(
        c.margin == pytest.approx(c.distance - 1 - manifest.rounding, abs=1e-12)
        for c in outcome.checked
    )


def test_only_drawn_images_are_checked_when_an_output_folder_is_given(unalike, tiny_sd_folder):
    build(
        BuildSettings(
            images=("set",),
            out=Path("latents"),
            model=str(tiny_sd_folder),
            device="cpu",
            radius=1.0,
        )
    )
    drawn = (
        "generate",
        "a",
        "-n",
        2,
        "--compare",
        "--steps",
        2,
        "--model",
        tiny_sd_folder,
        "--device",
        "cpu",
        "--out",
        "run",
        "--quiet",
    )
    assert unalike(*drawn).code == 0
    asked = {"folder": Path("latents"), "images": ("run",), "device": "cpu", "out": Path("found")}
    outcome = check(CheckSettings(**asked, model=str(tiny_sd_folder)))
    assert sorted(c.image for c in outcome.checked) == [
        "run/images/00000.png",
        "run/images/00001.png",
    ]
    record = json.loads(Path("run/run.json").read_text("utf-8"))
    Path("run/run.json").write_text(
        json.dumps({**record, "model": {**record["model"], "name": str(tiny_sd_folder)}})
    )
    assert check(CheckSettings(**asked, overwrite=True)).checked == outcome.checked


def test_model_must_be_named_when_nothing_tells_it(tiny_sd_folder):
    build(
        BuildSettings(
            images=("set",),
            out=Path("latents"),
            model=str(tiny_sd_folder),
            device="cpu",
            radius=1.0,
        )
    )
    with pytest.raises(OptionError, match="model is missing"):
        check(
            CheckSettings(folder=Path("latents"), images=("new",), device="cpu", out=Path("found"))
        )
    assert not Path("found").exists()


def test_nothing_is_written_when_it_cannot_be_checked():
    Path("new/torn.png").write_text("x")
    with pytest.raises(StoreError, match=r"new/torn.png .*skip_bad=True"):
        checked()
    assert not Path("found").exists()
    outcome = checked(skip_bad=True)
    assert [s["image"] for s in outcome.record["skipped"]] == ["new/torn.png"]
    assert "new/torn.png" in Path("found/report.html").read_text("utf-8")
    with pytest.raises(StoreError, match="overwrite=True"):
        checked(skip_bad=True)
    assert len(checked("new/00.png", overwrite=True).checked) == 1
    save_file({"latents": torch.full((1, 3072), float("nan"))}, "z.safetensors")
    with pytest.raises(OptionError, match=r"'z.safetensors#0' has NaN"):
        checked("z.safetensors", overwrite=True)
    with pytest.raises(StoreError, match="no protected set"):
        check(CheckSettings(folder=Path("set"), images=("new",)))


def test_set_is_described_in_words_when_it_is_inspected():
    text = dict(words(inspect(Path("out"))))
    assert text["vectors"].startswith("7 of 3072 numbers in float32, 84.2 KiB in 1 file")
    assert text["inputs"] == "7, no two of them equal"
    assert text["space"] == "pixels/3072 (features pixels)"
    assert text["radius"] == "1, as given"
    assert text["rounding"].startswith("none")
    assert text["checksum"].startswith(open_folder(Path("out")).manifest.checksum)
    assert "% of the vectors in float16" in text["memory"]


def test_what_was_measured_and_merged_is_told_when_it_is_inspected():
    folders.write(Path("twice"), [0, 1, 2, 0])
    protect(out="auto", images=("twice",), dtype="float16")
    outcome = inspect(Path("auto"))
    text = dict(words(outcome))
    assert text["inputs"] == "4, 1 of them duplicates of others"
    assert "measured: half the 5% quantile (" in text["radius"]
    assert ") of how far 3 protected images are from the nearest other" in text["radius"]
    assert text["rounding"].startswith("at most ")
    document = json.loads(json.dumps(outcome.to_dict()))
    assert (document["count"], document["inputs"], document["index"]["file"]) == (
        3,
        4,
        "index-0.safetensors",
    )
    assert document["index"]["share"] == document["index"]["resident_bytes"] / (3 * 3072 * 2)


def test_damage_is_found_when_a_set_is_inspected():
    path = Path("out/vectors-00000.safetensors")
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(StoreError, match=r"vectors-00000\.safetensors' is damaged"):
        inspect(Path("out"))


def test_page_of_a_check_has_a_sound_structure():
    checked()
    require_structure(Reader(Path("found/report.html").read_text("utf-8")))


def test_radius_says_how_many_images_its_quantile_is_of_when_copies_are_left_out():
    own = {"measured": 16, "copies": 15, "distance": 18.9}
    text = radius_in_words(9.45, {"quantile": 0.05, "protected": own})
    assert text == (
        "9.45, measured: half the 5% quantile (18.9) of how far 1 protected image is from the "
        "nearest other (15 of 16 images left out as copies)"
    )
    own = {"measured": 16, "copies": 16, "distance": None}
    assert "since all are copies" in radius_in_words(9.45, {"quantile": 0.05, "protected": own})

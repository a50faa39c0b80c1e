"""`unalike generate` and `unalike shield verify` with several protected sets."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from unalike.errors import OptionError, StoreError
from unalike.extractors import extractor
from unalike.images import read_image, stacked
from unalike.memory import Memory
from unalike.runs.generate import Outcome, generate
from unalike.runs.settings import GenerateSettings
from unalike.runs.shield.embedding import embeddings_of
from unalike.runs.shield.verify import verify
from unalike.shields import Shield


def settings(model: Path, out: Path, **changes: Any) -> GenerateSettings:
    plain: dict[str, Any] = {"prompts": ("cat",), "num": 3, "steps": 2, "guidance_scale": 3.0}
    plain |= {"method": ("sparke",), "strength": 0.0}
    return GenerateSettings(**{**plain, "model": str(model), "out": out, **changes})


@pytest.fixture(scope="module")
def sets(tiny_sd_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set of the latent of seed 0 and one of the pixels of the image of seed 2."""
    folder = tmp_path_factory.mktemp("sets")
    probe = generate(settings(tiny_sd_folder, folder / "probe", memory=folder / "bank"))
    memory = Memory.open(folder / "bank")
    (space,) = memory.spaces()
    view = memory.view(space)
    assert view is not None
    latents = view.latents[[0]].view(1, 4, 8, 8)
    Shield(latents, space=space.split()[0], radius=0.5, ids=["first"]).save(folder / "latents")
    pixels = extractor("pixels", device="cpu")
    with Image.open(probe.folder / "images" / "00002.png") as image:
        points = pixels.features(stacked([read_image(image)]))
    shield = Shield(points, space=f"{pixels.fingerprint}/{points.shape[1]}", radius=1e-3)
    shield.embedding = "pixels"
    shield.save(folder / "pixels")
    return folder


@pytest.fixture
def draw(sets: Path, tiny_sd_folder: Path, tmp_path: Path) -> Callable[..., Outcome]:
    def run(**changes: Any) -> Outcome:
        both = (sets / "latents", sets / "pixels")
        usual: dict[str, Any] = {"shield": both, "on_violation": "refuse"}
        return generate(settings(tiny_sd_folder, tmp_path / "out", **{**usual, **changes}))

    return run


def test_what_is_inside_either_set_is_refused_and_verified(
    draw: Callable[..., Outcome], sets: Path, tiny_sd_folder: Path
) -> None:
    outcome = draw()
    rows = pq.read_table(outcome.folder / "samples.parquet").to_pylist()
    assert [row["refused"] for row in rows] == [True, False, True]
    assert rows[0]["certificate_distance"] < 0.5 <= rows[2]["certificate_distance"]
    assert rows[2]["certificate_2_distance"] < 1e-3 <= rows[0]["certificate_2_distance"]
    assert rows[1]["certificate_2_space"] == "pixels/3072"
    record = outcome.record
    assert record["shield"]["name"] == "latents"
    assert [entry["name"] for entry in record["further_shields"]] == ["pixels"]
    assert record["command"].count("--shield ") == 2
    report = (outcome.folder / "report.html").read_text("utf-8")
    assert "<h2>Protected set latents</h2>" in report
    assert "<h2>Protected set pixels</h2>" in report
    assert "of 1 finished images are inside one of 2 protected sets" in report
    for order in (("latents", "pixels"), ("pixels", "latents")):
        found = verify(outcome.folder, [sets / name for name in order], model=str(tiny_sd_folder))
        assert found.confirmed, found.all_differences
        assert [part.certified for part in (found, *found.further)] == [
            "latents",
            "finished images",
        ]
    assert json.loads(json.dumps(found.to_dict()))["further"][0]["protected"] == 1
    assert sum("Certified are" in line or "Only latents" in line for line in found.sentences()) == 2


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("certificate_2_distance", 7.0),
        ("certificate_2_radius", 7.0),
        ("certificate_2_nearest", "other"),
        ("certificate_2_decoded_inside", True),
        ("certificate_distance", 7.0),
        ("drawn_seed", 7),
    ],
)
def test_a_changed_certificate_of_any_set_is_found(
    draw: Callable[..., Outcome], sets: Path, tiny_sd_folder: Path, column: str, value: Any
) -> None:
    outcome = draw()
    path = outcome.folder / "samples.parquet"
    table = pq.read_table(path)
    values = table[column].to_pylist()
    values[1] = value
    kind = table.schema.field(column).type
    place = table.schema.get_field_index(column)
    pq.write_table(table.set_column(place, column, pa.array(values, kind)), path)
    found = verify(outcome.folder, [sets / "latents", sets / "pixels"], model=str(tiny_sd_folder))
    assert not found.confirmed
    assert any(column.replace("_2", "") in text for text in found.all_differences)


def test_a_run_is_verified_with_all_of_its_sets_alone(
    draw: Callable[..., Outcome], sets: Path
) -> None:
    outcome = draw()
    with pytest.raises(StoreError, match="was drawn with the protected sets 'latents', 'pixels'"):
        verify(outcome.folder, sets / "latents")
    with pytest.raises(StoreError, match="others were given"):
        verify(outcome.folder, [sets / "latents", sets / "latents"])


def test_spaces_go_to_the_sets_that_need_them(sets: Path) -> None:
    shields = [Shield.open(sets / "latents"), Shield.open(sets / "pixels")]
    found = embeddings_of(shields, ["pixels"], device="cpu")
    assert [embed.name for embed in found] == ["pixels"]
    with pytest.raises(OptionError, match="no protected set is of it"):
        embeddings_of(shields, ["clip:folder"], device="cpu")
    with pytest.raises(OptionError, match="is one of latents, which needs none"):
        embeddings_of(shields[:1], ["clip:folder"], device="cpu")


def test_moving_out_of_several_sets_is_refused_before_anything_is_drawn(
    draw: Callable[..., Outcome], tmp_path: Path
) -> None:
    with pytest.raises(OptionError, match="there are 2 shields"):
        draw(on_violation="move")
    assert not (tmp_path / "out").exists()

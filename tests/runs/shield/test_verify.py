import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from unalike import tensorfile
from unalike.errors import OptionError, StoreError
from unalike.memory import Memory
from unalike.runs.folder import LATENTS_KIND, LATENTS_VERSION
from unalike.runs.generate import generate
from unalike.runs.settings import GenerateSettings
from unalike.runs.shield.verification import Verification
from unalike.runs.shield.verify import verify
from unalike.shields import Shield
from unalike.shields.writer import Writer

FACTS = {
    "prompts": ("cat",),
    "num": 2,
    "steps": 2,
    "guidance_scale": 3.0,
    "method": ("sparke",),
    "strength": 0.0,
}


@pytest.fixture(scope="module")
def drawn(tiny_sd_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the protected set `shield` and the run `moved`, of whose two images one had to
    be moved out of it.
    """
    folder = tmp_path_factory.mktemp("verify")
    probe = GenerateSettings(
        **FACTS, model=str(tiny_sd_folder), out=folder / "probe", memory=folder / "bank"
    )
    generate(probe)
    memory = Memory.open(folder / "bank")
    (space,) = memory.spaces()
    view = memory.view(space)
    assert view is not None
    first = view.latents[:1].view(1, 4, 8, 8)
    Shield(
        torch.cat([first, first + 40]), space=space.split()[0], radius=1.0, ids=["near", "far"]
    ).save(folder / "shield")
    generate(
        GenerateSettings(
            **FACTS,
            model=str(tiny_sd_folder),
            out=folder / "moved",
            on_violation="move",
            shield=folder / "shield",
        )
    )
    generate(
        GenerateSettings(
            **FACTS,
            model=str(tiny_sd_folder),
            out=folder / "refused",
            shield=folder / "shield",
            on_violation="refuse",
        )
    )
    return folder


@pytest.fixture
def verified(drawn: Path, tiny_sd_folder: Path, tmp_path: Path) -> Callable[..., Verification]:
    """Verifies a copy of a run after something was done to it."""

    def changed(
        change: Callable[[Path], object] = lambda folder: None, run: str = "moved", **options: Any
    ) -> Verification:
        shutil.copytree(drawn / run, tmp_path / "run")
        change(tmp_path / "run")
        return verify(
            tmp_path / "run", drawn / "shield", **{"model": str(tiny_sd_folder), **options}
        )

    return changed


def rewritten(**changes: Any) -> Callable[[Path], None]:
    """Changes columns of the first row of the table."""

    def change(run: Path) -> None:
        table = pq.read_table(run / "samples.parquet")
        for name, value in changes.items():
            column = table[name].to_pylist()
            column[0] = value(column[0]) if callable(value) else value
            table = table.set_column(
                table.schema.get_field_index(name),
                name,
                pa.array(column, table.schema.field(name).type),
            )
        pq.write_table(table, run / "samples.parquet")

    return change


def other_picture(side: int, *, recorded: bool) -> Callable[[Path], None]:
    """Draws something else over the first image, the digest in the table made to fit where it is
    `recorded`.
    """

    def change(run: Path) -> None:
        path = run / "images" / "00000.png"
        noise = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path)
        if recorded:
            rewritten(image_sha256=hashlib.sha256(path.read_bytes()).hexdigest())(run)

    return change


def with_latents(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Path], None]:
    """Changes the final latents, the checksum of the file made to fit."""

    def rewrite(run: Path) -> None:
        tensors = load_file(run / "latents.safetensors")
        tensors["latents"] = change(tensors["latents"])
        tensorfile.write(run / "latents.safetensors", LATENTS_KIND, LATENTS_VERSION, {}, tensors)

    return rewrite


def test_certificates_are_confirmed_when_nothing_was_changed(
    verified: Callable[..., Verification],
) -> None:
    shares: list[float] = []
    found = verified(progress=lambda share, note="": shares.append(share))
    assert found.differences == ()
    assert found.confirmed
    assert (found.images, found.refused, found.moved, found.encoded, found.protected) == (
        2,
        0,
        1,
        2,
        2,
    )
    assert found.margin is not None
    assert 0 <= found.margin < 1e-4
    assert shares == [0.5, 1.0]
    assert json.loads(json.dumps(found.to_dict()))["confirmed"] is True


def test_refused_images_have_nothing_to_verify_when_the_run_refused_some(
    verified: Callable[..., Verification],
) -> None:
    found = verified(run="refused")
    assert found.differences == ()
    assert (found.images, found.refused, found.moved) == (1, 1, 0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            rewritten(certificate_distance=lambda d: d * (1 + 1e-8)),
            "image 0: certificate_distance is",
        ),
        (rewritten(certificate_margin=lambda m: m + 1e-3), "image 0: certificate_margin is"),
        (
            rewritten(certificate_nearest="far"),
            "certificate_nearest is 'far' in samples.parquet, and 'near'",
        ),
        (
            rewritten(certificate_radius=0.5),
            "certificate_radius is 0.5 in samples.parquet, and 1.0",
        ),
        (rewritten(certificate_space="elsewhere"), "certificate_space is 'elsewhere'"),
        (
            rewritten(certificate_decoded_distance=lambda d: d * 1.01),
            "image 0: certificate_decoded_distance is",
        ),
        (
            rewritten(certificate_decoded_distance=None),
            "image 0: certificate_decoded_distance is None",
        ),
        (
            rewritten(certificate_decoded_nearest=None),
            "image 0: certificate_decoded_nearest is None",
        ),
        (
            rewritten(certificate_decoded_inside=lambda inside: not inside),
            "certificate_decoded_inside does not fit",
        ),
        (
            rewritten(certificate_checksum="0"),
            "image 0: the certificates are of the protected set 0",
        ),
        (rewritten(refused=True), "image is 'images/00000.png' in samples.parquet, and None by"),
        (rewritten(index=1), "2 rows of image 1"),
        (lambda run: (run / "images" / "00000.png").unlink(), "image 0: 00000.png cannot be read"),
        (
            lambda run: (
                (run / "images" / "00000.png").unlink(),
                os.mkfifo(run / "images" / "00000.png"),
            ),
            "image 0: 00000.png cannot be read (it is not a regular file)",
        ),
        (
            lambda run: (run / "images" / "00000.png").write_bytes(b"PNG"),
            "image 0: 00000.png is not the file that the run wrote",
        ),
        (
            other_picture(16, recorded=False),
            "image 0: 00000.png is not the file that the run wrote",
        ),
        (other_picture(16, recorded=True), "image 0: certificate_decoded_distance is"),
        (other_picture(32, recorded=True), "image 0: the image is of another size"),
        (
            lambda run: shutil.copy(run / "images" / "00000.png", run / "images" / "00002.png"),
            "00002.png is there and",
        ),
        (
            with_latents(lambda z: torch.cat([z[:1] + 1e-4, z[1:]])),
            "image 0: certificate_distance is",
        ),
        (with_latents(lambda z: z.flip(0)), "image 1: certificate_distance is"),
        (with_latents(lambda z: z[:1]), "does not hold one latent for each image"),
        (with_latents(lambda z: z[:, :2]), "does not hold one latent for each image"),
    ],
)
def test_difference_is_named_when_something_was_changed(
    verified: Callable[..., Verification], change, words: str
) -> None:
    found = verified(change)
    assert not found.confirmed
    assert any(words in text for text in found.differences), found.differences


COLUMNS = {
    "index": 5,
    "image": "images/00001.png",
    "unguided_image": "unguided/00000.png",
    "prompt": "dog",
    "prompt_index": 1,
    "seed": 7,
    "change": 0.5,
    "prompt_vendi": 1.25,
    "prompt_rke": 1.25,
    "nearest_source": "memory",
    "nearest_index": 0,
    "nearest_distance": 0.25,
    "certificate_moved": False,
    "certificate_steps_moved": 2,
    "attempts": 2,
    "steps": 3,
    "guidance_scale": 7.5,
    "batch_size": 1,
    "model": "another",
    "methods": "spell",
    "active_sparke": 0.5,
    "correction_sparke": 0.5,
}


@pytest.mark.parametrize("name", COLUMNS)
def test_difference_is_named_when_a_column_that_follows_from_others_was_changed(
    verified: Callable[..., Verification], name: str
) -> None:
    found = verified(rewritten(**{name: COLUMNS[name]}))
    assert not found.confirmed
    what = {"index": "image 5", "nearest_source": "nearest", "nearest_index": "nearest"}
    word = what.get(name, "nearest" if name == "nearest_distance" else name)
    word = "moved" if name == "certificate_moved" else word
    assert any(word in text for text in found.differences), found.differences


def test_difference_is_named_when_the_moved_image_is_said_to_be_another(
    verified: Callable[..., Verification],
) -> None:
    def exchange(run: Path) -> None:
        table = pq.read_table(run / "samples.parquet")
        place = table.schema.get_field_index("certificate_moved")
        other = pa.array([not moved for moved in table["certificate_moved"].to_pylist()])
        pq.write_table(table.set_column(place, "certificate_moved", other), run / "samples.parquet")

    found = verified(exchange)
    assert any("certificate_moved is True" in text for text in found.differences)


def rerecorded(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    """Changes the record."""

    def rewrite(run: Path) -> None:
        record = json.loads((run / "run.json").read_text("utf-8"))
        change(record)
        (run / "run.json").write_text(json.dumps(record), "utf-8")

    return rewrite


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda r: r["shield"].update(radius=0.5), "radius of the protected set is 0.5, and 1.0"),
        (lambda r: r["shield"].update(size=7), "size of the protected set is 7, and 2"),
        (lambda r: r["shield"].update(rounding=0.5), "rounding of the protected set is 0.5"),
        (lambda r: r["shield"].update(space="other"), "space of the protected set is 'other'"),
        (lambda r: r["shield"].update(certified="finished images"), "certified of the protected"),
        (lambda r: r["shield"].update(radius_source={"method": "auto"}), "radius_source of the"),
        (lambda r: r["shield"].update(on_violation="refuse"), "certificate_moved is True"),
        (lambda r: r.update(seed=4), "image 0: seed is 0 in samples.parquet, and 4 by run.json"),
        (lambda r: r.update(seeds=[0, 2]), "seeds is [0, 2]"),
        (lambda r: r.update(prompts=["dog"]), "prompt is 'cat' in samples.parquet, and 'dog'"),
        (lambda r: r.update(num=3), "images.planned is 2, and 3 follows"),
        (lambda r: r["images"].update(planned=3), "images.planned is 3"),
        (lambda r: r["images"].update(finished=1), "images.finished is 1, and 2"),
        (lambda r: r["images"].update(moved=0), "images.moved is 0, and 1"),
        (lambda r: r["images"].update(drawn_again=1), "images.drawn_again is 1, and 0"),
        (lambda r: r["images"].update(refused=1), "images.refused is 1, and 0"),
        (lambda r: r["images"].update(decoded_inside=9), "images.decoded_inside is 9"),
        (lambda r: r["images"].update(plainly_changed=1), "images.plainly_changed is 1"),
        (lambda r: r.update(steps=9), "steps is 2 in samples.parquet, and 9 by run.json"),
        (lambda r: r.update(guidance_scale=9.0), "guidance_scale is 3.0 in samples.parquet"),
        (lambda r: r.update(batch_size=1), "batch_size is 16 in samples.parquet, and 1"),
        (lambda r: r.update(compare=True), "unguided_image is None in samples.parquet"),
        (lambda r: r["methods"].append({"name": "cads"}), "and 'sparke, cads' by run.json"),
        (lambda r: r["model"].update(pipeline="FluxPipeline"), "pipeline is 'FluxPipeline'"),
        (lambda r: r["model"].update(scheduler="Other"), "scheduler is 'Other'"),
        (lambda r: r["scores"]["guided"].update(vendi=1.0), "guided vendi is 1.0"),
        (lambda r: r["scores"]["guided"]["prompts"]["cat"].update(rke=1.0), "rke of 'cat' is 1.0"),
        (lambda r: r["scores"]["guided"]["prompts"]["cat"].update(images=9), "images of 'cat'"),
        (lambda r: r["guidance"][0].update(active=0.5), "sparke has a mean of 0.5"),
        (lambda r: r.update(command=r["command"].replace("--seed 0", "--seed 1")), "--seed 1"),
        (lambda r: r.update(command=r["command"].replace("sparke", "cads")), "other methods than"),
        (lambda r: r.update(command=r["command"].replace(" cat ", " dog ")), "prompt 'cat' is not"),
        (lambda r: r.update(command=r["command"] + " --compare"), "compare is False"),
        (lambda r: r.update(command=r["command"] + " '"), "its command cannot be read"),
        (lambda r: r["methods_as_used"].clear(), "methods_as_used are others"),
    ],
)
def test_difference_is_named_when_the_record_was_changed(
    verified: Callable[..., Verification], change, words: str
) -> None:
    found = verified(rerecorded(change))
    assert not found.confirmed
    assert any(words in text for text in found.differences), found.differences


@pytest.mark.parametrize(
    "change",
    [
        lambda r: r.pop("prompts"),
        lambda r: r.update(prompts=[1]),
        lambda r: r.update(num="2"),
        lambda r: r.update(num=True),
        lambda r: r.update(images=[]),
        lambda r: r.pop("scores"),
        lambda r: r.update(guidance=[{}]),
        lambda r: r.update(shield=[5]),
    ],
)
def test_record_is_refused_when_a_part_is_missing_or_of_another_kind(
    verified: Callable[..., Verification], change
) -> None:
    with pytest.raises(StoreError, match="has no usable"):
        verified(rerecorded(change))


def test_unguided_images_are_compared_when_there_are_some(
    drawn: Path, tiny_sd_folder: Path, tmp_path: Path
) -> None:
    settings = {**FACTS, "num": 3, "strength": 0.3, "batch_size": 2, "compare": True}
    generate(
        GenerateSettings(
            **{"on_violation": "move", **settings},
            model=str(tiny_sd_folder),
            out=tmp_path / "run",
            shield=drawn / "shield",
        )
    )
    again = lambda: verify(tmp_path / "run", drawn / "shield", model=str(tiny_sd_folder))  # noqa: E731
    assert again().differences == ()
    path = tmp_path / "run" / "unguided" / "00002.png"
    Image.new("RGB", (16, 16), "red").save(path)
    words = again().differences
    assert any("image 2: change is" in text for text in words), words
    assert any("unguided vendi" in text for text in words), words
    path.unlink()
    assert any("00002.png cannot be read" in text for text in again().differences)


@pytest.mark.parametrize(
    "settings",
    [
        {"prompts": ("cat", "dog"), "num": 3, "batch_size": 2, "strength": 0.3, "memory": "bank"},
        {"prompts": ("cat", "dog"), "num": 3, "batch_size": 4, "strength": 0.3},
        {"on_violation": "regenerate", "num": 3, "compare": True},
        {"on_violation": "refuse", "num": 3, "compare": True},
        {"on_violation": "refuse", "num": 1},
        {"dtype": "bfloat16", "batch_size": 1},
        {"prompts": ("--seed 3", 'it\'s a cat, "dog"')},
        {"method": ("auto", "spell"), "strength": None, "num": 3},
    ],
)
def test_run_is_confirmed_whatever_its_settings(
    drawn: Path, tiny_sd_folder: Path, tmp_path: Path, settings: dict[str, Any]
) -> None:
    facts = {**FACTS, **settings, "model": str(tiny_sd_folder), "shield": drawn / "shield"}
    if "memory" in settings:
        facts["memory"] = tmp_path / "bank"
        generate(GenerateSettings(**{**facts, "shield": None}, out=tmp_path / "before"))
    generate(GenerateSettings(**facts, out=tmp_path / "run"))
    assert verify(tmp_path / "run", drawn / "shield", model=str(tiny_sd_folder)).differences == ()


def test_finished_images_come_first_in_words_when_latents_are_certified(
    verified: Callable[..., Verification],
) -> None:
    found = verified()
    first, second, third = found.sentences()
    assert first.startswith(
        f"{found.inside} of 2 finished images are inside the protected set of 2"
    )
    assert second.startswith("Only latents are certified: the nearest is outside by ")
    assert "e-" not in second
    assert third.startswith("confirmed: ")


def test_image_is_named_when_it_is_inside(
    verified: Callable[..., Verification], drawn: Path
) -> None:
    centre = torch.from_numpy(Shield.open(drawn / "shield").vectors.rows(np.array([0]))).view(
        1, 4, 8, 8
    )

    def forge(run: Path) -> None:
        with_latents(lambda z: torch.cat([centre + 0.01, z[1:]]))(run)
        distance = float((centre + 0.01 - centre).double().norm())
        rewritten(certificate_distance=distance, certificate_margin=distance - 1.0)(run)

    found = verified(forge)
    assert [
        text for text in found.differences if "image 0: it is inside the protected set, 0.1" in text
    ]
    assert found.margin is not None
    assert found.margin < 0


def test_other_set_is_told_when_it_is_not_the_one_of_the_run(
    drawn: Path, tiny_sd_folder: Path, tmp_path: Path
) -> None:
    own = Shield.open(drawn / "shield")
    Shield(torch.zeros(1, 4, 8, 8), space=own.space, radius=1.0).save(tmp_path / "other")
    found = verify(drawn / "moved", tmp_path / "other", model=str(tiny_sd_folder))
    assert len(found.differences) == 1
    assert own.checksum in found.differences[0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda run: (run / "run.json").unlink(), "run.json is missing"),
        (
            lambda run: (run / "samples.parquet").unlink(),
            "samples.parquet of the run '.*run' is missing or damaged",
        ),
        (
            lambda run: (run / "samples.parquet").write_bytes(b"PAR1"),
            "samples.parquet of the run '.*run' is missing or damaged",
        ),
        (lambda run: (run / "latents.safetensors").unlink(), "there is no latents"),
        (
            lambda run: (run / "latents.safetensors").write_bytes(
                (run / "latents.safetensors").read_bytes()[:-4] + b"nope"
            ),
            "checksum",
        ),
        (with_latents(lambda z: z * float("nan")), "NaN or infinite"),
    ],
)
def test_run_is_refused_when_a_file_of_it_is_missing_or_damaged(
    verified: Callable[..., Verification], change, words: str
) -> None:
    with pytest.raises(StoreError, match=words):
        verified(change)


def test_run_is_refused_when_it_had_no_protected_set(drawn: Path) -> None:
    with pytest.raises(StoreError, match="without a protected set"):
        verify(drawn / "probe", drawn / "shield")


def test_model_is_asked_for_when_the_record_does_not_say_where_it_is(
    verified: Callable[..., Verification],
) -> None:
    with pytest.raises(OptionError, match=r"model is 'sd'.*model="):
        verified(model=None)


def test_model_is_refused_when_its_autoencoder_is_another(
    verified: Callable[..., Verification],
) -> None:
    with pytest.raises(StoreError, match="the latents of the model 'digits' are of"):
        verified(model="digits")


def test_set_of_features_is_verified_by_the_images_when_it_is_one(
    tiny_sd_folder: Path, tmp_path: Path
) -> None:
    from unalike.extractors import extractor

    pixels = extractor("pixels", device="cpu")
    with Writer.begin(
        tmp_path / "pixels", space=f"{pixels.fingerprint}/3072", shape=(3072,), embedding="pixels"
    ) as writer:
        writer.add(
            pixels.features(torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))),
            ["a", "b"],
        )
        writer.finish(radius=0.5)
    generate(
        GenerateSettings(
            **FACTS,
            model=str(tiny_sd_folder),
            out=tmp_path / "run",
            on_violation="move",
            shield=tmp_path / "pixels",
        )
    )
    assert verify(tmp_path / "run", tmp_path / "pixels").differences == ()
    other_picture(16, recorded=True)(tmp_path / "run")
    assert any(
        "image 0: certificate_distance is" in text
        for text in verify(tmp_path / "run", tmp_path / "pixels").differences
    )

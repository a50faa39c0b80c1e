import hashlib
import json
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
from unalike.runs.shield.verify import Verification, verify
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
            **FACTS, model=str(tiny_sd_folder), out=folder / "moved", shield=folder / "shield"
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
        (rewritten(refused=True), "which do not go together"),
        (rewritten(index=1), "2 rows of image 1"),
        (lambda run: (run / "images" / "00000.png").unlink(), "image 0: 00000.png cannot be read"),
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
    with pytest.raises(OptionError, match=r"unknown model 'sd'.*--model"):
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
            **FACTS, model=str(tiny_sd_folder), out=tmp_path / "run", shield=tmp_path / "pixels"
        )
    )
    assert verify(tmp_path / "run", tmp_path / "pixels").differences == ()
    other_picture(16, recorded=True)(tmp_path / "run")
    assert any(
        "image 0: certificate_distance is" in text
        for text in verify(tmp_path / "run", tmp_path / "pixels").differences
    )

import json
import re
import shlex
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image

from unalike.attach.spaces import latent_model, latent_space
from unalike.errors import NumericsError, OptionError, StoreError
from unalike.extractors import extractor
from unalike.memory import Memory
from unalike.runs.generate import generate
from unalike.runs.settings import GenerateSettings
from unalike.shields import Shield

PROMPTS = ("cat", "dog")


@pytest.fixture
def settings(tiny_sd_folder, tmp_path):
    """Settings of a small run, with changes."""

    def with_changes(**changes):
        plain = {
            "prompts": PROMPTS,
            "num": 2,
            "model": str(tiny_sd_folder),
            "steps": 3,
            "guidance_scale": 3.0,
            "out": tmp_path / "out",
        }
        return GenerateSettings(**{**plain, **changes})

    return with_changes


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"), dtype=np.int16)


def pixels_of(path):
    return (
        torch.from_numpy(np.array(Image.open(path).convert("RGB"))).permute(2, 0, 1)[None].float()
        / 255
    )


def record(path):
    return json.loads((path / "run.json").read_text("utf-8"))


def test_folder_holds_everything_when_finished(settings, tmp_path):
    outcome = generate(settings(compare=True))
    names = {
        str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*") if p.is_file()
    }
    images = {f"{folder}/{i:05}.png" for folder in ("images", "unguided") for i in range(4)}
    others = {"run.json", "samples.parquet", "ledger.sqlite", "grid.png", "report.html"}
    assert names == images | others
    assert outcome.finished
    assert record(tmp_path / "out") == {"tool": "unalike", **outcome.record}


def test_unguided_images_are_those_of_the_pipeline_itself_when_compared(
    settings, tiny_sd, tmp_path
):
    generate(settings(compare=True, seed=5))
    for i, (prompt, seed) in enumerate([("cat", 5), ("cat", 6), ("dog", 5), ("dog", 6)]):
        generator = torch.Generator().manual_seed(seed)
        expected = tiny_sd(
            prompt, num_inference_steps=3, guidance_scale=3.0, generator=generator
        ).images[0]
        difference = np.abs(
            pixels(tmp_path / "out" / "unguided" / f"{i:05}.png")
            - np.asarray(expected, dtype=np.int16)
        )
        assert difference.max() <= 1


def test_noise_of_an_image_is_the_same_when_the_batch_size_differs(settings, tmp_path):
    for size in (1, 3):
        generate(settings(compare=True, batch_size=size, out=tmp_path / str(size)))
    for i in range(4):
        name = f"unguided/{i:05}.png"
        assert np.abs(pixels(tmp_path / "1" / name) - pixels(tmp_path / "3" / name)).max() <= 1


def test_images_of_later_batches_differ_from_unguided_when_drawn_one_at_a_time(settings, tmp_path):
    generate(
        settings(
            prompts=("cat",), num=2, batch_size=1, compare=True, method=("sparke",), strength=0.3
        )
    )
    first, second = pq.read_table(tmp_path / "out" / "samples.parquet").to_pylist()
    assert first["change"] == 0, "the first has nothing to differ from"
    assert second["change"] > 0
    assert (first["nearest_source"], second["nearest_source"], second["nearest_index"]) == (
        None,
        "memory",
        0,
    )


def test_table_has_a_row_an_image_when_finished(settings, tmp_path):
    generate(settings(compare=True, seed=3, strength=0.3, batch_size=3, candidates=1))
    rows = pq.read_table(tmp_path / "out" / "samples.parquet").to_pylist()
    assert [(r["index"], r["prompt"], r["prompt_index"], r["seed"]) for r in rows] == [
        (0, "cat", 0, 3),
        (1, "cat", 0, 4),
        (2, "dog", 1, 3),
        (3, "dog", 1, 4),
    ]
    scores = record(tmp_path / "out")["scores"]["guided"]["prompts"]
    for row in rows:
        image, twin = (
            pixels(tmp_path / "out" / row["image"]),
            pixels(tmp_path / "out" / row["unguided_image"]),
        )
        assert row["change"] == pytest.approx(np.sqrt(np.mean(((image - twin) / 255) ** 2)))
        assert (row["prompt_vendi"], row["prompt_rke"]) == (
            scores[row["prompt"]]["vendi"],
            scores[row["prompt"]]["rke"],
        )
        assert row["methods"] == "auto"
        assert row["correction_auto"] > 0
    assert {r["nearest_index"] for r in rows[:3]} <= {0, 1, 2}
    assert (rows[3]["nearest_source"], rows[0]["nearest_source"]) == ("memory", "run")


def test_same_images_come_out_when_the_recorded_command_is_repeated(
    settings, tiny_sd_folder, tmp_path, monkeypatch
):
    from unalike.cli.app import app

    generate(
        settings(
            prompts=("-cat", "it's a dog"),
            method=("spell", "sparke"),
            set=("spell.radius=8", "sparke.every=2"),
            seed=2,
        )
    )
    program, *arguments = shlex.split(record(tmp_path / "out")["command"])
    assert program == "unalike"
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    app([*arguments, "--quiet", "--out", str(tmp_path / "again")], standalone_mode=False)
    for i in range(4):
        name = f"images/{i:05}.png"
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
    assert {**record(tmp_path / "out"), "seconds": 0} == {
        **record(tmp_path / "again"),
        "seconds": 0,
    }


def test_only_the_command_names_a_place_on_the_machine_when_files_are_used(settings, tmp_path):
    generate(settings(memory=tmp_path / "bank.safetensors"))
    for name in ("run.json", "report.html"):
        command = record(tmp_path / "out")["command"]
        text = (tmp_path / "out" / name).read_text("utf-8")
        text = re.sub(r'<span class="flag">(.*?)</span>', r"\1", text)  # in the page's command
        # any short name may occur by chance in an image
        text = re.sub(r"base64,[\w+/=]*", "", text.replace(command, ""))
        for place in (str(tmp_path), str(Path.home()), str(Path.cwd()), socket.gethostname()):
            assert place not in text


def test_finished_images_are_kept_when_interrupted(settings, tmp_path):
    def interrupt(share, note=""):
        if share > 0.5:
            raise KeyboardInterrupt

    outcome = generate(
        settings(num=2, batch_size=2, compare=True, memory=tmp_path / "bank.safetensors"), interrupt
    )
    out = tmp_path / "out"
    assert not outcome.finished
    assert (record(out)["finished"], record(out)["images"]["finished"]) == (False, 2)
    assert (
        sorted(p.name for p in (out / "images").glob("*.png"))
        == sorted(p.name for p in (out / "unguided").iterdir())
        == ["00000.png", "00001.png"]
    )
    assert pq.read_table(out / "samples.parquet").num_rows == 2
    assert (out / "grid.png").exists()
    assert "was stopped" in (out / "report.html").read_text("utf-8")
    assert len(Memory.open(tmp_path / "bank.safetensors")) == 2


def test_record_says_so_when_interrupted_before_the_first_image(settings, tmp_path):
    def interrupt(share, note=""):
        raise KeyboardInterrupt

    assert not generate(settings(), interrupt).finished
    names = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert names == ["ledger.sqlite", "memory.sqlite", "run.json"]


def test_memory_grows_when_a_run_is_complete(settings, tmp_path):
    bank = tmp_path / "bank.safetensors"
    generate(settings(memory=bank, num=1, candidates=1))
    assert record(tmp_path / "out")["memory"] == {
        "name": "bank.safetensors",
        "fingerprint": None,
        "samples_before": 0,
    }
    assert len(Memory.open(bank)) == 2
    generate(settings(memory=bank, num=1, overwrite=True, seed=9, candidates=1))
    assert record(tmp_path / "out")["memory"]["samples_before"] == 2
    (space,) = Memory.open(bank).spaces()
    assert (Memory.open(bank).texts(space), Memory.open(bank).seeds(space)) == (
        ["cat", "dog"] * 2,
        [0, 0, 9, 9],
    )


def test_memory_moves_the_same_seeds_elsewhere_when_it_holds_them(settings, tmp_path):
    generate(settings(memory=tmp_path / "bank.safetensors", strength=0.3))
    generate(settings(memory=tmp_path / "bank.safetensors", strength=0.3, out=tmp_path / "second"))
    assert (
        np.abs(
            pixels(tmp_path / "out" / "images/00000.png")
            - pixels(tmp_path / "second" / "images/00000.png")
        ).max()
        > 5
    )


def test_memory_is_refused_when_it_holds_another_model_alone(settings, tmp_path):
    other = Memory()
    other.add(
        "AutoencoderKL-0123456789/4x8x8 text-0123456789/16",
        torch.ones(1, 4, 8, 8),
        prompts=torch.ones(1, 16),
    )
    other.save(tmp_path / "bank.safetensors")
    with pytest.raises(StoreError, match="of another model"):
        generate(settings(memory=tmp_path / "bank.safetensors"))
    assert not (tmp_path / "out").exists()


def test_nothing_is_written_when_the_memory_is_damaged(settings, tmp_path):
    (tmp_path / "bank.safetensors").write_bytes(b"not a memory")
    with pytest.raises(StoreError, match=r"bank\.safetensors"):
        generate(settings(memory=tmp_path / "bank.safetensors"))
    assert not (tmp_path / "out").exists()


def test_images_are_certified_when_a_shield_is_given(settings, tiny_sd, tmp_path):
    first = generate(settings(num=1, memory=tmp_path / "bank.safetensors"))
    (space,) = Memory.open(tmp_path / "bank.safetensors").spaces()
    protected = Memory.open(tmp_path / "bank.safetensors").view(space)
    assert protected is not None
    Shield(
        protected.latents.view(2, 4, 8, 8),
        space=latent_space(latent_model(tiny_sd), (4, 8, 8)),
        radius=2.0,
        ids=["a", "b"],
    ).save(tmp_path / "shield")
    second = generate(
        settings(num=1, on_violation="move", shield=tmp_path / "shield", out=tmp_path / "second")
    )
    assert first.record["shield"] is None
    shield = Shield.open(tmp_path / "shield")
    assert second.record["shield"] == {
        "name": "shield",
        "certified": "latents",
        **shield.summary(),
        "on_violation": "move",
        "attempts": None,
    }
    assert (second.record["shield"]["size"], second.record["shield"]["radius"]) == (2, 2.0)
    assert [m["name"] for m in second.record["methods"]] == ["auto", "spell"]
    rows = pq.read_table(tmp_path / "second" / "samples.parquet").to_pylist()
    assert [r["certificate_nearest"] for r in rows] == ["a", "b"]
    assert all(r["certificate_distance"] >= r["certificate_radius"] == 2.0 for r in rows)
    assert "Protected set" in (tmp_path / "second" / "report.html").read_text("utf-8")


def test_pictures_are_outside_when_the_shield_is_of_features(settings, clip_folder, tmp_path):
    generate(settings(num=1, method=("spell",), set=("spell.radius=1e-6",), out=tmp_path / "first"))
    own = extractor(f"clip:{clip_folder}", device="cpu")
    known = torch.cat(
        [own.features(pixels_of(p)) for p in sorted((tmp_path / "first" / "images").glob("*.png"))]
    )
    radius = (known[0] - known[1]).norm().item() / 2
    shield = Shield(
        known[:1], space=f"{own.fingerprint}/{known.shape[1]}", radius=radius, ids=["a"]
    )
    shield.embedding = f"clip:{clip_folder.name}"
    shield.save(tmp_path / "shield")
    asked = {
        "num": 1,
        "shield": tmp_path / "shield",
        "on_violation": "move",
        "set": ("spell.radius=1e-6",),
        "method": ("spell",),
        "out": tmp_path / "second",
    }
    with pytest.raises(
        OptionError,
        match=r"one of clip:clip\d*, .* say where its files are, as in shield_space=clip:FOLDER",
    ):
        generate(settings(**asked))
    assert not (tmp_path / "second").exists()
    outcome = generate(settings(**asked, shield_space=f"clip:{clip_folder}"))
    found = [
        (own.features(pixels_of(outcome.folder / s.image.path)) - known[0]).norm().item()
        for s in outcome.samples
        if s.image
    ]
    assert min(found) > radius
    rows = pq.read_table(outcome.folder / "samples.parquet").to_pylist()
    assert [r["certificate_distance"] for r in rows] == pytest.approx(found, rel=1e-5)
    assert [r["certificate_decoded_distance"] for r in rows] == pytest.approx(found, rel=1e-5)
    assert f"--shield-space clip:{clip_folder} " in outcome.record["command"]
    assert outcome.record["shield"]["space"] == shield.space


def test_measured_radius_is_recorded_when_it_was_auto(settings):
    record = generate(settings(num=2, method=("spell",))).record
    assert record["methods"][0]["options"]["radius"] == "auto"
    assert record["methods_as_used"][0]["options"]["radius"] > 0


def test_step_is_named_when_the_model_returns_nan(
    settings, tiny_sd: StableDiffusionPipeline, tmp_path
):
    torch.nn.init.constant_(tiny_sd.unet.conv_out.bias, float("nan"))
    tiny_sd.save_pretrained(tmp_path / "broken")
    with pytest.raises(NumericsError, match="step 0 of 3"):
        generate(settings(model=str(tmp_path / "broken")))
    assert record(tmp_path / "out")["finished"] is False


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"model": "emojy"}, OptionError, "did you mean 'emoji'"),
        ({"device": "warp"}, OptionError, "device is 'warp'"),
        ({"device": "cuda:99"}, OptionError, "device is 'cuda:99'"),
        ({"shield": Path("no/such/shield")}, StoreError, "shield"),
    ],
)
def test_no_folder_is_left_when_the_run_cannot_begin(settings, tmp_path, changes, error, message):
    with pytest.raises(error, match=message):
        generate(settings(**changes))
    assert not (tmp_path / "out").exists()


def test_earlier_run_is_kept_when_the_new_one_cannot_begin(settings, tmp_path):
    generate(settings(num=1))
    with pytest.raises(OptionError, match="did you mean"):
        generate(settings(num=1, model="emojy", overwrite=True))
    assert (tmp_path / "out" / "images" / "00001.png").exists()


def test_folder_is_named_after_the_prompt_when_none_is_given(settings, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert (
        generate(settings(prompts=("a cat",), num=1, out=None)).folder == tmp_path / "unalike-a-cat"
    )
    assert (
        generate(settings(prompts=("a cat",), num=1, out=None)).folder
        == tmp_path / "unalike-a-cat-2"
    )


def test_pipeline_is_refused_when_it_takes_neither_prompts_nor_classes(settings, tmp_path):
    from diffusers import DDIMPipeline, UNet2DModel
    from tests import tiny

    from unalike.errors import UnsupportedError

    blocks: dict[str, Any] = {
        "down_block_types": ("DownBlock2D",),
        "up_block_types": ("UpBlock2D",),
    }
    unet = UNet2DModel(
        sample_size=8, block_out_channels=(8,), norm_num_groups=4, layers_per_block=1, **blocks
    )
    DDIMPipeline(unet, tiny.ddim()).save_pretrained(tmp_path / "unconditional")
    with pytest.raises(
        UnsupportedError,
        match="DDIMPipeline does not draw images from prompts or class labels alone",
    ):
        generate(settings(model=str(tmp_path / "unconditional")))


def named_classes(folder: Path) -> Path:
    """The folder of a DiTPipeline, which reads the names of its classes from the index and does not
    write them there.
    """
    index = folder / "model_index.json"
    index.write_text(
        json.dumps(
            json.loads(index.read_text("utf-8")) | {"id2label": {"0": "tench", "1": "goldfish"}}
        )
    )
    return folder


def test_classes_are_drawn_when_the_pipeline_takes_class_labels(settings, tmp_path):
    from tests import tiny

    folder = named_classes(tiny.write("dit", tmp_path))
    outcome = generate(settings(model=str(folder), prompts=("goldfish", "0"), num=1, compare=True))
    pipe = tiny.load(folder)
    for i, label in enumerate((1, 0)):
        expected = pipe(
            [label],
            num_inference_steps=3,
            guidance_scale=3.0,
            generator=torch.Generator().manual_seed(0),
        ).images[0]
        difference = np.abs(
            pixels(outcome.folder / "unguided" / f"{i:05}.png")
            - np.asarray(expected, dtype=np.int16)
        )
        assert difference.max() <= 1


def test_nothing_is_left_behind_when_the_prompt_is_no_class(settings, tmp_path):
    from tests import tiny

    with pytest.raises(
        OptionError, match=r"prompt 'cat' is no class that DiTPipeline draws; .*tench"
    ):
        generate(settings(model=str(named_classes(tiny.write("dit", tmp_path)))))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["sdxl", "sd3", "flux"])
def test_images_are_drawn_when_the_pipeline_is_of_another_kind(settings, tmp_path, name):
    from tests import tiny

    outcome = generate(settings(model=str(tiny.write(name, tmp_path)), num=1, steps=2))
    assert outcome.record["images"]["finished"] == 2

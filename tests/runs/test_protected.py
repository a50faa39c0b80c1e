"""Runs with a protected set: what is written, and what becomes of images inside it."""

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from unalike import tensorfile
from unalike.attach.run.policy import ATTEMPTS as GUIDES_ATTEMPTS
from unalike.attach.run.policy import POLICIES as GUIDES_POLICIES
from unalike.errors import OptionError
from unalike.memory import Memory
from unalike.runs.folder import LATENTS_KIND, LATENTS_VERSION
from unalike.runs.generate import Outcome, generate
from unalike.runs.settings import ATTEMPTS, POLICIES, GenerateSettings
from unalike.shields import Shield


@pytest.fixture(scope="module")
def protected(tiny_sd_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The set `shield` around the images of seeds 0 and 2 that `draw` makes without it."""
    folder = tmp_path_factory.mktemp("protected")
    generate(settings(tiny_sd_folder, folder / "probe", memory=folder / "bank"))
    memory = Memory.open(folder / "bank")
    (space,) = memory.spaces()
    view = memory.view(space)
    assert view is not None
    Shield(
        view.latents[[0, 2]].view(2, 4, 8, 8), space=space.split()[0], radius=0.5, ids=["a", "c"]
    ).save(folder / "shield")
    return folder


def settings(model: Path, out: Path, **changes: Any) -> GenerateSettings:
    plain: dict[str, Any] = {
        "prompts": ("cat",),
        "num": 3,
        "steps": 2,
        "guidance_scale": 3.0,
        "method": ("sparke",),
        "strength": 0.0,
    }
    return GenerateSettings(**{**plain, "model": str(model), "out": out, **changes})


@pytest.fixture
def draw(protected: Path, tiny_sd_folder: Path, tmp_path: Path) -> Callable[..., Outcome]:
    def run(**changes: Any) -> Outcome:
        out = changes.pop("out", tmp_path / "out")
        changes = {"on_violation": "move", **changes}
        return generate(settings(tiny_sd_folder, out, shield=protected / "shield", **changes))

    return run


def pixels(path: Path) -> bytes:
    with Image.open(path) as image:
        return image.tobytes()


def rows(outcome: Outcome) -> list[dict[str, Any]]:
    return pq.read_table(outcome.folder / "samples.parquet").to_pylist()


def test_certificate_is_complete_when_images_were_moved(
    draw: Callable[..., Outcome], protected: Path
) -> None:
    outcome = draw(compare=True)
    shield, found = Shield.open(protected / "shield"), rows(outcome)
    latents = load_file(outcome.folder / "latents.safetensors")["latents"]
    index, distance = shield.nearest(latents)
    for i, row in enumerate(found):
        assert row["certificate_nearest"] == shield.ids[int(index[i])]
        assert row["certificate_distance"] == float(distance[i]) >= 0.5
        assert row["certificate_margin"] == row["certificate_distance"] - 0.5
        assert (row["certificate_radius"], row["certificate_checksum"]) == (0.5, shield.checksum)
        assert row["certificate_space"] == shield.space
        assert row["certificate_decoded_inside"] is (row["certificate_decoded_distance"] < 0.5)
        assert row["certificate_decoded_nearest"] in shield.ids
        assert (row["certificate_steps_moved"], row["attempts"], row["refused"]) == (0, 1, False)
    assert [row["certificate_moved"] for row in found] == [True, False, True]
    assert outcome.record["images"]["decoded_inside"] == sum(
        row["certificate_decoded_inside"] for row in found
    )
    assert {
        name: outcome.record["images"][name] for name in ("moved", "drawn_again", "refused")
    } == {
        "moved": 2,
        "drawn_again": 0,
        "refused": 0,
    }


def test_steps_are_counted_when_spell_moved_images_out(draw: Callable[..., Outcome]) -> None:
    found = rows(
        draw(method=("spell",), strength=None, set=("spell.batch=false", "spell.memory=false"))
    )
    assert found[0]["certificate_steps_moved"] == round(2 * found[0]["active_spell"]) > 0


def test_latents_are_those_of_the_images_when_there_is_a_shield(
    draw: Callable[..., Outcome], protected: Path
) -> None:
    outcome = draw(batch_size=2, num=2, prompts=("cat", "dog"), dtype="bfloat16")
    header, tensors = tensorfile.read(
        outcome.folder / "latents.safetensors", LATENTS_KIND, LATENTS_VERSION
    )
    assert tensors["index"].tolist() == [0, 1, 2, 3]
    assert tensors["latents"].shape == (4, 4, 8, 8)
    assert tensors["latents"].dtype == torch.bfloat16
    assert header["space"] == Shield.open(protected / "shield").space


def test_there_are_no_latents_when_there_is_no_shield(protected: Path) -> None:
    assert not (protected / "probe" / "latents.safetensors").exists()
    found = pq.read_table(protected / "probe" / "samples.parquet").to_pylist()
    assert all(
        row["certificate_distance"] is None and row["attempts"] == 1 and row["refused"] is False
        for row in found
    )
    record = json.loads((protected / "probe" / "run.json").read_text("utf-8"))
    assert "refused" not in record["images"]


def test_images_are_kept_back_and_the_others_written_when_refused(
    draw: Callable[..., Outcome], protected: Path
) -> None:
    outcome = draw(on_violation="refuse", compare=True)
    assert outcome.refused == 2
    assert [path.name for path in (outcome.folder / "images").glob("*.png")] == ["00001.png"]
    assert pixels(outcome.folder / "images" / "00001.png") == pixels(
        protected / "probe" / "images" / "00001.png"
    )
    found = rows(outcome)
    assert [row["refused"] for row in found] == [True, False, True]
    assert [row["image"] for row in found] == [None, "images/00001.png", None]
    assert [row["certificate_distance"] < 0.5 for row in found] == [True, False, True]
    assert [row["change"] is None for row in found] == [True, False, True]
    assert load_file(outcome.folder / "latents.safetensors")["index"].tolist() == [1]
    assert outcome.record["images"]["finished"] == 1
    assert outcome.record["images"]["refused"] == 2
    assert outcome.record["scores"]["guided"]["prompts"]["cat"]["images"] == 1
    assert outcome.to_dict()["files"] == ["images/00001.png"]
    page = (outcome.folder / "report.html").read_text("utf-8")
    assert "2 more were drawn and refused" in page
    assert "number 0, refused" in page


def test_folder_has_tables_and_no_pictures_when_all_are_refused(
    draw: Callable[..., Outcome],
) -> None:
    outcome = draw(on_violation="refuse", num=1)
    assert sorted(path.name for path in outcome.folder.iterdir()) == [
        "ledger.sqlite",
        "report.html",
        "run.json",
        "samples.parquet",
    ]
    assert outcome.record["finished"] is True
    page = (outcome.folder / "report.html").read_text("utf-8")
    assert "There is no finished image that could be inside the protected set of 2" in page
    assert "0 of 0" not in page
    assert (outcome.record["images"]["finished"], outcome.record["images"]["refused"]) == (0, 1)


def test_memory_gets_only_the_others_when_images_are_refused(
    draw: Callable[..., Outcome], tmp_path: Path
) -> None:
    draw(on_violation="refuse", memory=tmp_path / "bank")
    memory = Memory.open(tmp_path / "bank")
    (space,) = memory.spaces()
    assert memory.seeds(space) == [1]


def test_images_are_drawn_again_when_asked_for(
    draw: Callable[..., Outcome], protected: Path
) -> None:
    outcome = draw(on_violation="regenerate", attempts=2)
    found = rows(outcome)
    assert [row["attempts"] for row in found] == [2, 1, 2]
    assert [row["refused"] for row in found] == [False] * 3
    assert all(row["certificate_distance"] >= 0.5 for row in found)
    same = [
        pixels(outcome.folder / row["image"]) == pixels(protected / "probe" / row["image"])
        for row in found
    ]
    assert same == [False, True, False]
    assert outcome.record["images"]["drawn_again"] == 2


def test_image_is_the_same_when_it_is_drawn_again_in_another_batch(
    draw: Callable[..., Outcome], tmp_path: Path
) -> None:
    whole = draw(on_violation="regenerate")
    single = draw(on_violation="regenerate", batch_size=1, out=tmp_path / "single")
    for row in rows(whole):
        a, b = (
            load_file(run.folder / "latents.safetensors")["latents"][row["index"]]
            for run in (whole, single)
        )
        torch.testing.assert_close(a, b, atol=2e-3, rtol=1e-4)


def test_share_of_the_work_never_falls_when_images_are_drawn_again(
    protected: Path, tiny_sd_folder: Path, tmp_path: Path
) -> None:
    shares: list[float] = []
    asked = settings(
        tiny_sd_folder,
        tmp_path / "out",
        shield=protected / "shield",
        on_violation="regenerate",
        batch_size=2,
    )
    generate(asked, lambda share, note="": shares.append(share))
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


@pytest.mark.parametrize(
    "policy", [{"on_violation": "regenerate", "attempts": 2}, {"on_violation": "refuse"}, {}]
)
def test_recorded_command_says_the_policy_when_there_is_a_shield(
    draw: Callable[..., Outcome], policy: dict[str, Any]
) -> None:
    words = shlex.split(draw(num=1, **policy).record["command"])
    assert Path(words[words.index("--shield") + 1]).name == "shield"
    assert Path(words[words.index("--shield") + 1]).is_absolute()
    assert words[words.index("--on-violation") + 1] == policy.get("on_violation", "move")
    assert ("--attempts" in words) is ("attempts" in policy)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"on_violation": "redo", "shield": Path("x")},
            "on_violation is 'redo'; allowed: .redraw. or .move. or .regenerate. or .refuse.",
        ),
        ({"on_violation": "refuse"}, "there is no protected set"),
        ({"attempts": 0}, "attempts is 0"),
        (
            {"attempts": 5, "shield": Path("x"), "on_violation": "move"},
            "attempts is 5, and nothing is drawn again",
        ),
        ({"attempts": 5}, "attempts is 5, and nothing is drawn again"),
    ],
)
def test_policy_is_refused_when_it_makes_no_sense(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        GenerateSettings(prompts=("cat",), **changes)


def test_policies_are_those_of_guide_when_named_in_settings() -> None:
    assert (POLICIES, ATTEMPTS) == (GUIDES_POLICIES, GUIDES_ATTEMPTS)

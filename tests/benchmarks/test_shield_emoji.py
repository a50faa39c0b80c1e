import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from benchmarks.base import write_rows
from benchmarks.shield_emoji.draw import Unchecked
from benchmarks.shield_emoji.page import BRUTE_FORCE, GAPS, chosen, draw_distances, page, share
from benchmarks.shield_emoji.settings import Setting, Size, jobs
from unalike.models.emoji.data import truth
from unalike.shields import Shield

ROOT = Path(__file__).parents[2]
NONE, EXACT, FLAGS, IMAGE = (
    Setting("none"),
    Setting("exact", 4.0),
    Setting("exact", 4.0, protected="flags"),
    Setting("image", 4.0),
)
IVF = Setting("ivf", 4.0, 1)


def row(
    setting: Setting, prompt: str, seed: int, distance: float, **more: object
) -> dict[str, object]:
    usual = {
        "nearest": 0,
        "right": True,
        "shown": True,
        "guided": 0.5,
        "moved": False,
        "seconds": 0.1,
        "refused": False,
        "again": distance,
    }
    return {
        **asdict(setting),
        "prompt": prompt,
        "seed": seed,
        "distance": distance,
        **usual,
        "digest": "same",
        **more,
    }


def test_every_prompt_is_drawn_with_and_without_exact_shield_and_some_with_others_when_planned():
    size = Size(names=4, words=4, fewer=4, radii=(3.0, 5.0), nprobe=(1, 2))
    planned = jobs(size)
    flags = [p for i, p in enumerate(size.prompts()) if "flag" in p and i % size.fewer]
    assert len({job.key for job in planned}) == len(planned) == 8 * 3 + 2 * (1 + 1 + 4) + len(flags)
    assert flags
    assert {job.prompt for job in planned if job.setting.protected == "flags"} >= set(flags)
    assert all(len(truth(prompt)) for prompt in size.prompts())
    assert {job.images for job in planned if job.setting.guard == "image"} == {size.images_again}
    assert planned[0].setting == NONE


def test_page_counts_what_is_inside_beyond_rounding_and_to_the_last_bit_when_written(
    tmp_path: Path,
):
    rows = [
        *(row(NONE, p, i, 3.0, guided=0.0) for p in ("cat", "flag: France") for i in range(2)),
        row(EXACT, "cat", 0, 4.0),
        row(EXACT, "cat", 1, 4.1, moved=True, seconds=0.12),
        *(row(EXACT, "flag: France", i, 4.5, again=3.5) for i in range(2)),
        *(row(IVF, "cat", i, d) for i, d in enumerate((4.0 - 1e-6, 3.9))),
        row(FLAGS, "cat", 0, 30.0, again=None),
        row(FLAGS, "flag: France", 0, 4.0, again=None, digest="other"),
        row(IMAGE, "cat", 0, 3.2, again=4.1),
        row(IMAGE, "cat", 1, 0.0, refused=True, again=9.0),
    ]
    write_rows(tmp_path / GAPS, [{"picture": i, "distance": d} for i, d in enumerate((7.0, 9.0))])
    (tmp_path / BRUTE_FORCE).write_text(
        json.dumps(
            {"radius 4": {"images": 4, "protected": 2, "inside": 0, "nearest": 4.0, "radius": 4.0}}
        ),
        "utf-8",
    )
    text = page(tmp_path, rows)
    assert "| 4 | none | 4 of 4 (100.00%) | 4 | 100.0% |" in text
    assert "| 4 | exact | 0 of 4 (0.00%) | 0 | 50.0% |" in text
    assert "105 ms (+5.0%) |" in text
    assert "| 4 | IVF, 1 probed | 1 of 2 (50.00%) | 2 | 100.0% |" in text
    assert "50% at radius 4" in text
    assert "| radius 4 | 4 | 0 | 4.000000 | 4 |" in text
    assert (
        "1 of the 1 images of other prompts are the same bit by bit, and of the 1 images of flags "
        "0 are; 0 of those are inside" in text
    )
    assert (
        "of 2 images at radius 4 1 were refused, and 0 of the others are inside when they are "
        "encoded again" in text
    )
    draw_distances(rows, tmp_path)
    assert (tmp_path / "distances.png").stat().st_size > 1000


def test_share_is_the_mean_over_prompts_when_intervals_are_drawn():
    rows = [row(NONE, p, i, d) for p, d in (("a", 1.0), ("b", 3.0)) for i in range(2)]
    assert share(chosen(rows, "none"), lambda r: r["distance"], "{:.1f}") == "2.0 (1.0 to 3.0)"


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_script_counts_latents_inside_when_it_reads_the_files_alone(tmp_path: Path, dtype: str):
    points = torch.randn(9, 4, 2, 2, generator=torch.Generator().manual_seed(0))
    Shield(points, space="s/4x2x2", radius=1.0).save(tmp_path / "set", dtype=dtype)
    latents = points[:3] + torch.tensor([0.1, 0.2, 0.5]).view(3, 1, 1, 1)  # 0.4, 0.8 and 2 away
    save_file({"latents": latents}, tmp_path / "latents.safetensors")
    command = [
        sys.executable,
        str(ROOT / "benchmarks" / "brute_force.py"),
        "set",
        "latents.safetensors",
        "--name",
        "it",
        "--out",
        "found.json",
    ]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=60)
    found = json.loads((tmp_path / "found.json").read_text("utf-8"))["it"]
    assert (found["images"], found["protected"], found["inside"]) == (3, 9, 2)
    assert found["nearest"] == pytest.approx(0.4, abs=2e-3)
    assert found["radius"] == pytest.approx(Shield.open(tmp_path / "set").reach)


def test_published_system_returns_what_ends_inside_when_it_is_compared():
    latents = torch.zeros(2, 2)
    published = Unchecked(latents[:1], space="s", radius=1.0)
    assert not published.inside(latents).any()
    assert published.move_out(latents)[0] is latents

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import shield_search
from benchmarks.base import claim, read_rows
from benchmarks.shield_search import measure, results
from benchmarks.shield_search.brute import Brute
from benchmarks.shield_search.latents import DIMENSION, SetSize, collages, shards
from benchmarks.shield_search.pictures import Kinds, picture
from unalike.shields.vectors import Resident

pytest.importorskip("faiss")

PICTURES = SetSize(Kinds(glyphs=9, mosaics=2, leaves=1, crops=0), shard=20)
TINY = replace(
    measure.SMOKE,
    pictures=PICTURES,
    compared=40,
    alone=60,
    steps=2,
    wide=30,
    factors=(1.0,),
    sampled=20,
    flat_every=1,
    nprobe=(1, 2),
)
ROWS = torch.arange(16)[:, None].expand(16, 16)


def random(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", ["glyphs", "mosaics", "leaves"])
def test_picture_is_the_same_when_made_twice_and_another_for_another_number(kind: str):
    one = picture(kind, 3)
    assert one.shape == (3, 128, 128)
    assert 0 <= one.min() < one.max() <= 1
    assert torch.equal(one, picture(kind, 3))
    assert not torch.equal(one, picture(kind, 4))


def test_mosaic_repeats_one_glyph_for_even_numbers_alone():
    even, odd = picture("mosaics", 4), picture("mosaics", 5)
    assert torch.equal(even[:, :64, :64], even[:, 64:, 64:])
    assert not torch.equal(odd[:, :64, :64], odd[:, 64:, 64:])


def test_collage_is_of_two_pictures_that_are_joined_at_a_cut():
    base = (
        torch.arange(5.0)[:, None].expand(5, DIMENSION).half()
    )  # each picture is one number throughout
    made = collages(base, 40, seed=0).view(40, 16, 16, 16)
    for collage in made:
        assert torch.equal(collage, collage[:1].expand_as(collage))
        first = collage[0] == collage[0, 0, 0]
        assert len(collage.unique()) == 2
        assert any(
            torch.equal(first, part) for cut in range(5, 12) for part in (cut > ROWS, cut > ROWS.T)
        )


def test_parts_of_a_collage_stay_where_they_were_when_not_mirrored():
    base = random(3, DIMENSION).half()
    grid = base.view(3, 16, 16, 16)
    for collage in collages(base, 30, seed=2).view(30, 16, 16, 16):
        corner = collage[:, :5, :5]
        assert any(torch.equal(corner, own[:, :5, :5]) for own in (*grid, *grid.flip(-1)))
        corner = collage[:, 11:, 11:]
        assert any(torch.equal(corner, own[:, 11:, 11:]) for own in (*grid, *grid.flip(-1)))


def test_set_begins_with_the_pictures_and_a_longer_one_with_the_shorter(tmp_path: Path):
    base = random(17, DIMENSION).half()
    short, long = (
        shards(tmp_path, base, count, PICTURES, lambda share: None) for count in (20, 60)
    )
    rows = long.rows(np.arange(60))
    assert np.array_equal(rows[:17], base.numpy())
    assert np.array_equal(short.rows(np.arange(20)), rows[:20])
    assert (
        len(np.unique(rows, axis=0)) > 55
    )  # a pair of pictures may be joined in the same way twice


def test_set_is_the_same_when_its_making_was_interrupted(tmp_path: Path):
    base = random(7, DIMENSION).half()
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    whole = shards(tmp_path / "a", base, 60, PICTURES, lambda share: None).rows(np.arange(60))

    def stop(share: float) -> None:
        if share > 0.5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        shards(tmp_path / "b", base, 60, PICTURES, stop)
    assert np.array_equal(
        shards(tmp_path / "b", base, 60, PICTURES, lambda share: None).rows(np.arange(60)), whole
    )


@pytest.mark.parametrize("scale", [1.0, 1e-4])
def test_brute_force_agrees_with_the_definition_when_vectors_are_near_and_far(scale: float):
    rows = (5 + scale * random(300, 24)).numpy()
    x = np.concatenate([rows[:4].astype(np.float64), rows[:6].astype(np.float64) + scale / 3])
    distance = np.linalg.norm(rows.astype(np.float64)[None] - x[:, None], axis=2)
    radius = float(np.quantile(distance, 0.2))
    found = Brute(Resident(rows)).scan(x, radius)
    assert all(
        np.array_equal(own, np.flatnonzero(row < radius))
        for own, row in zip(found.within, distance, strict=True)
    )
    assert found.nearest.tolist() == distance.argmin(axis=1).tolist()
    assert found.distance == pytest.approx(distance.min(axis=1), rel=1e-12, abs=0)


def test_everything_is_measured_drawn_and_written_when_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(measure, "SMOKE", TINY)
    monkeypatch.setenv(measure.SCRATCH, str(tmp_path / "scratch"))
    folder = tmp_path / "shield_search"
    claim(folder, "shield_search", smoke=True)
    shares: list[float] = []
    shield_search.BENCHMARK.run(folder, True, shares.append)
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert not (folder / "data").exists()
    found = {(s.vectors, s.search): s for s in results.summaries(folder)}
    both = {results.OURS, results.ANEW}
    faiss = {results.ivf_name(1), results.ivf_name(2), results.FLAT}
    assert set(found) == {(40, name) for name in both | faiss} | {(60, name) for name in both}
    for (_, name), s in found.items():
        assert s.per_trajectory > 0
        assert s.searches == 4
        if name in both:
            assert (s.recall, s.wrong) == (1, 0)
    text = shield_search.BENCHMARK.page(folder)
    assert text.startswith("## ")
    assert "`python -m benchmarks shield_search`" in text
    for figure in ("spectrum.png", "recall.png", "steps.png"):
        assert (folder / figure).read_bytes().startswith(b"\x89PNG")
        assert f"](../benchmarks/results/shield_search/{figure})" in text
    for part in text.split("\n\n"):
        if part.startswith("| "):
            assert len({line.count("|") for line in part.splitlines()}) == 1
    before = {p: p.read_bytes() for p in folder.iterdir()}
    shield_search.BENCHMARK.run(folder, True, lambda share: None)
    assert {p: p.read_bytes() for p in folder.iterdir()} == before


def test_spectrum_has_the_shares_of_all_variance_when_measured(tmp_path: Path):
    base = torch.zeros(60, DIMENSION)
    base[:, 0], base[:, 1] = 3 * random(60), random(60).flip(0)
    measure.measure_spectrum(tmp_path, base.half(), Resident(base.half().numpy()))
    rows = [row for row in read_rows(tmp_path / results.SPECTRUM) if row["latents"] == "set"]
    covariance = np.cov(base[:, :2].half().double().numpy().T)
    expected = np.linalg.eigvalsh(covariance)[::-1] / np.trace(covariance)
    assert [row["share"] for row in rows[:2]] == pytest.approx(expected, rel=1e-3)
    assert sum(row["share"] for row in rows) == pytest.approx(1)

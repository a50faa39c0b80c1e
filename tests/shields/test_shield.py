import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from unalike.errors import NumericsError, OptionError, ShieldError, StoreError
from unalike.shields import Shield
from unalike.shields.dense import Dense
from unalike.shields.faiss import FaissIVF


def distances(latents: Tensor, centres: Tensor) -> Tensor:
    return torch.stack(
        [(row.double() - centres.double()).norm(dim=1) for row in latents.flatten(1)]
    )


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    d=st.sampled_from([2, 3, 8, 64]),
    m=st.integers(1, 40),
    spread=st.floats(0.0, 3.0),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.float16, torch.bfloat16]),
)
def test_result_is_outside_every_ball_when_they_overlap(
    seed: int, d: int, m: int, spread: float, dtype: torch.dtype
) -> None:
    g = torch.Generator().manual_seed(seed)
    centres = torch.randn(m, d, generator=g) * spread / math.sqrt(d)
    centres = torch.cat([centres, centres, centres[:3]])
    latents = torch.cat([centres[:2], torch.randn(4, d, generator=g) * 2 / math.sqrt(d)]).to(dtype)
    shield = Shield(centres, space="s", radius=1.0)
    result, moved = shield.move_out(latents)
    assert result.dtype == dtype
    assert distances(result, centres).min() >= 1.0
    assert torch.equal(moved, distances(latents, centres).amin(1) < 1.0)
    assert torch.equal(result[~moved], latents[~moved])


def test_way_is_the_shortest_when_there_is_one_ball() -> None:
    centre, x = torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[1.3, 2.0, 3.4]])
    result, _ = Shield(centre, space="s", radius=2.0).move_out(x)
    torch.testing.assert_close(result, centre + torch.tensor([[0.3, 0.0, 0.4]]) / 0.5 * 2.0)


def test_way_is_no_longer_than_any_single_centre_asks_when_two_overlap() -> None:
    centres = torch.tensor([[0.0, 0.0], [0.8, 0.0]])
    result, _ = Shield(centres, space="s", radius=1.0).move_out(torch.tensor([[0.3, 0.2]]))
    walked = (result - torch.tensor([[0.3, 0.2]])).norm().item()
    assert walked < 1.8 - 0.3  # through both along the line of centres
    assert distances(result, centres).min() >= 1.0


def test_same_tensor_comes_back_when_all_are_outside() -> None:
    latents = torch.full((2, 1, 2), 9.0)
    result, moved = Shield(torch.zeros(1, 1, 2), space="s", radius=1.0).move_out(latents)
    assert result is latents
    assert moved.tolist() == [False, False]


def test_result_is_outside_when_the_precision_is_much_coarser_than_the_radius() -> None:
    centre = torch.full((1, 2), 30000.0)
    for dtype in (torch.float32, torch.float16):
        result, moved = Shield(centre, space="s", radius=1e-6).move_out(centre.to(dtype))
        assert moved.tolist() == [True]
        assert 1e-6 <= distances(result, centre).item() <= 100


def test_latent_is_refused_when_no_number_of_its_precision_is_outside() -> None:
    with pytest.raises(ShieldError, match="float16 could not be placed"):
        Shield(torch.tensor([[65000.0]]), space="s", radius=1000.0).move_out(
            torch.tensor([[65504.0]]).half()
        )


def test_nearest_and_regions_are_those_given_when_asked() -> None:
    shield = Shield(torch.tensor([[0.0, 0.0], [3.0, 4.0]]), space="s", radius=1.0)
    index, distance = shield.nearest(torch.tensor([[3.0, 3.0]]))
    assert (index.tolist(), distance.tolist()) == ([1], [1.0])
    regions = shield.trajectory("s")
    assert (regions.radius, len(regions)) == (1.0, 2)
    assert [
        (i, rows.tolist()) for i, rows in regions.touched(torch.tensor([[9.0, 9.0], [3.0, 3.5]]))
    ] == [(1, [[3.0, 4.0]])]
    with pytest.raises(StoreError, match="'s' and this model makes 't'"):
        shield.trajectory("t")
    with pytest.raises(OptionError, match=r"shape \(3,\) and the protected ones \(2,\)"):
        shield.nearest(torch.zeros(1, 3))
    with pytest.raises(OptionError, match="vectors of 2 values and this generation has 3"):
        next(iter(regions.touched(torch.zeros(1, 3))))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"radius": 0.0}, OptionError, "radius is 0.0"),
        ({"radius": math.inf}, OptionError, "radius is inf"),
        ({"radius": True}, OptionError, "radius is True"),
        ({"space": ""}, OptionError, "space is '', which is empty"),
        ({"ids": ["a"]}, OptionError, "ids has 1 entries for 2"),
        ({"latents": torch.zeros(0, 2)}, OptionError, r"latents is of shape \(0, 2\)"),
        ({"latents": torch.tensor([[math.nan], [0.0]])}, NumericsError, "NaN"),
        ({"latents": torch.tensor([[math.inf], [0.0]])}, NumericsError, "beyond 1e"),
        ({"latents": torch.tensor([[2e15], [0.0]])}, NumericsError, "beyond 1e"),
    ],
)
def test_argument_is_refused_when_it_is_not_allowed(
    change: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        Shield(**{"latents": torch.zeros(2, 2), "space": "s", "radius": 1.0, **change})  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_shield_is_the_same_when_saved_and_opened(tmp_path: Path, dtype: str) -> None:
    latents = torch.randn(3, 2, 2, generator=torch.Generator().manual_seed(0))
    shield = Shield(latents, space="s/2x2", radius=0.1, ids=["a", "b", "ü"])
    shield.save(tmp_path / "new" / "set", dtype=dtype)
    opened = Shield.open(tmp_path / "new" / "set")
    assert (opened.space, opened.radius, list(opened.ids), opened.shape) == (
        shield.space,
        shield.radius,
        shield.ids,
        shield.shape,
    )
    index, distance = opened.nearest(latents)
    assert index.tolist() == [0, 1, 2]
    largest = (latents.to(getattr(torch, dtype)).double() - latents.double()).flatten(1).norm(dim=1)
    torch.testing.assert_close(distance, largest, rtol=0, atol=1e-12)
    assert opened.rounding == pytest.approx(largest.max().item(), abs=1e-12)
    assert opened.reach == opened.radius + opened.rounding
    result, moved = opened.move_out(latents)
    assert moved.all()
    assert distances(result, latents.flatten(1)).min() >= 0.1  # from the points before rounding
    with pytest.raises(StoreError):
        shield.save(tmp_path / "new" / "set")


def test_set_is_not_saved_when_two_points_have_one_id(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="ids has 'a' more than once"):
        Shield(torch.eye(3), space="s", radius=1.0, ids=["a", "b", "a"]).save(tmp_path / "set")
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize("damage", ["radius", "vectors", "index", "json", "lost"])
def test_damage_is_reported_when_opened(tmp_path: Path, damage: str) -> None:
    Shield(torch.arange(8.0).view(4, 2), space="s", radius=1.0).save(tmp_path)
    manifest, vectors, index = (
        tmp_path / name
        for name in ("manifest.json", "vectors-00000.safetensors", "index-0.safetensors")
    )
    if damage == "radius":
        manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "radius": 2.0}))
    elif damage == "json":
        manifest.write_text("{")
    elif damage == "lost":
        vectors.unlink()
    else:
        file = vectors if damage == "vectors" else index
        file.write_bytes(file.read_bytes()[:-1] + b"\x7f")
    with pytest.raises(StoreError, match=r"damaged|missing|checksum"):
        Shield.open(tmp_path)


def test_approximate_search_is_refused_when_a_guarantee_is_asked_for() -> None:
    shield = Shield(torch.arange(8.0).view(4, 2), space="s", radius=1.0)
    own = Dense(shield.vectors, torch.device("cpu"))
    shield.use(own)
    assert shield.search() is own
    with pytest.raises(OptionError, match="FaissIVF, which can miss protected points"):
        shield.use(FaissIVF(shield.vectors, cells=2, nprobe=1))  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="of other vectors"):
        shield.use(
            Dense(Shield(torch.zeros(1, 2), space="s", radius=1.0).vectors, torch.device("cpu"))
        )


@pytest.mark.parametrize(
    ("d", "m", "spread"),
    [(2, 4000, 1.0), (3, 4000, 2.0), (64, 3000, 0.5), (1024, 2000, 0.7), (4096, 2000, 0.6)],
)
def test_result_is_outside_when_it_began_in_the_middle_of_thousands_of_overlapping_balls(
    d: int, m: int, spread: float
) -> None:
    g = torch.Generator().manual_seed(d)
    centres = torch.randn(m, d, generator=g) * spread / math.sqrt(d)
    shield = Shield(centres, space="s", radius=1.0)
    starts = torch.cat(
        [centres.mean(dim=0, keepdim=True), centres[:1], centres[:2].mean(dim=0, keepdim=True)]
    )
    assert (distances(starts, centres) < 1).sum(dim=1).min() > m / 20
    result, moved = shield.move_out(starts)
    assert moved.all()
    assert distances(result, centres).min() >= 1.0


def test_way_leads_past_every_ball_of_a_wall_when_no_ball_around_the_start_knows_of_it() -> None:
    steps = torch.arange(-40.0, 41.0)
    wall = torch.stack(torch.meshgrid(steps, steps, indexing="ij"), dim=-1).reshape(-1, 2) * 0.9
    result, _ = Shield(wall, space="s", radius=1.0).move_out(torch.tensor([[0.3, 0.1]]))
    assert distances(result, wall).min() >= 1.0
    assert result.abs().max() > 36  # it is filled without a hole


def test_radius_is_measured_and_explained_when_it_is_automatic(tmp_path: Path) -> None:
    apart = torch.tensor([[0.0], [10.0], [30.0], [60.0], [100.0]])
    shield = Shield(apart, space="s", radius="auto")
    assert shield.radius == pytest.approx(
        10.5
    )  # 0 and 10 are copies; the others' nearest are 20, 30 and 40 away
    assert shield.radius_source is not None
    assert shield.radius_source["protected"]["measured"] == 5
    shield.save(tmp_path / "set")
    assert Shield.open(tmp_path / "set").radius_source == shield.radius_source
    with pytest.raises(OptionError, match="nothing to measure it on"):
        Shield(apart[:1], space="s", radius="auto")


def test_balls_are_larger_by_the_rounding_when_latents_are_more_precise_than_what_is_stored(
    tmp_path: Path,
) -> None:
    latents = torch.tensor([[1 / 3, 2 / 3]], dtype=torch.float64)
    shield = Shield(latents, space="s", radius=1e-6)
    assert shield.rounding == (latents.float().double() - latents).norm().item() > 0
    result, _ = shield.move_out(latents)
    assert (result - latents).norm() >= 1e-6
    shield.save(tmp_path / "set")
    assert Shield.open(tmp_path / "set").reach == shield.reach

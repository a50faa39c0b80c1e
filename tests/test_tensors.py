"""Tensors and numbers from outside, at every function that takes them."""

import math
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import pytest
import torch

from unalike import metrics, scores
from unalike.errors import OptionError
from unalike.kernels import Gaussian
from unalike.memory import Memory
from unalike.shields import Shield

X = torch.randn(12, 4, generator=torch.Generator().manual_seed(0))
K = Gaussian(1.0)
SHIELD = Shield(X, space="s", radius=0.5)
NO_NUMBERS = {
    "complex": X.to(torch.complex64),
    "meta": X.to("meta"),
    "sparse": X.to_sparse(),
    "text": "abc",
    "none": None,
}
OF_ONE: dict[str, Callable[[Any], object]] = {
    "vendi": lambda x: scores.vendi(x, kernel=K),
    "entropy": scores.entropy,
    "median_bandwidth": scores.median_bandwidth,
    "approximate_vendi": lambda x: scores.approximate_vendi(x, kernel=K),
    "stream": lambda x: scores.VendiStream(kernel=K).update(x),
    "in_batch_similarity": metrics.in_batch_similarity,
    "Shield": lambda x: Shield(x, space="s", radius=1.0),
    "inside": SHIELD.inside,
    "nearest": SHIELD.nearest,
    "move_out": SHIELD.move_out,
    "memory": lambda x: Memory().add("s", x),
}
OF_TWO: dict[str, Callable[[Any, Any], object]] = {
    "auth_pct": metrics.auth_pct,
    "frechet_distance": metrics.frechet_distance,
    "kernel_distance": metrics.kernel_distance,
    "manifolds": metrics.manifolds,
    "nearest_distances": metrics.nearest_distances,
    "share_inside": lambda x, y: metrics.share_inside(x, y, 1.0),
    "clip_score": metrics.clip_score,
    "mode_coverage": metrics.mode_coverage,
    "conditional_rke": lambda x, y: scores.conditional_rke(x, y, kernel=K, prompt_kernel=K),
}
NUMBERS: dict[str, Callable[[Any], object]] = {
    "order": lambda n: scores.vendi(X, n, kernel=K),
    "order of a stream": lambda n: scores.VendiStream(n),
    "order of an entropy": lambda n: scores.entropy(torch.eye(3), n),
    "bandwidth": Gaussian,
    "radius": lambda n: metrics.share_inside(X, X, n),
    "k": lambda n: metrics.manifolds(X, X, n),
    "block": lambda n: metrics.auth_pct(X, X, block=n),
    "block of KID": lambda n: metrics.kernel_distance(X, X, block=n),
    "frequencies": lambda n: scores.approximate_vendi(X, frequencies=n),
    "seed": lambda n: scores.VendiStream(seed=n),
}


@pytest.mark.parametrize("values", NO_NUMBERS.values(), ids=NO_NUMBERS)
@pytest.mark.parametrize("call", OF_ONE.values(), ids=OF_ONE)
def test_tensor_is_refused_when_it_holds_no_real_numbers(call, values):
    if call is OF_ONE["vendi"] and values is None:
        pytest.skip("None is the way to give a gram")
    with pytest.raises(OptionError):
        call(values)


@pytest.mark.parametrize("values", NO_NUMBERS.values(), ids=NO_NUMBERS)
@pytest.mark.parametrize("call", OF_TWO.values(), ids=OF_TWO)
def test_either_tensor_is_refused_when_it_holds_no_real_numbers(call, values):
    for pair in ((values, X), (X, values)):
        with pytest.raises(OptionError):
            call(*pair)


@pytest.mark.parametrize(
    "kind", [np.asarray, list, torch.Tensor.tolist], ids=["array", "rows", "lists"]
)
@pytest.mark.parametrize("name", sorted(OF_TWO.keys() - {"mode_coverage"}))
def test_figure_is_the_same_when_features_are_no_tensor(name, kind):
    rows = X.tolist() if kind is list else kind(X)
    assert str(OF_TWO[name](rows, rows)) == str(OF_TWO[name](X, X))


@pytest.mark.parametrize("value", ["1", None, True, 1j, [1], math.nan, -1.5, b"1"], ids=repr)
@pytest.mark.parametrize("call", NUMBERS.values(), ids=NUMBERS)
def test_number_is_refused_when_it_is_none(call, value):
    with pytest.raises(OptionError, match=" is "):
        call(value)


@pytest.mark.parametrize("kind", [np.int64, np.uint8, np.int32])
@pytest.mark.parametrize("call", NUMBERS.values(), ids=NUMBERS)
def test_number_of_numpy_is_a_number(call, kind):
    call(kind(8))


def test_nothing_is_inside_when_there_are_no_latents():
    none = X[:0]
    assert SHIELD.inside(none).tolist() == []
    assert [found.tolist() for found in SHIELD.nearest(none)] == [[], []]
    moved, which = SHIELD.move_out(none)
    assert (moved.shape, which.tolist()) == ((0, 4), [])


def test_whole_numbers_are_refused_when_they_would_have_to_move():
    with pytest.raises(OptionError, match=r"cannot express a way out; give floats"):
        SHIELD.move_out(X.long())


@pytest.mark.parametrize("ids", [["\udcff", *"bcdefghijkl"], 5, ["a\0", *"bcdefghijkl"]], ids=ascii)
def test_ids_are_refused_when_they_are_no_texts(ids):
    with pytest.raises(OptionError, match="ids "):
        Shield(X, space="s", radius=1.0, ids=ids)


@pytest.mark.parametrize("space", ["\udcff", "", " ", "a\0", None, 5], ids=ascii)
def test_space_is_refused_when_it_is_no_text(space):
    with pytest.raises(OptionError, match="space is "):
        Shield(X, space=space, radius=1.0)


def test_ids_may_be_any_iterable():
    letters: Any = iter("abcdefghijkl")
    assert list(Shield(X, space="s", radius=1.0, ids=letters).ids) == list("abcdefghijkl")


def test_seeds_of_numpy_are_saved(tmp_path):
    memory, seeds = Memory(), [np.int64(3), np.uint8(4)]
    memory.add("s", X[:2], seeds=cast("list[int]", seeds))
    memory.save(tmp_path / "memory")
    assert Memory.open(tmp_path / "memory").seeds("s") == [3, 4]


@pytest.mark.parametrize(
    "entries",
    [
        {"seeds": [1.5, 2]},
        {"seeds": [True, 1]},
        {"seeds": 5},
        {"texts": [1, 2]},
        {"seeds": torch.arange(2)},
    ],
    ids=repr,
)
def test_nothing_is_remembered_when_seeds_or_texts_are_none(entries):
    memory = Memory()
    with pytest.raises(OptionError, match=f"{next(iter(entries))} "):
        memory.add("s", X[:2], **entries)
    assert len(memory) == 0

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from unalike.runs.shield.brute_force import nearest
from unalike.shields.vectors import Resident

NUMBERS = st.floats(-100, 100, width=16)


@settings(max_examples=50, deadline=None)
@given(
    arrays(np.float32, (7, 3), elements=NUMBERS),
    arrays(np.float64, (4, 3), elements=NUMBERS),
    st.floats(0, 0.5),
)
def test_nearest_is_that_of_a_plain_loop_when_there_are_ties(
    vectors: np.ndarray, points: np.ndarray, relative: float
) -> None:
    for point, found in zip(
        points, nearest(points, Resident(vectors), relative=relative), strict=True
    ):
        distances = [
            float(np.sqrt(np.square(vector.astype(np.float64) - point).sum())) for vector in vectors
        ]
        assert found.distance == min(distances)
        assert found.rows == tuple(
            i for i, d in enumerate(distances) if d <= min(distances) * (1 + relative)
        )


def test_nearest_is_exact_when_vectors_are_many_and_far_from_the_origin() -> None:
    random = np.random.default_rng(0)
    vectors = (1e4 + 1e-2 * random.standard_normal((9000, 8))).astype(np.float32)
    points = vectors[[0, 5000, 8999]].astype(np.float64) + 1e-3 * random.standard_normal((3, 8))
    for point, found in zip(points, nearest(points, Resident(vectors), relative=1e-9), strict=True):
        distances = np.linalg.norm(vectors.astype(np.float64) - point, axis=1)
        assert found.distance == distances.min()
        assert found.rows == (int(distances.argmin()),)


def test_rows_are_those_within_the_distance_when_one_is_given() -> None:
    (found,) = nearest(
        np.zeros((1, 1)),
        Resident(np.array([[1], [1.25], [1.5]], dtype=np.float32)),
        relative=0.0,
        absolute=0.3,
    )
    assert found.rows == (0, 1)

from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

FOLDER = Path(str(resources.files("unalike.models.digits")))


def test_shipped_files_are_those_of_the_script_when_it_is_run_again(tmp_path):
    pytest.importorskip("sklearn", reason="only building the data set needs scikit-learn")
    from training.digits.dataset import build

    build(tmp_path)
    assert (tmp_path / "labels.txt").read_text("utf-8") == (
        FOLDER / "dataset" / "labels.txt"
    ).read_text("utf-8")
    with (
        Image.open(tmp_path / "images.png") as made,
        Image.open(FOLDER / "dataset" / "images.png") as shipped,
    ):
        assert np.array_equal(np.asarray(made), np.asarray(shipped))

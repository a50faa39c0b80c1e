import pytest
import torch
from tests.runs.score import folders

from unalike.errors import StoreError
from unalike.extractors import extractor
from unalike.runs.images import find_images
from unalike.runs.score import images as module
from unalike.runs.score.images import extract


def quiet():
    pass


def pixels_extractor(batch_size=4):
    return extractor("pixels", device="cpu", batch_size=batch_size)


@pytest.mark.parametrize("batch_size", [1, 2, 32])
def test_features_are_in_the_order_of_the_files_when_sizes_are_mixed(tmp_path, batch_size):
    for i in range(7):
        folders.picture(i, (16 + 4 * (i % 3), 16)).save(tmp_path / f"{i}.png")
    files = find_images(tmp_path)
    found = extract(tmp_path, files, pixels_extractor(batch_size), skip_bad=False, tick=quiet)
    alone = [pixels_extractor().features(folders.pixels(tmp_path, [file]))[0] for file in files]
    torch.testing.assert_close(found.features, torch.stack(alone))
    assert found.sizes == {(16, 16): 3, (20, 16): 2, (24, 16): 2}


@pytest.fixture
def damaged(tmp_path):
    """Three good pictures and three that are not."""
    folders.write(tmp_path, range(3))
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.jpg").write_text("no picture")
    (tmp_path / "torn.webp").write_bytes((tmp_path / "00.png").read_bytes()[:60])
    return tmp_path


def test_all_unreadable_images_are_named_when_a_folder_is_refused(damaged):
    with pytest.raises(
        StoreError,
        match=r"3 of 6 images .* cannot be read: empty\.png .*; text\.jpg .*; torn\.webp .*"
        "skip_bad=True",
    ):
        extract(damaged, find_images(damaged), pixels_extractor(), skip_bad=False, tick=quiet)


def test_unreadable_images_are_left_out_and_listed_when_asked_for(damaged):
    found = extract(damaged, find_images(damaged), pixels_extractor(), skip_bad=True, tick=quiet)
    assert found.files == ["00.png", "01.png", "02.png"]
    assert len(found.features) == 3
    assert [file for file, _ in found.skipped] == ["empty.png", "text.jpg", "torn.webp"]
    assert not any(str(damaged) in reason for _, reason in found.skipped)


def test_folder_is_refused_when_no_image_is_left(tmp_path):
    (tmp_path / "empty.png").write_bytes(b"")
    with pytest.raises(StoreError, match=r"1 of 1 images .* Mend or remove them$"):
        extract(tmp_path, ["empty.png"], pixels_extractor(), skip_bad=True, tick=quiet)


def test_few_images_wait_at_a_time_when_all_sizes_differ(tmp_path, monkeypatch):
    for i in range(20):
        folders.picture(i, (16 + i, 16)).save(tmp_path / f"{i:02}.png")
    waiting = []
    add = module._Batches.add

    def counted(self, *arguments):
        add(self, *arguments)
        waiting.append(sum(map(len, self._waiting.values())))

    monkeypatch.setattr(module._Batches, "add", counted)
    found = extract(
        tmp_path, find_images(tmp_path), pixels_extractor(2), skip_bad=False, tick=quiet
    )
    assert len(found) == 20
    assert max(waiting) < 8

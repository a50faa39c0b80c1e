import pytest
import torch

from unalike.errors import OptionError
from unalike.extractors.table import portable
from unalike.runs.shield.embedding import embedding_of
from unalike.shields import Shield


def of(embedding):
    shield = Shield(torch.zeros(1, 4), space="features/4", radius=1.0)
    shield.embedding = embedding
    return shield


def test_extractor_is_the_one_that_the_set_names(clip_folder):
    assert embedding_of(of(None), None) is None
    pixels = embedding_of(of("pixels"), None, device="cpu")
    assert pixels is not None
    assert pixels.fingerprint == "pixels"
    moved = embedding_of(of("clip:elsewhere"), f"clip:{clip_folder}", device="cpu")
    assert moved is not None
    assert moved.fingerprint.startswith("clip/CLIPModel-")


@pytest.mark.parametrize(
    ("embedding", "space", "message"),
    [
        (None, "pixels", "shield_space is 'pixels', and the protected set is one of latents"),
        (
            "pixels",
            "clip:folder",
            "shield_space is 'clip:folder', and the protected set is one of pixels",
        ),
        ("clip:no such folder", None, "say where its files are, as in shield_space=clip:FOLDER"),
        (
            "clip:no such folder",
            "clip:no such place",
            "CLIPModel 'no such place' cannot be loaded: it is no folder",
        ),
    ],
)
def test_extractor_is_refused_when_it_does_not_fit(embedding, space, message):
    with pytest.raises(OptionError, match=message):
        embedding_of(of(embedding), space, device="cpu")


def test_folder_is_left_out_of_the_spelling_when_it_is_on_this_machine(clip_folder):
    assert portable(f"clip:{clip_folder}") == f"clip:{clip_folder.name}"
    assert portable("clip:openai/clip") == "clip:openai/clip"
    assert portable("dinov2") == "dinov2"

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.attach.conftest import prompted, seeded

from unalike.attach import guide
from unalike.attach.run.encoders import prompt_encoder
from unalike.errors import OptionError, StoreError
from unalike.extractors import extractor
from unalike.guidance.sparke import SPARKE
from unalike.memory import Memory


def test_clip_embeds_the_prompts_when_it_is_named(sd: Any, clip_folder: Path):
    memory = Memory()
    guided = guide(sd, SPARKE(), memory=memory, prompt_encoder=f"clip:{clip_folder}")
    guided(**prompted("sd", ["cat", "dog"], 1), generator=seeded(2))
    clip = extractor(f"clip:{clip_folder}")
    (space,) = memory.spaces()
    assert clip.fingerprint in space
    view, expected = memory.view(space), clip.prompt_features(["cat", "dog"])
    assert view is not None
    assert expected is not None
    torch.testing.assert_close(
        view.prompts, torch.nn.functional.normalize(expected, dim=1), rtol=1e-5, atol=1e-6
    )


def test_name_and_extractor_are_the_same(clip_folder: Path):
    by_name, built = (
        prompt_encoder(f"clip:{clip_folder}"),
        prompt_encoder(extractor(f"clip:{clip_folder}")),
    )
    assert by_name is not None
    assert built is not None
    assert torch.equal(by_name(["a cat"]), built(["a cat"]))


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ("pixels", OptionError, "embeds images alone; allowed: clip"),
        ("clop", OptionError, "did you mean 'clip'"),
        (7, OptionError, "prompt_encoder is a int; allowed: a function"),
        ("clip:", OptionError, "allowed: clip:FOLDER"),
        ("clip:tests", StoreError, "has no CLIPModel that can be loaded"),
    ],
)
def test_message_says_what_is_allowed_when_it_embeds_no_prompts(
    sd: Any, given: Any, error: type[Exception], message: str
):
    with pytest.raises(error, match=message):
        guide(sd, SPARKE(), prompt_encoder=given)
